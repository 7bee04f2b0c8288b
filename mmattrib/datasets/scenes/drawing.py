"""Drawing a scene: sprites on backgrounds, sounds in noise; numpy and pillow only.

A layout holds every random choice and the bank whose files it names, so that a scene can be drawn
again without one of its objects and differ nowhere else.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from mmattrib.datasets.scenes.bank import SAMPLE_RATE, Bank, Split, per_bank
from mmattrib.datasets.scenes.specs import SceneSpec

U8: TypeAlias = npt.NDArray[np.uint8]
F32: TypeAlias = npt.NDArray[np.float32]
Bool: TypeAlias = npt.NDArray[np.bool_]

IMAGE_SIZE: Final = 96
SAMPLES: Final = 40960  # 2.56 s: 128 frames of 320 samples

_VARIANTS: Final = 64  # transformed versions kept per sprite
_BACKGROUNDS: Final = 512  # per split
_NOISES: Final = 48  # per split
_NOISE_SAMPLES: Final = 65536
_CELLS: Final = ((25, 25), (25, 71), (71, 25), (71, 71))
_PEAK: Final = 0.99
# Training renderings vary more than those that measure, so that what is learned is the class.
_RATES: Final[dict[Split, tuple[float, float]]] = {"train": (0.85, 1.18), "heldout": (0.95, 1.05)}
_DEGREES: Final[dict[Split, float]] = {"train": 50.0, "heldout": 35.0}
_STRETCH: Final[dict[Split, float]] = {"train": 0.2, "heldout": 0.1}
_SHEAR: Final[dict[Split, float]] = {"train": 0.3, "heldout": 0.0}


@dataclass(frozen=True)
class Placement:
    """A sprite in a picture: `top`, `left` of its box in pixels, `gain` of its r, g, b."""

    class_name: str | None
    file: str
    variant: int
    flip: bool
    top: int
    left: int
    gain: tuple[float, float, float]


@dataclass(frozen=True)
class ImageLayout:
    """A background and what is pasted on it, last on top."""

    bank: Bank
    split: Split
    background: int
    flips: tuple[bool, bool]
    gain: tuple[float, float, float]
    placements: tuple[Placement, ...]


@dataclass(frozen=True)
class Take:
    """A sound in a recording: `start` in samples, linear `gain`, playback `rate`, EQ `tilt`."""

    class_name: str | None
    file: str
    start: int
    gain: float
    rate: float
    tilt: float


@dataclass(frozen=True)
class AudioLayout:
    """Noise (which, offset in samples, RMS) and the sounds in it, at an overall linear level."""

    bank: Bank
    split: Split
    noise: int
    offset: int
    noise_rms: float
    level: float
    takes: tuple[Take, ...]


def draw_image(spec: SceneSpec) -> ImageLayout:
    """Every random choice of a scene's picture."""
    rng = spec.rng("image")
    cells = list(_CELLS)
    rng.shuffle(cells)
    placements = []
    for k, name in enumerate(spec.image):
        file = rng.choice(spec.bank.sprites(name, spec.split)).file
        variant, flip = rng.randrange(_VARIANTS), rng.random() < 0.5
        height, width = _variant(spec.bank, file, spec.split, variant).shape[:2]
        if len(spec.image) > 1:
            cy, cx = (at + rng.uniform(-10, 10) for at in cells[k])
        else:
            cy, cx = rng.uniform(24, 72), rng.uniform(24, 72)
        top, left = int(cy - height / 2), int(cx - width / 2)
        placements.append(Placement(name, file, variant, flip, top, left, _tint(rng, 0.1)))
    flips = (rng.random() < 0.5, rng.random() < 0.5)
    background = rng.randrange(_BACKGROUNDS)
    return ImageLayout(
        spec.bank, spec.split, background, flips, _tint(rng, 0.15), tuple(placements)
    )


