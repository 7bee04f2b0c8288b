"""Measuring one task: maps of a chunk of samples, and every metric on each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from mmattrib.datasets.base import Dataset
from mmattrib.errors import InputError, OptionError
from mmattrib.evaluation.candidates import Candidate, Variant
from mmattrib.evaluation.models import ModelSource
from mmattrib.explain import Explained, Failure, explain, explain_some
from mmattrib.metrics.base import Case, Metric
from mmattrib.models.backbone import Backbone
from mmattrib.models.encoder import EncoderInputs
from mmattrib.models.passes import Passes, PassKeep
from mmattrib.preparing import Prepared, prepare, side_encoder
from mmattrib.samples import Sample
from mmattrib.types import Attribution

if TYPE_CHECKING:
    from mmattrib.evaluation.tasks import Task
    from mmattrib.methods import Method

SECONDS = "seconds"
"""Beside the metrics: seconds per pair, for both maps."""


@dataclass(frozen=True)
class SampleRow:
    """The numbers of one sample.

    Attributes:
        sample: its id.
        values: direction -> metric -> number. A direction is ``"image|text"``: the image
            explained, the text its guide. NaN where a metric does not apply.
        problem: why there are no numbers, or fewer; None where all went well.
    """

    sample: str
    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Context:
    """What the labels of tasks stand for. Given to each worker once.

    Attributes:
        backbones: label -> where the model comes from.
        datasets: label -> data set.
        fingerprints: label -> the data set's fingerprint.
        candidates: label -> candidate.
        metrics: name -> metric.
        keep: passes through the models' towers, for all candidates, seeds and metrics; each process
            has its own.
    """

    backbones: Mapping[str, ModelSource]
    datasets: Mapping[str, Dataset]
    fingerprints: Mapping[str, str]
    candidates: Mapping[str, Candidate]
    metrics: Mapping[str, Metric]
    keep: PassKeep = field(default_factory=PassKeep, repr=False, compare=False)

    def settled(self, device: str) -> Context:
        """The same with every model on a device; for a process that has a copy of its own."""
        moved = {label: source.settle(device) for label, source in self.backbones.items()}
        return replace(self, backbones=moved)

    def measure(self, task: Task) -> list[SampleRow]:
        """One row for each sample of a task."""
        return self.candidates[task.candidate].measure(self, task)


def measure_method(context: Context, task: Task, variant: Variant) -> list[SampleRow]:
    """Explain the samples of a task with a method, and score both sides of each pair.

    Raises:
        OptionError: an option or a layer that does not fit the backbone; the other errors of a
            pair stand in its row.
    """
    backbone = context.backbones[task.backbone].get()
    method, layer = variant.make(task.seed), variant.layers_for(task.pair)
    rows: dict[int, SampleRow] = {}
    pairs: dict[int, Sample] = {}
    for place, sample in enumerate(task.samples):
        try:
            pairs[place] = sample.pair(*task.pair)
        except InputError as error:
            rows[place] = SampleRow(sample.id, {}, str(error))
    numbered = [(task.start + place, pair) for place, pair in pairs.items()]
    with ExitStack() as stack:
        for encoder in {id(e): e for e in backbone.values()}.values():
            stack.enter_context(encoder.frozen())
        found = explain_some(backbone, numbered, method, layer, context.keep)
        for (place, pair), result in zip(pairs.items(), found, strict=True):
            if isinstance(result, Failure):
                if isinstance(result.error, OptionError):
                    raise result.error
                rows[place] = SampleRow(pair.id, {}, str(result.error))
                continue
            wanted = [name for name, count in task.metrics.items() if place < count]
            seen = _Seen(context, task, variant, backbone, method, pair, result)
            rows[place] = _scored(context, task, seen, wanted)
    return [rows[place] for place in range(len(task.samples))]


def _scored(context: Context, task: Task, seen: _Seen, wanted: list[str]) -> SampleRow:
    values: dict[str, dict[str, float]] = {}
    problems: list[str] = []
    seconds = float(seen.found.explanation.provenance["seconds"])
    for side, guide in (task.pair, task.pair[::-1]):
        case = seen.case(side, guide)
        numbers: dict[str, float] = {}
        for name in wanted:
            try:
                number = context.metrics[name](case)
                if math.isinf(number):
                    raise InputError(f"it gave {number}, which no mean can hold")
                numbers[name] = number
            except InputError as error:
                problems.append(f"{side}|{guide}, {name}: {error}")
        values[f"{side}|{guide}"] = {**numbers, SECONDS: seconds}
    return SampleRow(seen.pair.id, values, "; ".join(problems) or None)


@dataclass(frozen=True)
class _Seen:
    """An explained pair and what made it, for metrics that ask the model."""

    context: Context
    task: Task
    variant: Variant
    backbone: Backbone
    method: Method
    pair: Sample
    found: Explained

    def case(self, side: str, guide: str) -> Case:
        return Case(self.pair, self.found.explanation, side, guide, _Model(self, side, guide))


class _Model:
    """:class:`mmattrib.metrics.base.CaseModel` of one side."""

    def __init__(self, seen: _Seen, side: str, guide: str) -> None:
        self._seen, self._side, self._guide = seen, side, guide
        self.backbone = seen.backbone

    @property
    def seed(self) -> int | None:
        """Of the noise; None where the method draws none."""
        return self._seen.task.seed

    @property
    def inputs(self) -> EncoderInputs:
        return self._seen.found.inputs[self._side]

    def guide_embedding(self, guide: Any | None = None) -> torch.Tensor:
        """``(D,)``, of the pair's own guide or of another in its place."""
        if guide is None:
            return self._seen.found.embeddings[self._guide]
        raws = self._seen.found.explanation.inputs
        pair = prepare(self.backbone, {**raws, self._guide: guide})
        encoder = side_encoder(self.backbone, self._guide)
        layers: Any = self._seen.found.explanation.provenance["layers"]
        with encoder.frozen():
            keep, own = self._seen.context.keep, pair.inputs[self._guide]
            return Passes(encoder, own, layers[self._guide], keep).embeddings()[0]

    def reexplain(
        self, *, seed: int | None, guide: Any | None, backbone: Backbone | None
    ) -> Attribution:
        seen = self._seen
        method = seen.method
        if seed is not None and self.seed is None:
            seed = None  # it draws nothing: another seed gives the same map
        if seed is not None:
            method = seen.variant.make(seed)
        if guide is None and backbone is None and seed is None:
            return seen.found.explanation[self._side]
        pair = Prepared(seen.found.explanation.inputs, seen.found.inputs)
        if guide is not None or backbone is not None:
            raws = dict(seen.found.explanation.inputs)
            other = raws[self._guide] if guide is None else guide
            pair = prepare(backbone or self.backbone, {**raws, self._guide: other})
        layer = seen.variant.layers_for(seen.task.pair)
        keep = seen.context.keep if backbone is None else None
        again = explain(backbone or self.backbone, [pair], method, layer, [self._side], keep)
        return again[0].explanation[self._side]

    @cached_property
    def _dataset(self) -> Dataset:
        return self._seen.context.datasets[self._seen.task.dataset]

    def unrelated(self) -> Any | None:
        number = self._seen.found.explanation.index
        return self._dataset.unrelated(number or 0, self._seen.pair, self._side, self._guide)
