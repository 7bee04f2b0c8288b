"""Scenes whose truth is known: which pixels, which time x frequency cells, which words.

A scene is a picture, a recording and a caption. Some classes stand in all three; every other
object stands in one modality only, so that a pair shares exactly what `Scene.shared` says.
Scene (seed, index) is always the same scene, however many are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import numpy as np

from mmattrib.datasets.scenes import drawing as draw
from mmattrib.datasets.scenes.bank import SAMPLE_RATE, SPLITS, Bank, Split
from mmattrib.datasets.scenes.captions import CaptionPlan, Mention, draw_caption, write_caption
from mmattrib.datasets.scenes.drawing import F32, U8, Bool
from mmattrib.datasets.scenes.specs import (
    MAX_OBJECTS,
    MODALITIES,
    SceneOptions,
    SceneSpec,
    draw_spec,
)
from mmattrib.errors import InputError, OptionError, brief, check_whole, is_one_of, repr_of
from mmattrib.models.melspec import MelSpec
from mmattrib.samples import MaskRegion, Part, Region, SpanRegion
from mmattrib.types import Axis, Modality, RawAudio, RawImage, RawInput, RawText

#: The time x frequency plane that audio truth is given on: 64 mel x 128 frames.
MEL: Final = MelSpec()

_OWNED: Final = 0.5  # share of a cell's power that makes it an event's own
_FLOOR: Final = 10**-3.5  # of the event's own peak power; weaker cells belong to no event
_MIN_PIXELS: Final = 110
_MIN_VISIBLE: Final = 0.55  # of the sprite's full area
_MIN_CELLS: Final = 80
_MIN_HEARD: Final = 0.35  # of the cells that the event would own without the other events
_ATTEMPTS: Final = 200


@dataclass(frozen=True, eq=False)
class SceneObject:
    """An object in the picture: `mask` (96, 96) bool of its visible pixels.

    `class_name` is None for an object that belongs to no class; `file` the sprite it came from.
    """

    class_name: str | None
    mask: Bool
    file: str

    __repr__ = repr_of()

    @property
    def region(self) -> Bool:
        """Where it stands: its mask."""
        return self.mask


@dataclass(frozen=True, eq=False)
class SoundEvent:
    """A sound in the recording, `start` to `end` in seconds.

    `mask` (64 mel, 128 frames) bool: cells where the event alone has more than half of the sum of
    all events' and the noise's power, and at least 10^-3.5 of its own peak.
    """

    class_name: str | None
    mask: Bool
    start: float
    end: float
    file: str

    __repr__ = repr_of()

    @property
    def region(self) -> Bool:
        """Where it stands: its mask."""
        return self.mask


Member: TypeAlias = SceneObject | SoundEvent | Mention


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, a recording, a caption and their truth.

    `image` (96, 96, 3) uint8; `audio` (40960,) float32 at `sample_rate` Hz; `shared` the classes
    that all three hold, sorted; `objects`, `events`, `mentions` in drawing order.
    """

    seed: int
    index: int
    split: Split
    image: U8
    audio: F32
    caption: str
    shared: tuple[str, ...]
    objects: tuple[SceneObject, ...]
    events: tuple[SoundEvent, ...]
    mentions: tuple[Mention, ...]
    sample_rate: int = SAMPLE_RATE
    _image: draw.ImageLayout | None = field(default=None, repr=False)
    _audio: draw.AudioLayout | None = field(default=None, repr=False)
    _text: CaptionPlan | None = field(default=None, repr=False)

    __repr__ = repr_of("seed", "index", "split", "image", "audio", "caption", "shared")

    def input(self, modality: Modality) -> RawInput:
        """One side of the scene, as encoders take it.

        Raises:
            InputError: scenes have no such modality.
        """
        self._members(modality)
        name = f"scene {self.index} of seed {self.seed}"
        sides = (
            RawImage(self.image, name),
            RawAudio(self.audio, self.sample_rate, name),
            RawText(self.caption, name),
        )
        return next(side for side in sides if side.modality == modality)

    def parts(self, modality: Modality) -> tuple[Part, ...]:
        """Every object, sound or mention of one modality, in drawing order.

        Raises:
            InputError: scenes have no such modality.
        """
        regions: dict[Modality, Callable[[Any], Region]] = {
            "image": lambda member: MaskRegion(member.region, self._pixel_axes()),
            "audio": lambda member: MaskRegion(member.region, self._mel_axes()),
            "text": lambda member: SpanRegion(*member.region),
        }
        return tuple(
            Part(regions[modality](m), m.class_name in self.shared, m.class_name)
            for m in self._members(modality)
        )

    def without(self, modality: Modality, k: int) -> Scene:
        """The same scene without object, event or mention `k`; all else stays where it was.

        `modality` is "image", "audio" or "text". Masks are those of what is left: what the object
        hid is seen again. Raises InputError for an unknown modality or a `k` out of range.
        """
        count = len(self._members(modality))
        if not 0 <= k < count:
            raise InputError(f"{modality} part {k}: this scene has {count}, counted from 0.")
        if self._image is None or self._audio is None or self._text is None:
            raise InputError("this scene was not made by generate(): it cannot be drawn again.")
        if modality == "image":
            kept = tuple(p for j, p in enumerate(self._image.placements) if j != k)
            layout = replace(self._image, placements=kept)
            changed = replace(
                self, image=draw.render_image(layout), objects=_objects(layout)[0], _image=layout
            )
        elif modality == "audio":
            changed = self._without_event(self._audio, k)
        else:
            kept_text = tuple(p for j, p in enumerate(self._text.phrases) if j != k)
            plan = replace(self._text, phrases=kept_text)
            caption, mentions = write_caption(plan)
            changed = replace(self, caption=caption, mentions=mentions, _text=plan)
        return replace(changed, shared=_shared(changed))

    def _members(self, modality: Modality) -> Sequence[Member]:
        members: dict[Modality, Sequence[Member]] = {
            "image": self.objects,
            "audio": self.events,
            "text": self.mentions,
        }
        if modality not in members:
            raise InputError(f"modality {modality!r}: scenes hold {_listed(MODALITIES)}.")
        return members[modality]

    def _pixel_axes(self) -> tuple[Axis, ...]:
        height, width = self.image.shape[:2]
        return tuple(
            Axis(name, "px", np.arange(length, dtype=np.float32) + np.float32(0.5))
            for name, length in (("y", height), ("x", width))
        )

    def _mel_axes(self) -> tuple[Axis, ...]:
        seconds = MEL.seconds(MEL.frames(len(self.audio)))
        return (
            Axis("frequency", "Hz", np.asarray(MEL.hz(), np.float32)),
            Axis("time", "s", np.asarray(seconds, np.float32)),
        )

    def _without_event(self, layout: draw.AudioLayout, k: int) -> Scene:
        # The level that kept the full mix from clipping stays, or every other sound would change.
        scale = float(draw.peak_scale(draw.stems(layout).sum(0)))
        kept = tuple(t for j, t in enumerate(layout.takes) if j != k)
        quieter = replace(layout, takes=kept, level=layout.level * scale)
        left = draw.render_audio(layout, skip=k)
        return replace(self, audio=left, events=_events(quieter)[0], _audio=quieter)


