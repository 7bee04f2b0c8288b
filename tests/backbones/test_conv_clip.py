"""CLIP's ResNets, open_clip's `ModifiedResNet`, as a convolutional tower of one's own."""

from __future__ import annotations

import numpy as np
import pytest
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
    check_encoder(encoder, raws, layers=[-1, 2, 4])
    for layer in (-1, 0, 1, 2):
        check_grid(encoder, raws[0], layer=layer, slack=0.5, count=6)
    backbone = mm.Backbone({"image": encoder, "text": ToyText()})
    found = mm.attribute(
        backbone, image=raws[0], text="a dog", method="grad-cam", layer={"image": 3}
    )
    assert found["image"].token_scores.shape == (64,)


@pytest.mark.slow
def test_the_full_resnet_50_clip_conforms() -> None:
    encoder = ResNetClip(resnet_clip(64, (3, 4, 6, 3), 224))
    raws = pictures(450, 500)
    check_encoder(encoder, raws, layers=[-1, 6, 15])
    for layer in (-1, 2, 6):
        check_grid(encoder, raws[0], layer=layer, slack=0.5)
