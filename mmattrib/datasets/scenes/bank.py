"""Banks of drawings and sounds that scenes are made of: the shipped one, or a folder of one's own.

A bank is a folder with a ``catalog.json`` and the files that it lists. Each drawing or sound has a
split: ``train``, ``heldout``, or ``both`` for the only drawing of a class. One without a class is a
distractor, which exists in one modality only. Sources and licences of the shipped bank are in
``assets/NOTICE``; ``examples/tiny/build_assets.py`` of the repository made it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial, update_wrapper
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
)

from mmattrib.errors import InputError, OptionError, brief, is_one_of
from mmattrib.files import is_file
from mmattrib.io.files import unreadable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Split: TypeAlias = Literal["train", "heldout"]
"""Which renderings a scene is made of: those that training saw, or those that it never saw."""
SPLITS: Final[tuple[Split, ...]] = ("train", "heldout")
SAMPLE_RATE: Final = 16_000
"""Sample rate of every sound, in Hz."""

#: Other words for a class, used as often as its name, unless the catalogue has words of its own.
SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "airplane": ("airplane", "plane"),
    "telephone": ("telephone", "phone"),
    "saxophone": ("saxophone", "sax"),
    "dog": ("dog", "hound"),
    "record": ("record", "vinyl record"),
    "wave": ("wave", "ocean wave"),
}
#: Classes without an indefinite article, masses and plurals, unless the catalogue says otherwise.
NO_ARTICLE: Final = frozenset(
    {
        "rain",
        "wind",
        "lightning",
        "thunder",
        "applause",
        "laughter",
        "footprints",
        "footsteps",
        "clapping hands",
        "bubbles",
        "maracas",
        "drums",
    }
)

_VERSION: Final = 1


@dataclass(frozen=True)
class Asset:
    """A file of a bank, and where it comes from.

    ``name`` is the class, or what a distractor is; ``class_name`` is None for a distractor.
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
class Sprite(Asset):
    """A drawing: an RGBA PNG, cropped to its alpha box, longest side 64 px, straight alpha."""


@dataclass(frozen=True)
class Sound(Asset):
    """A sound: mono Ogg Vorbis at 16 kHz, ``seconds`` long, active RMS 0.1.

    ``keys`` and ``velocity`` are MIDI numbers, ``rate`` is a recording's playback rate.
    """

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


_A = TypeVar("_A", bound=Asset)
_P = ParamSpec("_P")
_R = TypeVar("_R")


