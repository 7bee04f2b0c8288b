"""Faithfulness: what is left of a match when the input is reduced by its map.

Reduced inputs are such as no model was trained on, and a map that keeps everything drops nothing:
these numbers are reported beside others, and no method should be chosen by them alone.

With s0 the cosine of the pair and s1 the cosine after keeping what the map calls important, the
drop is max(0, s0 - s1) and the increase 1 where s1 > s0 (CA-M2IB, eqs. 13 and 14; Chattopadhay et
al. 2018, Grad-CAM++, without their division by s0, which a cosine near zero would blow up). Each
way of reducing has names of its own: :mod:`mmattrib.metrics.reduction`.
"""

from __future__ import annotations

from typing import ClassVar

from mmattrib.lazy import np
from mmattrib.metrics.base import MODEL, Case, Metric
from mmattrib.metrics.reduction import Convention, kept_cosine, reduced_input
from mmattrib.plugins.hookspecs import Register, hookimpl

__all__ = [
    "CapacityBits",
    "ConfidenceDrop",
    "ConfidenceIncrease",
    "Cosine",
    "confidence_drop",
    "confidence_increase",
    "kept_cosine",
    "reduced_input",
]


def confidence_drop(before: float, after: float) -> float:
    """max(0, s0 - s1) (CA-M2IB, eq. 13), in units of the cosine; NaN where one of them is."""
    return float(np.maximum(0.0, before - after))


def confidence_increase(before: float, after: float) -> float:
    """1 where s1 > s0, else 0 (CA-M2IB, eq. 14); NaN where one of them is."""
    return float("nan") if np.isnan(before - after) else float(after > before)


class ConfidenceDrop(Metric):
    """max(0, s0 - s1), in units of the cosine: :func:`confidence_drop`.

    Attributes:
        convention: how the input is reduced; see :mod:`mmattrib.metrics.reduction`.
    """

    name = "confidence_drop"
    summary = "fall of the cosine when the input is reduced to what its map scores high"
    needs = frozenset({MODEL})
    higher_is_better = False
    convention: ClassVar[Convention] = "paper"

    def score(self, case: Case) -> float:
        return confidence_drop(case.clean, kept_cosine(case, self.convention))


class ConfidenceIncrease(Metric):
    """1 where s1 > s0, else 0: :func:`confidence_increase`.

    Attributes:
        convention: how the input is reduced; see :mod:`mmattrib.metrics.reduction`.
    """

    name = "confidence_increase"
    summary = "whether the cosine rises when the input is reduced to what its map scores high"
    needs = frozenset({MODEL})
    convention: ClassVar[Convention] = "paper"

    def score(self, case: Case) -> float:
        return confidence_increase(case.clean, kept_cosine(case, self.convention))


class ConfidenceDropGradCAM(ConfidenceDrop):
    """The drop as pytorch-grad-cam computes it."""

    name = "confidence_drop_gradcam"
    summary = "confidence drop as in pytorch-grad-cam: the preprocessed tensor times the soft map"
    convention = "gradcam"


class ConfidenceIncreaseGradCAM(ConfidenceIncrease):
    """The increase as pytorch-grad-cam computes it."""

    name = "confidence_increase_gradcam"
    summary = (
        "confidence increase as in pytorch-grad-cam: the preprocessed tensor times the soft map"
    )
    convention = "gradcam"


class ConfidenceDropM2IB(ConfidenceDrop):
    """The drop as M2IB's code computes it, for comparison with its table alone."""

    name = "confidence_drop_m2ib"
    summary = "confidence drop as in M2IB's code: token ids x mask; row 0 of the map on every row"
    convention = "m2ib"


class ConfidenceIncreaseM2IB(ConfidenceIncrease):
    """The increase as M2IB's code computes it, for comparison with its table alone."""

    name = "confidence_increase_m2ib"
    summary = (
        "confidence increase as in M2IB's code: token ids x mask; row 0 of the map on every row"
    )
    convention = "m2ib"


class ConfidenceDropNIB(ConfidenceDrop):
    """The drop as NIB's code computes it, for comparison with its table."""

    name = "confidence_drop_nib"
    summary = "confidence drop as in NIB's code: token embeddings, or the tensor, x the soft map"
    convention = "nib"


class ConfidenceIncreaseNIB(ConfidenceIncrease):
    """The increase as NIB's code computes it, for comparison with its table."""

    name = "confidence_increase_nib"
    summary = (
        "confidence increase as in NIB's code: token embeddings, or the tensor, x the soft map"
    )
    convention = "nib"


class CapacityBits(Metric):
    """Sum of the positive scores of content tokens; NaN for scores of another unit than bits."""

    name = "capacity_bits"
    summary = "sum of the map's positive scores, where they are bits: the information let through"
    needs = frozenset()
    higher_is_better = None
    percent = False

    def score(self, case: Case) -> float:
        if case.attribution.unit != "bits":
            return float("nan")
        return float(np.maximum(case.content_scores().astype(np.float64), 0.0).sum())


class Cosine(Metric):
    """The cosine of the pair, without any map."""

    name = "cosine"
    summary = "cosine of the pair's two embeddings; it does not depend on the map"
    needs = frozenset()
    higher_is_better = None
    percent = False

    def score(self, case: Case) -> float:
        return case.clean


METRICS = (
    ConfidenceDrop,
    ConfidenceIncrease,
    ConfidenceDropGradCAM,
    ConfidenceIncreaseGradCAM,
    ConfidenceDropM2IB,
    ConfidenceIncreaseM2IB,
    ConfidenceDropNIB,
    ConfidenceIncreaseNIB,
    CapacityBits,
    Cosine,
)


@hookimpl
def register_metrics(register: Register) -> None:
    """Register confidence drop and increase by every convention, and what stands beside them."""
    for metric in METRICS:
        register(metric.name, metric, summary=metric.summary)
