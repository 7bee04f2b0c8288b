"""Grad-CAM against its formula written out, on the toy towers and on ``tiny``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from toy_encoders import ToyAudio, ToyEncoder, ToyImage, ToyText, captions, pictures, recordings

import mmattrib as mm
from mmattrib.engine import Guide
from mmattrib.errors import OptionError
from mmattrib.methods import Side, SideScores
from mmattrib.methods.gradcam import GradCAM

TOYS = {"image": (ToyImage, pictures), "audio": (ToyAudio, recordings), "text": (ToyText, captions)}

pytestmark = pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")


def make_side(modality: str = "text", layer: int = 0, rows: tuple[int, ...] = (0, 1, 2)) -> Side:
    kind, raws = TOYS[modality]
    encoder = kind()
    inputs = encoder.preprocess([raws()[row] for row in rows])
    embeddings = nnf.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(5)))
    guide = Guide(
        embeddings, embeddings[:, None], torch.ones(3, 1, dtype=torch.bool)
    ).select(torch.tensor(rows))  # fmt: skip
    return Side(encoder, inputs, layer, guide, tuple(str(row) for row in rows))


def explain(side: Side, **options: Any) -> SideScores:
    with side.encoder.frozen():
        return GradCAM.build(**options)(side)


def naive(side: Side, row: int, rectify: bool) -> tuple[list[float], float]:
    """The whole tower on one input with a hook, backward from the cosine, sums in plain loops."""
    tower: nn.Module = side.encoder.module.eval()
    kept: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Any, ...], output: Tensor | None = None) -> None:
        tokens = args[0] if output is None else output
        tokens.retain_grad()
        kept.append(tokens)

    blocks = list(tower.blocks)
    if side.layer < 0:
        handle = blocks[0].register_forward_pre_hook(keep)
    else:
        handle = blocks[side.layer].register_forward_hook(keep)
    given = {name: value[row : row + 1] for name, value in side.inputs.tensors.items()}
    embedding = tower(**given)[0]
    handle.remove()
    goal = side.guide.embedding[row]
    cosine = (embedding @ goal) / (embedding.norm() * goal.norm())
    cosine.backward()
    tokens, gradient = kept[0][0].tolist(), kept[0].grad[0].tolist()
    places = [n for n, real in enumerate(side.grid().content[row].tolist()) if real]
    scores = [0.0] * len(tokens)
    for n in places:
        for c in range(len(tokens[0])):
            weight = sum(gradient[m][c] for m in places) / len(places)
            scores[n] += weight * tokens[n][c]
        scores[n] = max(scores[n], 0.0) if rectify else scores[n]
    return scores, cosine.item()


@pytest.mark.parametrize("modality", TOYS)
@pytest.mark.parametrize("layer", [-1, 0, 1])
@pytest.mark.parametrize("rectify", [True, False])
def test_scores_are_those_of_the_formula(modality: str, layer: int, rectify: bool) -> None:
    side = make_side(modality, layer)
    found = explain(side, rectify=rectify)
    for row in range(3):
        expected, cosine = naive(side, row, rectify)
        assert found.scores[row].numpy() == pytest.approx(expected, rel=1e-4, abs=1e-7)
        assert found.diagnostics[row]["clean_cosine"] == pytest.approx(cosine, abs=1e-6)
    assert found.unit == "cosine"


@pytest.mark.parametrize("modality", TOYS)
def test_the_published_map_is_the_positive_part_of_the_signed_one(modality: str) -> None:
    side = make_side(modality)
    signed = explain(side, rectify=False).scores
    assert (signed < 0).any()
    assert (signed > 0).any()
    assert torch.equal(explain(side).scores, signed.clamp(min=0))


@pytest.mark.parametrize("modality", TOYS)
def test_only_content_scores(modality: str) -> None:
    side = make_side(modality)
    content = side.grid().content
    signed = explain(side, rectify=False).scores
    assert not signed[~content].any()
    assert signed[content].all()


@pytest.mark.parametrize("modality", TOYS)
def test_a_map_is_the_same_alone_and_in_any_batch(modality: str) -> None:
    together = explain(make_side(modality), rectify=False)
    turned = explain(make_side(modality, rows=(2, 0, 1)), rectify=False)
    assert torch.equal(turned.scores, together.scores[[2, 0, 1]])
    for row in range(3):
        alone = explain(make_side(modality, rows=(row,)), rectify=False)
        assert torch.equal(alone.scores[0], together.scores[row])
        assert alone.diagnostics[0] == together.diagnostics[row]


def test_what_padding_holds_does_not_matter() -> None:
    class Dirty(ToyText):
        """Padding holds infinities behind the explained layer's cut, and reaches nothing."""

        def prefix(self, inputs: Any, layer: int) -> Tensor:
            tokens = super().prefix(inputs, layer)
            return tokens.masked_fill(~inputs["mask"][..., None], torch.inf)

        def suffix(self, tokens: Tensor, layer: int, inputs: Any) -> Tensor:
            clean = tokens.where(inputs["mask"][..., None], tokens.new_zeros(()))
            return super().suffix(clean, layer, inputs)

    side = make_side()
    dirty = Side(Dirty(), side.inputs, 0, side.guide, side.keys)
    assert torch.equal(explain(dirty).scores, explain(side).scores)


