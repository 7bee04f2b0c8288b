"""Pictures: pixels fade into a fill where their weights are low."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from mmattrib.errors import OptionError
from mmattrib.lazy import np, npt
from mmattrib.perturb.fills import Fill
from mmattrib.perturb.weights import between, check_axes
from mmattrib.types import Axis, FloatArray, RawImage

BLUR: Final = 10 / 224
"""Standard deviation of the blur, as a share of the picture's shorter side: Fong & Vedaldi 2017
(section 4.1) blur by 10 pixels, here taken at pictures of 224."""

Local: TypeAlias = Callable[[FloatArray], FloatArray]
"""A fill that depends on what is kept: weights ``(H, W)`` to float32 ``(H, W, 3)``."""

ImageFill: TypeAlias = "Callable[[npt.NDArray[np.uint8], np.random.Generator], FloatArray | Local]"
"""``(H, W, 3)`` uint8 pixels and a source of noise, to float32 that broadcasts to their shape, or
to a function of each row of weights."""


def _mean(pixels: npt.NDArray[np.uint8], random: np.random.Generator) -> FloatArray:
    mean: FloatArray = pixels.astype(np.float32).mean(axis=(0, 1))
    return mean


def _blur(pixels: npt.NDArray[np.uint8], random: np.random.Generator) -> FloatArray:
    from PIL import Image, ImageFilter

    sigma = BLUR * min(pixels.shape[:2])
    blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma))
    return np.asarray(blurred).astype(np.float32)


def _black(pixels: npt.NDArray[np.uint8], random: np.random.Generator) -> FloatArray:
    return np.zeros(3, dtype=np.float32)


def _noise(pixels: npt.NDArray[np.uint8], random: np.random.Generator) -> FloatArray:
    mean, spread = pixels.mean(axis=(0, 1)), pixels.std(axis=(0, 1))
    drawn = mean + spread * random.standard_normal(pixels.shape)
    noise: FloatArray = np.rint(drawn).clip(0, 255).astype(np.float32)
    return noise


def _linear(pixels: npt.NDArray[np.uint8], random: np.random.Generator) -> Local:
    from mmattrib.perturb.imputation import NOISE, imputed

    noise = (NOISE * random.standard_normal(pixels.shape)).astype(np.float32)
    values = pixels.astype(np.float32)

    def filled(weights: FloatArray) -> FloatArray:
        return imputed(values, weights >= 1.0) + noise

    return filled


IMAGE_FILLS: Final[dict[str, Fill[ImageFill]]] = {
    "mean": Fill(
        "the picture's own mean of each channel",
        "Fong & Vedaldi 2017, section 4.1 (an average colour)",
        _mean,
    ),
    "blur": Fill(
        "the picture blurred by a Gaussian of 10/224 of its shorter side",
        "Fong & Vedaldi 2017, section 4.1",
        _blur,
    ),
    "black": Fill("black", "Petsiuk et al. 2018 (RISE): the picture times the mask", _black),
    "noise": Fill(
        "Gaussian noise of each channel's own mean and spread, from the seed",
        "Fong & Vedaldi 2017, section 4.1",
        _noise,
    ),
    "linear": Fill(
        "each pixel the mean of its eight neighbours, those beside it twice, and a little noise",
        "Rong et al. 2022 (ROAD), noisy linear imputation",
        _linear,
        soft=False,
    ),
}


def image_keeper(
    raw: RawImage, axes: Sequence[Axis] | None, fill: ImageFill, random: np.random.Generator
) -> Callable[[FloatArray], RawImage]:
    """Keep one picture by many weights: the fill is made once.

    Returns:
        ``(rows, columns)`` weights -> the picture with ``pixels * w + fill * (1 - w)``.
    """
    pixels = raw.pixels.astype(np.float32)
    other = fill(raw.pixels, random)

    def kept(weights: FloatArray) -> RawImage:
        cells = _on_pixels(weights, axes, raw)[..., None]
        own = other(cells[..., 0]) if callable(other) else other
        mixed = pixels * cells + own * (1.0 - cells)
        return replace(raw, pixels=np.rint(mixed).clip(0, 255).astype(np.uint8))

    return kept


def _on_pixels(weights: FloatArray, axes: Sequence[Axis] | None, raw: RawImage) -> FloatArray:
    """Weights ``(rows, columns)`` on each pixel's centre, ``(H, W)``."""
    size = raw.pixels.shape[:2]
    if axes is None:
        if weights.shape != size:
            raise OptionError(
                f"{raw.name}: weights have shape {weights.shape}, the picture {size} (height, "
                "width): accepted is one weight per pixel. For a map of another size give its "
                "axes (y and x, in px of the picture); it is then interpolated between them."
            )
        return weights
    check_axes(weights, axes, ("px", "px"), raw.name)
    known = [axis.values.astype(np.float64) for axis in axes]
    centres = [np.arange(length, dtype=np.float64) + 0.5 for length in size]
    if all(map(np.array_equal, known, centres)):
        return weights
    rows = between(weights.astype(np.float64), known[0], centres[0])
    laid: FloatArray = between(rows.T, known[1], centres[1]).T.astype(np.float32)
    return np.clip(laid, 0.0, 1.0)
