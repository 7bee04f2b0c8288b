"""check_dataset finds what a data set does wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmattrib.datasets import Dataset, Samples
from mmattrib.errors import DatasetError
from mmattrib.samples import BoxRegion, MaskRegion, Part, Sample, SpanRegion, TimeRegion, Truth
from mmattrib.testing import check_dataset
from mmattrib.types import RawInput

PIXELS = np.random.default_rng(0).integers(0, 255, (3, 24, 32, 3), "uint8")
BOX = Truth((Part(BoxRegion(2, 3, 10, 12), name="dog"),))
WORDS = Truth((Part(SpanRegion(2, 5), name="dog"),))


class Plain(Dataset):
    """Without fault, to be broken in one place at a time."""

    name = "plain"

    def __iter__(self) -> Iterator[Sample]:
        yield Sample("a", {"image": PIXELS[0], "text": "a dog"}, {"image": BOX, "text": WORDS})
        yield Sample("b", {"image": PIXELS[1], "text": "a cat"}, {"image": BOX})
        yield Sample("c", {"image": PIXELS[2], "text": "a bell"})

    def size(self) -> int | None:
        return 3

    def describe(self) -> dict[str, Any]:
        return {"version": 1}


def test_a_data_set_without_fault_passes() -> None:
    check_dataset(Plain())
    check_dataset(Plain(), limit=2)
    check_dataset(Plain(), limit=3)
    check_dataset(Samples(Plain()))


def test_truths_of_every_kind_of_input_are_laid_on_it() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    inputs = {"audio": (sound, 16000), "text": "a bell"}
    check_dataset(Samples([Sample("a", inputs, {"audio": Truth((Part(TimeRegion(0.2, 0.5)),))})]))
    late = Samples([Sample("a", inputs, {"audio": Truth((Part(TimeRegion(2, 3)),))})])
    with pytest.raises(DatasetError, match="part 0 covers nothing of the audio of sample 'a'"):
        check_dataset(late)


class Changed(Plain):
    """Gives its samples with something changed in the first."""

    changes: dict[str, Any] = {}  # noqa: RUF012

    def __iter__(self) -> Iterator[Sample]:
        first, *others = super().__iter__()
        yield replace(first, **self.changes)
        yield from others


class NoSample(Plain):
    def __iter__(self) -> Iterator[Any]:
        yield {"image": PIXELS[0]}


class Empty(Plain):
    def __iter__(self) -> Iterator[Sample]:
        return iter(())


class SameIds(Changed):
    changes = {"id": "b"}  # noqa: RUF012


class OneInput(Changed):
    changes = {"inputs": {"image": PIXELS[0]}, "truth": {}}  # noqa: RUF012


class TruthOfNothing(Changed):
    changes = {"truth": {"audio": BOX}}  # noqa: RUF012


class OtherShape(Changed):
    changes = {"truth": {"image": Truth((Part(MaskRegion(np.ones((4, 4), bool))),))}}  # noqa: RUF012


class OtherKind(Changed):
    changes = {"truth": {"text": BOX}}  # noqa: RUF012


class OffThePicture(Changed):
    changes = {"truth": {"image": Truth((Part(BoxRegion(40, 40, 50, 50)),))}}  # noqa: RUF012


class NotDecoded(Changed):
    changes = {"inputs": {"image": "no-such-file.png", "text": "a dog"}}  # noqa: RUF012


class NotReadTwice(Plain):
    def __init__(self) -> None:
        self.reads = 0

    def __iter__(self) -> Iterator[Sample]:
        self.reads += 1
        for sample in super().__iter__():
            yield replace(sample, id=f"{sample.id}{self.reads}")


class Generator(Plain):
    """An iterator is used up after one reading."""

    def __init__(self) -> None:
        self.left = list(super().__iter__())

    def __iter__(self) -> Iterator[Sample]:
        while self.left:
            yield self.left.pop(0)


class OtherInputs(Plain):
    def __init__(self) -> None:
        self.reads = 0

    def __iter__(self) -> Iterator[Sample]:
        self.reads += 1
        for sample in super().__iter__():
            yield replace(sample, inputs={**sample.inputs, "text": f"a dog {self.reads}"})


class WrongSize(Plain):
    def size(self) -> int:
        return 4


class SmallSize(Plain):
    def size(self) -> int:
        return 2


class FingerprintOfReading(NotReadTwice):
    def __iter__(self) -> Iterator[Sample]:
        self.reads += 1
        return Plain.__iter__(self)

    def describe(self) -> dict[str, Any]:
        return {"reads": self.reads}


class DescribesAnArray(Plain):
    def describe(self) -> dict[str, Any]:
        return {"pixels": PIXELS}


class DescribesATuple(Plain):
    def describe(self) -> dict[str, Any]:
        return {"sizes": (1, 2)}


class HoldsAFunction(Plain):
    def __init__(self) -> None:
        self.function = lambda: None


class ForgetsWhenPickled(Plain):
    version = 1

    def describe(self) -> dict[str, Any]:
        return {"version": self.version}

    def __init__(self) -> None:
        self.version = 2

    def __getstate__(self) -> dict[str, Any]:
        return {"unused": True}


class WholeHead(Plain):
    def head(self, limit: int) -> Dataset:
        return self


class OtherHead(Plain):
    def head(self, limit: int) -> Dataset:
        return Samples([next(iter(self))])


class UnrelatedOfTheOtherKind(Plain):
    def unrelated(self, number: int, sample: Sample, explained: str, guide: str) -> Any | None:
        return "no-such-file.png" if guide == "image" else PIXELS[0]


class UnrelatedAtRandom(Plain):
    calls = 0

    def unrelated(self, number: int, sample: Sample, explained: str, guide: str) -> Any | None:
        type(self).calls += 1
        return PIXELS[type(self).calls % 3] if guide == "image" else "a cat"


class WithoutOfTheOtherKind(Plain):
    def without(self, sample: Sample, side: str, part: int, raw: RawInput) -> RawInput | None:
        from mmattrib.types import RawText

        return RawText("a dog", "caption")


FAULTS: list[tuple[type[Dataset], str]] = [
    (NoSample, "gives dict in place 0"),
    (Empty, "holds no sample"),
    (SameIds, "two samples with id 'b'"),
    (OneInput, "at least two inputs"),
    (TruthOfNothing, r"with a truth of \['audio'\]"),
    (OtherShape, "does not fit the image of sample 'a'"),
    (OtherKind, "does not fit the text of sample 'a'"),
    (OffThePicture, "part 0 covers nothing of the image"),
    (NotDecoded, "the image of sample 'a' that cannot be decoded"),
    (NotReadTwice, "other samples when it is read a second time"),
    (Generator, "other samples when it is read a second time"),
    (OtherInputs, "another text of sample 'a' when it is read again"),
    (WrongSize, r"size\(\) 4 and gives 3 samples"),
    (SmallSize, r"size\(\) 2 and gives 3 samples"),
    (FingerprintOfReading, "another fingerprint once it was read"),
    (DescribesAnArray, "JSON cannot hold"),
    (DescribesATuple, "JSON changes"),
    (HoldsAFunction, "cannot be pickled"),
    (ForgetsWhenPickled, "another fingerprint once it was pickled"),
    (WholeHead, r"head\(1\) of \['a', 'b'\]"),
    (OtherHead, r"head\(1\) of another fingerprint"),
    (UnrelatedOfTheOtherKind, "an unrelated text for the image .* cannot be decoded"),
    (UnrelatedAtRandom, "another unrelated image when asked again"),
    (WithoutOfTheOtherKind, "another kind of input for image without its part 0"),
]


@pytest.mark.parametrize(("dataset", "message"), FAULTS, ids=[d.__name__ for d, _ in FAULTS])
def test_a_fault_is_named(dataset: type[Dataset], message: str) -> None:
    with pytest.raises(DatasetError, match=f"data set 'plain' .*{message}"):
        check_dataset(dataset())


def test_what_is_no_data_set_is_refused() -> None:
    with pytest.raises(DatasetError, match="is list; accepted: a mmattrib"):
        check_dataset([])  # type: ignore[arg-type]