def render_image(layout: ImageLayout, skip: int | None = None) -> U8:
    """The picture (96, 96, 3) uint8, without placement `skip` if one is given."""
    canvas = _background(layout.bank, layout.split, layout.background)[
        :: -1 if layout.flips[0] else 1
    ]
    canvas = canvas[:, :: -1 if layout.flips[1] else 1] * np.asarray(layout.gain, np.float32)
    for k, placement in enumerate(layout.placements):
        if k == skip:
            continue
        box, sprite = _clipped(placement, layout)
        alpha = sprite[..., 3:]
        canvas[box] = canvas[box] * (1 - alpha / 255) + np.minimum(
            sprite[..., :3] * np.asarray(placement.gain, np.float32), alpha
        )
    return np.asarray(np.clip(canvas + 0.5, 0, 255), np.uint8)


def image_masks(layout: ImageLayout) -> tuple[list[Bool], list[int]]:
    """Per placement: the mask (96, 96) of what shows of it, and its full area in pixels.

    A pixel belongs to an object where more than half of its colour is the object's, after what
    lies on top of it.
    """
    seen = np.zeros((len(layout.placements), IMAGE_SIZE, IMAGE_SIZE), np.float32)
    areas = []
    for k, placement in enumerate(layout.placements):
        box, sprite = _clipped(placement, layout)
        alpha = sprite[..., 3] / np.float32(255)
        seen[(slice(None), *box)] *= 1 - alpha
        seen[(k, *box)] = alpha
        full = _variant(layout.bank, placement.file, layout.split, placement.variant)
        areas.append(int((full[..., 3] > 127).sum()))
    return [mask > 0.5 for mask in seen], areas


def draw_audio(spec: SceneSpec) -> AudioLayout:
    """Every random choice of a scene's recording."""
    rng = spec.rng("audio")
    order, count = list(spec.audio), len(spec.audio)
    takes = []
    for k, name in enumerate(order):
        if count == 1:
            seconds = rng.uniform(0.05, 1.5)
        else:
            # spread over the recording, so that most of every sound is heard by itself
            slot = (k + rng.uniform(-0.35, 0.35)) / (count - 1)
            seconds = 0.05 + 1.5 * min(1.0, max(0.0, slot))
        takes.append(
            Take(
                name,
                rng.choice(spec.bank.sounds(name, spec.split)).file,
                int(seconds * SAMPLE_RATE),
                10 ** (rng.uniform(-6, 3) / 20),
                rng.uniform(*_RATES[spec.split]),
                rng.uniform(-0.3, 0.3),
            )
        )
    return AudioLayout(
        spec.bank,
        spec.split,
        rng.randrange(_NOISES),
        rng.randrange(_NOISE_SAMPLES),
        10 ** rng.uniform(-3.2, -2.1),
        10 ** (rng.uniform(-9, 0) / 20),
        tuple(takes),
    )


def render_audio(layout: AudioLayout, skip: int | None = None) -> F32:
    """The recording (40960,) float32 in [-1, 1], without take `skip` if one is given."""
    parts = stems(layout)
    full = parts.sum(0)
    scale = peak_scale(full)
    if skip is not None:
        full = full - parts[skip]
    return np.asarray(full * scale, np.float32)


def peak_scale(mix: F32) -> np.float32:
    """What keeps a mix within [-0.99, 0.99]: 1 where nothing is too loud."""
    return np.float32(min(1.0, _PEAK / max(float(np.abs(mix).max()), 1e-9)))


def stems(layout: AudioLayout) -> F32:
    """Each take on its own, then the noise: (takes + 1, 40960) float32, at the layout's level."""
    out = np.zeros((len(layout.takes) + 1, SAMPLES), np.float32)
    for k, take in enumerate(layout.takes):
        sound = _played(layout.bank, take)[: SAMPLES - take.start]
        out[k, take.start : take.start + len(sound)] = sound * np.float32(layout.level)
    noise = _noise(layout.split, layout.noise)
    at = layout.offset
    wrapped = np.concatenate([noise[at : at + SAMPLES], noise[: max(0, at + SAMPLES - len(noise))]])
    out[-1] = wrapped * np.float32(layout.noise_rms * layout.level)
    return out


