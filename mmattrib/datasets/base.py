"""The base class of data sets: samples, their number where it is known, and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from itertools import count, islice
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mmattrib.datasets.ids import Ids
from mmattrib.errors import DatasetError, InputError, OptionError, brief, check_whole
from mmattrib.plugins.strangers import blamed, described, hold_to, is_own, is_unheld, refuse, shown
from mmattrib.samples import Part, Region, Sample
from mmattrib.types import SECOND, Axis, RawImage

if TYPE_CHECKING:
    from mmattrib.types import JSONValue, RawInput


class Dataset(ABC):
    """A stream of samples that can be started again.

    A subclass gives ``name``, :meth:`__iter__` and :meth:`describe`; the rest follows.

    Attributes:
        name: as registered; what tables call it.
        first: number of its first sample: a data set that starts later in the same stream has the
            same fingerprint and other numbers.
    """

    name: ClassVar[str] = "custom"
    first: int = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Hold a class of others to the contract."""
        super().__init_subclass__(**kwargs)
        hold_to(cls, DatasetError, "data set", _CONTRACT)
        if not is_own(cls) and "__iter__" in vars(cls):
            cls.__iter__ = _held_stream(cls.__iter__)  # type: ignore[method-assign]

    @abstractmethod
    def __iter__(self) -> Iterator[Sample]:
        """Every sample in a fixed order, read as needed."""

    @abstractmethod
    def describe(self) -> dict[str, JSONValue]:
        """What the samples depend on: options, files with their hashes. JSON values.

        Not where the stream is cut off: the first ten samples are the same in a longer one.
        """

    def size(self) -> int | None:
        """How many samples there are, or None where only reading them all would tell."""
        return None

    def fingerprint(self) -> str:
        """SHA-256 of what the samples depend on: equal for data sets with the same samples."""
        told = json.dumps({"dataset": self.name, **self.describe()}, sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def numbered(self) -> Iterator[tuple[int, Sample]]:
        """The samples with their numbers, counted from :attr:`first`.

        Whatever reads a data set from its start reads it here, so that no two samples of one id
        pass for one; ids take 8 bytes each.

        Raises:
            DatasetError: two samples have one id, or something is no sample.
        """
        seen = Ids()
        for number, sample in enumerate(self, self.first):
            if not isinstance(sample, Sample) or not isinstance(sample.id, str):
                raise DatasetError(
                    f"data set {self.name!r} gives {brief(sample)} in place {number - self.first}; "
                    "accepted: mmattrib.Sample, with text as its id"
                )
            before = seen.add(sample.id, f"place {number - self.first}")
            if before is not None:
                raise DatasetError(
                    f"data set {self.name!r} gives two samples with id {brief(sample.id)}, in "
                    f"place {number - self.first} and {before}; ids must be unique"
                )
            yield number, sample

    def following(self, number: int) -> Iterator[Sample]:
        """The samples behind number ``number``, then those before it, once round.

        Numbers that rise, as an evaluation asks for them, are read in one pass.
        """
        place = number + 1 - self.first
        while (sample := self._at(place)) is not None:
            yield sample
            place += 1
        yield from islice(self._again(), number - self.first)

    def _at(self, place: int) -> Sample | None:
        """The sample of a place, or None behind the end. Places that rise are read in one pass."""
        window: _Window | None = vars(self).get(_WINDOW)
        if window is None or place < window.start:
            vars(self)[_WINDOW] = window = _Window(self._again())
        return window.at(place)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != _WINDOW}

    def _again(self) -> Iterator[Sample]:
        """The samples once more, for :meth:`following`: nothing is told that was told before."""
        return iter(self)

    def tell(self) -> None:
        """Warn of what the last pass left out, unless that was told before."""
        return None

    def head(self, limit: int) -> Dataset:
        """The first ``limit`` samples; of a stream that is made as it is needed, so many.

        Raises:
            OptionError: ``limit`` is no whole number, or out of range.
        """
        return First(self, limit)

    def unrelated(self, number: int, sample: Sample, explained: str, guide: str) -> Any | None:
        """An input for ``guide`` that has nothing to do with the explained input of a sample.

        That of the next sample whose ``guide`` names none of the explained input's parts; of the
        next sample at all where nothing is known of names.

        Args:
            number: of the sample, counted from :attr:`first`.
            sample: the sample.
            explained: the side that is explained.
            guide: the side that guides it.

        Returns:
            What :func:`mmattrib.attribute` takes for ``guide``, or None where there is none.
        """
        held = _names(sample, explained)
        for other in self.following(number):
            if guide in other.inputs and not held & _names(other, guide):
                return other.inputs[guide]
        return None

    def without(self, sample: Sample, side: str, part: int, raw: RawInput) -> RawInput | None:
        """One input of a sample with one of its parts taken away, or None where that cannot be.

        Pictures fade to their mean colour there (:func:`mmattrib.perturb.keep`); a data set that
        can make the input again without the part does so instead.

        Args:
            sample: the sample.
            side: of the input.
            part: number of the part in the truth of the side.
            raw: the decoded input.

        Raises:
            InputError: the part does not lie on this input.
        """
        known = sample.truth.get(side)
        region = None if known is None else known.parts[part].region
        return None if region is None else _faded(raw, region)

    def __repr__(self) -> str:
        size = self.size()
        return f"{type(self).__name__}({self.name!r}{'' if size is None else f', {size} samples'})"


