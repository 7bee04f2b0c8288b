"""Resizing, cropping and normalising pictures, as most image towers do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mmattrib.errors import OptionError, brief, is_one_of
from mmattrib.models.grids import Box
from mmattrib.types import RawImage

Resample: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]
"""Filters for resizing, by pillow's names."""


def stretch(
    raw: RawImage, size: tuple[int, int], resample: Resample = "bicubic"
) -> tuple[npt.NDArray[np.uint8], Box]:
    """Resize the whole picture, with antialiasing, without keeping its proportions.

    Args:
        raw: the picture.
        size: height and width of the result, in pixels.
        resample: the filter.

    Returns:
        ``(h, w, 3)`` uint8, and the part of ``raw`` it shows in ``raw``'s own pixels: all of it.

    Raises:
        OptionError: ``size`` is not two positive numbers.
    """
    height, width = raw.pixels.shape[:2]
    return _resampled(raw, size, (0.0, 0.0, float(width), float(height)), resample)


def centre_crop(
    raw: RawImage,
    size: tuple[int, int],
    resample: Resample = "bicubic",
    shorter: int | None = None,
) -> tuple[npt.NDArray[np.uint8], Box]:
    """Resize so that the picture covers ``size``, then crop its centre.

    Equal to resizing the shorter side and centre-cropping, as CLIP does (antialiased, offsets
    rounded to whole pixels of the resized picture), without making the resized picture.

    Args:
        raw: the picture.
        size: height and width of the result, in pixels.
        resample: the filter.
        shorter: the resized picture's shorter side in pixels, where that is more than what
            covers ``size``.

    Returns:
        ``(h, w, 3)`` uint8, and the part of ``raw`` it shows in ``raw``'s own pixels, for
        :class:`mmattrib.models.grids.ImageGrid`.

    Raises:
        OptionError: ``size`` is not two positive numbers, or ``shorter`` does not cover it.
    """
    h, w = _checked_size(size)
    height, width = raw.pixels.shape[:2]
    if shorter is None:
        wide = h * width >= w * height
        covering = (h, h * width // height) if wide else (w * height // width, w)
    elif shorter < max(h, w):
        raise OptionError(f"a shorter side of {shorter} px does not cover a crop of {h} x {w} px")
    else:
        wide = width >= height
        covering = (
            (shorter, shorter * width // height) if wide else (shorter * height // width, shorter)
        )
    top, left = round((covering[0] - h) / 2), round((covering[1] - w) / 2)
    down, across = height / covering[0], width / covering[1]
    box = (left * across, top * down, (left + w) * across, (top + h) * down)
    return _resampled(raw, size, box, resample)


def letterbox(
    raw: RawImage, size: tuple[int, int], resample: Resample = "bicubic"
) -> tuple[npt.NDArray[np.uint8], Box]:
    """Resize the whole picture to fit into ``size``, keeping its proportions, on black.

    Args:
        raw: the picture.
        size: height and width of the result, in pixels.
        resample: the filter.

    Returns:
        ``(h, w, 3)`` uint8, and where the result lies in ``raw``'s own pixels; it reaches outside
        the picture by the black bars.

    Raises:
        OptionError: ``size`` is not two positive numbers.
    """
    h, w = _checked_size(size)
    height, width = raw.pixels.shape[:2]
    scale = min(h / height, w / width)
    inner = (max(1, int(height * scale)), max(1, int(width * scale)))
    pixels, _ = stretch(raw, inner, resample)
    top, left = (h - inner[0]) // 2, (w - inner[1]) // 2
    canvas = np.zeros((h, w, 3), dtype=np.uint8)
    canvas[top : top + inner[0], left : left + inner[1]] = pixels
    down, across = height / inner[0], width / inner[1]
    rows = (round(-top * down), round((h - top) * down))
    columns = (round(-left * across), round((w - left) * across))
    return canvas, _box(rows, columns)


def _box(rows: tuple[int, int], columns: tuple[int, int]) -> Box:
    return Box(rows[0], columns[0], rows[1], columns[1])


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise OptionError(f"size must be a positive (height, width) in pixels, got {brief(size)}")
    return size


def _resampled(
    raw: RawImage,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    resample: Resample = "bicubic",
) -> tuple[npt.NDArray[np.uint8], Box]:
    if not is_one_of(resample, get_args(Resample)):
        raise OptionError(
            f"resample must be one of {', '.join(get_args(Resample))}, got {brief(resample)}"
        )
    height, width = raw.pixels.shape[:2]
    h, w = _checked_size(size)
    left, top, right, bottom = box
    inside = (max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom))
    image = Image.fromarray(raw.pixels).resize(
        (w, h), Image.Resampling[resample.upper()], box=inside
    )
    rows, columns = _whole(inside[1], inside[3], height), _whole(inside[0], inside[2], width)
    return np.array(image), _box(rows, columns)


def _whole(start: float, stop: float, length: int) -> tuple[int, int]:
    """Whole pixels nearest to ``start:stop``, at least one, inside ``0:length``."""
    first = min(round(start), length - 1)
    return first, min(length, max(first + 1, round(stop)))


def normalise(pixels: npt.NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn pixels into what a tower takes: ``(pixels / 255 - mean) / std``.

    Args:
        pixels: ``(h, w, 3)`` uint8.
        mean: per channel, for pixels in [0, 1].
        std: per channel, for pixels in [0, 1].

    Returns:
        ``(3, h, w)`` float32.
    """
    scaled = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255.0
    centre, spread = (
        torch.tensor(v, dtype=torch.float32, device="cpu").view(3, 1, 1) for v in (mean, std)
    )
    return (scaled - centre) / spread


def pixels_to_tensor(
    raw: RawImage,
    size: tuple[int, int],
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
    fit: Literal["crop", "stretch"] = "crop",
) -> tuple[Tensor, Box]:
    """Resize, crop and normalise one picture.

    Args:
        raw: the picture.
        size: height and width that the tower takes, in pixels.
        mean: per channel, for pixels in [0, 1].
        std: per channel, for pixels in [0, 1].
        fit: ``"crop"`` for :func:`centre_crop`, ``"stretch"`` for :func:`stretch`.

    Returns:
        ``(3, h, w)`` float32, and the part of ``raw`` it shows in ``raw``'s own pixels.

    Raises:
        OptionError: ``fit`` or ``size`` is none of the above.
    """
    if not is_one_of(fit, ("crop", "stretch")):
        raise OptionError(f"fit must be 'crop' or 'stretch', got {brief(fit)}")
    pixels, box = (centre_crop if fit == "crop" else stretch)(raw, size)
    return normalise(pixels, mean, std), box
