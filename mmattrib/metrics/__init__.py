"""Metrics, one family per file: pure functions on arrays, and the classes that score cases.

Importing this package imports numpy alone. A new metric subclasses :class:`Metric`; see ``base``.
"""

from __future__ import annotations

from mmattrib.metrics.base import MODEL, NEEDS, REEXPLAIN, TRUTH, Case, Metric
from mmattrib.metrics.localisation import auc, iou, object_top1, pointing_game, rectified_energy
from mmattrib.metrics.sensitivity import rank_correlation

__all__ = [
    "MODEL",
    "NEEDS",
    "REEXPLAIN",
    "TRUTH",
    "Case",
    "Metric",
    "auc",
    "iou",
    "object_top1",
    "pointing_game",
    "rank_correlation",
    "rectified_energy",
]
