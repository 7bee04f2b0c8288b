"""Behind the explained layer, what does not reach the embedding of a caption is not computed."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import open_clip_models
import pytest
import torch

import mmattrib as mm
from mmattrib.backbones.open_clip import load
from mmattrib.models.block_calls import shortened
from mmattrib.models.towers import TowerEncoder
from mmattrib.types import RawText

pytestmark = [
    pytest.mark.usefixtures("quiet_open_clip"),
    pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning"),
]

Flags = namedtuple("Flags", "mask causal")


def backbone_of(kind: str, folder: Path) -> mm.Backbone:
    return load(f"local-dir:{open_clip_models.write(kind, folder)[0]}")


def slopes(encoder: Any, inputs: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings, and the gradient of their sum, at layer 0."""
    leaf = tokens.clone().requires_grad_()
    found = encoder.suffix(leaf, 0, inputs)
    return found.detach(), torch.autograd.grad(found.square().cumsum(-1).sum(), leaf)[0]


@pytest.mark.parametrize("kind", ["plain", "custom_text"])
def test_a_suffix_leaves_out_what_stands_behind_the_end(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder: Any = backbone_of(kind, tmp_path)["text"]
    inputs = encoder.preprocess(checkpoints.CAPTIONS)
    valid = encoder.grid(inputs, 0).valid
    seen: list[int] = []

    def look(_module: Any, args: Any, _output: Any) -> None:
        seen.append(args[0].shape[1])

    vars(look)["only_looks"] = True  # one that might change something is given every token
    with encoder.frozen():
        tokens = encoder.prefix(inputs, 0).detach()
        handle = encoder.blocks[1].register_forward_hook(look)
        quick, slope = slopes(encoder, inputs, tokens)
        one = inputs.select([2])
        encoder.suffix(tokens[2:], 0, one)
        monkeypatch.setattr(type(encoder), "reach", TowerEncoder.reach)
        whole, expected = slopes(encoder, inputs, tokens)
        handle.remove()
    counts = valid.sum(-1)
    assert seen == [int(counts.max()), int(counts[2]), valid.shape[1]]
    assert counts.max() < valid.shape[1]
    torch.testing.assert_close(quick, whole, rtol=0, atol=1e-6)
    largest = float(expected.abs().max())
    torch.testing.assert_close(slope / largest, expected / largest, rtol=0, atol=1e-6)
    assert slope.shape == tokens.shape
    assert not slope[~valid].any()


def test_maps_are_those_of_the_whole_caption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of("plain", tmp_path)
    pair = {"image": checkpoints.pictures()[0], "text": checkpoints.CAPTIONS[1]}
    options = {"points": 4, "guide_points": 2, "draws_behind": 2}
    found = mm.attribute(backbone, **pair, **options)
    monkeypatch.setattr(type(backbone["text"]), "reach", TowerEncoder.reach)
    plain = mm.attribute(backbone, **pair, **options)
    for side, expected in plain.items():
        scores = expected.token_scores[expected.content]
        gap = np.abs(found[side].token_scores[expected.content] - scores).max()
        assert gap <= 1e-5 * np.abs(scores).max()


@pytest.mark.parametrize("kind", ["averaged", "coca"])
def test_a_tower_that_reads_its_padding_is_given_all_of_it(kind: str, tmp_path: Path) -> None:
    encoder: Any = backbone_of(kind, tmp_path)["text"]
    assert encoder.reach(encoder.preprocess([RawText("a small red cat")])) is None


def test_masks_are_cut_on_both_axes_and_nothing_else() -> None:
    mask = torch.arange(25.0).view(5, 5)
    heads = mask.expand(2, 3, 5, 5)
    flags = Flags(mask, True)
    other = torch.zeros(4, 7)
    found = shortened((([mask, None], other), {"flags": flags, "deep": {"heads": heads}}), 3, 5, 2)
    assert found is not None
    (listed, kept), named = found
    assert torch.equal(listed[0], torch.tensor([[0.0, 1.0], [5.0, 6.0]]))
    assert listed[1] is None
    assert kept is other
    assert isinstance(named["flags"], Flags)
    assert named["flags"].mask.shape == (2, 2)
    assert named["deep"]["heads"].shape == (2, 3, 2, 2)
    assert shortened(((torch.zeros(1, 5, dtype=torch.bool),), {}), 1, 5, 2) is None
    assert shortened(((mask,), {}), 5, 5, 2) is None  # a mask of five rows, or of five tokens
    assert shortened(((), {}), 1, 5, 2) == ((), {})


@pytest.mark.parametrize("attention", [False, True])
def test_a_hook_that_reads_every_place_is_given_them(attention: bool, tmp_path: Path) -> None:
    backbone = backbone_of("plain", tmp_path)
    encoder: Any = backbone["text"]
    inputs = encoder.preprocess(checkpoints.CAPTIONS)
    places = torch.linspace(-1, 1, inputs["ids"].shape[1], device="cpu")[:, None]

    def shift(_module: Any, _args: Any, output: Any) -> Any:
        return (output[0] + places, *output[1:]) if attention else output + places

    part = encoder.blocks[1].attn if attention else encoder.blocks[1]
    part.register_forward_hook(shift)
    with encoder.frozen(), torch.no_grad():
        found = encoder.suffix(encoder.prefix(inputs, 0), 0, inputs)
        torch.testing.assert_close(found, encoder.embed(inputs), rtol=0, atol=1e-6)