class _Window:
    """A pass that is under way, and the last samples that it gave."""

    def __init__(self, samples: Iterator[Sample]) -> None:
        self._samples, self._next = samples, 0
        self._kept: deque[Sample] = deque(maxlen=_KEPT)

    @property
    def start(self) -> int:
        """The first place that can still be asked for."""
        return self._next - len(self._kept)

    def at(self, place: int) -> Sample | None:
        """The sample of a place from :attr:`start` on, or None behind the end."""
        while self._next <= place:
            if (sample := next(self._samples, None)) is None:
                return None
            self._kept.append(sample)
            self._next += 1
        return self._kept[place - self.start]


_KEPT: Final = 32
_WINDOW: Final = "_window"


_END: Any = object()


def _no_size(found: object) -> str | None:
    if found is None or (isinstance(found, int) and not isinstance(found, bool) and found >= 0):
        return None
    return f"{shown(found)}; accepted: a whole number, 0 or more, or None"


def _no_dataset(found: object) -> str | None:
    return None if isinstance(found, Dataset) else f"{shown(found)}; accepted: a data set"


_CONTRACT = {
    "describe": described,
    "size": _no_size,
    "head": _no_dataset,
    "unrelated": None,
    "without": None,
    "tell": None,
}


def _held_stream(own: Callable[[Any], Iterator[Sample]]) -> Callable[[Any], Iterator[Sample]]:
    """The ``__iter__`` of a class of others; each sample is looked at as it comes."""

    @wraps(own)
    def stream(self: Any) -> Iterator[Sample]:
        if is_unheld():
            yield from own(self)
            return
        what = f"data set {type(self).__name__}: __iter__"
        with blamed(DatasetError, what):
            samples = iter(own(self))
        for number in count():
            with blamed(DatasetError, f"{what}, at sample {number},"):
                sample = next(samples, _END)
            if sample is _END:
                return
            if not isinstance(sample, Sample):
                refuse(DatasetError, what, f"{shown(sample)}; accepted: mmattrib.Sample")
            yield sample

    return stream


def _faded(raw: RawInput, region: Region | tuple[Region, ...]) -> RawInput | None:
    if not isinstance(raw, RawImage):
        return None  # where a part of another input lies follows from a model's own axes
    import numpy as np

    from mmattrib.perturb import keep
    from mmattrib.placement import from_map

    axes = tuple(
        Axis(name, "px", np.arange(count, dtype=np.float32) + np.float32(0.5))
        for name, count in zip("yx", raw.pixels.shape, strict=False)
    )
    plane = from_map("image", np.zeros(raw.pixels.shape[:2], np.float32), "none", axes)
    return keep(raw, ~Part(region).on(plane))