def take_length(layout: AudioLayout, take: Take) -> int:
    """Samples of a take of a layout that lie within the recording."""
    return min(len(_played(layout.bank, take)), SAMPLES - take.start)


def _played(bank: Bank, take: Take) -> F32:
    sound = bank.load_sound(bank.sound(take.file))
    at = np.arange(0, len(sound) - 1, take.rate)
    whole = at.astype(np.int64)
    part = (at - whole).astype(np.float32)
    sound = sound[whole] * (1 - part) + sound[whole + 1] * part
    sound[1:] = sound[1:] + np.float32(take.tilt) * sound[:-1]
    return np.asarray(sound * np.float32(take.gain), np.float32)


def _tint(rng: random.Random, spread: float) -> tuple[float, float, float]:
    r, g, b = (1 + rng.uniform(-spread, spread) for _ in range(3))
    return r, g, b


def _clipped(placement: Placement, layout: ImageLayout) -> tuple[tuple[slice, slice], F32]:
    """The part of a sprite that lies in the picture, float32 0-255, and where."""
    sprite = _variant(layout.bank, placement.file, layout.split, placement.variant)
    if placement.flip:
        sprite = sprite[:, ::-1]
    height, width = sprite.shape[:2]
    y0, x0 = max(0, -placement.top), max(0, -placement.left)
    y1 = min(height, IMAGE_SIZE - placement.top)
    x1 = min(width, IMAGE_SIZE - placement.left)
    box = (
        slice(placement.top + y0, placement.top + y1),
        slice(placement.left + x0, placement.left + x1),
    )
    return box, sprite[y0:y1, x0:x1].astype(np.float32)