def part_names(scene: Scene, modality: Modality) -> tuple[str | None, ...]:
    """The class of every object, sound or mention of one modality, None where it has none.

    Raises:
        InputError: scenes have no such modality.
    """
    return tuple(member.class_name for member in scene._members(modality))


def generate(
    seed: int,
    index: int,
    split: Split = "heldout",
    options: SceneOptions | None = None,
    bank: Bank | None = None,
) -> Scene:
    """Scene number `index` of a seed: depends on nothing but its arguments.

    `bank` is what it is made of, the shipped one if None.
    Raises OptionError for an unknown split, or where no recognisable scene can be drawn.
    """
    if not is_one_of(split, SPLITS):
        raise OptionError(f"split {brief(split)}: accepted are {' and '.join(SPLITS)}.")
    options, bank = options or SceneOptions(), bank or Bank.shipped()
    for attempt in range(_ATTEMPTS):
        spec = draw_spec(bank, seed, index, split, options, attempt)
        scene = _build(spec, seed, index, options.check)
        if scene is not None:
            return scene
    raise OptionError(
        f"no scene with every object recognisable in {_ATTEMPTS} draws for {options}: "
        "ask for fewer distractors."
    )


def scenes(
    n: int,
    seed: int = 0,
    split: Split = "heldout",
    options: SceneOptions | None = None,
    bank: Bank | None = None,
) -> list[Scene]:
    """The first `n` scenes of a seed: by default each shares exactly one class.

    `split` "heldout" uses sprites, sounds, backgrounds and noise that training never saw.
    `bank` is what they are made of, the shipped one if None.
    Raises OptionError for an `n` out of range or an unknown split.
    """
    check_whole(n, "n")
    return [generate(seed, index, split, options, bank) for index in range(n)]