class Bank:
    """Drawings, sounds and words for some classes. It remembers what it decoded.

    Several banks can be in use in one process. A bank pickles as where it lies, and is opened again
    on the other side; there, scenes of one bank share one object.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        """Open a bank; :meth:`shipped` and :meth:`load` say more.

        Args:
            folder: where it lies; None for the one in the package, as :meth:`shipped`.
        """
        try:
            self.folder = None if folder is None else Path(folder).expanduser().resolve()
        except (OSError, ValueError, RuntimeError) as error:  # also a circle of links
            raise InputError(f"{str(folder)!r} can be no folder: {error}") from error
        self._remembered: dict[object, Callable[..., Any]] = {}
        if self.folder is not None and not is_file(self.folder / "catalog.json"):
            raise InputError(
                f"bank {folder}: a folder with a catalog.json is accepted, and this one has none "
                "or is missing; leave the bank out to use the drawings and sounds of the package"
            )
        data = self.read_bytes("catalog.json")
        self._digest = hashlib.sha256(data).hexdigest()
        self.catalog = _read_catalog(data, self.folder or "mmattrib/datasets/scenes/assets")

    @staticmethod
    def shipped() -> Bank:
        """Return the bank in the package, one object per process.

        Raises:
            FileNotFoundError: the installation lacks it.
            InputError: its catalogue is broken.
        """
        return _shipped()

    @classmethod
    def load(cls, folder: str | Path) -> Bank:
        """Open another bank.

        Args:
            folder: holds a ``catalog.json`` of the same form as the shipped one, and the files that
                it lists: RGBA PNGs, and mono sounds at 16 kHz.

        Raises:
            InputError: there is no catalogue, it is broken or of another version than this code
                reads, or a class lacks a drawing or a sound for one of the splits.
        """
        return cls(folder)

    def __reduce__(self) -> tuple[Callable[..., Bank], tuple[object, ...]]:
        if self.folder is None:
            return _shipped, ()
        return _reopened, (str(self.folder), self._digest)

    def __repr__(self) -> str:
        if self.folder is None:
            return "Bank.shipped()"
        return f"Bank.load({str(self.folder)!r})"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names in their fixed order."""
        return self.catalog.classes

    def sprites(self, class_name: str | None, split: Split) -> tuple[Sprite, ...]:
        """Return a class's sprites for a split, ``both`` included; None gives the distractors.

        Raises:
            OptionError: on an unknown class or split.
        """
        return _sprites_of(self, class_name, split)

    def sounds(self, class_name: str | None, split: Split) -> tuple[Sound, ...]:
        """Return a class's sounds for a split, ``both`` included; None gives the distractors.

        Raises:
            OptionError: on an unknown class or split.
        """
        return _sounds_of(self, class_name, split)

    def sprite(self, file: str) -> Sprite:
        """Return the sprite of a file.

        Raises:
            InputError: the catalogue has none of that name.
        """
        return _listed(self, _sprites_by_file(self), file)

    def sound(self, file: str) -> Sound:
        """Return the sound of a file.

        Raises:
            InputError: the catalogue has none of that name.
        """
        return _listed(self, _sounds_by_file(self), file)

    def load_sprite(self, sprite: Sprite) -> npt.NDArray[np.uint8]:
        """Decode a sprite: ``(H, W, 4)`` uint8, straight alpha, read-only."""
        return _sprite_pixels(self, sprite.file)

    def load_sound(self, sound: Sound) -> npt.NDArray[np.float32]:
        """Decode a sound: ``(T,)`` float32 in [-1, 1] at 16 kHz, read-only.

        Raises:
            InputError: if the file is not 16 kHz mono.
        """
        return _sound_samples(self, sound.file)

    def words_of(self, class_name: str) -> tuple[str, ...]:
        """Return the words that a caption may use for a class."""
        own = self.catalog.phrases.get(class_name)
        return own.words if own else SYNONYMS.get(class_name, (class_name,))

    def takes_article(self, class_name: str) -> bool:
        """Whether "a" or "an" may stand before a class."""
        own = self.catalog.phrases.get(class_name)
        return own.article if own else class_name not in NO_ARTICLE

    def fingerprint(self) -> str:
        """Return the SHA-256 of the catalogue and of every file that it lists, in hex.

        Raises:
            FileNotFoundError: the installation lacks a file.
            InputError: a bank of one's own does.
        """
        return _fingerprint(self)

    def read_bytes(self, file: str) -> bytes:
        """Read a file of the bank by its path in the catalogue, such as ``"NOTICE"``.

        Raises:
            FileNotFoundError: the installation lacks it.
            InputError: a bank of one's own lacks it, or the path leads out of the bank.
        """
        place = self.locate(file)
        try:
            return place.read_bytes()
        except OSError as error:
            if self.folder is None:
                raise
            raise unreadable(place, "a file of the bank", error) from error

    def locate(self, file: str) -> Traversable:
        """Where a file of the bank lies.

        Raises:
            InputError: the path leads out of the bank.
        """
        parts = file.split("/")
        if {"", ".", ".."} & set(parts) or "\\" in file or ":" in file:
            raise InputError(
                f"asset {file!r}: a path below the bank's folder is accepted, with '/'"
            )
        if self.folder is None:
            return resources.files("mmattrib").joinpath("datasets", "scenes", "assets", *parts)
        path = self.folder.joinpath(*parts).resolve()
        if not path.is_relative_to(self.folder):
            raise InputError(
                f"asset {file!r} is a link out of {self.folder}: put the file itself there"
            )
        return path


