"""Resizing and cropping give the pixels that they name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mmattrib.errors import OptionError
from mmattrib.models import resizing
from mmattrib.types import RawImage


@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (33, 33), (7, 300), (201, 199)])
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (40, 24)])
def test_centre_crop_equals_resize_then_crop(shape: tuple[int, int], size: tuple[int, int]) -> None:
    # away from black and white: pillow clips between its two passes, whose order it chooses
    pixels = np.random.default_rng(1).integers(80, 176, (*shape, 3)).astype(np.uint8)
    h, w = size
    height, width = shape
    wide = h * width >= w * height
    covering = (h, h * width // height) if wide else (w * height // width, w)
    whole = Image.fromarray(pixels).resize(covering[::-1], Image.Resampling.BICUBIC)
    top, left = round((covering[0] - h) / 2), round((covering[1] - w) / 2)
    expected = np.asarray(whole)[top : top + h, left : left + w].astype(int)
    result, box = resizing.centre_crop(RawImage(pixels), size)
    assert result.shape == (h, w, 3)
    assert np.abs(result.astype(int) - expected).max() <= 2
    assert 0 <= box.top < box.bottom <= height
    assert 0 <= box.left < box.right <= width
    # the box is the centre, with the proportions asked for, to a pixel
    assert abs((box.top + box.bottom) - height) <= 2 * height / covering[0] + 1
    assert abs((box.left + box.right) - width) <= 2 * width / covering[1] + 1
    assert (box.bottom - box.top, box.right - box.left)[not wide] == (height, width)[not wide]


def test_crop_box_names_the_pixels_that_are_seen() -> None:
    pixels = np.zeros((50, 200, 3), dtype=np.uint8)
    result, box = resizing.centre_crop(RawImage(pixels), (25, 25))
    assert (box.top, box.left, box.bottom, box.right) == (0, 76, 50, 126)
    pixels[:, box.left : box.right] = 255
    inside, _ = resizing.centre_crop(RawImage(pixels), (25, 25))
    assert result.max() == 0
    assert inside[:, 2:-2].min() == 255


def test_extreme_proportions_stay_small() -> None:
    pixels = np.zeros((1, 300_000, 3), dtype=np.uint8)
    result, box = resizing.centre_crop(RawImage(pixels), (224, 224))
    assert result.shape == (224, 224, 3)
    assert box.right - box.left == 1


def test_pixels_to_tensor() -> None:
    raw = RawImage(np.full((30, 60, 3), 255, dtype=np.uint8))
    tensor, box = resizing.pixels_to_tensor(raw, (8, 8), (0.5, 0.25, 1.0), (0.5, 0.25, 2.0))
    assert tensor.shape == (3, 8, 8)
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor[:, 0, 0], torch.tensor([1.0, 3.0, 0.0]))
    assert (box.left, box.right) == (15, 45)
    _, box = resizing.pixels_to_tensor(raw, (8, 8), fit="stretch")
    assert (box.left, box.right, box.bottom) == (0, 60, 30)
    with pytest.raises(OptionError, match="fit must be"):
        resizing.pixels_to_tensor(raw, (8, 8), fit="pad")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="size must be"):
        resizing.pixels_to_tensor(raw, (0, 8))
