"""Arrays of any other modality: values fade into a fill where their weights are low."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from mmattrib.errors import OptionError
from mmattrib.lazy import np
from mmattrib.perturb.fills import Fill
from mmattrib.types import FloatArray, RawArray

ArrayFill: TypeAlias = Callable[[FloatArray, tuple[int, ...]], FloatArray]
"""Values and the axes that the weights run over, to float32 that broadcasts to the values."""


def _mean(values: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    mean: FloatArray = values.mean(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32)
    return mean


def _zero(values: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    return np.zeros((1,) * values.ndim, dtype=np.float32)


ARRAY_FILLS: Final[dict[str, Fill[ArrayFill]]] = {
    "mean": Fill(
        "the mean over the axes of the weights: channels that have no axis there keep their own",
        "the channel mean of pictures",
        _mean,
    ),
    "zero": Fill("zero", "Petsiuk et al. 2018 (RISE): the input times the mask", _zero),
}


def array_keeper(raw: RawArray, fill: ArrayFill) -> Callable[[FloatArray], RawArray]:
    """Keep one array by many weights.

    Returns:
        Weights in the shape of the values, or of their first or last axes (a map of a video's
        frames, rows and columns; of the time of inertial readings) -> the array with
        ``values * w + fill * (1 - w)``, and the values themselves where w is 1.
    """
    made: dict[tuple[int, ...], FloatArray] = {}

    def kept(weights: FloatArray) -> RawArray:
        axes = _covered(weights.shape, raw)
        if axes not in made:
            made[axes] = fill(raw.values, axes)
        shape = [raw.values.shape[axis] if axis in axes else 1 for axis in range(raw.values.ndim)]
        cells = weights.reshape(shape)
        mixed = raw.values * cells + made[axes] * (1.0 - cells)
        return replace(raw, values=np.where(cells >= 1.0, raw.values, mixed).astype(np.float32))

    return kept


def _covered(shape: tuple[int, ...], raw: RawArray) -> tuple[int, ...]:
    """Which axes of the values weights of this shape run over."""
    whole, count = raw.values.shape, len(shape)
    rest = len(whole) - count
    if shape == whole:
        return tuple(range(count))
    first = count > 0 and shape == whole[:count]
    last = count > 0 and rest > 0 and shape == whole[rest:]
    if first and last:
        raise OptionError(
            f"{raw.name}: weights of shape {shape} fit the first and the last axes of values of "
            f"shape {whole}: give them in the shape of the values (numpy.broadcast_to)."
        )
    if not first and not last:
        raise OptionError(
            f"{raw.name}: weights have shape {shape}, the values {whole}: accepted is the shape "
            "of the values, or of their first or last axes."
        )
    return tuple(range(count)) if first else tuple(range(rest, len(whole)))