def _names(sample: Sample, side: str) -> frozenset[str]:
    truth = sample.truth.get(side)
    return frozenset() if truth is None else truth.names


class Samples(Dataset):
    """Samples in memory."""

    name = "samples"

    def __init__(self, samples: Iterable[Sample], label: str = "samples") -> None:
        """Keep some samples.

        Args:
            samples: at least one.
            label: what tables call them.

        Raises:
            OptionError: something in it is no sample, or two have one id.
        """
        try:
            self.samples: Sequence[Sample] = tuple(samples)
        except TypeError:
            raise OptionError(
                f"a data set is made of mmattrib.Sample, got {type(samples).__name__}; "
                "mm.load_dataset('scenes', n=50) makes scenes"
            ) from None
        self.label = label
        seen: set[str] = set()
        for number, sample in enumerate(self.samples):
            if not isinstance(sample, Sample):
                raise OptionError(
                    f"a data set holds mmattrib.Sample, number {number} is "
                    f"{type(sample).__name__}; mm.load_dataset('scenes', n=50) makes scenes"
                )
            if sample.id in seen:
                raise OptionError(f"two samples are named {brief(sample.id)}; ids must be unique")
            seen.add(sample.id)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def size(self) -> int:
        return len(self.samples)

    def describe(self) -> dict[str, JSONValue]:
        digest = hashlib.sha256()
        for sample in self.samples:
            digest.update(repr((sample.id, sorted(sample.truth))).encode())
            for side, given in sorted(sample.inputs.items()):
                digest.update(f"{side}:{input_hash(side, given)}".encode())
        return {"samples": len(self.samples), "sha256": digest.hexdigest()}


def input_hash(side: str, given: Any) -> str:
    """What an input holds, as a hash; one that cannot be read has one too."""
    from mmattrib.io import content_hash, load

    try:
        return content_hash(load(side.removesuffix(SECOND), given))
    except InputError as error:
        return f"unreadable: {error}"


def as_dataset(samples: Dataset | Iterable[Sample]) -> Dataset:
    """A data set as it is, or samples as one.

    Raises:
        OptionError: neither, or none at all.
        DatasetError: an attribute of a data set is of a wrong type.
    """
    if isinstance(samples, Dataset):
        what, name, first = f"data set {type(samples).__name__}", samples.name, samples.first
        if not isinstance(name, str) or not name:
            raise DatasetError(f"{what} has name = {shown(name)}; accepted: text")
        if _no_size(first) or first is None:
            raise DatasetError(f"{what} has first = {shown(first)}; accepted: a whole number")
        return samples
    if isinstance(samples, str | bytes) or not isinstance(samples, Iterable):
        raise OptionError(
            f"got {brief(samples)} for samples; accepted: a data set such as "
            "mm.load_dataset('scenes', n=50), or mmattrib.Sample objects"
        )
    return Samples(samples)


class First(Dataset):
    """The first samples of another data set."""

    def __init__(self, inner: Dataset, limit: int) -> None:
        """Take the first ``limit`` samples of ``inner``.

        Raises:
            OptionError: ``limit`` is no whole number, or out of range.
        """
        self.inner, self.limit = inner, check_whole(limit, "limit", 1)
        self.name = inner.name  # type: ignore[misc]
        self.first = inner.first

    def __iter__(self) -> Iterator[Sample]:
        yield from islice(iter(self.inner), self.limit)
        self.inner.tell()

    def _again(self) -> Iterator[Sample]:
        return islice(self.inner._again(), self.limit)

    def size(self) -> int | None:
        known = self.inner.size()
        return None if known is None else min(known, self.limit)

    def describe(self) -> dict[str, JSONValue]:
        return self.inner.describe()

    def unrelated(self, number: int, sample: Sample, explained: str, guide: str) -> Any | None:
        return self.inner.unrelated(number, sample, explained, guide)

    def without(self, sample: Sample, side: str, part: int, raw: RawInput) -> RawInput | None:
        return self.inner.without(sample, side, part, raw)
