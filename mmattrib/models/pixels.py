"""Preprocess pictures as a checkpoint asks, and record which part of each the tower sees."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.errors import WeightsError, brief
from mmattrib.models.grids import Box, ImageGrid, Layout
from mmattrib.models.resizing import Resample, centre_crop, letterbox, normalise, stretch
from mmattrib.types import RawImage

Fit: TypeAlias = Literal["crop", "stretch", "letterbox"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Per channel, for pixels in [0, 1]; Radford et al. 2021, in OpenAI's released preprocessing."""

CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Per channel, for pixels in [0, 1]; Radford et al. 2021, in OpenAI's released preprocessing."""

LEAST_STD = 1e-3
"""Least spread of a channel, for pixels in [0, 1]: a quarter of one of 256 levels."""

MOST = 1e3
"""Largest mean or spread of a channel, for pixels in [0, 1]: many times the whole range."""

_CORRECT = (
    "Correct image_mean and image_std in the checkpoint's preprocessor_config.json or "
    "processor_config.json (open_clip: mean and std of preprocess_cfg in open_clip_config.json)"
)

_PILLOW: dict[int, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class PixelRecipe:
    """How a picture is resized, cropped and normalised into an image tower's input.

    Attributes:
        size: height and width that the tower takes, in pixels.
        mean: per channel, for pixels in [0, 1].
        std: per channel, for pixels in [0, 1].
        fit: ``"crop"`` covers ``size`` and crops the centre, ``"stretch"`` squeezes,
            ``"letterbox"`` pads with black.
        resample: the filter.
        shorter: for ``"crop"``, the shorter side after resizing, where it is more than ``size``.
        via: letterbox to this size first, then resize to ``size`` bicubically without
            antialiasing, as tensors were resized before torchvision 0.17.

    Raises:
        WeightsError: mean or spread are not three numbers each, or none that pixels have.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    fit: Fit = "crop"
    resample: Resample = "bicubic"
    shorter: int | None = None
    via: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        shift, spread = three(self.mean, "image_mean"), three(self.std, "image_std")
        if any(abs(v) > MOST for v in (*shift, *spread)) or any(v < LEAST_STD for v in spread):
            raise WeightsError(
                f"pictures would be normalised by mean {self.mean} and spread {self.std}; "
                f"accepted: three numbers each, of pixels in [0, 1], up to {MOST:g}, the spread "
                f"above 0 and at least {LEAST_STD:g}. {_CORRECT}"
            )

    def __call__(self, raw: RawImage) -> tuple[Tensor, Box]:
        """``(3, h, w)`` float32, and the part of ``raw`` that it shows, in its own pixels."""
        if self.fit == "crop":
            pixels, box = centre_crop(raw, self.size, self.resample, self.shorter)
        elif self.fit == "stretch":
            pixels, box = stretch(raw, self.size, self.resample)
        else:
            pixels, box = letterbox(raw, self.via or self.size, self.resample)
        tensor = normalise(pixels, self.mean, self.std)
        if tensor.shape[1:] != self.size:
            tensor = nnf.interpolate(tensor[None], self.size, mode="bicubic")[0]
        return tensor, box

    @classmethod
    def from_processor(cls, processor: Any, size: tuple[int, int]) -> PixelRecipe:
        """What a transformers image processor does, for a tower that takes ``size``.

        Raises:
            WeightsError: it does something that this recipe cannot say, or gives another size.
        """
        resize, crop = _sides(processor.size), _sides(getattr(processor, "crop_size", None))
        if not getattr(processor, "do_resize", True):
            raise WeightsError(
                "the checkpoint's image processor does not resize, so that the size of pictures "
                "is left to the caller; set do_resize and size in its preprocessor_config.json"
            )
        crops = bool(getattr(processor, "do_center_crop", False))
        given: dict[str, Any] = {
            "mean": _statistics(processor, "image_mean", 0.0),
            "std": _statistics(processor, "image_std", 1.0),
            "resample": _resample(getattr(processor, "resample", 3)),
        }
        if resize.get("shortest_edge") and crops and {"height", "width"} <= crop.keys():
            recipe = cls((crop["height"], crop["width"]), shorter=resize["shortest_edge"], **given)
        elif {"height", "width"} <= resize.keys() and (
            not crops or {k: crop.get(k) for k in ("height", "width")} == resize
        ):
            recipe = cls((resize["height"], resize["width"]), fit="stretch", **given)
        else:
            raise WeightsError(
                f"the checkpoint's image processor resizes to {resize} and crops to "
                f"{crop if crops else 'nothing'}; accepted: shortest_edge with a centre crop, or "
                "height and width. Correct its preprocessor_config.json"
            )
        if recipe.size != size:
            raise WeightsError(
                f"the checkpoint's image processor gives {recipe.size[0]} x {recipe.size[1]} "
                f"pixels, its image tower takes {size[0]} x {size[1]}; they belong to different "
                "models. Correct preprocessor_config.json, or give the matching processor"
            )
        return recipe


def three(values: Any, name: str) -> tuple[float, ...]:
    """A mean or spread per channel, as a checkpoint's file gives it.

    Args:
        values: three numbers, or something else.
        name: the file's field, for the message.

    Raises:
        WeightsError: something else.
    """
    found = values if isinstance(values, list | tuple) else [values]
    numbers: list[Any] = [v for v in found if isinstance(v, Real) and not isinstance(v, bool)]
    finite = all(abs(v) <= sys.float_info.max for v in numbers)
    if len(numbers) != len(found) or len(found) != 3 or not finite:
        raise WeightsError(
            f"the checkpoint says {name} {brief(values)}; accepted: three numbers each for "
            f"mean and spread. {_CORRECT}"
        )
    return tuple(map(float, numbers))


def _sides(size: Any) -> dict[str, int]:
    """The entries of a transformers size, whichever type it has; a bare number is a square.

    Raises:
        WeightsError: a side is no whole number of pixels.
    """
    if size is None:
        return {}
    if isinstance(size, int):
        return {"height": size, "width": size}
    names = ("height", "width", "shortest_edge")
    found = {name: size.get(name) for name in names} if hasattr(size, "get") else {}
    if not found and isinstance(size, Mapping):
        found = dict(size)
    sides = {name: value for name, value in found.items() if value is not None}
    for name, value in sides.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 2**16:
            raise WeightsError(
                f"the checkpoint's image processor says {name} {str(value)[:80]!r}; accepted: "
                f"pixels, from 1 to {2**16}. Correct size and crop_size in its "
                "preprocessor_config.json"
            )
    return sides


def _statistics(processor: Any, name: str, neutral: float) -> tuple[float, ...]:
    """Mean or spread for pixels in [0, 1], whatever the processor scales pixels by."""
    normalises = getattr(processor, "do_normalize", True)
    values: Any = getattr(processor, name, None) if normalises else None
    values = [neutral] * 3 if values is None else values
    values = [values] * 3 if isinstance(values, int | float) else values
    rescales = getattr(processor, "do_rescale", True)
    factor = getattr(processor, "rescale_factor", 1 / 255) if rescales else 1.0
    number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if not (number and 0 < factor <= sys.float_info.max):
        raise WeightsError(
            f"the checkpoint's image processor rescales pixels by {brief(factor)}; accepted: a "
            "number above 0. Correct rescale_factor in its preprocessor_config.json"
        )
    return tuple(value / (255.0 * factor) for value in three(values, name))


def _resample(value: Any) -> Resample:
    try:
        return _PILLOW[int(value)]
    except (KeyError, TypeError, ValueError):
        raise WeightsError(
            f"the checkpoint's image processor resizes with filter {brief(value)}; accepted: "
            f"pillow's numbers {sorted(_PILLOW)}"
        ) from None


def patch_grid(
    raws: Sequence[RawImage],
    recipe: PixelRecipe,
    boxes: Tensor,
    patch: tuple[int, int],
    prefix: int,
) -> ImageGrid:
    """Where row-major patches lie on each picture.

    Args:
        raws: the pictures.
        recipe: that made the tensors.
        boxes: ``(B, 4)``, each picture's box as top, left, bottom, right.
        patch: height and width of a patch, in the tower's pixels. What is left over at the right
            and the bottom of the tower's input is seen by no patch.
        prefix: tokens before the patches.
    """
    rows, columns = recipe.size[0] // patch[0], recipe.size[1] // patch[1]
    down, across = rows * patch[0] / recipe.size[0], columns * patch[1] / recipe.size[1]
    seen = [
        Box(top, left, top + round((bottom - top) * down), left + round((right - left) * across))
        for top, left, bottom, right in boxes.tolist()
    ]
    sizes = [(int(raw.pixels.shape[0]), int(raw.pixels.shape[1])) for raw in raws]
    layout = Layout("h w", "h w", {"h": rows, "w": columns})
    return ImageGrid(layout, sizes, seen, prefix=prefix)


def stacked(raws: Sequence[RawImage], recipe: PixelRecipe) -> tuple[Tensor, Tensor]:
    """``(B, 3, h, w)`` float32 and ``(B, 4)`` boxes of several pictures."""
    made = [recipe(raw) for raw in raws]
    boxes = [(box.top, box.left, box.bottom, box.right) for _, box in made]
    return torch.stack([pixels for pixels, _ in made]), torch.from_numpy(np.array(boxes))
