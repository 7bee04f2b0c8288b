"""ROAD: what the match loses when holes that a map makes are mended rather than painted over.

Rong et al. 2022 ("A consistent and efficient evaluation strategy for attribution methods"): a hole
filled with one colour tells the model its own shape; mended from its edges (the fill ``"linear"``
of :mod:`mmattrib.perturb`), it does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmattrib.errors import OptionError, brief, check_whole
from mmattrib.lazy import np, npt
from mmattrib.metrics.base import MODEL, Case, CostlyMetric
from mmattrib.perturb import top_weights
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.types import BoolArray, RawImage

PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)
"""Shares of the picture that are taken away, in percent: pytorch-grad-cam's ROAD takes these."""


def road(least: npt.ArrayLike, most: npt.ArrayLike) -> float:
    """Mean over the shares of (cosine without the least relevant - without the most relevant).

    Args:
        least: ``(n,)`` cosines when the lowest-scored places of each share are taken away.
        most: ``(n,)`` when the highest-scored are.

    >>> round(road([0.5, 0.4], [0.3, 0.2]), 3)
    0.2
    """
    difference = np.asarray(least, dtype=np.float64) - np.asarray(most, dtype=np.float64)
    return float(difference.mean())


class Road(CostlyMetric):
    """:func:`road` on pictures, in units of the cosine; NaN for other inputs.

    0 for a constant map, and negative for one that is the wrong way round. pytorch-grad-cam's
    ROADCombined is half of it.
    """

    name = "road"
    summary = (
        "fall of the cosine without the most relevant pixels less that without the least (ROAD)"
    )
    needs = frozenset({MODEL})

    def __init__(self, percentiles: Sequence[int] = PERCENTILES, seed: int = 0) -> None:
        """Options.

        Args:
            percentiles: shares that are taken away, whole numbers from 1 to 99.
            seed: of the noise in what is mended.
        """
        if isinstance(percentiles, str | bytes) or not len(percentiles):
            raise OptionError(
                f"percentiles must be whole numbers from 1 to 99, got {brief(percentiles)}"
            )
        self.percentiles = [check_whole(each, "percentiles", 1, 99) for each in percentiles]
        self.seed = check_whole(seed, "seed", 0, 2**63 - 1)

    def measure(self, case: Case) -> float:
        if not isinstance(case.raw, RawImage):
            return float("nan")
        scores = np.where(case.attribution.seen, case.attribution.scores, np.nan)

        def kept(ranked: npt.NDArray[Any]) -> Iterator[BoolArray]:
            for percent in self.percentiles:
                yield ~top_weights(ranked, percent / 100)

        least, most = (
            case.kept_cosines(kept(ranked), fill="linear", seed=self.seed)
            for ranked in (-scores, scores)
        )
        return road(least, most)

    def describe(self) -> dict[str, Any]:
        return {"percentiles": self.percentiles, "seed": self.seed}


@hookimpl
def register_metrics(register: Register) -> None:
    """Register ROAD."""
    register(Road.name, Road, summary=Road.summary)