def per_bank(
    maxsize: int | None,
) -> Callable[[Callable[Concatenate[Bank, _P], _R]], Callable[Concatenate[Bank, _P], _R]]:
    """Decorate a function of a bank to remember its last ``maxsize`` results with that bank.

    What it returned is forgotten when the bank is, and no bank sees another's.
    """

    def decorate(
        function: Callable[Concatenate[Bank, _P], _R],
    ) -> Callable[Concatenate[Bank, _P], _R]:
        def remembered(bank: Bank, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            own = bank._remembered.get(function)
            if own is None:
                made = lru_cache(maxsize)(partial(function, bank))
                own = bank._remembered.setdefault(function, made)
            result: _R = own(*args, **kwargs)
            return result

        update_wrapper(remembered, function)
        return remembered

    return decorate


@cache
def _shipped() -> Bank:
    return Bank()


@lru_cache(maxsize=8)
def _reopened(folder: str, digest: str) -> Bank:
    """The bank that a pickled scene names: one object for all scenes that a process is sent."""
    bank = Bank.load(folder)
    if bank._digest != digest:
        raise InputError(
            f"bank {folder}: its catalogue is not the one that these scenes were made from; "
            "make them again"
        )
    return bank


@per_bank(None)
def _sprites_of(bank: Bank, class_name: str | None, split: Split) -> tuple[Sprite, ...]:
    return _select(bank, bank.catalog.sprites, class_name, split)


@per_bank(None)
def _sounds_of(bank: Bank, class_name: str | None, split: Split) -> tuple[Sound, ...]:
    return _select(bank, bank.catalog.sounds, class_name, split)


@per_bank(1)
def _sprites_by_file(bank: Bank) -> dict[str, Sprite]:
    return {sprite.file: sprite for sprite in bank.catalog.sprites}


@per_bank(1)
def _sounds_by_file(bank: Bank) -> dict[str, Sound]:
    return {sound.file: sound for sound in bank.catalog.sounds}


@per_bank(None)
def _sprite_pixels(bank: Bank, file: str) -> npt.NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(bank.read_bytes(file))) as image:
        pixels = np.asarray(image.convert("RGBA"), dtype=np.uint8).copy()
    pixels.flags.writeable = False
    return pixels


@per_bank(None)
def _sound_samples(bank: Bank, file: str) -> npt.NDArray[np.float32]:
    import numpy as np
    import soundfile

    # From a path: a Python stream is read through callbacks, in which a Ctrl-C is lost.
    with resources.as_file(bank.locate(file)) as path:
        samples, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise InputError(f"{file}: {rate} Hz with shape {samples.shape}, want 16 kHz mono")
    out: npt.NDArray[np.float32] = np.asarray(samples, dtype=np.float32)
    out.flags.writeable = False
    return out


@per_bank(1)
def _fingerprint(bank: Bank) -> str:
    digest = hashlib.sha256(bank._digest.encode())
    for file in sorted({*_sprites_by_file(bank), *_sounds_by_file(bank)}):
        digest.update(file.encode() + hashlib.sha256(bank.read_bytes(file)).digest())
    return digest.hexdigest()


def _listed(bank: Bank, rows: Mapping[str, _R], file: str) -> _R:
    try:
        return rows[file]
    except KeyError:
        raise InputError(f"{bank!r} lists no file {file!r}") from None


def _read_catalog(data: bytes, place: str | Path) -> Catalog:
    """Parse and check a catalogue; raises InputError as :meth:`Bank.load` does."""
    try:
        raw: dict[str, Any] = json.loads(data)
        version = raw.get("version")
        catalog = _parsed(raw) if version == _VERSION else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{place}/catalog.json is not a catalogue ({error!r}): its form is that of the one "
            "in mmattrib/datasets/scenes/assets"
        ) from error
    if catalog is None:
        raise InputError(
            f"{place}/catalog.json has version {version!r}, this code reads {_VERSION}: "
            "reinstall mmattrib, or build that bank again"
        )
    for name in (*catalog.classes, None):
        for medium, rows in (("drawing", catalog.sprites), ("sound", catalog.sounds)):
            own = {row.split for row in rows if row.class_name == name}
            if not own >= {"train", "heldout"} and "both" not in own:
                raise InputError(
                    f"{place}/catalog.json: {name or 'what belongs to no class'} needs a {medium} "
                    f"for train and one for heldout, or one for both; it has {sorted(own)}"
                )
    return catalog


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


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    return {("class_name" if key == "class" else key): value for key, value in row.items()}


def _select(bank: Bank, assets: Iterable[_A], class_name: str | None, split: str) -> tuple[_A, ...]:
    if not is_one_of(split, SPLITS):
        raise OptionError(f"split {brief(split)}: 'train' and 'heldout' are accepted")
    if class_name is not None and class_name not in bank.class_names:
        raise OptionError(f"class {class_name!r} is not one of {', '.join(bank.class_names)}")
    return tuple(a for a in assets if a.class_name == class_name and a.split in (split, "both"))
