"""How well a map agrees with a known truth: functions on arrays, and the metrics that use them.

``scores`` and ``mask`` have one shape: ``(H, W)``, ``(mel, frames)`` or ``(words,)``. Results are
fractions in [0, 1]; higher is better. Ties are resolved so that a constant map scores as chance
does, never higher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from mmattrib.errors import OptionError, brief
from mmattrib.lazy import np
from mmattrib.metrics.base import Case, Metric
from mmattrib.perturb import unit_weights
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import TruthMasks
from mmattrib.types import BoolArray, FloatArray


def pointing_game(scores: FloatArray, mask: BoolArray) -> float:
    """Whether the highest score lies on the truth (Zhang et al. 2018, pointing game).

    Where several places share the highest score, the fraction of them on the truth.
    """
    top = scores == scores.max()
    return float(mask[top].mean())


def iou(scores: FloatArray, mask: BoolArray, fraction: float = 0.25) -> float:
    """Intersection over union of the map's top quartile and the truth (CA-M2IB, eq. 12).

    The paper thresholds the scores at 75 % (:func:`threshold_iou`); here that is the 75th
    percentile of the map's own scores, so that every map marks the same area (at least one place)
    and scale does not matter. Places that tie
    at the threshold enter in part, by the share of them that the quota leaves room for.
    """
    flat, truth = scores.ravel(), mask.ravel()
    quota = max(1, round(fraction * flat.size))
    threshold = np.partition(flat, flat.size - quota)[flat.size - quota]
    above, tied = flat > threshold, flat == threshold
    share = (quota - above.sum()) / tied.sum()
    intersection = truth[above].sum() + share * truth[tied].sum()
    union = quota + truth.sum() - intersection
    return float(intersection / union)


def threshold_iou(scores: FloatArray, mask: BoolArray, threshold: float = 0.75) -> float:
    """Intersection over union of the scores above a threshold and the truth (CA-M2IB, eq. 12).

    "Areas above a 75 % score threshold": of scores that are scaled from the map's least to its
    largest, as the paper's maps are. A peaked map marks little area and a broad one much, where
    :func:`iou` has every map mark as much. A constant map marks nothing, and gets 0.
    """
    scaled = unit_weights(scores)
    if scaled is None:
        return 0.0
    marked = scaled > threshold
    return float((marked & mask).sum() / (marked | mask).sum())


def auc(scores: FloatArray, mask: BoolArray) -> float:
    """Area under the ROC curve of the scores as a detector of the truth; 0.5 is chance.

    Ties count one half. NaN where the truth is everything or nothing.
    """
    flat, truth = scores.ravel(), mask.ravel()
    positive = int(truth.sum())
    negative = truth.size - positive
    if positive == 0 or negative == 0:
        return float("nan")
    _, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2  # mean rank of each distinct score, from 1
    total = rank[inverse][truth].sum()
    return float((total - positive * (positive + 1) / 2) / (positive * negative))


def rectified_energy(scores: FloatArray, mask: BoolArray) -> float:
    """Share of the positive part of the map that lies on the truth (energy-based pointing game).

    Negative scores count as zero (Wang et al. 2020, Score-CAM, with rectification). A map without
    any positive score gets the area of the truth, as a constant one does.
    """
    positive = np.maximum(scores.astype(np.float64), 0.0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else float(mask.mean())


def object_top1(scores: FloatArray, parts: Sequence[BoolArray], shared: Sequence[bool]) -> float:
    """Whether a shared part has the highest mean score of all parts of the input.

    Ties count in part. NaN where all parts are shared, or none is: there is nothing to tell
    apart. A part of no place, such as one that the model did not see, is never the highest.
    """
    if all(shared) or not any(shared):
        return float("nan")
    means = np.array(
        [scores[mask].mean(dtype=np.float64) if mask.any() else -np.inf for mask in parts]
    )
    top = means == means.max()
    return float(np.asarray(shared)[top].mean())


def _known(case: Case) -> TruthMasks:
    return cast(TruthMasks, case.truth)  # Metric calls score() with one alone


class ObjectTop1(Metric):
    """Object top-1: :func:`object_top1`."""

    name = "object_top1"
    summary = "whether the shared object has the highest mean score of all objects"

    def score(self, case: Case) -> float:
        known = _known(case)
        return object_top1(case.scores, known.parts, known.shared)


class Pointing(Metric):
    """The pointing game: :func:`pointing_game`."""

    name = "pointing"
    summary = "whether the highest score lies on the truth (pointing game)"

    def score(self, case: Case) -> float:
        return pointing_game(case.scores, _known(case).mask)


class IoU(Metric):
    """Intersection over union: :func:`iou`."""

    name = "iou"
    summary = "intersection over union of the map's top quarter and the truth (CA-M2IB, eq. 12)"

    def score(self, case: Case) -> float:
        return iou(case.scores, _known(case).mask)


class Localization(Metric):
    """Intersection over union by the paper's threshold: :func:`threshold_iou`."""

    name = "localization"
    summary = "IoU of the truth and the scores above 75% of the map's range (CA-M2IB, eq. 12)"
    by_default = False

    def __init__(self, threshold: float = 0.75) -> None:
        """Options.

        Args:
            threshold: of the scores, scaled from the map's least to its largest; in [0, 1).

        Raises:
            OptionError: a threshold out of range.
        """
        real = isinstance(threshold, float | int) and not isinstance(threshold, bool)
        if not real or not 0 <= threshold < 1:
            raise OptionError(
                f"threshold must be a number from 0 to below 1, got {brief(threshold)}"
            )
        self.threshold = float(threshold)

    def score(self, case: Case) -> float:
        return threshold_iou(case.scores, _known(case).mask, self.threshold)

    def describe(self) -> dict[str, Any]:
        return {"threshold": self.threshold}


class Auc(Metric):
    """Area under the ROC curve: :func:`auc`."""

    name = "auc"
    summary = "area under the ROC curve of the scores as a detector of the truth; 0.5 is chance"

    def score(self, case: Case) -> float:
        return auc(case.scores, _known(case).mask)


class Energy(Metric):
    """Energy-based pointing game: :func:`rectified_energy`."""

    name = "energy"
    summary = "share of the positive scores that lies on the truth (energy-based pointing game)"

    def score(self, case: Case) -> float:
        return rectified_energy(case.scores, _known(case).mask)


@hookimpl
def register_metrics(register: Register) -> None:
    """Register the localisation metrics."""
    for metric in (ObjectTop1, IoU, Auc, Energy, Pointing, Localization):
        register(metric.name, metric, summary=metric.summary)
