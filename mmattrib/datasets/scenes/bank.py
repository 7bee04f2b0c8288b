"""The drawings and sounds shipped in the package, as ``assets/catalog.json`` lists them.

Each has a split: ``train``, ``heldout``, or ``both`` for the only drawing of a class. A drawing
or sound without a class is a distractor, which exists in one modality only. Sources and licences
are in ``assets/NOTICE``; :mod:`examples.tiny.build_assets` makes the bank.

The environment variable ``MMATTRIB_ASSETS`` names a folder with another bank: a ``catalog.json``
of the same form and the files that it lists. It is read when the bank is first used.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmattrib.errors import InputError, OptionError

Split = Literal["train", "heldout"]
SAMPLE_RATE = 16_000
"""Sample rate of every sound, in Hz."""
ENVIRONMENT = "MMATTRIB_ASSETS"
"""Environment variable that names the folder of another bank."""

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
class Wording:
    """How captions name a class: ``words`` to choose from, and whether "a" may precede them."""

    words: tuple[str, ...]
    article: bool = True


@dataclass(frozen=True)
class Catalog:
    """Everything in the bank; the order of ``classes`` is fixed.

    ``phrases`` holds the classes that the bank names in words of its own.
    """

    classes: tuple[str, ...]
    sprites: tuple[Sprite, ...]
    sounds: tuple[Sound, ...]
    phrases: Mapping[str, Wording]


class _Asset(Protocol):
    @property
    def class_name(self) -> str | None: ...

    @property
    def split(self) -> str: ...


_A = TypeVar("_A", bound=_Asset)


def read_bytes(file: str) -> bytes:
    """Read a file of the bank by its path in the catalogue, such as ``"NOTICE"``.

    Raises:
        FileNotFoundError: if the installation, or another bank's folder, lacks it.
        InputError: if the path leads out of the bank, or ``MMATTRIB_ASSETS`` names no bank.
    """
    return _locate(file).read_bytes()


def _locate(file: str) -> Traversable:
    """Where a file of the bank lies; raises InputError as :func:`read_bytes` does."""
    parts = file.split("/")
    if {"", ".", ".."} & set(parts) or "\\" in file or ":" in file:
        raise InputError(f"asset {file!r}: a path below the bank's folder is accepted, with '/'")
    folder = bank_folder()
    if folder is None:
        return resources.files("mmattrib").joinpath("datasets", "scenes", "assets", *parts)
    path = folder.joinpath(*parts).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"asset {file!r} is a link out of {folder}: put the file itself there")
    return path


def bank_folder() -> Path | None:
    """Return the folder that ``MMATTRIB_ASSETS`` names, or None for the shipped bank.

    Raises:
        InputError: if it holds no ``catalog.json``.
    """
    named = os.environ.get(ENVIRONMENT)
    if not named:
        return None
    folder = Path(named).expanduser()
    if not (folder / "catalog.json").is_file():
        raise InputError(
            f"{ENVIRONMENT}={named}: a folder with a catalog.json is accepted, and this one has "
            "none or is missing; unset it to use the drawings and sounds of the package"
        )
    return folder


@lru_cache(maxsize=1)
def catalog() -> Catalog:
    """Return the catalogue of the bank, read once.

    Raises:
        FileNotFoundError: if the installation lacks the assets.
        InputError: if the catalogue is broken, or of another version than this code reads.
    """
    place = bank_folder() or "assets"
    data = read_bytes("catalog.json")
    try:
        raw: dict[str, Any] = json.loads(data)
        version = raw.get("version")
        bank = _parsed(raw) if version == _VERSION else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{place}/catalog.json is not a catalogue ({error!r}): its form is that of the one "
            "in mmattrib/datasets/scenes/assets"
        ) from error
    if bank is None:
        raise InputError(
            f"{place}/catalog.json has version {version!r}, this code reads {_VERSION}: "
            "reinstall mmattrib, or build that bank again"
        )
    for name in (*bank.classes, None):
        for kind, rows in (("drawing", bank.sprites), ("sound", bank.sounds)):
            own = {row.split for row in rows if row.class_name == name}
            if not own >= {"train", "heldout"} and "both" not in own:
                raise InputError(
                    f"{place}/catalog.json: {name or 'what belongs to no class'} needs a {kind} "
                    f"for train and one for heldout, or one for both; it has {sorted(own)}"
                )
    return bank


def _parsed(raw: dict[str, Any]) -> Catalog:
    return Catalog(
        classes=tuple(raw["classes"]),
        sprites=tuple(Sprite(**_fields(row)) for row in raw["sprites"]),
        sounds=tuple(
            Sound(**{**_fields(row), "keys": tuple(row["keys"])}) for row in raw["sounds"]
        ),
        phrases={
            name: Wording(tuple(row.get("words", ())) or (name,), bool(row.get("article", True)))
            for name, row in raw.get("phrases", {}).items()
        },
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

    # From a path: a Python stream is read through callbacks, in which a Ctrl-C is lost.
    with resources.as_file(_locate(sound.file)) as path:
        samples, rate = soundfile.read(path, dtype="float32")
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
