"""Convolutional towers: tokens are places of a feature map, found again where they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import einops
import numpy as np
import pytest
import torch
from conv_encoders import SIZE, ToyConv
from torch import Tensor, nn
from toy_encoders import ToyText, captions, pictures

import mmattrib as mm
from mmattrib.errors import EncoderError, OptionError
from mmattrib.models import ConvCells, EncoderInputs
from mmattrib.models.blocks import first_of, with_first
from mmattrib.models.grids import Box, ImageGrid, Layout
from mmattrib.testing import check_encoder, check_grid, check_method
from mmattrib.types import RawImage

PICTURES = pictures(3, 200, 170)


def test_a_convolutional_encoder_keeps_its_contract() -> None:
    check_encoder(ToyConv(), PICTURES)


@pytest.mark.parametrize("layer", [-1, 0, 1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_its_places_are_found_again(layer: int, seed: int) -> None:
    check_grid(ToyConv(), PICTURES[0], layer=layer, slack=0.5, seed=seed, count=6)


class Turned(ToyConv):
    """Columns first, in a grid of rows first."""

    def tokens_from(self, output: Any) -> Tensor:
        return einops.rearrange(first_of(output), "b c h w -> b (w h) c")

    def with_tokens(self, output: Any, tokens: Tensor) -> Any:
        rows = first_of(output).shape[2]
        return with_first(output, einops.rearrange(tokens, "b (w h) c -> b c h w", h=rows).clone())


class Mirrored(ToyConv):
    def preprocess(self, raws: Any) -> EncoderInputs:
        made = super().preprocess([RawImage(raw.pixels[:, ::-1].copy()) for raw in raws])
        return EncoderInputs(made.tensors, tuple(raws))


class Shifted(ToyConv):
    """Off by one place, down and to the right."""

    by = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.cells = tuple(
            replace(each, centre=each.centre + self.by * each.stride) for each in self.cells
        )


class ShiftedBack(Shifted):
    by = -1.0


class Stretched(ToyConv):
    """A wrong scale: everything lies a quarter farther from the corner."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = tuple(replace(each, stride=1.25 * each.stride) for each in self.cells)


@pytest.mark.parametrize("layer", [-1, 1, 2])
@pytest.mark.parametrize("fault", [Turned, Mirrored, Shifted, ShiftedBack, Stretched])
def test_a_misplaced_feature_map_is_found_in_spite_of_the_slack(
    fault: Callable[[], ToyConv], layer: int
) -> None:
    with pytest.raises(EncoderError, match="misplaces"):
        check_grid(fault(), PICTURES[0], layer=layer, slack=0.5, count=4)


@pytest.mark.parametrize(
    "steps",
    [
        [(7, 2, 3)],
        [(7, 2, 3), (3, 2, 1)],
        [(3, 2, 1), (3, 1, 1), (2, 2, 0)],
        [(5, 1, 0), (4, 4, 0)],
        [(3, 1, 2, 2), (3, 2, 1)],
    ],
)
def test_strides_and_centres_are_those_of_the_gradient(steps: list[tuple[int, ...]]) -> None:
    """What a place reads, by a network of ones, is centred where the cells say."""
    cells = ConvCells.of_input((64, 48))
    layers = []
    for step in steps:
        cells = cells.through(*step)
        layers.append(nn.Conv2d(1, 1, *step, bias=False))
        nn.init.ones_(layers[-1].weight)
    pixels = torch.zeros(1, 1, 64, 48, requires_grad=True)
    found = nn.Sequential(*layers)(pixels)
    assert found.shape[2:] == cells.count
    row, column = cells.count[0] // 2, cells.count[1] // 2
    (read,) = torch.autograd.grad(found[0, 0, row, column], pixels)
    down, across = (np.average(np.arange(n) + 0.5, weights=read[0, 0].sum(1 - axis))
                    for axis, n in enumerate((64, 48)))  # fmt: skip
    assert down == pytest.approx(cells.centre + row * cells.stride)
    assert across == pytest.approx(cells.centre + column * cells.stride)


def test_a_kernel_that_leaves_nothing_is_named() -> None:
    with pytest.raises(EncoderError, match="no place left"):
        ConvCells.of_input((4, 4)).through(7)


