"""Linear imputation: holes in a picture are mended from their edges, as ROAD does.

Rong et al. 2022 ("A consistent and efficient evaluation strategy for attribution methods"): each
missing pixel is the weighted mean of its eight neighbours, 1/6 for those beside it and 1/12 for
those at its corners (at the rim of the picture, of those that there are). That is a linear system,
which is solved here by conjugate gradients, from a start that a smaller picture gives (solved in
the same way): some tens of sweeps mend any hole, where a start from nothing would need as many as
it is wide.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from mmattrib.types import BoolArray, FloatArray

NOISE: Final = 0.6
"""Spread of the noise in levels of 0 to 255: ROAD adds 0.01 to a tensor that is normalised by a
spread of some 58 levels."""

ACCURACY: Final = 0.1
"""Largest amount, in levels of 0 to 255, by which a mended pixel may differ from the mean of its
neighbours; pictures are rounded to whole levels."""

MOST_SWEEPS: Final = 200
MOST_PIXELS: Final = 1 << 16
"""Above this many pixels (256 x 256) holes are mended on a picture of half the size, and enlarged:
models see pictures of some such size, and the work is bounded."""

_SMALLEST = 4


def imputed(values: FloatArray, known: BoolArray, accuracy: float = ACCURACY) -> FloatArray:
    """Mend the holes of a picture.

    Args:
        values: ``(H, W, C)`` float32; read where they are known.
        known: ``(H, W)`` bool, which pixels are there.
        accuracy: largest difference of a mended pixel from the mean of its neighbours, but in
            pictures of more than ``MOST_PIXELS`` pixels.

    Returns:
        float32 ``(H, W, C)``: the values where they are known. Where nothing is, their mean.
    """
    if known.all():
        return values
    if not known.any():
        flat: FloatArray = np.broadcast_to(values.mean(axis=(0, 1)), values.shape).copy()
        return flat
    height, width = known.shape
    if min(height, width) <= _SMALLEST:
        start = np.broadcast_to(values[known].mean(axis=0), values.shape)
    else:
        half, there = _halved(values, known)
        start = imputed(half, there, accuracy).repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    mended = np.where(known[..., None], values, start).astype(np.float32)
    return mended if known.size > MOST_PIXELS else _solved(mended, ~known, accuracy)


def _halved(values: FloatArray, known: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Means of the known pixels of each block of 2 x 2, and which blocks have any."""
    height, width = known.shape
    pad = ((0, height % 2), (0, width % 2))
    there = np.pad(known, pad).reshape((height + 1) // 2, 2, (width + 1) // 2, 2)
    count = there.sum(axis=(1, 3))
    inside = np.pad(values * known[..., None], (*pad, (0, 0)))
    blocks = inside.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, values.shape[2])
    mean = blocks.sum(axis=(1, 3)) / np.maximum(count, 1)[..., None]
    return mean.astype(np.float32), count > 0


def _solved(values: FloatArray, hole: BoolArray, accuracy: float) -> FloatArray:
    """Conjugate gradients on the pixels of a hole, each channel with its own step sizes."""
    degree = _neighbours(np.ones((*hole.shape, 1), dtype=np.float32))
    inside = hole[..., None].astype(np.float32)

    def applied(x: FloatArray) -> FloatArray:
        found: FloatArray = (degree * x - _neighbours(x)) * inside
        return found

    solution = values.copy()
    residual = -applied(solution)
    direction, power = residual, (residual**2).sum(axis=(0, 1))
    for _ in range(MOST_SWEEPS):
        if float((np.abs(residual) / degree).max()) <= accuracy:
            break
        changed = applied(direction)
        step = power / np.maximum((direction * changed).sum(axis=(0, 1)), 1e-30)
        solution, residual = solution + step * direction, residual - step * changed
        before, power = power, (residual**2).sum(axis=(0, 1))
        direction = residual + power / np.maximum(before, 1e-30) * direction
    return solution


def _neighbours(x: FloatArray) -> FloatArray:
    """``(H, W, C)``: the sum of the eight neighbours, those beside a pixel counted twice.

    The weights 1 2 1, 2 0 2, 1 2 1 are a product of 1 2 1 along both axes but for the middle.
    """
    return _smeared(_smeared(x, 0), 1) - 4.0 * x


def _smeared(x: FloatArray, axis: int) -> FloatArray:
    out = 2.0 * x
    low, high = [slice(None)] * 3, [slice(None)] * 3
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    out[tuple(low)] += x[tuple(high)]
    out[tuple(high)] += x[tuple(low)]
    return out
