"""Faithfulness: what is left of a match when the input is reduced by its map.

Reduced inputs are such as no model was trained on, and a map that keeps everything drops nothing:
these numbers are reported beside others, and no method should be chosen by them alone.

With s0 the cosine of the pair and s1 the cosine after keeping what the map calls important, the
drop is max(0, s0 - s1) and the increase 1 where s1 > s0 (CA-M2IB, eqs. 13 and 14; Chattopadhay et
al. 2018, Grad-CAM++, without their division by s0, which a cosine near zero would blow up).
"""

from __future__ import annotations

import numpy as np

from mmattrib.metrics.base import MODEL, Case, Metric
from mmattrib.perturb import keep, unit_weights
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.types import Attribution, RawInput, RawText


def reduced_input(raw: RawInput, attribution: Attribution) -> RawInput | None:
    """The input with what its map calls unimportant taken away; None for a constant map.

    A picture fades into its own mean colour where the map is low. A recording's short-time
    spectrum is multiplied by the map. Of a caption's words, those above the median score stay and
    the others become a placeholder. Maps are scaled from their least score to their largest.

    Args:
        raw: the explained input.
        attribution: its map.

    Raises:
        InputError: an input of a modality that cannot be reduced.
    """
    weights = unit_weights(attribution.scores)
    if weights is None:
        return None
    if isinstance(raw, RawText):
        kept = attribution.scores > np.percentile(attribution.scores, 50)
        return keep(raw, kept, words=attribution.words)
    return keep(raw, weights, axes=attribution.axes)


def kept_cosine(case: Case) -> float:
    """s1: the cosine with the guide of :func:`reduced_input`; NaN for a constant map."""

    def measure() -> float:
        reduced = reduced_input(case.raw, case.attribution)
        return float("nan") if reduced is None else float(case.cosines([reduced])[0])

    return case.keep("kept_cosine", measure)


class ConfidenceDrop(Metric):
    """max(0, s0 - s1), in units of the cosine."""

    name = "confidence_drop"
    summary = "fall of the cosine when the input is reduced to what its map scores high"
    needs = frozenset({MODEL})
    higher_is_better = False

    def score(self, case: Case) -> float:
        left = kept_cosine(case)
        return float("nan") if np.isnan(left) else max(0.0, case.clean - left)


class ConfidenceIncrease(Metric):
    """1 where s1 > s0, else 0."""

    name = "confidence_increase"
    summary = "whether the cosine rises when the input is reduced to what its map scores high"
    needs = frozenset({MODEL})

    def score(self, case: Case) -> float:
        left = kept_cosine(case)
        return float("nan") if np.isnan(left) else float(left > case.clean)


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


@hookimpl
def register_metrics(register: Register) -> None:
    """Register confidence drop and increase, and what is reported beside them."""
    for metric in (ConfidenceDrop, ConfidenceIncrease, CapacityBits, Cosine):
        register(metric.name, metric, summary=metric.summary)