@per_bank(20_000)
def _variant(bank: Bank, file: str, split: Split, variant: int) -> U8:
    """A transformed sprite (h, w, 4), premultiplied: size 32-54 px, turned, other colours."""
    rng = random.Random(f"variant:{file}:{split}:{variant}")
    sprite = np.asarray(bank.load_sprite(bank.sprite(file)), np.float32)
    if split == "train":
        sprite = _simplified(sprite, rng)
    alpha = sprite[..., 3:] / 255
    colours = (sprite[..., :3] @ _colour_matrix(rng)) * alpha
    sprite = np.concatenate([np.clip(colours, 0, 255 * alpha), sprite[..., 3:]], -1)
    size, angle = rng.uniform(32, 54), rng.uniform(-1, 1) * _DEGREES[split]
    stretch = 1 + rng.uniform(-1, 1) * _STRETCH[split]
    factor = size / max(sprite.shape[:2])
    height = max(8, round(sprite.shape[0] * factor * stretch))
    width = max(8, round(sprite.shape[1] * factor / stretch))
    shear = rng.uniform(-1, 1) * _SHEAR[split]
    planes = []
    for channel in range(4):
        plane = Image.fromarray(np.ascontiguousarray(sprite[..., channel]))
        plane = plane.resize((width, height), Image.Resampling.BICUBIC)
        plane = _sheared(plane, shear) if shear else plane
        plane = plane.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        planes.append(np.asarray(plane))
    turned = np.clip(np.stack(planes, -1), 0, 255)
    turned[..., :3] = np.minimum(turned[..., :3], turned[..., 3:])
    rows, columns = np.nonzero(turned[..., 3] > 12)
    cropped = turned[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return np.ascontiguousarray((cropped + 0.5).astype(np.uint8))


def _sheared(plane: Image.Image, shear: float) -> Image.Image:
    """Rows moved sideways by `shear` pixels per row, the picture widened to hold them."""
    # Output (x, y) reads input (x - shear * y - offset, y); a leftward shear needs room first.
    room = abs(shear) * plane.height
    size = (plane.width + round(room), plane.height)
    matrix = (1.0, -shear, 0.0 if shear > 0 else -room, 0.0, 1.0, 0.0)
    return plane.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _simplified(sprite: F32, rng: random.Random) -> F32:
    """(h, w, 4) straight alpha: now and then blurred, in few shades, or in other colours.

    Drawings of one class differ in shading and detail, and agree in shape.
    """
    if rng.random() < 0.25:
        radius = rng.uniform(0.5, 2.0)
        opaque = Image.fromarray(
            np.where(sprite[..., 3:] > 0, sprite, 127).astype(np.uint8)[..., :3]
        )
        blurred = np.asarray(opaque.filter(ImageFilter.GaussianBlur(radius)), np.float32)
        sprite = np.concatenate([blurred, sprite[..., 3:]], -1)
    if rng.random() < 0.25:
        step = 255 / rng.choice((2, 3, 4))
        shades = np.round(sprite[..., :3] / step) * step
        sprite = np.concatenate([shades, sprite[..., 3:]], -1)
    if rng.random() < 0.2:
        order = rng.choice(((1, 0, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0), (2, 0, 1)))
        sprite = sprite[..., [*order, 3]]
    return np.asarray(sprite, np.float32)


def _colour_matrix(rng: random.Random) -> F32:
    """(3, 3): a little less or more saturation, channels mixed and scaled."""
    grey = rng.uniform(-0.15, 0.35)
    mix = np.eye(3) * (1 - grey) + grey / 3
    mix = mix + np.array([[rng.gauss(0, 0.06) for _ in range(3)] for _ in range(3)])
    gains = np.array([rng.uniform(0.8, 1.15) for _ in range(3)]) * rng.uniform(0.85, 1.1)
    return np.asarray(mix * gains, np.float32)


@per_bank(2 * _BACKGROUNDS)
def _background(bank: Bank, split: Split, number: int) -> F32:
    """(96, 96, 3) float32 0-255: a gradient, blobs, grain, now and then a blurred picture."""
    rng = np.random.default_rng([7919, split == "heldout", number])
    picture = np.broadcast_to(rng.uniform(0.1, 0.9, 3), (IMAGE_SIZE, IMAGE_SIZE, 3))
    picture = picture + _upscaled(_muted(rng, 2) * 0.2)
    picture = picture + _upscaled(_muted(rng, 7) * rng.uniform(0, 0.2))
    if rng.uniform() < 0.4:
        unnamed = bank.sprites(None, split)
        sprite = unnamed[int(rng.integers(len(unnamed)))]
        small = Image.fromarray(bank.load_sprite(sprite)).convert("RGB").resize((5, 5))
        scrap = np.asarray(small, np.float64) / 255
        picture = picture + _upscaled(scrap - scrap.mean()) * rng.uniform(0.3, 1.2)
    picture = picture + rng.normal(0, 1, picture.shape) * rng.uniform(0, 0.08)
    return np.asarray(np.clip(picture, 0, 1) * 255, np.float32)


def _muted(rng: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """(size, size, 3) of unit-variance noise, mostly the same in all three colours."""
    return 0.9 * rng.normal(0, 1, (size, size, 1)) + 0.44 * rng.normal(0, 1, (size, size, 3))


def _upscaled(grid: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    size = (IMAGE_SIZE, IMAGE_SIZE)
    planes = [
        Image.fromarray(np.ascontiguousarray(grid[..., c], np.float32)).resize(
            size, Image.Resampling.BICUBIC
        )
        for c in range(grid.shape[-1])
    ]
    return np.stack([np.asarray(p, np.float64) for p in planes], -1)


@lru_cache(maxsize=2 * _NOISES)
def _noise(split: Split, number: int) -> F32:
    """(65536,) float32 of RMS 1: noise whose power falls as 1 / f^slope, slope 0 to 2."""
    rng = np.random.default_rng([104729, split == "heldout", number])
    spectrum = np.fft.rfft(rng.standard_normal(_NOISE_SAMPLES))
    hz = np.fft.rfftfreq(_NOISE_SAMPLES, 1 / SAMPLE_RATE)
    spectrum *= np.maximum(hz, 40.0) ** (-rng.uniform(0, 2) / 2)
    noise = np.fft.irfft(spectrum, _NOISE_SAMPLES)
    return np.asarray(noise / np.sqrt(np.mean(noise**2)), np.float32)
