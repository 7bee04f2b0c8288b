"""Texts that name two things in a photograph: which pairs are taken, and what is measured of each.

A pair is a photograph and "a photo of a {one} and a {other}", for every two categories of 2 to 60 %
of it that one of its captions names, in the caption's order, of which one is among the five nearest
of the index and both are among the twenty nearest. The truth is both of them; the metrics of one
alone take the other for one of the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Final, cast

from examples.study.nearest import BEST, ranked
from examples.study.protocol import RANKED
from mmattrib.datasets import Dataset
from mmattrib.datasets.coco import CocoDataset, naming
from mmattrib.errors import InputError
from mmattrib.metrics import (
    Case,
    Metric,
    auc,
    iou,
    object_top1,
    pointing_game,
    rectified_energy,
)
from mmattrib.models import Backbone
from mmattrib.samples import Sample, Truth, TruthMasks
from mmattrib.types import BoolArray, FloatArray, JSONValue

TEXT: Final = "a photo of a {} and a {}"

OTHER: Final = 20
"""The less near of two things is taken among so many nearest ones."""

ORDER: Final = ("first", "second")
"""Which of the two, as the text names them."""

_SCORES: Final[Mapping[str, Callable[[FloatArray, BoolArray], float]]] = {
    "iou": iou, "auc": auc, "energy": rectified_energy, "pointing": pointing_game,
}  # fmt: skip


class TwoThings(Dataset):
    """Photographs with a text that names two things in them."""

    name = "two things"

    def __init__(self, named: CocoDataset, said: CocoDataset, backbone: Backbone) -> None:
        """Choose among the photographs of one folder.

        Args:
            named: its categories.
            said: its captions.
            backbone: what sees them.

        Raises:
            InputError: no caption names two things that the model sees.
        """
        self.named = named
        captions = {path: texts for path, texts, _ in said.pictures()}
        self.found = [
            pair
            for path, samples, ranks in ranked(named, backbone)
            for pair in _pairs(samples, captions[path], ranks)
        ]
        if not self.found:
            raise InputError(
                f"no caption of {named.folder} names two things that {backbone.name} sees"
            )

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.found)

    def size(self) -> int:
        return len(self.found)

    def describe(self) -> dict[str, JSONValue]:
        texts = "\n".join(f"{sample.id}\t{sample.inputs['text']}" for sample in self.found)
        return {**self.named.describe(), "chosen": hashlib.sha256(texts.encode()).hexdigest()}


def _pairs(
    samples: Sequence[Sample], captions: Sequence[str], ranks: Mapping[str, int]
) -> Iterator[Sample]:
    """Of one photograph, whose samples name one thing each."""
    for one, other in combinations(samples, 2):
        names = [str(sample.tags["category"]) for sample in (one, other)]
        places = sorted(ranks[name] for name in names)
        order = next(filter(None, (_order(names, text) for text in captions)), None)
        if order is None or places[0] >= BEST or places[1] >= OTHER:
            continue
        parts = tuple(replace(part, shared=part.name in names) for part in one.truth["image"].parts)
        yield Sample(
            f"{one.id}-and-{other.id.partition('-')[2]}",
            {"image": one.inputs["image"], "text": TEXT.format(*order)},
            {"image": Truth(parts)},
            {"categories": list(order), "rank": places[1]},
        )


def _order(names: Sequence[str], caption: str) -> tuple[str, ...]:
    """The names as a caption mentions them; empty where it does not mention each of them."""
    at = {name: min((start for start, _ in naming(name, caption)), default=-1) for name in names}
    return () if min(at.values()) < 0 else tuple(sorted(names, key=at.__getitem__))


class OfOne(Metric):
    """A metric with one of the two things as the truth."""

    summary = "with one of two things alone as the truth"

    def __init__(self, score: str, place: int) -> None:
        """Take a ranked metric, and which of the two."""
        self.name = f"{score}_{ORDER[place]}"  # type: ignore[misc]
        self.measured, self.place = score, place

    def score(self, case: Case) -> float:
        known = cast(TruthMasks, case.truth)
        names = [part.name for part in case.sample.truth[case.side].parts]
        wanted = names.index(cast(Any, case.sample.tags["categories"])[self.place])
        if self.measured == "object_top1":
            alone = [number == wanted for number in range(len(names))]
            return object_top1(case.scores, known.parts, alone)
        return _SCORES[self.measured](case.scores, known.parts[wanted])


class Rank(Metric):
    """How many categories are nearer to the photograph than the less near of the two."""

    name = "rank"
    summary = "how many categories are nearer than the less near of two"
    higher_is_better = None
    percent = False

    def score(self, case: Case) -> float:
        return float(cast(int, case.sample.tags["rank"]))


METRICS: Final[tuple[Metric, ...]] = (
    *(OfOne(score, place) for place in range(len(ORDER)) for score in RANKED),
    Rank(),
)
