"""What readers of files share: entries one by one, what is wrong counted and told, fingerprints."""

from __future__ import annotations

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Final

from mmattrib.datasets.base import Dataset, input_hash
from mmattrib.datasets.ids import Ids
from mmattrib.errors import InputError, InputWarning, OptionError, brief, is_one_of
from mmattrib.files import is_file, is_folder
from mmattrib.io import Encoded
from mmattrib.io.files import one_line, unreadable
from mmattrib.samples import Sample

if TYPE_CHECKING:
    from mmattrib.types import JSONValue

BROKEN, MISSING, DOUBLED = "broken", "of a missing file", "of an id that stands above"
"""Kinds of entries that are left out."""

MOST_TOLD: Final = 100
"""Reasons that are kept word for word; the others are counted."""

MAX_PATH: Final = 4096
"""Characters of a path, which are as many as Linux takes."""

MAX_NAME: Final = 200
"""Characters of an option that is a part of a file's name."""

HASHED: Final = 256 * 1024**2
"""Bytes of samples' files that count into a fingerprint; beyond them, sizes alone."""


class MissingFileError(InputError):
    """A file that an index names is not there."""


class Problems:
    """Entries that were left out, and why.

    Attributes:
        strict: raise at the first one.
        told: reasons with file and place, of the first :data:`MOST_TOLD`.
        counts: kind -> how many.
    """

    def __init__(self, strict: bool = False) -> None:
        """Start with none."""
        self.strict = strict
        self.told: list[str] = []
        self.counts: dict[str, int] = {}

    @property
    def total(self) -> int:
        """How many entries were left out."""
        return sum(self.counts.values())

    def add(self, place: str, what: object, kind: str = BROKEN, number: int = 1) -> None:
        """Note an entry that is left out, or several at one place.

        Raises:
            InputError: :attr:`strict` is set.
        """
        text = f"{place}: {what}"
        if self.strict:
            raise InputError(text)
        self.counts[kind] = self.counts.get(kind, 0) + number
        if len(self.told) < MOST_TOLD:
            self.told.append(text)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items())
        first = "; ".join(self.told[:3])
        more = "; ..." if self.total > 3 else ""
        return f"{self.total:,} left out ({kinds}): {first}{more}"


class Digest:
    """SHA-256 of samples: ids, captions, truths, tags, and files.

    Files count with their contents, in the order of the samples, up to :data:`HASHED` bytes in
    all; of those beyond, their sizes count.
    """

    def __init__(self, told: str = "") -> None:
        """Start with what else counts."""
        self._sha = hashlib.sha256(told.encode())
        self._left = HASHED

    def sample(self, sample: Sample) -> None:
        """Add a sample."""
        regions = [
            (side, part.name, part.shared, part.region)
            for side, truth in sorted(sample.truth.items())
            for part in truth.parts
        ]
        told = repr((sample.id, sorted(sample.tags.items()), regions))
        self._sha.update(told.encode("utf-8", "backslashreplace"))
        for side, given in sorted(sample.inputs.items()):
            self._sha.update(side.encode())
            self._input(side, given)
        for _, _, _, region in regions:
            for each in region if isinstance(region, tuple) else (region,):
                if isinstance(path := getattr(each, "path", None), Path):
                    self._file(path)

    def _input(self, side: str, given: Any) -> None:
        if isinstance(given, Path):
            self._file(given)
        elif isinstance(given, str):
            self._sha.update(given.encode("utf-8", "backslashreplace"))
        elif isinstance(given, Encoded):
            if self._counts(len(given.data)):
                self._sha.update(given.data)
        else:
            self._sha.update(input_hash(side, given).encode())

    def _file(self, path: Path) -> None:
        try:
            self.file(path)
        except (OSError, ValueError):
            self._sha.update(b"missing")

    def file(self, path: Path) -> None:
        """Add a file, read a piece at a time.

        Raises:
            OSError: it cannot be read.
        """
        if self._counts(path.stat().st_size):
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    self._sha.update(chunk)

    def _counts(self, size: int) -> bool:
        """Note a size; whether so many bytes count with their content."""
        self._sha.update(f"{size};".encode())
        counts = size <= self._left
        self._left -= size if counts else 0
        return counts

    def hexdigest(self) -> str:
        """The hash so far."""
        return self._sha.hexdigest()


