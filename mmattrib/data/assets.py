"""The drawings and sounds shipped in the package, as ``assets/catalog.json`` lists them.

Each has a split: ``train``, ``heldout``, or ``both`` for the only drawing of a class. A drawing
or sound without a class is a distractor, which exists in one modality only. Sources and licences
are in ``assets/NOTICE``; :mod:`mmattrib.data.build_assets` makes the bank.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmattrib.errors import InputError, OptionError

Split = Literal["train", "heldout"]
SAMPLE_RATE = 16_000
"""Sample rate of every sound, in Hz."""

_VERSION = 1


@dataclass(frozen=True)
class Sprite:
    """A drawing: an RGBA PNG, cropped to its alpha box, longest side 64 px, straight alpha.

    ``name`` is the class, or what a distractor shows; ``class_name`` is None for a distractor.
    """

    file: str
    class_name: str | None
    name: str
    split: str
    source: str
    source_file: str
    author: str
    licence: str


@dataclass(frozen=True)
class Sound:
    """A sound: mono Ogg Vorbis at 16 kHz, ``seconds`` long, active RMS 0.1.

    ``keys`` and ``velocity`` are MIDI numbers, ``rate`` is a recording's playback rate.
    """

    file: str
    class_name: str | None
    name: str
    split: str
    source: str
    source_file: str
    author: str
    licence: str
    seconds: float
    keys: tuple[int, ...]
    velocity: int | None
    rate: float | None


@dataclass(frozen=True)
class Catalog:
    """Everything in the bank; the order of ``classes`` is fixed."""

    classes: tuple[str, ...]
    sprites: tuple[Sprite, ...]
    sounds: tuple[Sound, ...]


class _Asset(Protocol):
    @property
    def class_name(self) -> str | None: ...

    @property
    def split(self) -> str: ...


_A = TypeVar("_A", bound=_Asset)


def read_bytes(file: str) -> bytes:
    """Read a file of the bank by its path in the catalogue, such as ``"NOTICE"``.

    Raises:
        FileNotFoundError: if the installation lacks it.
    """
    return resources.files("mmattrib").joinpath("data", "assets", *file.split("/")).read_bytes()


@lru_cache(maxsize=1)
def catalog() -> Catalog:
    """Return the catalogue of the bank, read once.

    Raises:
        FileNotFoundError: if the installation lacks the assets.
        InputError: if the catalogue is of another version than this code reads.
    """
    raw: dict[str, Any] = json.loads(read_bytes("catalog.json"))
    if raw.get("version") != _VERSION:
        raise InputError(
            f"assets/catalog.json has version {raw.get('version')!r}, this code reads {_VERSION}: "
            "reinstall mmattrib"
        )
    return Catalog(
        classes=tuple(raw["classes"]),
        sprites=tuple(Sprite(**_fields(row)) for row in raw["sprites"]),
        sounds=tuple(
            Sound(**{**_fields(row), "keys": tuple(row["keys"])}) for row in raw["sounds"]
        ),
    )


def class_names() -> tuple[str, ...]:
    """Return the class names in their fixed order."""
    return catalog().classes


@cache
def sprites(class_name: str | None, split: Split) -> tuple[Sprite, ...]:
    """Return a class's sprites for a split, ``both`` included; None gives the distractors.

    Raises:
        OptionError: on an unknown class or split.
    """
    return _select(catalog().sprites, class_name, split)


@cache
def sounds(class_name: str | None, split: Split) -> tuple[Sound, ...]:
    """Return a class's sounds for a split, ``both`` included; None gives the distractors.

    Raises:
        OptionError: on an unknown class or split.
    """
    return _select(catalog().sounds, class_name, split)


@cache
def load_sprite(sprite: Sprite) -> npt.NDArray[np.uint8]:
    """Decode a sprite: ``(H, W, 4)`` uint8, straight alpha, read-only."""
    with Image.open(io.BytesIO(read_bytes(sprite.file))) as image:
        pixels = np.asarray(image.convert("RGBA"), dtype=np.uint8).copy()
    pixels.flags.writeable = False
    return pixels


@cache
def load_sound(sound: Sound) -> npt.NDArray[np.float32]:
    """Decode a sound: ``(T,)`` float32 in [-1, 1] at 16 kHz, read-only.

    Raises:
        InputError: if the file is not 16 kHz mono.
    """
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(read_bytes(sound.file)), dtype="float32")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise InputError(f"{sound.file}: {rate} Hz with shape {samples.shape}, want 16 kHz mono")
    out: npt.NDArray[np.float32] = np.asarray(samples, dtype=np.float32)
    out.flags.writeable = False
    return out


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    return {("class_name" if key == "class" else key): value for key, value in row.items()}


def _select(assets: Iterable[_A], class_name: str | None, split: str) -> tuple[_A, ...]:
    if split not in ("train", "heldout"):
        raise OptionError(f"split {split!r}: 'train' and 'heldout' are accepted")
    if class_name is not None and class_name not in class_names():
        raise OptionError(f"class {class_name!r} is not one of {', '.join(class_names())}")
    return tuple(a for a in assets if a.class_name == class_name and a.split in (split, "both"))
