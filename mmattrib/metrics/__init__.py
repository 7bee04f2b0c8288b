"""Metrics, one family per file: pure functions on arrays, and the classes that score cases.

Importing this package imports numpy alone. A new metric subclasses :class:`Metric`; see ``base``.
"""

from __future__ import annotations

from mmattrib.metrics.base import MODEL, NEEDS, REEXPLAIN, TRUTH, Case, CostlyMetric, Metric
from mmattrib.metrics.curves import curve_area
from mmattrib.metrics.faithfulness import confidence_drop, confidence_increase
from mmattrib.metrics.joint import joint_drop
from mmattrib.metrics.localisation import (
    auc,
    iou,
    object_top1,
    pointing_game,
    rectified_energy,
    threshold_iou,
)
from mmattrib.metrics.sensitivity import positive_share, rank_correlation
from mmattrib.metrics.subsets import correlation, infidelity

__all__ = [
    "MODEL",
    "NEEDS",
    "REEXPLAIN",
    "TRUTH",
    "Case",
    "CostlyMetric",
    "Metric",
    "auc",
    "confidence_drop",
    "confidence_increase",
    "correlation",
    "curve_area",
    "infidelity",
    "iou",
    "joint_drop",
    "object_top1",
    "pointing_game",
    "positive_share",
    "rank_correlation",
    "rectified_energy",
    "threshold_iou",
]
