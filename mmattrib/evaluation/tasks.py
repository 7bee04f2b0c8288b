"""The pieces of work that an evaluation is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from mmattrib import __version__
from mmattrib.evaluation.candidates import digest
from mmattrib.samples import Sample

if TYPE_CHECKING:
    from mmattrib.datasets.base import Dataset
    from mmattrib.evaluation.candidates import Candidate
    from mmattrib.evaluation.measure import Context
    from mmattrib.types import JSONValue

CHUNK = 16
"""Samples in a task: a batch for the methods, and what a crash can lose."""


@dataclass(frozen=True)
class Task:
    """Some samples for one candidate on one backbone, in both directions of one pair of sides.

    Attributes:
        candidate: label of what is measured.
        backbone: label of the model.
        dataset: label of the data set.
        pair: the two sides.
        seed: of the noise; None where the candidate draws none.
        start: number of the first sample in its data set.
        samples: the samples, each with more sides than the pair at most.
        metrics: metric -> on how many of the samples, from the first on, it is wanted.
    """

    candidate: str
    backbone: str
    dataset: str
    pair: tuple[str, str]
    seed: int | None
    start: int
    samples: tuple[Sample, ...] = field(repr=False)
    metrics: Mapping[str, int]

    @property
    def name(self) -> str:
        """What messages call it."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return (
            f"{self.candidate}, {self.backbone}, {self.dataset}, {'-'.join(self.pair)}{seed}, "
            f"sample {self.start}"
        )


def describe(task: Task, context: Context) -> dict[str, JSONValue]:
    """What a task measures, by content and not by label; its digest is the task's id."""
    source = context.backbones[task.backbone]
    return {
        "candidate": context.candidates[task.candidate].id,
        "backbone": source.name,
        "weights": source.weights,
        "dataset": context.fingerprints[task.dataset],
        "pair": list(task.pair),
        "seed": task.seed,
        "start": task.start,
        "size": len(task.samples),
        "version": __version__,
    }


def task_id(described: Mapping[str, JSONValue]) -> str:
    """A described task as a hash."""
    return digest(described)


def make_tasks(
    context: Context,
    pairs: Sequence[tuple[str, str]],
    seeds: Sequence[int],
    wanted: Mapping[str, int | None],
) -> Iterator[Task]:
    """Every task, made as it is needed; data sets are read once, a chunk at a time.

    Candidates are innermost: whenever a run is stopped, they have been measured on the same
    samples.

    Args:
        context: what the labels stand for.
        pairs: of sides.
        seeds: for candidates that draw noise.
        wanted: metric -> on how many samples of a data set, from the first on; None for all.
    """
    for label, dataset in context.datasets.items():
        numbered = (sample for _, sample in dataset.numbered())
        start = dataset.first
        while samples := tuple(islice(numbered, CHUNK)):
            done = start - dataset.first
            metrics = {
                name: len(samples) if most is None else max(0, min(len(samples), most - done))
                for name, most in wanted.items()
            }
            for backbone in context.backbones:
                for pair in pairs:
                    for candidate in context.candidates.values():
                        for seed in candidate.seeds(seeds):
                            yield Task(
                                candidate.label, backbone, label, pair, seed, start, samples,
                                _of(candidate, metrics),
                            )  # fmt: skip
            start += len(samples)


def _of(candidate: Candidate, metrics: Mapping[str, int]) -> dict[str, int]:
    own = candidate.metrics
    return {name: count for name, count in metrics.items() if own is None or name in own}


def count_tasks(
    context: Context, datasets: Mapping[str, Dataset], pairs: int, seeds: Sequence[int]
) -> int | None:
    """How many pairs of inputs all tasks will measure, or None where a data set cannot tell."""
    sizes = [dataset.size() for dataset in datasets.values()]
    if any(size is None for size in sizes):
        return None
    runs = sum(len(candidate.seeds(seeds)) for candidate in context.candidates.values())
    return sum(size or 0 for size in sizes) * len(context.backbones) * pairs * runs