class Reader(Dataset):
    """Samples that stand in files, read one by one; nothing but the entry at hand is held.

    A broken entry names itself, with file and place, and is left out: :attr:`problems` counts
    them, and an :class:`~mmattrib.errors.InputWarning` tells of them at the end of a pass. With
    ``strict`` all entries are checked when the data set is opened, and the first broken one is an
    error.

    A subclass sets what it needs, calls ``super().__init__`` last, and gives :meth:`_entries`
    and :meth:`_made`.

    Attributes:
        source: the file or folder.
        strict: whether the first broken entry is an error.
        problems: what the last pass left out.
    """

    def __init__(self, source: Path, strict: bool, **options: JSONValue) -> None:
        """Open the source.

        Args:
            source: file or folder.
            strict: whether the first broken entry is an error.
            **options: what else the samples depend on, for the fingerprint.

        Raises:
            InputError: no entry can be used; with ``strict``, one cannot.
        """
        self.source, self.strict = source, yes_or_no(strict, "strict")
        self._options = options
        self.problems = Problems()
        self._known = 0
        self._size: int | None = None
        self._sha: str | None = None
        if strict:
            self._survey()
            return
        problems = Problems()
        if next(self._pass(problems), None) is None:
            raise _nothing(source, problems)

    @abstractmethod
    def _entries(self, problems: Problems) -> Iterator[tuple[str, Any]]:
        """Every entry with its place in words; what is no entry goes to ``problems``."""

    @abstractmethod
    def _made(self, place: str, entry: Any) -> Iterable[Sample]:
        """The samples of an entry.

        Raises:
            InputError: it is broken.
        """

    def _pass(self, problems: Problems) -> Iterator[Sample]:
        seen = Ids()
        for place, entry in self._read(problems):
            try:
                found = tuple(self._made(place, entry))
            except OSError as error:
                problems.add(place, one_line(error))
                continue
            except MissingFileError as error:
                problems.add(place, error, MISSING)
                continue
            except InputError as error:
                problems.add(place, error)
                continue
            for sample in found:
                if (before := seen.add(sample.id, place.rpartition(", ")[2])) is None:
                    yield sample
                else:
                    problems.add(place, f"id {brief(sample.id, 200)} stands {before} too", DOUBLED)

    def _read(self, problems: Problems) -> Iterator[tuple[str, Any]]:
        """:meth:`_entries`, of files that may go away, or be closed to us, at any time."""
        try:
            yield from self._entries(problems)
        except OSError as error:
            raise unreadable(error.filename or self.source, "an index", error) from error

    def __iter__(self) -> Iterator[Sample]:
        self.problems = problems = Problems(self.strict)
        count = 0
        for sample in self._pass(problems):
            count += 1
            yield sample
        self._size = count
        if self.problems is problems:
            self.tell()

    def _again(self) -> Iterator[Sample]:
        return self._pass(Problems(self.strict))

    def tell(self) -> None:
        if self.problems.total > self._known:
            self._known = self.problems.total
            warnings.warn(f"{self.name}: {self.problems}", InputWarning, stacklevel=3)

    def size(self) -> int | None:
        return self._size

    def describe(self) -> dict[str, JSONValue]:
        if self._sha is None:
            self._survey()
        return {**self._options, "samples": self._size, "sha256": self._sha}

    def _survey(self) -> None:
        digest, count, problems = Digest(), 0, Problems(self.strict)
        for sample in self._pass(problems):
            digest.sample(sample)
            count += 1
        if not count:
            raise _nothing(self.source, problems)
        self._size, self._sha = count, digest.hexdigest()


