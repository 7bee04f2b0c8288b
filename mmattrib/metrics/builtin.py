"""The built-in metrics, registered through the public hook."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mmattrib.metrics import localisation
from mmattrib.metrics.base import BoolArray, Metric, Truth
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.types import FloatArray


def _on_mask(
    function: Callable[[FloatArray, BoolArray], float], scores: FloatArray, truth: Truth
) -> float:
    return function(scores, truth.mask)


def _specificity(scores: FloatArray, truth: Truth) -> float:
    return localisation.specificity(scores, truth.objects, truth.shared)


_METRICS: dict[str, tuple[str, Callable[[FloatArray, Truth], float]]] = {
    "specificity": ("the shared object has the highest mean score of all", _specificity),
    "pointing": (
        "the highest score lies on the truth",
        partial(_on_mask, localisation.pointing_game),
    ),
    "iou": (
        "top quartile against the truth (CA-M2IB, eq. 12)",
        partial(_on_mask, localisation.iou),
    ),
    "auc": (
        "ROC area of the scores as a detector of the truth",
        partial(_on_mask, localisation.auc),
    ),
    "energy": (
        "share of the positive scores that lies on the truth",
        partial(_on_mask, localisation.rectified_energy),
    ),
}


@hookimpl
def register_metrics(register: Register) -> None:
    """Register the localisation metrics."""
    for name, (summary, score) in _METRICS.items():
        register(name, partial(Metric, name, summary, True, score), summary=summary)
