"""Metrics: pure functions on arrays, and thin classes that name them.

Imports numpy alone; :mod:`mmattrib.metrics.builtin` registers what is here.
"""

from __future__ import annotations

from mmattrib.metrics.base import Metric, Truth
from mmattrib.metrics.localisation import (
    auc,
    iou,
    pointing_game,
    rectified_energy,
    specificity,
)

__all__ = [
    "Metric",
    "Truth",
    "auc",
    "iou",
    "pointing_game",
    "rectified_energy",
    "specificity",
]
