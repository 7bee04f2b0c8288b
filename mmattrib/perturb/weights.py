"""Weights: from a map's scores to [0, 1], and from the map's cells to the places of an input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from mmattrib.errors import OptionError
from mmattrib.lazy import np, npt
from mmattrib.types import Axis, FloatArray

Floats: TypeAlias = "npt.NDArray[np.float64]"
Mask: TypeAlias = "npt.NDArray[np.bool_]"


def unit_weights(scores: npt.NDArray[np.floating[Any]]) -> FloatArray | None:
    """Min-max normalised scores: 0 at the lowest, 1 at the highest.

    Args:
        scores: of any shape. Values that are not finite count as missing, e.g. what the model never
            saw: they play no part in the range and weigh 0.

    Returns:
        float32 of the same shape, or None for a constant map, which has no such form.

    >>> unit_weights(np.array([1.0, 2.0, 3.0]))
    array([0. , 0.5, 1. ], dtype=float32)
    """
    wide = np.asarray(scores, dtype=np.float64)
    known = np.isfinite(wide)
    present = wide[known]
    if present.size == 0:
        return None
    low, high = float(present.min()), float(present.max())
    if not high > low:
        return None
    scaled = (np.where(known, wide, low) - low) / (high - low)
    weights: FloatArray = scaled.astype(np.float32)
    return weights


def top_weights(scores: npt.NDArray[np.floating[Any]], share: float) -> Mask:
    """The highest scores of a map, as hard weights.

    Args:
        scores: of any shape; values that are not finite count as missing and are never marked.
        share: of the cells that have a score, in [0, 1]; rounded to whole cells, halves upwards.

    Returns:
        bool of the same shape. As many cells as asked for are marked, always: of cells that tie,
        those that come first in the array's (row-major) order.

    Raises:
        OptionError: ``share`` is not in [0, 1].

    >>> top_weights(np.array([3.0, 1.0, 2.0, 2.0]), 0.5)
    array([ True, False,  True, False])
    """
    if not 0.0 <= share <= 1.0:
        raise OptionError(f"share={share}: accepted is a fraction of the cells in [0, 1].")
    flat = np.asarray(scores, dtype=np.float64).ravel()
    known = np.isfinite(flat)
    count = int(np.floor(share * int(known.sum()) + 0.5))
    order = np.argsort(np.where(known, -flat, np.inf), kind="stable")
    marked = np.zeros(flat.shape, dtype=np.bool_)
    marked[order[:count]] = True
    return marked.reshape(np.shape(scores))


def checked(weights: npt.ArrayLike, name: str) -> FloatArray:
    """Weights as float32, once it is sure that each lies in [0, 1].

    Rounding of up to 1e-6 beyond is cut off: interpolated weights may exceed 1 by so much.

    Raises:
        OptionError: they are no numbers, not finite, or out of range.
    """
    given = np.asarray(weights)
    if given.dtype.kind not in "biuf":
        raise OptionError(
            f"{name}: weights of type {given.dtype}; accepted are bool or numbers in [0, 1]."
        )
    array: FloatArray = given.astype(np.float32)
    if array.size and not (float(array.min()) >= -1e-6 and float(array.max()) <= 1.0 + 1e-6):
        raise OptionError(
            f"{name}: weights from {array.min():.4g} to {array.max():.4g}; accepted are bool or "
            "finite numbers in [0, 1]. unit_weights and top_weights make them of a map's scores."
        )
    return np.clip(array, 0.0, 1.0)


def is_hard(weights: FloatArray) -> bool:
    """Whether every weight is 0 or 1."""
    return bool(((weights == 0.0) | (weights == 1.0)).all())


def check_axes(weights: FloatArray, axes: Sequence[Axis], units: Sequence[str], name: str) -> None:
    """See that axes fit the weights and run in the units of the input.

    Raises:
        OptionError: they do not.
    """
    lengths = tuple(len(axis.values) for axis in axes)
    if weights.shape != lengths or weights.size == 0:
        raise OptionError(
            f"{name}: weights have shape {weights.shape}, their axes {lengths}: accepted is a map "
            "of at least one cell whose shape is that of its axes."
        )
    found = tuple(axis.unit for axis in axes)
    if found != tuple(units):
        raise OptionError(f"{name}: axes in {found}; accepted are axes in {tuple(units)}.")
    for axis in axes:
        if not (np.isfinite(axis.values).all() and (np.diff(axis.values) >= 0).all()):
            raise OptionError(f"{name}: the values of axis {axis.name!r} must rise.")


def between(values: Floats, known: Floats, wanted: Floats) -> Floats:
    """Interpolate ``(known, ...)`` linearly to ``(wanted, ...)``; beyond the ends they hold."""
    if len(known) == 1:
        return np.repeat(values, len(wanted), axis=0)
    left = np.clip(np.searchsorted(known, wanted, side="right") - 1, 0, len(known) - 2)
    gap = np.maximum(known[left + 1] - known[left], 1e-12)
    share = np.clip((wanted - known[left]) / gap, 0.0, 1.0)[:, None]
    out: Floats = (1.0 - share) * values[left] + share * values[left + 1]
    return out
