"""Paired differences between two variants, with bootstrap intervals over scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmattrib.errors import OptionError
from mmattrib.evaluation.benchmark import Floats, bootstrap_interval


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, in the unit of what was compared.

    Attributes:
        mean: over scenes, of the difference averaged over checkpoints.
        low: lower bound of the 95 % percentile bootstrap interval.
        high: its upper bound.
        corrected_low: lower bound at 95 % for all comparisons together (Bonferroni).
        corrected_high: its upper bound.
        comparisons: how many those are.
        scenes: how many scenes were compared.
        per_checkpoint: the mean difference of each checkpoint on these scenes.
    """

    mean: float
    low: float
    high: float
    corrected_low: float
    corrected_high: float
    comparisons: int
    scenes: int
    per_checkpoint: tuple[float, ...]

    @property
    def clear(self) -> bool:
        """Whether the corrected interval leaves out zero."""
        return self.corrected_low > 0 or self.corrected_high < 0


def compare(
    first: Floats, second: Floats, *, comparisons: int = 1, draws: int = 10_000, seed: int = 0
) -> Difference:
    """Paired difference ``first - second``.

    Checkpoints measured on the same scenes are averaged per scene first: scenes are what is
    resampled, and two checkpoints on one scene are no two scenes.

    Args:
        first: ``(scenes,)`` or ``(checkpoints, scenes)``.
        second: the same shape, on the same scenes and checkpoints.
        comparisons: how many the table makes in which this one stands. Above about 100 the
            corrected bounds rest on a handful of draws: raise ``draws``.
        draws: bootstrap resamples.
        seed: of the resampling.

    Returns:
        All NaN where no scene has a number on both sides for every checkpoint.

    Raises:
        OptionError: shapes differ, or ``comparisons`` is below 1.
    """
    if first.shape != second.shape or first.ndim not in (1, 2):
        raise OptionError(
            f"compare got shapes {first.shape} and {second.shape}; accepted are two of the same "
            "shape, (scenes,) or (checkpoints, scenes)"
        )
    if comparisons < 1:
        raise OptionError(f"comparisons must be at least 1, got {comparisons}")
    paired = np.atleast_2d(first - second)
    paired = paired[:, ~np.isnan(paired).any(axis=0)]
    scenes = paired.mean(axis=0)
    mean, low, high = bootstrap_interval(scenes, draws=draws, seed=seed)
    level = 1 - 0.05 / comparisons
    _, corrected_low, corrected_high = bootstrap_interval(
        scenes, level=level, draws=draws, seed=seed
    )
    per_checkpoint = tuple(float(row.mean()) if row.size else float("nan") for row in paired)
    return Difference(
        mean, low, high, corrected_low, corrected_high, comparisons, scenes.size, per_checkpoint
    )
