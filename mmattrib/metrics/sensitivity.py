"""Whether a map depends on its guide, and whether it depends on the seed of the noise.

Maps are compared by Spearman's rank correlation over content tokens, and by their totals.
"""

from __future__ import annotations

from typing import Any

from mmattrib.lazy import np, npt
from mmattrib.metrics.base import REEXPLAIN, Case, Metric
from mmattrib.plugins.hookspecs import Register, hookimpl


def ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Ranks from 1; ties get the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean: npt.NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return mean[inverse]


def rank_correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Spearman's rank correlation with average ranks for ties.

    NaN where either side is constant. Its ranks say nothing, and calling that "uncorrelated" would
    flatter a map that never changes: it would pass for one that follows its guide.

    Args:
        a: ``(n,)``.
        b: ``(n,)``.
    """
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale > 0 else float("nan")


class PromptSensitivity(Metric):
    """1 minus the rank correlation with the map under a guide that has nothing to do with it.

    Around 0 for a map that is the same whatever the guide (Adebayo et al. 2018, "Sanity Checks for
    Saliency Maps", ask the same of weights); NaN where the data set has no such guide.
    """

    name = "prompt_sensitivity"
    summary = "1 minus the rank correlation with the map made for an unrelated other input"
    needs = frozenset({REEXPLAIN})

    def score(self, case: Case) -> float:
        if case.unrelated is None:
            return float("nan")
        other = case.reexplain(guide=case.unrelated)
        return 1.0 - rank_correlation(case.content_scores(), case.content_scores(other))


class Stability(Metric):
    """Rank correlation with the map under the next seed of the noise; 1 is the same ranking."""

    name = "stability"
    summary = "rank correlation of the maps made with two seeds of the method's noise"
    needs = frozenset({REEXPLAIN})

    def score(self, case: Case) -> float:
        other = case.reexplain(seed=case.seed + 1)
        return rank_correlation(case.content_scores(), case.content_scores(other))


def positive_share(other: npt.NDArray[Any], own: npt.NDArray[Any]) -> float:
    """Sum of the positive scores of one map over that of another; NaN where the latter is 0.

    >>> positive_share(np.array([1.0, -3.0]), np.array([1.5, 0.5]))
    0.5
    """
    left, whole = (np.maximum(each.astype(np.float64), 0.0).sum() for each in (other, own))
    return float(left / whole) if whole > 0 else float("nan")


class UnrelatedBits(Metric):
    """What a map still holds under a guide that shares nothing with the input, as a share.

    :func:`positive_share` of the map for :attr:`Case.unrelated` and the pair's own, in the map's
    own unit. A bottleneck that lets through what the match needs has little to let through for a
    guide that does not match; 1 is a map that holds as much whatever it is asked for. NaN where
    the data set knows no such guide, or the pair's own map has no positive score.
    """

    name = "unrelated_bits"
    summary = (
        "total of the positive scores under an unrelated guide, over that of the pair's own map"
    )
    needs = frozenset({REEXPLAIN})
    higher_is_better = False
    percent = False

    def score(self, case: Case) -> float:
        if case.unrelated is None:
            return float("nan")
        other = case.reexplain(guide=case.unrelated)
        return positive_share(case.content_scores(other), case.content_scores())


@hookimpl
def register_metrics(register: Register) -> None:
    """Register prompt sensitivity, stability and what is left for an unrelated guide."""
    for metric in (PromptSensitivity, Stability, UnrelatedBits):
        register(metric.name, metric, summary=metric.summary)
