"""check_metric finds what a metric does wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.errors import InputError, MetricError
from mmattrib.metrics import MODEL, REEXPLAIN, Case, Metric
from mmattrib.testing import cases_of, check_metric

NOTHING: frozenset[str] = frozenset()


class Plain(Metric):
    """Without fault, to be broken in one place at a time."""

    name, summary = "plain", "share of the truth that scores above the mean"

    def score(self, case: Case) -> float:
        assert case.truth is not None
        return float((case.scores > case.scores.mean())[case.truth.mask].mean())


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    method = mm.load_method("ca-m2ib", points=3, guide_points=2)
    return cases_of(small_tiny(), mm.load_dataset("scenes", n=1), method)


def test_the_cases_are_every_direction_of_every_sample(cases: list[Case]) -> None:
    sides = {(case.side, case.guide) for case in cases}
    assert len(sides) == len(cases) == 6
    assert all(case.model.backbone for case in cases)


def test_a_metric_without_fault_passes(cases: list[Case]) -> None:
    check_metric(Plain(), cases)
    check_metric(Plain())


def test_no_case_is_refused() -> None:
    with pytest.raises(InputError, match="no case"):
        check_metric(Plain(), [])


class TwoLines(Plain):
    summary = "one line\nand another"


class NoFrozenNeeds(Plain):
    needs: Any = {"truth"}  # noqa: RUF012


class UnknownNeed(Plain):
    needs = frozenset({"magic"})


class NoDirection(Plain):
    higher_is_better: Any = "up"


class DescribesATuple(Plain):
    def describe(self) -> dict[str, Any]:
        return {"sizes": (1, 2)}


class DescribesAnArray(Plain):
    def describe(self) -> dict[str, Any]:
        return {"sizes": np.zeros(2)}


class HoldsAFunction(Plain):
    def __init__(self) -> None:
        self.function = lambda: None


class NotANumber(Plain):
    def score(self, case: Case) -> Any:
        return np.array([0.5, 0.5])


class Infinite(Plain):
    def score(self, case: Case) -> float:
        return float("inf")


class AlwaysNaN(Plain):
    def score(self, case: Case) -> float:
        return float("nan")


class AlreadyInPercent(Plain):
    def score(self, case: Case) -> float:
        return 100 * super().score(case)


class Counts(Plain):
    def __init__(self) -> None:
        self.calls = 0

    def score(self, case: Case) -> float:
        self.calls += 1
        return self.calls / 1e6


class CountsOnTheCase(Plain):
    """The same again on one case, which keeps it, and not on a fresh one."""

    def __init__(self) -> None:
        self.calls = 0

    def score(self, case: Case) -> float:
        def count() -> float:
            self.calls += 1
            return self.calls / 1e6

        return case.keep("count", count)


class ScoresWithoutTruth(Plain):
    def __call__(self, case: Case) -> float:
        return 0.5

    def score(self, case: Case) -> float:
        return 0.5


class ReadsTheTruthUnsaid(Plain):
    needs = NOTHING

    def score(self, case: Case) -> float:
        return 0.0 if case.truth is None else 1.0


class AsksTheModelUnsaid(Plain):
    needs = NOTHING

    def score(self, case: Case) -> float:
        return float(case.cosines([case.raw])[0])


class ReexplainsUnsaid(Plain):
    needs = frozenset({MODEL})

    def score(self, case: Case) -> float:
        return float(case.reexplain(seed=1).scores.mean() > 0)


class ChangesTheMap(Plain):
    needs = NOTHING

    def score(self, case: Case) -> float:
        scores = case.attribution.token_scores.base
        assert scores is not None
        scores *= np.float32(1.5)
        return 0.5


class ChangesTheInput(Plain):
    needs = NOTHING

    def score(self, case: Case) -> float:
        if hasattr(case.raw, "pixels"):
            case.raw.pixels.setflags(write=True)
            case.raw.pixels[0] += 1
        return 0.5


class ChangesTheModel(Plain):
    needs = frozenset({MODEL})

    def score(self, case: Case) -> float:
        with torch.no_grad():
            next(case.encoder.module.parameters()).add_(0.0)
        return 0.5


class Draws(Plain):
    needs = NOTHING

    def score(self, case: Case) -> float:
        torch.rand(1)
        return 0.5


class Raises(Plain):
    def score(self, case: Case) -> float:
        raise InputError("no")


FAULTS: list[tuple[type[Metric], str]] = [
    (TwoLines, "has summary 'one line"),
    (NoFrozenNeeds, "needs .*accepted: a frozenset"),
    (UnknownNeed, "needs frozenset.*'magic'"),
    (NoDirection, "has higher_is_better 'up'; accepted: True, False, None"),
    (DescribesATuple, "JSON changes"),
    (DescribesAnArray, "JSON cannot hold"),
    (HoldsAFunction, "cannot be pickled"),
    (NotANumber, "gives ndarray on sample"),
    (Infinite, "gives inf on sample"),
    (AlwaysNaN, "NaN on each of the 6 cases"),
    (AlreadyInPercent, "shown in percent; give a fraction"),
    (Counts, "when asked again"),
    (CountsOnTheCase, "on a fresh case"),
    (ScoresWithoutTruth, "gives 0.5 without the truth that it needs"),
    (ReadsTheTruthUnsaid, "without a truth, which it does not say it needs"),
    (AsksTheModelUnsaid, "asks the case for the model"),
    (ReexplainsUnsaid, "asks the case for a map made anew"),
    (ChangesTheMap, "changes the map of the"),
    (ChangesTheInput, "changes the input image"),
    (ChangesTheModel, "must leave alone: the values of"),
    (Draws, "must leave alone: the random state of torch"),
    (Raises, "raises InputError on sample .*: no"),
]


@pytest.mark.parametrize(("metric", "message"), FAULTS, ids=[m.__name__ for m, _ in FAULTS])
def test_a_fault_is_named(metric: type[Metric], message: str) -> None:
    sample = next(iter(mm.load_dataset("scenes", n=1)))
    fresh = cases_of(small_tiny(), [sample], "random")  # some faults spoil their case
    with pytest.raises(MetricError, match=f"metric 'plain' .*{message}"):
        check_metric(metric(), fresh)


def test_a_metric_that_says_what_it_asks_for_passes(cases: list[Case]) -> None:
    class Asks(AsksTheModelUnsaid):
        needs = frozenset({MODEL})

    class Again(ReexplainsUnsaid):
        needs = frozenset({REEXPLAIN})

    for metric in (Asks, Again):
        metric.__reduce__ = lambda self: (str, ())  # type: ignore[method-assign, assignment, return-value]
        check_metric(metric(), cases[:1])


def test_what_is_no_metric_is_refused(cases: list[Case]) -> None:
    with pytest.raises(MetricError, match="is str; accepted: a mmattrib"):
        check_metric("auc", cases)  # type: ignore[arg-type]
