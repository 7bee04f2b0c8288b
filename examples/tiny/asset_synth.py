"""Render, condition and encode the sounds of the asset bank (build time only).

Every clip goes through the same chain, so that nothing but its content tells its class: 16 kHz,
the same band (30 Hz to 7.5 kHz), the same law of lengths, the same active level, the same fades,
the same codec. Needs scipy and tinysoundfont (the ``assets`` extra), which the package itself
does not.
"""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from examples.tiny.asset_recipes import GM, GS, SONIC_PI, Drums, Effect, Phrase, Recipe, Samples

Samples64 = npt.NDArray[np.float64]

RATE = 16_000
RENDER_RATE = 44_100
BAND_HZ = (30.0, 7_500.0)
ACTIVE_RMS = 0.1
PEAK = 0.9
SECONDS = (0.5, 1.4)
SHORTEST = 0.4
FRAME = 320
# soundfile maps a compression level c to the Vorbis quality 1 - c.
VORBIS_COMPRESSION = 0.65
# Even steps only: a phrase keeps the parity of its first key, and parity separates the splits.
STEPS = (-4, -2, 0, 2, 4, 8, 12)
TRAIN_RATES = tuple(0.86 + 0.04 * k for k in range(8))
HELDOUT_RATES = tuple(0.88 + 0.04 * k for k in range(7))

GM_FILE = "fluidr3mono-gm-soundfont/usr/share/fluidr3mono-gm-soundfont/FluidR3Mono_GM.sf3"
GS_FILE = "fluid-soundfont-gs/usr/share/sounds/sf2/FluidR3_GS.sf2"
SONIC_PI_DIR = "sonic-pi-samples/usr/share/sonic-pi/samples"


@dataclass(frozen=True)
class Rendering:
    """A raw rendering ``(T,)`` at 16 kHz and what it was made from.

    A ``texture`` may be cut anywhere; anything else starts at its attack.
    """

    samples: Samples64
    source: str
    source_file: str
    keys: tuple[int, ...] = ()
    velocity: int | None = None
    rate: float | None = None
    texture: bool = False


@dataclass(frozen=True)
class Note:
    """A note: onset and length in seconds, MIDI key and velocity."""

    start: float
    length: float
    key: int
    velocity: int