def scene_of(
    classes: Sequence[str],
    seed: int = 0,
    index: int = 0,
    split: Split = "heldout",
    bank: Bank | None = None,
) -> Scene:
    """A scene whose picture, recording and caption hold exactly these classes.

    `bank` is what it is made of, the shipped one if None. Raises OptionError for more than four
    classes or an unknown one.
    """
    bank = bank or Bank.shipped()
    unknown = sorted(set(classes) - set(bank.class_names))
    if unknown or not 0 < len(classes) <= MAX_OBJECTS:
        raise OptionError(
            f"classes {tuple(classes)}: accepted are 1 to {MAX_OBJECTS} of "
            f"{', '.join(bank.class_names)}."
        )
    held = tuple(classes)
    for attempt in range(_ATTEMPTS):
        key = f"of:{','.join(held)}:{seed}:{index}:{split}:{attempt}"
        spec = SceneSpec(key, split, tuple(sorted(held)), held, held, held, bank)
        scene = _build(spec, seed, index, check=True)
        if scene is not None:
            return scene
    raise OptionError(f"no recognisable scene of {held} in {_ATTEMPTS} draws: ask for fewer.")


def _build(spec: SceneSpec, seed: int, index: int, check: bool) -> Scene | None:
    """The scene of a spec, or None where something in it cannot be recognised."""
    picture = draw.draw_image(spec)
    objects, seen = _objects(picture)
    if check and not all(seen):
        return None
    recording = draw.draw_audio(spec)
    events, heard = _events(recording)
    if check and not all(heard):
        return None
    plan = draw_caption(spec.bank, spec.text, spec.rng("text"))
    caption, mentions = write_caption(plan)
    if check and len(mentions) != len(spec.text):
        return None
    scene = Scene(
        seed=seed,
        index=index,
        split=spec.split,
        image=draw.render_image(picture),
        audio=draw.render_audio(recording),
        caption=caption,
        shared=(),
        objects=objects,
        events=events,
        mentions=mentions,
        _image=picture,
        _audio=recording,
        _text=plan,
    )
    return replace(scene, shared=_shared(scene))


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _shared(scene: Scene) -> tuple[str, ...]:
    held = (set(part_names(scene, modality)) for modality in MODALITIES)
    return tuple(sorted(name for name in set.intersection(*held) if name is not None))


def _objects(layout: draw.ImageLayout) -> tuple[tuple[SceneObject, ...], list[bool]]:
    """Objects with their masks, and whether each can be recognised."""
    masks, areas = draw.image_masks(layout)
    objects = tuple(
        SceneObject(p.class_name, mask, p.file)
        for p, mask in zip(layout.placements, masks, strict=True)
    )
    seen = [
        int(mask.sum()) >= max(_MIN_PIXELS, _MIN_VISIBLE * area)
        for mask, area in zip(masks, areas, strict=True)
    ]
    return objects, seen


def _events(layout: draw.AudioLayout) -> tuple[tuple[SoundEvent, ...], list[bool]]:
    """Events with their masks, and whether each can be recognised."""
    import torch  # here, so that listing and captions stay free of it

    parts = draw.stems(layout)
    parts = parts * draw.peak_scale(parts.sum(0))
    power = MEL.power(torch.from_numpy(parts)).numpy()
    total, noise = power.sum(0), power[-1]
    events, heard = [], []
    for take, own in zip(layout.takes, power[:-1], strict=True):
        audible = own > _FLOOR * own.max()
        mask = audible & (own > _OWNED * total)
        alone = int((audible & (own > noise)).sum())
        heard.append(int(mask.sum()) >= max(_MIN_CELLS, _MIN_HEARD * alone))
        end = take.start + draw.take_length(layout, take)
        events.append(
            SoundEvent(
                take.class_name,
                mask,
                take.start / SAMPLE_RATE,
                end / SAMPLE_RATE,
                take.file,
            )
        )
    return tuple(events), heard