def test_all_that_the_tower_saw_is_seen_though_cells_are_centred_beside() -> None:
    encoder = ToyConv()
    inputs = encoder.preprocess(PICTURES[:1])
    for layer in range(-1, 3):
        grid = encoder.grid(inputs, layer)
        top, left, bottom, right = inputs["boxes"][0].tolist()
        seen = grid.placement(0).seen(grid.content[0].numpy())
        assert seen[top:bottom, left:right].all()
        assert seen.sum() == (bottom - top) * (right - left)


@pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")
def test_methods_cope_with_maps_of_other_sizes_at_other_layers() -> None:
    """The default layer has as many places as the last; others say what they need."""
    backbone = mm.Backbone({"image": ToyConv(), "text": ToyText()})
    pair = {"image": PICTURES[0], "text": "a small dog barks"}
    few = {"points": 4, "guide_points": 2, "draws_behind": 2}
    found = mm.attribute(backbone, inputs=pair, **few)
    assert found.provenance["layers"] == {"image": 1, "text": 0}
    assert found["image"].token_scores.shape == (SIZE[0] // 8 * SIZE[1] // 8,)
    assert found["image"].scores.shape == PICTURES[0].pixels.shape[:2]
    both = mm.attribute(backbone, inputs=pair, layer={"image": -1}, pooled="none", depth=2, **few)
    assert both["image"].token_scores.shape == (SIZE[0] // 4 * SIZE[1] // 4,)
    with pytest.raises(OptionError, match=r"depth 3 spans layers with 96 and 384 tokens"):
        mm.attribute(backbone, inputs=pair, layer={"image": -1}, pooled="none", depth=3, **few)
    with pytest.raises(OptionError, match=r"384 .*96 tokens.*pooled='none'"):
        mm.attribute(backbone, inputs=pair, layer={"image": -1}, **few)
    check_method(mm.load_method("nib", steps=2), ToyConv(), PICTURES, ToyText(), captions())


def test_blocks_of_other_shapes_are_named() -> None:
    encoder = ToyConv()
    with pytest.raises(EncoderError, match=r"gave \(2, 3, 4\); accepted: a feature map"):
        encoder.tokens_from(torch.zeros(2, 3, 4))


# ------------------------------------------------------------------- boxes between the places


def test_a_box_may_lie_between_the_places() -> None:
    """Tokens centred half a cell off: an even grid of 4-pixel cells, 2 pixels to the left."""
    layout = Layout("h w", "h w", {"h": 1, "w": 3})
    grid = ImageGrid(layout, [(2, 12)], [Box(-0.5, -1.5, 2.5, 10.5)])
    ramp = np.tile(np.arange(12, dtype=np.float32) + 0.5, (2, 1))
    # cells 2.5 to 6.5 and 6.5 to 10.5 average the ramp at their middles
    middles = grid.to_tokens([ramp])[0] * 3 / 2  # of 3 rows, 2 are inside
    np.testing.assert_allclose(middles[1:].numpy(), [4.5, 8.5], rtol=1e-6)
    laid = grid.to_input(torch.tensor([[0.0, 1.0, 0.0]]))[0]
    assert laid[0].argmax() == 4
    assert not laid[0, 11]  # behind the box


def test_a_box_on_whole_places_averages_as_one_between_them() -> None:
    layout = Layout("h w", "h w", {"h": 2, "w": 3})
    values = np.random.default_rng(0).random((8, 12)).astype(np.float32)
    whole = ImageGrid(layout, [(8, 12)], [Box(0, 0, 8, 12)]).to_tokens([values])
    beside = ImageGrid(layout, [(8, 12)], [Box(1e-9, 0, 8, 12)]).to_tokens([values])
    torch.testing.assert_close(whole, beside)


class TooSteep(ToyConv):
    """The embedding is right; its gradient with respect to the pixels is a tenth too large."""

    def forward(self, inputs: EncoderInputs) -> Tensor:
        pixels = inputs["pixels"]
        return self.module(1.1 * pixels - (0.1 * pixels).detach())


def test_a_gradient_at_the_input_that_is_off_by_a_tenth_is_refused() -> None:
    with pytest.raises(EncoderError, match="gradient at layer -2"):
        check_encoder(TooSteep(), PICTURES, layers=[-2])
    check_encoder(ToyConv(), PICTURES, layers=[-2])