class SoundSource:
    """The unpacked soundfonts and recordings below one folder."""

    def __init__(self, packages: Path) -> None:
        """Load both soundfonts of FluidR3 from ``packages``."""
        tinysoundfont: Any = importlib.import_module("tinysoundfont")
        self._signal: Any = importlib.import_module("scipy.signal")
        self._packages = packages
        self._synth: Any = tinysoundfont.Synth(samplerate=RENDER_RATE, gain=-6)
        self._fonts = {
            GM: self._synth.sfload(str(packages / GM_FILE)),
            GS: self._synth.sfload(str(packages / GS_FILE)),
        }
        self._band: Samples64 = self._signal.butter(
            6, BAND_HZ, btype="bandpass", fs=RATE, output="sos"
        )

    def to_bank_rate(self, samples: Samples64, rate: int) -> Samples64:
        """Resample ``(T,)`` from ``rate`` Hz to 16 kHz and limit it to the common band."""
        shared = math.gcd(RATE, rate)
        out = self._signal.resample_poly(samples, RATE // shared, rate // shared)
        return np.asarray(self._signal.sosfiltfilt(self._band, out), dtype=np.float64)

    def midi(self, font: str, bank: int, program: int, notes: Sequence[Note]) -> Samples64:
        """Render notes, up to four seconds, at 16 kHz: ``(T,)``. Bank 128 is percussion."""
        synth, drums = self._synth, bank == 128
        channel = 9 if drums else 0
        synth.program_select(channel, self._fonts[font], 0 if drums else bank, program, drums)
        events = sorted(
            [(n.start, 1, n.key, n.velocity) for n in notes]
            + [(n.start + n.length, 0, n.key, 0) for n in notes]
        )
        end = min(4.0, max(n.start + n.length for n in notes) + 0.15)
        parts: list[Samples64] = []
        done = 0
        for time, on, key, velocity in [*events, (end, 0, 0, 0)]:
            wanted = min(int(time * RENDER_RATE), int(end * RENDER_RATE)) - done
            if wanted > 0:
                block = np.frombuffer(bytes(synth.generate(wanted)), dtype=np.float32)
                parts.append(block.reshape(-1, 2).mean(1).astype(np.float64))
                done += wanted
            if on:
                synth.noteon(channel, key, velocity)
            elif key:
                synth.noteoff(channel, key)
        synth.sounds_off()
        synth.generate(RENDER_RATE // 10)
        return self.to_bank_rate(np.concatenate(parts), RENDER_RATE)

    def sample(self, name: str, rate: float) -> Samples64:
        """Read a Sonic Pi recording, played ``rate`` times as fast, at 16 kHz: ``(T,)``."""
        samples, file_rate = soundfile.read(
            self._packages / SONIC_PI_DIR / f"{name}.flac", always_2d=True
        )
        return self.to_bank_rate(samples.mean(1), round(file_rate * rate / 100) * 100)

    def render(
        self, recipe: Recipe, index: int, heldout: bool, seconds: float, rng: np.random.Generator
    ) -> Rendering:
        """Render take ``index`` of a recipe, about ``seconds`` long, for one split."""
        if isinstance(recipe, Phrase):
            return self._phrase(recipe, index, heldout, seconds, rng)
        if isinstance(recipe, Drums):
            return self._drums(recipe, index, heldout, seconds, rng)
        if isinstance(recipe, Effect):
            return self._effect(recipe, index, heldout, rng)
        return self._samples(recipe, index, heldout, seconds, rng)

    def _phrase(
        self, recipe: Phrase, index: int, heldout: bool, seconds: float, rng: np.random.Generator
    ) -> Rendering:
        bank, program = recipe.programs[index % len(recipe.programs)]
        count = int(rng.integers(1, max(2, min(5, int(seconds / 0.22) + 1))))
        pool = _parity(recipe.low, recipe.high, heldout)
        keys = [int(rng.choice(pool))]
        for _ in range(count - 1):
            near = [keys[0] + s for s in STEPS if recipe.low <= keys[0] + s <= recipe.high]
            keys.append(int(rng.choice(near)))
        velocity = int(rng.integers(75, 122))
        step = seconds / count
        notes = [Note(k * step, 0.92 * step, key, velocity) for k, key in enumerate(keys)]
        samples = self.midi(GM, bank, program, notes)
        return Rendering(
            samples, GM, f"{Path(GM_FILE).name} {bank}:{program}", tuple(keys), velocity
        )

    def _drums(
        self, recipe: Drums, index: int, heldout: bool, seconds: float, rng: np.random.Generator
    ) -> Rendering:
        kits = recipe.heldout_kits if heldout else recipe.train_kits
        kit = kits[index % len(kits)]
        step = float(rng.uniform(0.11, 0.26))
        velocity = int(rng.choice(_parity(75, 121, heldout)))
        keys = tuple(int(rng.choice(recipe.keys)) for _ in range(int(seconds / step) + 1))
        notes = [Note(k * step, 0.1, key, velocity) for k, key in enumerate(keys)]
        samples = self.midi(GM, 128, kit, notes)
        return Rendering(samples, GM, f"{Path(GM_FILE).name} 128:{kit}", keys, velocity)

    def _effect(
        self, recipe: Effect, index: int, heldout: bool, rng: np.random.Generator
    ) -> Rendering:
        font, bank, program = recipe.presets[index % len(recipe.presets)]
        pool = _parity(53, 67, heldout)
        # Taken in turn, so that all keys occur; the turn differs from preset to preset.
        key = pool[(index // len(recipe.presets) * 3 + index) % len(pool)]
        velocity = int(rng.integers(90, 122))
        samples = self.midi(font, bank, program, [Note(0.0, 4.0, key, velocity)])
        name = Path(GM_FILE if font == GM else GS_FILE).name
        return Rendering(samples, font, f"{name} {bank}:{program}", (key,), velocity, texture=True)

    def _samples(
        self, recipe: Samples, index: int, heldout: bool, seconds: float, rng: np.random.Generator
    ) -> Rendering:
        names = recipe.heldout if heldout else recipe.train
        rates = HELDOUT_RATES if heldout else TRAIN_RATES
        rate = round(rates[(index // len(names) * 3 + index) % len(rates)], 2)
        if not recipe.strokes:
            name = names[index % len(names)]
            return Rendering(self.sample(name, rate), SONIC_PI, f"{name}.flac", rate=rate)
        out = np.zeros(int((seconds + 1.0) * RATE))
        used: list[str] = []
        start = 0.0
        while start < seconds - 0.1:
            used.append(names[int(rng.integers(len(names)))])
            stroke = self.sample(used[-1], rate)
            at = int(start * RATE)
            length = min(len(stroke), len(out) - at)
            out[at : at + length] += stroke[:length]
            start += float(rng.uniform(0.14, 0.32))
        files = " ".join(f"{name}.flac" for name in dict.fromkeys(used))
        return Rendering(out[: int(seconds * RATE)], SONIC_PI, files, rate=rate)


def _parity(low: int, high: int, heldout: bool) -> list[int]:
    """Even numbers in ``[low, high]`` for the held-out split, odd ones for training."""
    return [k for k in range(low, high + 1) if (k % 2 == 0) == heldout]


def frame_rms(samples: Samples64) -> Samples64:
    """Return the RMS of each 20 ms frame of ``(T,)`` samples at 16 kHz."""
    padded = np.pad(samples, (0, (-len(samples)) % FRAME)).reshape(-1, FRAME)
    return np.asarray(np.sqrt((padded**2).mean(1)), dtype=np.float64)


def active_rms(samples: Samples64) -> float:
    """Return the RMS over the frames above a tenth of the loudest one."""
    levels = frame_rms(samples)
    return float(np.sqrt((levels[levels > 0.1 * levels.max()] ** 2).mean()))


def condition(raw: Rendering, seconds: float, rng: np.random.Generator) -> Samples64:
    """Trim, cut or repeat to about ``seconds``, bring to the common level and fade: ``(T,)``.

    Raises:
        ValueError: if the rendering is silent or not finite.
    """
    levels = frame_rms(raw.samples)
    if not np.isfinite(levels).all() or levels.max() < 1e-4:
        raise ValueError(f"{raw.source_file}: the rendering is silent or not finite")
    loud = np.flatnonzero(levels > 0.03 * levels.max())
    # A quarter of a frame before the first loud one keeps the attack out of the fade.
    begin = max(0, int(loud[0]) * FRAME - FRAME // 4)
    samples = raw.samples[begin : (int(loud[-1]) + 1) * FRAME]
    wanted = int(seconds * RATE)
    if len(samples) > wanted:
        samples = _window(samples, wanted, rng) if raw.texture else samples[:wanted]
    samples = _repeat(samples, wanted, rng)
    samples[:80] *= np.linspace(0.0, 1.0, 80)
    samples[-240:] *= np.linspace(1.0, 0.0, 240)
    samples = samples * (ACTIVE_RMS / active_rms(samples))
    if np.abs(samples).max() > PEAK:
        samples = PEAK * np.tanh(samples / PEAK)
    return samples


def _window(samples: Samples64, wanted: int, rng: np.random.Generator) -> Samples64:
    """Cut a window where the sound is at work: at least 0.6 of the loudest window's RMS."""
    starts = np.arange(0, min(len(samples) - wanted, 2 * RATE) + 1, FRAME)
    energy = np.concatenate([[0.0], np.cumsum(samples**2)])
    level = np.sqrt(energy[starts + wanted] - energy[starts])
    start = int(rng.choice(starts[level >= 0.6 * level.max()]))
    return samples[start : start + wanted].copy()


def _repeat(samples: Samples64, wanted: int, rng: np.random.Generator) -> Samples64:
    """Repeat a short sound with gaps of 30 to 150 ms, while room for most of it is left."""
    parts = [samples]
    used = len(samples)
    while used < SHORTEST * RATE or wanted - used > 0.15 * RATE + min(
        0.5 * len(samples), 0.2 * RATE
    ):
        gap = int(rng.uniform(0.03, 0.15) * RATE)
        parts += [np.zeros(gap), samples]
        used += gap + len(samples)
    return np.concatenate(parts)[:wanted].copy()


def encode(samples: Samples64, serial: int) -> bytes:
    """Encode ``(T,)`` samples as Ogg Vorbis at the common level *after* decoding.

    The codec takes a little energy from some sounds and adds a little to others, hence the second
    pass. The same samples give the same bytes.
    """
    decoded, _ = soundfile.read(io.BytesIO(_vorbis(samples)))
    return _with_serial(_vorbis(samples * (ACTIVE_RMS / active_rms(decoded))), serial)


def _vorbis(samples: Samples64) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        samples.astype(np.float32),
        RATE,
        format="OGG",
        subtype="VORBIS",
        compression_level=VORBIS_COMPRESSION,
    )
    return buffer.getvalue()


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = ((value << 1) ^ 0x04C11DB7) if value & 0x80000000 else value << 1
        table.append(value & 0xFFFFFFFF)
    return table


_CRC = _crc_table()


def _with_serial(data: bytes, serial: int) -> bytes:
    """Replace the stream's random serial number and its checksums (RFC 3533, section 6)."""
    out = bytearray(data)
    at = 0
    while at < len(out):
        segments = out[at + 26]
        size = 27 + segments + sum(out[at + 27 : at + 27 + segments])
        out[at + 14 : at + 18] = serial.to_bytes(4, "little")
        out[at + 22 : at + 26] = bytes(4)
        crc = 0
        for byte in out[at : at + size]:
            crc = ((crc << 8) & 0xFFFFFFFF) ^ _CRC[(crc >> 24) ^ byte]
        out[at + 22 : at + 26] = crc.to_bytes(4, "little")
        at += size
    return bytes(out)
