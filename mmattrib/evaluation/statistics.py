"""Means with errors, and paired differences with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmattrib.errors import OptionError, brief, check_whole

Numbers: TypeAlias = npt.NDArray[np.float64]
"""float64, NaN where a number is missing."""

MOST_KEPT = 12_000_000
"""Numbers of a table of resamples that is kept, 96 MB: 10,000 draws of 1,200 samples."""


def mean_and_error(values: Numbers) -> tuple[float, float]:
    """Mean and standard error of the values that are there; NaN where there are too few."""
    values = values[~np.isnan(values)]
    if values.size == 0:
        return float("nan"), float("nan")
    error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else float("nan")
    return float(values.mean()), float(error)


def bootstrap_interval(
    values: Numbers, *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of some values with a percentile bootstrap interval.

    Args:
        values: ``(n,)``, one per resampled unit; NaN is left out.
        level: coverage of the interval.
        draws: resamples.
        seed: of the resampling.

    Returns:
        Mean, lower bound, upper bound; NaN where no value is left.

    Raises:
        OptionError: ``draws`` is no whole number, or out of range.
    """
    values = values[~np.isnan(values)]
    low, high = _quantiles(_means(values, draws, seed), level)
    return float(values.mean()) if values.size else float("nan"), low, high


def _quantiles(means: Numbers, level: float) -> tuple[float, float]:
    """What leaves out equal shares of the resamples' means below and above."""
    if means.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _means(values: Numbers, draws: int, seed: int) -> Numbers:
    """``(draws,)`` means of resamples of ``(n,)`` values; none where there is no value.

    Raises:
        OptionError: ``draws`` is no whole number, or out of range.
    """
    check_whole(draws, "draws", 1)
    if values.size == 0:
        return np.empty(0)
    if draws * values.size <= MOST_KEPT:
        found: Numbers = _resamples(values.size, draws, seed) @ values / values.size
        return found
    # Too many to be kept: one resample after another, the same ones.
    rng = np.random.default_rng(seed)
    return np.array([_counts(rng, values.size) @ values for _ in range(draws)]) / values.size


def _counts(rng: np.random.Generator, size: int) -> Numbers:
    """How often each of ``size`` values is in a resample."""
    return np.bincount(rng.integers(0, size, size), minlength=size).astype(np.float64)


@lru_cache(maxsize=4)
def _resamples(size: int, draws: int, seed: int) -> Numbers:
    """How often each of ``size`` values is in each resample: ``(draws, size)``.

    Kept, since a table compares many columns of the same length.
    """
    rng = np.random.default_rng(seed)
    return np.stack([_counts(rng, size) for _ in range(draws)])


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, in the unit of what was compared.

    Attributes:
        mean: over samples, of the difference averaged over backbones.
        low: lower bound of the 95 % percentile bootstrap interval.
        high: its upper bound.
        corrected_low: lower bound at 95 % for all comparisons together (Bonferroni).
        corrected_high: its upper bound.
        comparisons: how many those are.
        samples: how many samples were compared.
        per_backbone: the mean difference of each backbone on these samples.
    """

    mean: float
    low: float
    high: float
    corrected_low: float
    corrected_high: float
    comparisons: int
    samples: int
    per_backbone: tuple[float, ...]

    @property
    def clear(self) -> bool:
        """Whether the corrected interval leaves out zero."""
        return self.corrected_low > 0 or self.corrected_high < 0


def compare(
    first: Numbers, second: Numbers, *, comparisons: int = 1, draws: int = 10_000, seed: int = 0
) -> Difference:
    """Paired difference ``first - second``.

    Backbones measured on the same samples are averaged per sample first: samples are what is
    resampled, and two backbones on one sample are no two samples.

    Args:
        first: ``(samples,)`` or ``(backbones, samples)``.
        second: the same shape, on the same samples and backbones.
        comparisons: how many the table makes in which this one stands. Above about 100 the
            corrected bounds rest on a handful of draws: raise ``draws``.
        draws: bootstrap resamples.
        seed: of the resampling.

    Returns:
        All NaN where no sample has a number on both sides for every backbone.

    Raises:
        OptionError: shapes differ, or ``comparisons`` is below 1.
    """
    if first.shape != second.shape or first.ndim not in (1, 2):
        raise OptionError(
            f"compare got shapes {first.shape} and {second.shape}; accepted are two of the same "
            "shape, (samples,) or (backbones, samples)"
        )
    if comparisons < 1:
        raise OptionError(f"comparisons must be at least 1, got {brief(comparisons)}")
    paired = np.atleast_2d(first - second)
    paired = paired[:, ~np.isnan(paired).any(axis=0)]
    samples = paired.mean(axis=0)
    means = _means(samples, draws, seed)
    mean = float(samples.mean()) if samples.size else float("nan")
    low, high = _quantiles(means, 0.95)
    corrected_low, corrected_high = _quantiles(means, 1 - 0.05 / comparisons)
    per_backbone = tuple(float(row.mean()) if row.size else float("nan") for row in paired)
    return Difference(
        mean, low, high, corrected_low, corrected_high, comparisons, samples.size, per_backbone
    )
