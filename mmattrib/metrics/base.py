"""What a metric is: a name, a direction, and one number per map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmattrib.errors import InputError
from mmattrib.types import FloatArray

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Truth:
    """Where in an input the things are that the other input shares.

    Attributes:
        mask: bool, in the shape of the attribution's scores; True on everything that is shared.
        objects: one bool mask per object, sound or mention, shared or not.
        shared: for each of ``objects``, whether it is shared.
    """

    mask: BoolArray
    objects: tuple[BoolArray, ...]
    shared: tuple[bool, ...]


@dataclass(frozen=True)
class Metric:
    """One number for one map with a known truth.

    Attributes:
        name: as registered.
        summary: one line: what it measures and in which range.
        higher_is_better: False where small values are good.
        score: ``(scores, truth) -> float``; NaN where the metric does not apply.
    """

    name: str
    summary: str
    higher_is_better: bool
    score: Callable[[FloatArray, Truth], float]

    def __call__(self, scores: FloatArray, truth: Truth) -> float:
        """Score one map.

        Args:
            scores: as in :class:`mmattrib.types.Attribution`.
            truth: masks of the same shape.

        Raises:
            InputError: shapes differ, or a score is not finite.
        """
        if scores.shape != truth.mask.shape:
            raise InputError(
                f"the map has shape {scores.shape}, its truth {truth.mask.shape}; they must agree"
            )
        if not np.isfinite(scores).all():
            raise InputError(f"metric {self.name!r} was given a map that is not finite")
        return self.score(scores, truth)