def _nothing(source: Path, problems: Problems) -> InputError:
    told = f"; {problems}" if problems.total else ""
    return InputError(f"{source} has no rows or entries that can be used{told}")


@contextmanager
def in_layout() -> Iterator[None]:
    """Turn what goes wrong with values of another shape into an :class:`InputError`."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(
            f"it is not in the layout ({type(error).__name__}: {str(error)[:80]})"
        ) from error


def as_path(given: object, what: str) -> Path:
    """An option as a path, with the home folder filled in.

    Raises:
        OptionError: it is none.
    """
    if not isinstance(given, str | Path) or not str(given).strip():
        raise OptionError(f"{what} must be a path, got {brief(given)}")
    if len(str(given)) > MAX_PATH:
        raise InputError(
            f"{what} is {brief(str(given))}, of {len(str(given)):,} characters; no path has more "
            f"than {MAX_PATH:,}"
        )
    return Path(given).expanduser()


def as_folder(given: object, what: str = "folder") -> Path:
    """An option as the path of a folder that is there.

    Raises:
        InputError: there is none.
        OptionError: it is no path.
    """
    folder = as_path(given, what)
    if not is_folder(folder):
        raise InputError(f"{folder} is no folder; {what} must name one that is there")
    return folder


def as_word(given: object, what: str) -> str:
    """An option that is part of a file's name, such as a split.

    Raises:
        OptionError: it is no text, or longer than a file's name may be.
    """
    if not isinstance(given, str) or len(given) > MAX_NAME:
        raise OptionError(f"{what} must be text of up to {MAX_NAME} characters, got {brief(given)}")
    return given


def one_of(given: object, what: str, accepted: Iterable[str]) -> str:
    """An option that is one of some words.

    Raises:
        OptionError: it is none of them.
    """
    if not is_one_of(given, accepted):
        raise OptionError(f"{what} must be one of {', '.join(accepted)}, got {brief(given)}")
    return str(given)


def yes_or_no(given: object, what: str) -> bool:
    """An option that is true or false.

    Raises:
        OptionError: it is neither.
    """
    if not isinstance(given, bool):
        raise OptionError(f"{what} must be true or false, got {brief(given)}")
    return given


def as_template(given: object) -> str:
    """An option that puts a name into a caption, such as ``"a photo of a {}"``.

    Raises:
        OptionError: it has no place for the name, or more than one.
    """
    if not isinstance(given, str) or given.count("{}") != 1 or given.count("{") != 1:
        raise OptionError(f"template must be text with one {{}} for the name, got {brief(given)}")
    return given


def inside(folder: Path, name: str) -> Path:
    """A path that an index gives, in the folder that it is relative to.

    This is the rule of all readers: a name in an index may not lead out of its folder, neither from
    the root nor by ``..``. Links that lie in the folder are followed, since whoever put one there
    could have put the file there; folders of downloads are often made of them.

    Raises:
        InputError: it leads out of the folder.
    """
    if not name or "\\" in name or "\0" in name:
        raise InputError(f"{brief(name, 200)} is no relative path")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise InputError(f"{brief(name, 200)} lies outside of its folder")
    return folder / path


def first_file(paths: Iterable[Path], what: str) -> Path:
    """The first of several paths where a file is.

    Raises:
        MissingFileError: there is none; the message names the first.
    """
    tried: list[Path] = []
    for path in paths:
        if is_file(path):
            return path
        tried.append(path)
    raise MissingFileError(f"{what} {brief(str(tried[0]), 300)} is missing")


def with_suffixes(stem: Path, suffixes: Iterable[str]) -> Iterator[Path]:
    """A path with each of some suffixes behind its name, whatever dots the name has."""
    for suffix in suffixes:
        yield stem.with_name(stem.name + suffix)


IMAGES: Final = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
SOUNDS: Final = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff")
