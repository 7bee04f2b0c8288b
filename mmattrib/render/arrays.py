"""Arrays as pictures: depth and thermal images, frames of a video, lines of readings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mmattrib.errors import InputError
from mmattrib.types import Attribution, FloatArray, RawArray, RawImage

Flatten = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""An array in the shape of the scores -> the plane that is drawn over the picture."""

_STRIP = 60  # pixels; height of one channel of readings


def drawing(side: str, attribution: Attribution, raw: RawArray) -> tuple[RawImage, Flatten]:
    """What to draw for an array, and how to lay its scores on that.

    Args:
        side: for messages.
        attribution: scores ``(H, W)`` over values ``(H, W)``; ``(frames, H, W)`` over values
            ``(T, H, W, 3)`` with the frames' times on the first axis, drawn in reading order; or
            ``(T,)`` over values ``(channels, T)``, drawn as one strip for each channel.
        raw: the array.

    Raises:
        InputError: scores and values fit in none of these ways.
    """
    shape, values = attribution.shape, raw.values
    if len(shape) == 2 and values.shape == shape:
        return RawImage(_grey(values), raw.name), lambda plane: plane
    if len(shape) == 1 and values.ndim == 2 and values.shape[1] == shape[0]:
        strips = np.concatenate([np.repeat(_grey(row[None]), _STRIP, axis=0) for row in values])
        return RawImage(strips, raw.name), lambda line: line[None]
    if len(shape) == 3 and values.ndim == 4 and values.shape[1:] == (*shape[1:], 3):
        seconds = attribution.axes[0].values
        index = np.rint(seconds * (raw.rate or 1.0) - 0.5).astype(int).clip(0, len(values) - 1)
        pixels = np.rint(_tiled(values[index]).clip(0, 1) * 255).astype(np.uint8)
        return RawImage(pixels, raw.name), _tiled
    raise InputError(
        f"the scores of {side!r} have shape {shape} over values of {values.shape}; that can be "
        "saved as .npz and .json, but no picture of it can be drawn"
    )


def _tiled(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``(F, H, W, ...)`` to one plane: frames in reading order, in about the shape of a screen."""
    count, height, width = frames.shape[:3]
    wanted = 1.6
    columns = min(
        range(1, count + 1),
        key=lambda n: abs(np.log(n * width / (-(-count // n) * height) / wanted)),
    )
    rows = -(-count // columns)
    missing = rows * columns - count
    full = np.concatenate([frames, np.zeros((missing, *frames.shape[1:]), frames.dtype)])
    lines = full.reshape(rows, columns, *frames.shape[1:]).swapaxes(1, 2)
    tiled: npt.NDArray[np.float32] = lines.reshape(
        rows * height, columns * width, *frames.shape[3:]
    )
    return tiled


def _grey(values: FloatArray) -> npt.NDArray[np.uint8]:
    """``(H, W)`` to ``(H, W, 3)``, from the smallest value in black to the largest in white."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / max(high - low, 1e-12)
    return np.repeat(np.rint(scaled * 255).astype(np.uint8)[:, :, None], 3, axis=2)
