"""CLIP's ResNets, open_clip's `ModifiedResNet`, as a convolutional tower of one's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conv_encoders import ResNetClip, resnet_clip
from toy_encoders import ToyText

import mmattrib as mm
from mmattrib.testing import check_encoder, check_grid
from mmattrib.types import RawImage

pytestmark = [
    pytest.mark.usefixtures("quiet_open_clip"),
    pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning"),
]


def pictures(height: int, width: int) -> list[RawImage]:
    random = np.random.default_rng(1)
    return [
        RawImage(random.integers(0, 256, (height, width, 3), dtype=np.uint8), f"noise {number}")
        for number in range(2)
    ]


def test_a_small_resnet_clip_conforms() -> None:
    encoder = ResNetClip(resnet_clip(16, (1, 2, 1, 1), 128))
    assert [each.count for each in encoder.cells] == [
        (32, 32), (32, 32), (16, 16), (16, 16), (8, 8), (4, 4),
    ]  # fmt: skip
    # each pooling of two shifts the centres by half of what is in front of it
    assert [each.centre for each in encoder.cells] == [1.5, 1.5, 3.5, 3.5, 7.5, 15.5]
    raws = pictures(260, 300)
    check_encoder(encoder, raws, layers=[-2, -1, 2, 4])
    for layer in (-1, 0, 1, 2):
        check_grid(encoder, raws[0], layer=layer, slack=0.5, count=6)
    backbone = mm.Backbone({"image": encoder, "text": ToyText()})
    found = mm.attribute(
        backbone, image=raws[0], text="a dog", method="grad-cam", layer={"image": 3}
    )
    assert found["image"].token_scores.shape == (64,)


@pytest.mark.parametrize("shape", [(16, (1, 1, 1, 1), 64), (8, (1, 1, 1, 1), 64)])
def test_the_gradient_at_the_input_is_the_limit_of_finite_differences(
    shape: tuple[int, tuple[int, ...], int],
) -> None:
    """Over a large step they are off by a tenth and more: ReLUs switch on the way, no fault."""
    encoder = ResNetClip(resnet_clip(*shape))
    encoder.module.double()
    pixels = encoder.preprocess(pictures(80, 80)[:1])["pixels"].double()
    direction = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64)

    def value(at: torch.Tensor) -> torch.Tensor:
        return (torch.nn.functional.normalize(encoder.module(at)[0], dim=-1) * direction).sum()

    leaf = pixels.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(value(leaf), leaf)
    along = slope / slope.norm()

    def off(change: float) -> float:
        step = change / float(slope.norm())
        with torch.no_grad():
            rise = value(pixels + step * along) - value(pixels - step * along)
        return abs(float(rise) / (2 * change) - 1)

    assert off(0.03) > 0.02
    assert off(1e-7) < 1e-4


@pytest.mark.slow
def test_the_full_resnet_50_clip_conforms() -> None:
    encoder = ResNetClip(resnet_clip(64, (3, 4, 6, 3), 224))
    raws = pictures(450, 500)
    check_encoder(encoder, raws, layers=[-1, 6, 15])
    for layer in (-1, 2, 6):
        check_grid(encoder, raws[0], layer=layer, slack=0.5)
