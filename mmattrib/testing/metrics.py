"""check_metric: what a metric must hold to, on cases with a known truth and a model."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from mmattrib.datasets.base import Dataset
from mmattrib.errors import InputError, MetricError, MmattribError, OptionError, TrustWarning
from mmattrib.io import content_hash
from mmattrib.methods import Method
from mmattrib.metrics.base import MODEL, NEEDS, REEXPLAIN, TRUTH, Case, CaseModel, Metric
from mmattrib.models.backbone import Backbone
from mmattrib.plugins.strangers import unheld
from mmattrib.samples import Sample
from mmattrib.testing.checks import Check
from mmattrib.testing.encoders import _State

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.models.encoder import EncoderInputs
    from mmattrib.types import Attribution

MOST = 2.0
"""Largest number that a metric shown in percent may give: a difference of two cosines."""


class _Keep(Metric):
    """Keeps the cases of an evaluation."""

    name, summary, needs = "keep", "keeps every case", frozenset()

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def score(self, case: Case) -> float:
        self.cases.append(case)
        return 0.0


def cases_of(
    backbone: Backbone, data: Dataset | Iterable[Sample], method: str | Method = "ca-m2ib"
) -> list[Case]:
    """The cases that metrics score when a method is evaluated on samples, with their model.

    Args:
        backbone: explains them.
        data: a data set, or samples.
        method: a name or a method.

    Returns:
        One case for each sample, pair of its inputs and direction.

    Raises:
        As :func:`mmattrib.evaluate`.
    """
    from mmattrib.evaluation import evaluate

    keep = _Keep()
    evaluate(backbone, data, methods=[method], metrics=[keep], progress=False)
    return keep.cases


def example_cases() -> list[Case]:
    """Twelve cases: two scenes, every direction between picture, recording and caption.

    The model is `tiny`, the method `ca-m2ib` with few rates.
    """
    from mmattrib.datasets import load_dataset
    from mmattrib.loading import load_backbone, load_method

    method = load_method("ca-m2ib", points=4, guide_points=2)
    return cases_of(load_backbone("tiny"), load_dataset("scenes", n=2, seed=11), method)


@unheld()
def check_metric(metric: Metric, cases: Sequence[Case] | None = None) -> None:
    """Check that a metric keeps its contract.

    - It has a name and a summary of one line, says what it needs and which direction is better,
      describes its options as JSON, and can be pickled, so that several processes can share it.
    - It gives a finite number or NaN, and a number on at least one of the cases. One that is shown
      in percent gives fractions (within -2 and 2).
    - It gives the same again, on the same case and on a fresh one.
    - Without a truth that it needs it gives NaN; one that does not need it gives the same without.
    - It asks for the model, or for maps made anew, only where it says that it needs them.
    - It changes neither the case, nor the model, nor a random generator.

    Args:
        metric: the metric.
        cases: to score; those of ``ca-m2ib`` on two scenes and `tiny` if None. :func:`cases_of`
            makes others.

    Raises:
        MetricError: what broke.
        InputError: no case was given.
    """
    found = example_cases() if cases is None else list(cases)
    if not found:
        raise InputError("check_metric got no case; give at least one, or None for its own")
    _MetricCheck(metric, found).run()


class _MetricCheck(Check):
    """One run of :func:`check_metric`."""

    function, kind, fault = "check_metric", "metric", MetricError

    def __init__(self, metric: Metric, cases: list[Case]) -> None:
        super().__init__(metric)
        self.metric, self.cases = metric, cases

    def run(self) -> None:
        self.check_declared()
        values = [self.check_case(case) for case in self.cases]
        if all(math.isnan(value) for value in values):
            self.fail(f"gives NaN on each of the {len(values)} cases; give one that it applies to")

    def check_declared(self) -> None:
        metric = self.metric
        if not isinstance(metric, Metric):
            self.fail(f"is {type(metric).__name__}; accepted: a mmattrib.metrics.Metric")
        self.check_lines("name", "summary")
        needs = metric.needs
        if not isinstance(needs, frozenset) or not needs <= set(NEEDS):
            self.fail(f"needs {needs!r}; accepted: a frozenset of {', '.join(map(repr, NEEDS))}")
        for label, accepted in (
            ("higher_is_better", (True, False, None)),
            ("percent", (True, False)),
            ("by_default", (True, False)),
        ):
            if not any(getattr(metric, label) is value for value in accepted):
                self.fail(
                    f"has {label} {getattr(metric, label)!r}; accepted: "
                    f"{', '.join(map(str, accepted))}"
                )
        self.check_json(metric.describe())
        try:
            pickle.loads(pickle.dumps(metric))
        except Exception as error:
            self.fail(f"cannot be pickled, which several processes need: {error}")

    def check_case(self, case: Case) -> float:
        first = _fresh(case, self.metric.needs)
        value = self.score(first)
        if self.metric.percent and abs(value) > MOST:
            self.fail(
                f"gives {value:g} and is shown in percent; give a fraction, or set percent = False"
            )
        self.same(self.score(first), value, "when asked again")
        self.same(self.score(_fresh(case, self.metric.needs)), value, "on a fresh case")
        blind = self.score(_fresh(case, self.metric.needs, truth=False))
        if TRUTH not in self.metric.needs:
            self.same(blind, value, "without a truth, which it does not say it needs")
        elif not math.isnan(blind):
            self.fail(f"gives {blind:g} without the truth that it needs; accepted: NaN")
        return value

    def same(self, got: float, value: float, when: str) -> None:
        if got != value and not (math.isnan(got) and math.isnan(value)):
            self.fail(f"gives {got:g} in place of {value:g} {when}")

    def score(self, case: Case) -> float:
        before, state = _facts(case), _states(case)
        self.check_type(case)
        try:
            value = self.metric(case)
        except MmattribError as error:
            self.fail(f"raises {type(error).__name__} on {_called(case)}: {error}")
        if changed := [name for name, fact in _facts(case).items() if fact != before[name]]:
            self.fail(f"changes the {changed[0]} of {_called(case)}")
        for module, known in state:
            if part := known.changed(module):
                self.fail(f"changed something that it must leave alone: the {part}")
        if math.isinf(value):
            self.fail(f"gives {value} on {_called(case)}; accepted: a finite number or NaN")
        return value

    def check_type(self, case: Case) -> None:
        """What ``score`` itself gives, before it is made a float."""
        if TRUTH in self.metric.needs and case.truth is None:
            return
        try:
            given = self.metric.score(case)
        except _AskedError as asked:
            self.fail(
                f"asks the case for {asked}, and does not say so: put it into needs "
                "(mmattrib.metrics has MODEL and REEXPLAIN)"
            )
        except MmattribError as error:
            self.fail(f"raises {type(error).__name__} on {_called(case)}: {error}")
        if not isinstance(given, Real | np.bool_):
            self.fail(f"gives {type(given).__name__} on {_called(case)}; accepted: a float or NaN")


def _called(case: Case) -> str:
    return f"sample {case.sample.id!r}, {case.side} given {case.guide}"


def _fresh(case: Case, needs: frozenset[str], truth: bool = True) -> Case:
    """The same case, of which nothing is kept yet, with as much of its model as ``needs`` says."""
    sample = case.sample if truth else replace(case.sample, truth={})
    try:
        model: CaseModel | None = _Watched(case.model, needs)
    except OptionError:  # made without one, for metrics that read the map alone
        model = None
    return Case(sample, case.explanation, case.side, case.guide, model)


def _facts(case: Case) -> dict[str, object]:
    """What a metric could change in a case, by name."""
    facts: dict[str, object] = {"sample": case.sample, "side": (case.side, case.guide)}
    for side, attribution in case.explanation.items():
        arrays = (attribution.token_scores, attribution.content, attribution.scores)
        facts[f"map of the {side}"] = tuple(array.tobytes() for array in arrays)
    for side, raw in case.explanation.inputs.items():
        facts[f"input {side}"] = content_hash(raw)
    masks = case.truth
    if masks is not None:
        facts["truth"] = tuple(mask.tobytes() for mask in (masks.mask, *masks.parts))
    return facts


def _states(case: Case) -> list[tuple[nn.Module, _State]]:
    """The towers behind a case, and the random generators, as they are now."""
    try:
        model = case.model
    except OptionError:
        model = None
    backbone = model.known.backbone if isinstance(model, _Watched) else None
    modules = () if backbone is None else tuple(each.module for each in backbone.values())
    return [(module, _State.of(module)) for module in modules or (nn.Identity(),)]


class _AskedError(Exception):
    """A metric asked for something that it does not say it needs."""


class _Watched:
    """The model of a case; what the metric does not say it needs cannot be asked for."""

    def __init__(self, known: CaseModel, needs: frozenset[str]) -> None:
        self.known, self._needs = known, needs

    def _allowed(self, *needs: str) -> CaseModel:
        if not self._needs & set(needs):
            raise _AskedError("the model" if MODEL in needs else "a map made anew")
        return self.known

    @property
    def backbone(self) -> Backbone:
        return self._allowed(MODEL, REEXPLAIN).backbone

    @property
    def seed(self) -> int | None:
        return self.known.seed

    @property
    def inputs(self) -> EncoderInputs:
        return self._allowed(MODEL, REEXPLAIN).inputs

    def guide_embedding(self, guide: Any | None = None) -> Tensor:
        return self._allowed(MODEL, REEXPLAIN).guide_embedding(guide)

    def reexplain(
        self, *, seed: int | None, guide: Any | None, backbone: Backbone | None
    ) -> Attribution:
        known = self._allowed(REEXPLAIN)
        with warnings.catch_warnings():  # as in an evaluation: diagnostics keep them
            warnings.simplefilter("ignore", TrustWarning)
            return known.reexplain(seed=seed, guide=guide, backbone=backbone)

    def unrelated(self) -> Any | None:
        return self.known.unrelated()
