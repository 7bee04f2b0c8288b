"""Measuring one task: maps of a chunk of samples, and every metric on each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from mmattrib.datasets.base import Dataset
from mmattrib.errors import InputError, OptionError
from mmattrib.evaluation.candidates import Candidate, Variant
from mmattrib.evaluation.models import ModelSource
from mmattrib.explain import Explained, Layers, explain
from mmattrib.many import Failure, explain_some
from mmattrib.methods.pace import Pace
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


_tell: ContextVar[Callable[[], None]] = ContextVar("tell", default=lambda: None)


@contextmanager
def telling(tell: Callable[[], None]) -> Iterator[None]:
    """Within, ``tell`` is called for every sample that is done."""
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


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
        pace: how pairs go through the models.
        keep: passes through the models' towers, for all candidates, seeds and metrics; each process
            has its own.
    """

    backbones: Mapping[str, ModelSource]
    datasets: Mapping[str, Dataset]
    fingerprints: Mapping[str, str]
    candidates: Mapping[str, Candidate]
    metrics: Mapping[str, Metric]
    pace: Pace = field(default_factory=Pace)
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
    method, rows = variant.make(task.seed), list[SampleRow]()
    numbered = list(enumerate(task.samples, task.start))
    with all_frozen(backbone):
        layer = variant.layers_for(task.pair)
        found = each_explained(
            backbone, numbered, task.pair, method, layer, context.pace, context.keep
        )
        for place, (sample, result) in enumerate(zip(task.samples, found, strict=True)):
            if isinstance(result, Failure):
                rows.append(SampleRow(sample.id, {}, str(result.error)))
                _tell.get()()
                continue
            wanted = [name for name, count in task.metrics.items() if place < count]
            pair = sample.pair(*task.pair)
            seen = _Seen(context, task, variant, backbone, method, pair, result)
            rows.append(_scored(context, task, seen, wanted))
            _tell.get()()
    return rows


@contextmanager
def all_frozen(backbone: Backbone) -> Iterator[None]:
    """Every encoder of a backbone in evaluation mode, for as long as many pairs are explained."""
    with ExitStack() as stack:
        for encoder in {id(e): e for e in backbone.values()}.values():
            stack.enter_context(encoder.frozen())
        yield


def each_explained(
    backbone: Backbone,
    numbered: Sequence[tuple[int, Sample]],
    pair: tuple[str, str],
    method: Method,
    layer: Layers,
    pace: Pace | None = None,
    keep: PassKeep | None = None,
) -> Iterator[Explained | Failure]:
    """One pair of sides of every sample, in their order; a failure stands in its sample's place.

    Args:
        backbone: explains.
        numbered: each sample with its number in the data.
        pair: of sides.
        method: explains.
        layer: as for :func:`mmattrib.attribute`.
        pace: how the pairs go through the model; as the device has it if None.
        keep: of passes through these encoders' towers; of these pairs alone if None.

    Raises:
        OptionError: an option or a layer that does not fit the backbone: it fits no sample.
    """
    chosen: list[tuple[int, Sample] | Failure] = []
    for number, sample in numbered:
        try:
            chosen.append((number, sample.pair(*pair)))
        except InputError as error:
            chosen.append(Failure(number, sample.id, error))
    wanted = [each for each in chosen if not isinstance(each, Failure)]
    found = explain_some(backbone, wanted, method, layer, pace, keep)
    for each in chosen:
        result = each if isinstance(each, Failure) else next(found)
        if isinstance(result, Failure) and isinstance(result.error, OptionError):
            raise result.error
        yield result


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
        context = self._seen.context
        pair = prepare(self.backbone, {**raws, self._guide: guide})
        encoder = side_encoder(self.backbone, self._guide)
        layers: Any = self._seen.found.explanation.provenance["layers"]
        with encoder.frozen():
            own = pair.paced(self.backbone, context.pace).given[self._guide]
            return Passes(encoder, own, layers[self._guide], context.keep).embeddings()[0]

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
        again = explain(
            backbone or self.backbone, [pair], method, layer, sides=[self._side],
            keep=keep, pace=seen.context.pace,
        )  # fmt: skip
        return again[0].explanation[self._side]

    @cached_property
    def _dataset(self) -> Dataset:
        return self._seen.context.datasets[self._seen.task.dataset]

    def unrelated(self) -> Any | None:
        number = self._seen.found.explanation.index
        return self._dataset.unrelated(number or 0, self._seen.pair, self._side, self._guide)
