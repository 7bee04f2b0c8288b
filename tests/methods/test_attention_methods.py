"""Methods that read attention, against the tower written out in plain torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as nnf
from toy_encoders import WIDTH, ToyEncoder, ToyImage, ToyText, captions, pictures

import mmattrib as mm
from mmattrib.engine import Guide
from mmattrib.errors import EncoderError, OptionError
from mmattrib.methods import Side
from mmattrib.models import ATTENTION, INPUT_LAYER, AttentionPass
from mmattrib.models.encoder import EncoderInputs

NAMES = ("chefer", "attention-rollout", "legrad", "grad-eclip")


class Image(ToyImage):
    capabilities = frozenset({ATTENTION})


class Text(ToyText):
    capabilities = frozenset({ATTENTION})


class MeanText(Text):
    """Reads its embedding from the mean of the tokens that are no padding."""

    def forward(self, inputs: EncoderInputs) -> Tensor:
        tower, mask = self.module, inputs["mask"]
        x = tower.first(inputs["x"]) + tower.position
        for block in tower.blocks:
            x = block(x, mask)
        x = tower.norm(x) * mask[..., None]
        return tower.head(x.sum(1) / mask.sum(1, keepdim=True))


def make_side(encoder: ToyEncoder, layer: int = -1) -> Side:
    raws = captions() if isinstance(encoder, ToyText) else pictures()
    embeddings = nnf.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(5)))
    guide = Guide(embeddings, embeddings[:, None], torch.ones(3, 1, dtype=torch.bool))
    return Side(encoder, encoder.preprocess(raws), layer, guide, ("a", "b", "c"))


def scores(name: str, side: Side, row: int = 0, **options: Any) -> Tensor:
    with side.encoder.frozen():
        return mm.load_method(name, **options)(side).scores[row]


class Plain:
    """One input through a toy tower by hand, with everything on the way kept."""

    def __init__(self, side: Side, row: int) -> None:
        encoder: Any = side.encoder
        self.tower = encoder.module.eval().requires_grad_(False)
        names = side.inputs.tensors
        self.goal = side.guide.embedding[row]
        self.valid = names["mask"][row] if "mask" in names else torch.ones(13, dtype=torch.bool)
        self.place = int(names["pool"][row]) if "pool" in names else 0
        self.content = side.grid().content[row]
        x = self.tower.first(side.inputs["x"][row])
        if self.tower.cls is not None:
            x = torch.cat([self.tower.cls[0], x])
        x = x + self.tower.position[0]
        self.weights, self.queries, self.keys = [], [], []
        self.values, self.mixed, self.given = [], [], []
        for block in self.tower.blocks:
            q, k, v = block.qkv(block.norm(x)).chunk(3, -1)
            logits = (q @ k.T / WIDTH**0.5).masked_fill(~self.valid, -torch.inf)
            weights = logits.softmax(-1)
            if not weights.requires_grad:  # the first block's
                weights = weights.detach().requires_grad_()
            mixed = weights @ v
            x = x + mixed
            x = x + block.mlp(x)
            for kept, value in (
                (self.weights, weights),
                (self.queries, q),
                (self.keys, k),
                (self.values, v),
                (self.mixed, mixed),
                (self.given, x),
            ):
                kept.append(value)

    def cosine(self, token: Tensor) -> Tensor:
        embedding = self.tower.head(self.tower.norm(token))
        return nnf.cosine_similarity(embedding, self.goal, dim=0)

    def match(self) -> Tensor:
        return self.cosine(self.given[-1][self.place])


def chefer(plain: Plain) -> Tensor:
    slopes = torch.autograd.grad(100 * plain.match(), plain.weights)
    relevance = torch.eye(len(plain.valid))
    for weights, slope in zip(plain.weights, slopes, strict=True):
        relevance = relevance + (slope * weights).clamp_min(0) @ relevance
    return relevance[plain.place] - torch.eye(len(plain.valid))[plain.place]


def rollout(plain: Plain) -> Tensor:
    product = torch.eye(len(plain.valid))
    for weights in plain.weights:
        mixed = 0.5 * weights + 0.5 * torch.eye(len(plain.valid))
        product = mixed / mixed.sum(-1, keepdim=True) @ product
    return product[plain.place].detach()


def legrad(plain: Plain) -> Tensor:
    found = torch.zeros(len(plain.valid))
    for weights, given in zip(plain.weights, plain.given, strict=True):
        mean = given[plain.valid].mean(0)
        (slope,) = torch.autograd.grad(plain.cosine(mean), weights, retain_graph=True)
        found += slope.clamp_min(0)[plain.valid].mean(0) / len(plain.weights)
    return found


def grad_eclip(plain: Plain) -> Tensor:
    found = torch.zeros(len(plain.valid))
    slopes = torch.autograd.grad(plain.match(), plain.mixed)
    for number, slope in enumerate(slopes):
        query = plain.queries[number][plain.place]
        cosine = nnf.cosine_similarity(query[None], plain.keys[number])
        own = cosine[plain.content]
        spatial = (cosine - own.min()) / (own.max() - own.min())
        found += (spatial * (slope[plain.place] * plain.values[number]).sum(-1)).clamp_min(0)
    return found.detach()


PLAIN = {
    "chefer": chefer,
    "attention-rollout": rollout,
    "legrad": legrad,
    "grad-eclip": grad_eclip,
}


@pytest.mark.parametrize("kind", [Image, Text])
@pytest.mark.parametrize("name", NAMES)
def test_a_map_is_that_of_the_tower_written_out(name: str, kind: type[ToyEncoder]) -> None:
    side = make_side(kind(layers=2))
    found = scores(name, side, row=2, start=0)
    plain = Plain(side, 2)
    expected = PLAIN[name](plain)
    torch.testing.assert_close(found[plain.content], expected[plain.content], rtol=1e-4, atol=1e-7)
    assert not found[~plain.valid].any()


@pytest.mark.parametrize("name", NAMES)
def test_blocks_in_front_of_start_or_of_the_layer_do_not_count(name: str) -> None:
    """Relevance of what enters block 1 is that of the input, with block 0 as the identity."""
    encoder = Image()
    late = scores(name, make_side(encoder, layer=0), start=1)
    assert torch.equal(late, scores(name, make_side(encoder), start=1))
    assert torch.equal(late, scores(name, make_side(encoder), start=-2))
    assert not torch.allclose(late, scores(name, make_side(encoder), start=0))
    assert mm.load_method(name).default_layer(encoder) == -1


def test_the_mean_of_rows_where_every_token_is_read() -> None:
    encoder = MeanText(layers=2)
    side = make_side(encoder)
    with encoder.frozen():
        found = mm.load_method("attention-rollout")(side)
    plain = Plain(side, 1)
    product = torch.eye(20)
    for weights in plain.weights:
        product = (0.5 * weights.detach() + 0.5 * torch.eye(20)) @ product
    expected = product[plain.valid].mean(0)
    torch.testing.assert_close(found.scores[1], expected, rtol=1e-4, atol=1e-6)
    assert [entry["read_from"] for entry in found.diagnostics] == side.grid().valid.sum(1).tolist()


def test_a_rollout_is_the_same_for_every_guide_and_the_others_are_not() -> None:
    side = make_side(Image())
    other = replace(side, guide=side.guide.select(torch.tensor([1, 2, 0])))
    for name in NAMES:
        same = torch.equal(scores(name, side), scores(name, other))
        assert same == (name == "attention-rollout")


def test_scale_weighs_long_paths_against_short_ones() -> None:
    """One block: a factor. Two: the part through both of them grows with its square."""
    side = make_side(Image(layers=2))
    content = side.grid().content[0]
    one, ten = (scores("chefer", side, start=-1, scale=s)[content] for s in (1.0, 10.0))
    torch.testing.assert_close(ten, 10 * one)
    both = [scores("chefer", side, scale=s)[content].double() for s in (1.0, 10.0, 100.0)]
    # a s + b s², fitted to the outer two, gives the one in between.
    square = (both[2] - 100 * both[0]) / (100**2 - 100)
    torch.testing.assert_close(both[1], 10 * (both[0] - square) + 100 * square, rtol=1e-3, atol=0)
    assert float(square.abs().max()) > 0


def test_the_encoders_own_pooling_is_another_map() -> None:
    side = make_side(Image(layers=2))
    found = scores("legrad", side, pooling="own")
    plain, expected = Plain(side, 0), torch.zeros(13)
    for weights, given in zip(plain.weights, plain.given, strict=True):
        (slope,) = torch.autograd.grad(plain.cosine(given[0]), weights, retain_graph=True)
        expected += slope.clamp_min(0).mean(0) / 2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_every_clip_of_a_recording_is_read(name: str, three_scenes: list[mm.Scene]) -> None:
    tiny, scene = mm.load_backbone("tiny"), three_scenes[0]
    twice = np.concatenate([scene.audio, scene.audio])
    found = mm.attribute(tiny, audio=(twice, scene.sample_rate), text=scene.caption, method=name)[
        "audio"
    ]
    assert found.layer == -1
    assert found.diagnostics["read_from"] == 2
    first, second = np.split(found.token_scores, 2)
    assert first[1:].any()
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-6)


# ------------------------------------------------------------------------------------ refusals


def test_the_input_is_no_layer_of_the_blocks() -> None:
    tiny = mm.load_backbone("tiny")
    image = np.zeros((96, 96, 3), np.uint8)
    with pytest.raises(OptionError, match=r"'chefer' scores the tokens of the blocks.*-1 to 4"):
        mm.attribute(tiny, image=image, text="a dog", method="chefer", layer=INPUT_LAYER)


def test_no_block_lies_behind_the_last_layer() -> None:
    with pytest.raises(OptionError, match=r"behind layer 2, .* last, is no block .*-1 to 1"):
        scores("chefer", make_side(MeanText(), layer=2))


def test_a_start_that_is_none_of_the_blocks_is_refused() -> None:
    for start in (3, -4):
        with pytest.raises(OptionError, match=rf"start={start}: .* 3 blocks; accepted: -3 to 2"):
            scores("chefer", make_side(Image()), start=start)


def test_a_start_in_front_of_the_layer_is_refused() -> None:
    with pytest.raises(OptionError, match=r"start=1 would have no effect.*layer 1.*2 to 2"):
        scores("chefer", make_side(Image(), layer=1), start=1)


def test_an_encoder_without_attention_is_refused() -> None:
    for name in NAMES:
        with pytest.raises(OptionError, match=f"method '{name}' needs attention of its encoder"):
            scores(name, make_side(ToyImage()))


class Bare(Image):
    """Weights alone."""

    def embed_with_attention(self, inputs: EncoderInputs) -> AttentionPass:
        found = super().embed_with_attention(inputs)
        return replace(found, tokens=(), queries=(None,) * 3, keys=(None,) * 3)


def test_what_a_pass_does_not_hold_is_named() -> None:
    with pytest.raises(EncoderError, match=r"block 2 of the image.*only its attention weights"):
        scores("grad-eclip", make_side(Bare()))
    with pytest.raises(EncoderError, match=r"'legrad' reads what every block gave.*has no tokens"):
        scores("legrad", make_side(Bare()))
    assert scores("chefer", make_side(Bare())).any()


def test_layers_with_other_tokens_than_the_blocks_are_refused() -> None:
    class Merges(Image):
        def embed_with_attention(self, inputs: EncoderInputs) -> AttentionPass:
            found = super().embed_with_attention(inputs)
            half = tuple(weights[:, :, :7, :7] for weights in found.weights)
            return replace(found, weights=half)

    with pytest.raises(EncoderError, match=r"has 13 tokens, and the attention .* between 7"):
        scores("chefer", make_side(Merges()))
