"""The five numbers by which maps of sounds are judged, restated for a cosine.

Paissan et al. 2024 (L-MAC, "Listenable maps for audio classifiers") judge a mask M of a recording X
by a classifier's probability f of the class that it predicts of X:

- AI, average increase: 1 where f(X M) > f(X);
- AD, average drop: max(0, f(X) - f(X M)) / f(X);
- AG, average gain: max(0, f(X M) - f(X)) / (1 - f(X));
- FF, faithfulness: f(X) - f(X (1 - M));
- Fid-In, input fidelity: 1 where the class predicted of X M is that of X.

A pair of inputs has a cosine s and no classes. Here f = (1 + s) / 2, which lies where a probability
does and leaves every order as it is, so that no denominator is small where two inputs merely do not
match; and the classes of Fid-In are two, the pair's own guide and one that shares nothing with the
input. M is the map scaled from its least score to its largest, and M and 1 - M reduce the input as
:func:`mmattrib.metrics.reduction.reduced_input` does: for a recording its short-time spectrum is
multiplied, as in L-MAC; pictures and captions are reduced in their own ways, and the same formulas
apply.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmattrib.lazy import np
from mmattrib.metrics.base import MODEL, Case, CostlyMetric, Metric
from mmattrib.metrics.faithfulness import confidence_increase
from mmattrib.metrics.reduction import kept_cosine, reduced_input, removed_cosine
from mmattrib.plugins.hookspecs import Register, hookimpl


def confidence(cosine: float) -> float:
    """(1 + s) / 2: a cosine in the place of a probability, in [0, 1]."""
    return (1.0 + cosine) / 2.0


def average_drop(before: float, after: float) -> float:
    """max(0, f0 - f1) / f0 of two confidences; NaN where there is nothing to lose."""
    return float(np.maximum(0.0, before - after) / before) if before > 0 else float("nan")


def average_gain(before: float, after: float) -> float:
    """max(0, f1 - f0) / (1 - f0) of two confidences; NaN where there is nothing to gain."""
    return float(np.maximum(0.0, after - before) / (1.0 - before)) if before < 1 else float("nan")


def same_winner(before: Sequence[float], after: Sequence[float]) -> float:
    """1 where the highest of some scores is the same before and after, else 0; NaN if one is."""
    if not np.isfinite([*before, *after]).all():
        return float("nan")
    return float(int(np.argmax(before)) == int(np.argmax(after)))


class AverageIncrease(Metric):
    """AI: 1 where the masked input matches better, else 0.

    On recordings that is :class:`~mmattrib.metrics.faithfulness.ConfidenceIncrease` under its name
    in the literature of sound.
    """

    name = "ai"
    summary = (
        "average increase (L-MAC's AI): whether what the map keeps matches better than the whole"
    )
    needs = frozenset({MODEL})

    def score(self, case: Case) -> float:
        return confidence_increase(case.clean, kept_cosine(case))  # ŝ orders as s does


class AverageDrop(Metric):
    """AD: the share of the confidence that is lost when the map's part alone is kept."""

    name = "ad"
    summary = "average drop (L-MAC's AD): share of the confidence lost when the map's part is kept"
    needs = frozenset({MODEL})
    higher_is_better = False

    def score(self, case: Case) -> float:
        return average_drop(confidence(case.clean), confidence(kept_cosine(case)))


class AverageGain(Metric):
    """AG: the share of what is missing to full confidence that is gained."""

    name = "ag"
    summary = (
        "average gain (L-MAC's AG): share of the missing confidence gained by the map's part alone"
    )
    needs = frozenset({MODEL})

    def score(self, case: Case) -> float:
        return average_gain(confidence(case.clean), confidence(kept_cosine(case)))


class Faithfulness(Metric):
    """FF: the fall of the confidence when the map's part is taken away; half the cosine's."""

    name = "ff"
    summary = "faithfulness (L-MAC's FF): fall of the confidence when the map's part is taken away"
    needs = frozenset({MODEL})

    def score(self, case: Case) -> float:
        return confidence(case.clean) - confidence(removed_cosine(case))


class InputFidelity(CostlyMetric):
    """Fid-In: 1 where the masked input prefers the same of two guides as the whole input.

    The guides are the pair's own and one that shares nothing with the input; NaN where the data
    set knows no such guide.
    """

    name = "fid_in"
    summary = (
        "input fidelity (L-MAC's Fid-In): whether the map's part prefers the same of two guides"
    )
    needs = frozenset({MODEL})

    def measure(self, case: Case) -> float:
        if case.unrelated is None:
            return float("nan")
        reduced = reduced_input(case.raw, case.attribution)
        if reduced is None:
            return float("nan")
        whole, part = case.embeddings([case.raw, reduced], batch_size=1)
        other = case.model.guide_embedding(case.unrelated).float().cpu()
        return same_winner(
            [case.clean, float((whole * other).sum())],
            [kept_cosine(case), float((part * other).sum())],
        )


@hookimpl
def register_metrics(register: Register) -> None:
    """Register L-MAC's five."""
    for metric in (AverageIncrease, AverageDrop, AverageGain, Faithfulness, InputFidelity):
        register(metric.name, metric, summary=metric.summary)
