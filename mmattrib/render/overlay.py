"""Draw heat maps over pictures, outlines of the truth, and colour bars.

One colour map for scores without a sign, matplotlib's ``inferno``: perceptually uniform, its
lightness rises all the way, so that "brighter = more" holds in print and for every kind of colour
vision. One for signed scores, ``berlin`` (Crameri, Shephard and Heron, Nature Communications 11,
5444, 2020): dark at zero, blue below, red above.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mmattrib.types import FloatArray

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

TRUTH_RGB = (94, 241, 255)
"""Outline of the truth: light cyan, which neither colour map contains."""


@lru_cache(maxsize=2)
def colour_table(signed: bool) -> npt.NDArray[np.float64]:
    """``(256, 3)`` colours in [0, 1], from a heatmap value of 0 to one of 1."""
    import matplotlib

    name = "berlin" if signed else "inferno"
    table: npt.NDArray[np.float64] = matplotlib.colormaps[name](np.arange(256))[:, :3]
    table.setflags(write=False)
    return table


def coloured(values: FloatArray, signed: bool) -> Picture:
    """Heatmap values of any shape -> the same shape ``+ (3,)``, uint8."""
    index = np.clip(np.rint(values * 255.0), 0, 255).astype(np.intp)
    out: Picture = np.rint(colour_table(signed)[index] * 255.0).astype(np.uint8)
    return out


def blend(picture: Picture, values: FloatArray, signed: bool) -> Picture:
    """Lay a heatmap over a picture so that both stay visible.

    The picture loses most of its own colour and is dimmed where the heatmap is low, and takes the
    heatmap's colour where it is high; its light and shade stay everywhere.

    Args:
        picture: ``(H, W, 3)`` uint8.
        values: ``(H, W)`` in [0, 1].
        signed: 0.5 stands for a score of zero.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    base = picture.astype(np.float32)
    grey = base @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    base = 0.35 * base + 0.65 * grey[..., None]
    strength = np.abs(2.0 * values - 1.0) if signed else values
    opacity = (0.60 + 0.10 * strength)[..., None].astype(np.float32)
    mixed = (1.0 - opacity) * base + opacity * coloured(values, signed).astype(np.float32)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def hatch(picture: Picture, mask: Mask, period: int = 12) -> Picture:
    """Dim a part of a picture and draw diagonal lines over it: the model saw nothing there.

    Args:
        picture: ``(H, W, 3)`` uint8, as given, without a map.
        mask: ``(H, W)`` bool, the part.
        period: pixels from line to line.
    """
    height, width = mask.shape
    place = (np.arange(height)[:, None] + np.arange(width)[None]) % period
    grey = 0.45 * picture.astype(np.float32).mean(axis=2, keepdims=True)
    line = ((place < 2) * 200.0 + (place == 2) * 20.0).astype(np.float32)[..., None]
    share = (0.7 * (place < 3)).astype(np.float32)[..., None]
    drawn = np.rint((1.0 - share) * grey + share * line).astype(np.uint8)
    out: Picture = np.where(mask[..., None], drawn, picture)
    return out


def outline(mask: Mask, width: int = 1) -> Mask:
    """The cells of ``mask`` ``(H, W)`` that lie within ``width`` cells of its border."""
    inner = mask.copy()
    for _ in range(width):
        inner = _eroded(inner)
    return mask & ~inner


def draw_truth(picture: Picture, mask: Mask, width: int = 2) -> Picture:
    """Draw the border of a truth mask: a light line with a dark one around it.

    Args:
        picture: ``(H, W, 3)`` uint8.
        mask: ``(H, W)`` bool.
        width: of the light line, in pixels.
    """
    out = picture.copy()
    out[outline(~mask, 1)] = 0
    out[outline(mask, width)] = TRUTH_RGB
    return out


def _eroded(mask: Mask) -> Mask:
    # The frame counts as inside: an object cut by the picture's edge has no border there.
    padded = np.pad(mask, 1, constant_values=True)
    return (
        padded[1:-1, 1:-1]
        & padded[:-2, 1:-1]
        & padded[2:, 1:-1]
        & padded[1:-1, :-2]
        & padded[1:-1, 2:]
    )


def resized(values: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Resample ``(H, W)`` float32 to ``size`` (rows, columns), averaging where it shrinks."""
    from PIL import Image

    plane = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    shape = (size[1], size[0])
    out: FloatArray = np.asarray(plane.resize(shape, Image.Resampling.BILINEAR), dtype=np.float32)
    return out


def resized_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resample a ``(H, W)`` mask to ``size`` (rows, columns) for drawing.

    Where it grows, its staircase is smoothed over about one cell, so that an outline of many cells
    reads as a line; a mask too small to survive that keeps its cells.
    """
    from PIL import Image, ImageFilter

    plain = resized(mask.astype(np.float32), size) >= 0.5
    growth = max(size[0] / mask.shape[0], size[1] / mask.shape[1])
    if growth <= 1.0:
        return plain
    picture = Image.fromarray(np.where(plain, np.uint8(255), np.uint8(0)))
    smooth = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8 * growth))) >= 128
    return smooth if smooth.any() else plain


def resized_picture(picture: Picture, size: tuple[int, int]) -> Picture:
    """Resample a ``(H, W, 3)`` picture to ``size`` (rows, columns)."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    out: Picture = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return out


def css_gradient(signed: bool, stops: int = 17) -> str:
    """The colour map as a CSS gradient, left = 0."""
    table = colour_table(signed)
    colours = [css(table[round(i * 255 / (stops - 1))]) for i in range(stops)]
    return f"linear-gradient(to right, {', '.join(colours)})"


def css(rgb: npt.NDArray[np.float64]) -> str:
    """A colour in [0, 1] as ``#rrggbb``."""
    return "#" + "".join(f"{round(float(c) * 255):02x}" for c in rgb)


def css_bar(value: float, signed: bool) -> str:
    """The colour of a bar for a heatmap value: its own, lightened where it would not show."""
    index = round(value * 255)
    least, most = (191, 64) if signed else (110, 0)
    index = min(index, most) if signed and value < 0.5 else max(index, least)
    return css(colour_table(signed)[index])


def ink(rgb: npt.NDArray[np.float64]) -> str:
    """Black or white, whichever reads better on this colour (WCAG relative luminance)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "#000000" if luminance > 0.179 else "#ffffff"
