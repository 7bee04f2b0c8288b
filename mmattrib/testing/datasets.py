"""check_dataset: what a data set must hold to."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import islice

import numpy as np

from mmattrib.datasets.base import Dataset
from mmattrib.errors import DatasetError, MmattribError
from mmattrib.io import content_hash, load
from mmattrib.models.melspec import MelSpec
from mmattrib.models.words import words_of_tokens
from mmattrib.placement import from_map
from mmattrib.plugins.strangers import unheld
from mmattrib.samples import Sample, Truth
from mmattrib.testing.checks import Check
from mmattrib.types import (
    SECOND,
    Attribution,
    Axis,
    RawAudio,
    RawImage,
    RawInput,
    RawText,
)

_DECODED = 4
"""Samples whose inputs are decoded, from the first on."""


@unheld()
def check_dataset(dataset: Dataset, *, limit: int = 100) -> None:
    """Check that a data set keeps its contract.

    - It has a name, describes itself as JSON, and can be pickled: the copy has the same
      fingerprint and samples.
    - Read twice, it gives the same :class:`mmattrib.Sample` objects in the same order, by id; ids
      are unique text, and each sample has at least two inputs named by modality.
    - ``size()`` is the number of samples, or None.
    - Its fingerprint is the same before and after reading, and for ``head(1)``, which gives the
      first sample alone.
    - Inputs can be decoded, and are the same when they are read again.
    - A truth is of a side that is there, and each of its parts covers some place on the axes of
      its input. ``unrelated`` gives an input of the guide's kind, or None; ``without`` one of the
      explained kind, or None; both give the same again.

    Args:
        dataset: the data set; a small one is quickest.
        limit: how many samples are read. The inputs of the first four are decoded.

    Raises:
        DatasetError: what broke.
    """
    _DatasetCheck(dataset, limit).run()


class _DatasetCheck(Check):
    """One run of :func:`check_dataset`."""

    function, kind, fault = "check_dataset", "data set", DatasetError

    def __init__(self, dataset: Dataset, limit: int) -> None:
        super().__init__(dataset)
        self.dataset, self.limit = dataset, limit

    def run(self) -> None:
        self.check_declared()
        fingerprint = self.dataset.fingerprint()
        samples = self.read(self.dataset)
        self.check_samples(samples)
        ids = [sample.id for sample in samples]
        again = self.read(self.dataset)
        if [sample.id for sample in again] != ids:
            self.fail("gives other samples when it is read a second time")
        self.check_size(len(samples))
        if self.dataset.fingerprint() != fingerprint:
            self.fail("has another fingerprint once it was read")
        self.check_copy(ids, fingerprint)
        self.check_head(ids[0], fingerprint)
        for place, (sample, other) in enumerate(zip(samples, again, strict=True)):
            if place < _DECODED:
                self.check_inputs(self.dataset.first + place, sample, other)

    def check_declared(self) -> None:
        dataset = self.dataset
        if not isinstance(dataset, Dataset):
            self.fail(f"is {type(dataset).__name__}; accepted: a mmattrib.datasets.Dataset")
        self.check_lines("name")
        self.check_json(dataset.describe())

    def read(self, dataset: Dataset) -> list[Sample]:
        """The first samples; one more than the limit says that there are more."""
        return list(islice(iter(dataset), self.limit))

    def check_samples(self, samples: Sequence[Sample]) -> None:
        if not samples:
            self.fail("holds no sample")
        seen: set[str] = set()
        for place, sample in enumerate(samples):
            if not isinstance(sample, Sample):
                self.fail(
                    f"gives {type(sample).__name__} in place {place}; accepted: mmattrib.Sample"
                )
            if not isinstance(sample.id, str) or not sample.id:
                self.fail(f"gives a sample with id {sample.id!r}; accepted: text")
            if sample.id in seen:
                self.fail(f"gives two samples with id {sample.id!r}; ids must be unique")
            seen.add(sample.id)
            if len(sample.inputs) < 2:
                self.fail(f"gives {sample!r}; a sample has at least two inputs")
            if lost := set(sample.truth) - set(sample.inputs):
                self.fail(f"gives {sample!r} with a truth of {sorted(lost)}, which it has not")

    def check_size(self, count: int) -> None:
        size = self.dataset.size()
        wrong = size is not None and (size < count or (size != count and count < self.limit))
        if wrong:
            self.fail(f"has size() {size} and gives {count} samples")

    def check_copy(self, ids: list[str], fingerprint: str) -> None:
        try:
            copy: Dataset = pickle.loads(pickle.dumps(self.dataset))
        except Exception as error:
            self.fail(f"cannot be pickled, which several processes need: {error}")
        if copy.fingerprint() != fingerprint:
            self.fail("has another fingerprint once it was pickled")
        if [sample.id for sample in self.read(copy)] != ids:
            self.fail("gives other samples once it was pickled")

    def check_head(self, first: str, fingerprint: str) -> None:
        head = self.dataset.head(1)
        found = [sample.id for sample in islice(iter(head), 2)]
        if found != [first]:
            self.fail(f"gives head(1) of {found}; accepted: its first sample, {first!r}, alone")
        if head.fingerprint() != fingerprint:
            self.fail("gives a head(1) of another fingerprint; where it ends must not count")

    def check_inputs(self, number: int, sample: Sample, again: Sample) -> None:
        raws = {side: self.decode(sample, side) for side in sample.inputs}
        for side, raw in raws.items():
            if content_hash(self.decode(again, side)) != content_hash(raw):
                self.fail(f"gives another {side} of sample {sample.id!r} when it is read again")
        for side, truth in sample.truth.items():
            self.check_truth(sample, side, truth, raws[side])
            self.check_without(sample, side, raws[side])
        for side in sample.inputs:
            for guide in sample.inputs:
                if guide != side:
                    self.check_unrelated(number, sample, side, guide)

    def decode(self, sample: Sample, side: str) -> RawInput:
        return self.loaded(side, sample.inputs[side], f"the {side} of sample {sample.id!r}")

    def loaded(self, side: str, given: object, what: str) -> RawInput:
        try:
            return load(side.removesuffix(SECOND), given)
        except MmattribError as error:
            self.fail(f"gives {what} that cannot be decoded: {error}")

    def check_truth(self, sample: Sample, side: str, truth: Truth, raw: RawInput) -> None:
        if not isinstance(truth, Truth):
            self.fail(f"gives a truth of type {type(truth).__name__}; accepted: mmattrib.Truth")
        blank = _blank(raw)
        if blank is None:
            return
        what = f"the {side} of sample {sample.id!r}"
        try:
            laid = truth.on(blank)
        except MmattribError as error:
            self.fail(f"gives a truth that does not fit {what}: {error}")
        for place, mask in enumerate(laid.parts):
            if not mask.any():
                self.fail(f"gives a truth whose part {place} covers nothing of {what}")

    def check_without(self, sample: Sample, side: str, raw: RawInput) -> None:
        for part in range(len(sample.truth[side].parts)):
            found = [self.dataset.without(sample, side, part, raw) for _ in range(2)]
            hashes = {None if each is None else content_hash(each) for each in found}
            if any(each is not None and type(each) is not type(raw) for each in found):
                self.fail(f"gives another kind of input for {side} without its part {part}")
            if len(hashes) > 1:
                self.fail(f"gives another {side} without part {part} when asked again")

    def check_unrelated(self, number: int, sample: Sample, side: str, guide: str) -> None:
        hashes = set()
        for _ in range(2):
            given = self.dataset.unrelated(number, sample, side, guide)
            what = f"an unrelated {guide} for the {side} of sample {sample.id!r}"
            hashes.add(None if given is None else content_hash(self.loaded(guide, given, what)))
        if len(hashes) > 1:
            self.fail(f"gives another unrelated {guide} when asked again")


def _blank(raw: RawInput) -> Attribution | None:
    """A map of zeros on the axes of an input; None for a kind whose axes an encoder chooses."""
    if isinstance(raw, RawText):
        spans = [(at, at + 1) for at, letter in enumerate(raw.text) if not letter.isspace()]
        words, _ = words_of_tokens(raw.text, spans)
        return from_map("text", np.zeros(len(words)), "none", words=words)
    if isinstance(raw, RawImage):
        axes = tuple(
            Axis(name, "px", (np.arange(count) + 0.5).astype(np.float32))
            for name, count in zip("yx", raw.pixels.shape[:2], strict=True)
        )
    elif isinstance(raw, RawAudio):
        spec = MelSpec()
        frames = max(1, spec.frames(round(raw.seconds * spec.sample_rate)))
        axes = (
            Axis("frequency", "Hz", np.asarray(spec.hz(), np.float32)),
            Axis("time", "s", np.asarray(spec.seconds(frames), np.float32)),
        )
    else:
        return None
    shape = [len(axis.values) for axis in axes]
    return from_map(raw.modality, np.zeros(shape), "none", axes)