def test_the_model_is_left_untouched() -> None:
    side = make_side("image")
    module = side.encoder.module
    states = {name: value.clone() for name, value in module.state_dict().items()}
    explain(side)
    assert module.training
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert all(torch.equal(value, states[name]) for name, value in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_a_map_that_rectifies_to_nothing_says_so() -> None:
    def with_guide(side: Side, sign: float) -> Side:
        guide = Guide(sign * side.guide.embedding, side.guide.tokens, side.guide.valid)
        return Side(side.encoder, side.inputs, side.layer, guide, side.keys)

    # One content token: its score changes sign with the guide, so one of the two is negative.
    class Short(ToyText):
        def pieces(self, text: str) -> list[tuple[int, int]]:
            return super().pieces(text)[:1]

    encoder = Short()
    whole = make_side(rows=(1,))
    side = Side(encoder, encoder.preprocess(captions()[1:2]), 0, whole.guide, whole.keys)
    signed = explain(side, rectify=False).scores
    sign = -1.0 if signed.sum() > 0 else 1.0
    negative, positive = with_guide(side, sign), with_guide(side, -sign)
    found = explain(negative)
    assert not found.scores.any()
    (sentence,) = found.diagnostics[0]["warnings"]
    assert "0 everywhere; rectify=False gives the signed map" in sentence
    assert explain(positive).diagnostics[0]["warnings"] == []
    assert explain(negative, rectify=False).diagnostics[0]["warnings"] == []


def test_a_tower_in_half_precision_gives_nearly_the_same_map() -> None:
    side, half = make_side(), make_side()
    assert isinstance(half.encoder, ToyEncoder)
    half.encoder.module.bfloat16()
    full, low = explain(side, rectify=False).scores, explain(half, rectify=False).scores
    assert low.dtype == torch.float32
    assert not torch.equal(full, low)
    assert float((full - low).norm() / full.norm()) < 0.1


@pytest.mark.parametrize("pair", [("image", "text"), ("image", "audio"), ("audio", "text")])
def test_tiny_is_explained_in_every_modality(
    pair: tuple[str, str], three_scenes: list[mm.Scene]
) -> None:
    scene = three_scenes[0]
    whole: dict[str, Any] = {
        "image": scene.image, "audio": (scene.audio, scene.sample_rate), "text": scene.caption
    }  # fmt: skip
    given = {modality: whole[modality] for modality in pair}
    tiny = mm.load_backbone("tiny")
    found = mm.attribute(tiny, **given, method="grad-cam")
    signed = mm.attribute(tiny, **given, method="grad-cam", rectify=False)
    for modality in pair:
        side = found[modality]
        assert side.unit == "cosine"
        assert side.scores.any()
        assert (side.scores >= 0).all()
        positive = signed[modality].token_scores.clip(min=0)
        assert np.array_equal(side.token_scores, positive, equal_nan=True)
        assert side.diagnostics["clean_cosine"] == pytest.approx(found.similarity, abs=1e-5)
        assert side.diagnostics["warnings"] == []


def test_the_tokens_that_the_last_block_reads() -> None:
    encoder = ToyImage()
    method = GradCAM.build(place="last-block")
    assert GradCAM.build().default_layer(encoder) == encoder.default_layer == 0
    assert method.default_layer(encoder) == 1
    late = make_side("image", 1)
    assert torch.equal(explain(late, place="last-block").scores, explain(late).scores)
    with pytest.raises(OptionError, match=r"'last-block' is layer 1 .* layer 0 was asked for"):
        explain(make_side("image", 0), place="last-block")
    tiny = mm.load_backbone("tiny")
    image = np.zeros((96, 96, 3), np.uint8)
    found = mm.attribute(tiny, image=image, text="a dog", method="grad-cam", place="last-block")
    assert found["image"].layer == found["text"].layer == 4
