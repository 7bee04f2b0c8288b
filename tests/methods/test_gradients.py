"""Saliency and integrated gradients: exact on a linear match, complete on any."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as nnf
from toy_encoders import RAWS, WIDTH, ToyAudio, ToyEncoder, ToyImage, ToyText

import mmattrib as mm
from mmattrib.engine import Guide, path_attribution
from mmattrib.errors import TrustWarning
from mmattrib.methods import Side, SideScores
from mmattrib.models import INPUT_LAYER
from mmattrib.models.encoder import EncoderInputs
from mmattrib.types import RawAudio, RawText

TOYS: dict[str, type[ToyEncoder]] = {"image": ToyImage, "audio": ToyAudio, "text": ToyText}
SLOPE = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(3))


class Linear(ToyText):
    """An embedding whose cosine with the first axis is linear in the tokens."""

    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        known = tokens.where(inputs["mask"][..., None], tokens.new_zeros(()))
        cosine = 0.01 * (known * SLOPE).sum((1, 2))
        rest = (1 - cosine.square()).sqrt()
        return nnf.pad(torch.stack([cosine, rest], -1), (0, 6))


def make_side(encoder: ToyEncoder, guide: Tensor | None = None, layer: int = 0) -> Side:
    raws = RAWS[encoder.modality]()
    if guide is None:
        guide = nnf.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(5)))
    own = Guide(guide, guide[:, None], torch.ones(3, 1, dtype=torch.bool))
    return Side(encoder, encoder.preprocess(raws), layer, own, ("a", "b", "c"))


def explain(name: str, side: Side, **options: Any) -> SideScores:
    with side.encoder.frozen():
        return mm.load_method(name, **options)(side)


FIRST_AXIS = nnf.one_hot(torch.zeros(3, dtype=torch.long), 8).float()


def test_saliency_of_a_linear_match_is_the_size_of_its_slopes() -> None:
    side = make_side(Linear(), FIRST_AXIS)
    valid = side.grid().valid[..., None]
    sizes = (0.01 * SLOPE.abs()).where(valid, torch.zeros(()))
    torch.testing.assert_close(explain("saliency", side).scores, sizes.amax(-1))
    torch.testing.assert_close(explain("saliency", side, channels="sum").scores, sizes.sum(-1))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_integrated_gradients_of_a_linear_match_are_exact(steps: int, baseline: str) -> None:
    side = make_side(Linear(), FIRST_AXIS)
    found = explain("integrated-gradients", side, steps=steps, baseline=baseline)
    with side.encoder.frozen():
        tokens = side.tokens()
    for row in range(3):
        moved = tokens[row].clone()
        content = side.grid().content[row]
        if baseline == "mean":
            moved[content] = tokens[row][content] - tokens[row][content].mean(0)
            moved[~content] = 0
        expected = (0.01 * SLOPE * moved).sum(-1) * side.grid().valid[row]
        torch.testing.assert_close(found.scores[row], expected, rtol=1e-4, atol=1e-7)
        assert abs(found.diagnostics[row]["completeness_gap"]) < 1e-6


@pytest.mark.parametrize("modality", TOYS)
def test_integrated_gradients_add_up_to_what_the_path_gains(modality: str) -> None:
    side = make_side(TOYS[modality]())
    gaps = []
    for steps in (8, 64):
        found = explain("integrated-gradients", side, steps=steps)
        for row, entry in enumerate(found.diagnostics):
            gained = entry["clean_cosine"] - entry["cosine_at_baseline"]
            total = float(found.scores[row].sum())
            assert entry["completeness_gap"] == pytest.approx(total - gained, abs=1e-6)
        gaps.append(max(abs(entry["completeness_gap"]) for entry in found.diagnostics))
    assert gaps[1] < 1e-3
    assert gaps[1] < gaps[0]


def test_a_path_from_zero_adds_up_at_the_input() -> None:
    tiny = mm.load_backbone("tiny")
    wave = np.random.default_rng(0).normal(0, 0.1, 2 * 16000).astype(np.float32)
    options: dict[str, Any] = {"method": "integrated-gradients", "baseline": "zero", "steps": 32}
    encoder = tiny["audio"]
    with encoder.frozen():
        inputs = encoder.preprocess([RawAudio(wave, 16000)])
        zero = encoder.embed(inputs.with_tensor("x", torch.zeros_like(inputs["x"])))
        text = tiny["text"]
        with text.frozen():
            guide = text.embed(text.preprocess([RawText("a dog")]))
    with pytest.warns(TrustWarning, match="more steps= bring them together"):  # the caption's
        found = mm.attribute(tiny, audio=(wave, 16000), text="a dog", **options)
    entry = found["audio"].diagnostics
    assert entry["cosine_at_baseline"] == pytest.approx(float((zero * guide).sum()), abs=1e-5)
    assert abs(entry["completeness_gap"]) < 5e-3


def test_the_middles_of_a_path_converge_faster_than_its_ends() -> None:
    side = make_side(ToyImage())
    with side.encoder.frozen():
        tokens = side.tokens()
        start = tokens.mean(1, keepdim=True).expand_as(tokens)
        gained = float((side.cosines(tokens) - side.cosines(start))[0])

        def gap(rule: Any, steps: int) -> float:
            found = path_attribution(
                tokens[:1],
                side.suffix,
                side.guide.embedding,
                steps=steps,
                rule=rule,
                baseline=start,
            )
            return abs(float(found.sum()) - gained)

        assert gap("midpoint", 16) < 0.1 * gap("right", 16)
        assert 3 < gap("midpoint", 8) / gap("midpoint", 16) < 5  # as 1/n²
        assert 1.5 < gap("right", 8) / gap("right", 16) < 2.5  # as 1/n


def test_from_zero_tokens_the_ends_of_the_path_are_nib() -> None:
    side = make_side(ToyText())
    with side.encoder.frozen():
        tokens = side.tokens()
        found = path_attribution(
            tokens,
            side.suffix,
            side.guide.embedding,
            steps=10,
            baseline=torch.zeros_like(tokens),
        )
    torch.testing.assert_close(found, explain("nib", side).scores)


def test_what_is_not_content_scores_nothing_from_the_mean() -> None:
    side = make_side(ToyText())
    found = explain("integrated-gradients", side, steps=4).scores
    assert not found[~side.grid().content].any()
    assert found[0][side.grid().content[0]].all()


@pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")  # of two steps
@pytest.mark.parametrize("name", ["saliency", "integrated-gradients"])
def test_the_input_itself_is_explained_where_the_encoder_offers_it(name: str) -> None:
    tiny = mm.load_backbone("tiny")
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3)).astype(np.uint8)
    options: dict[str, Any] = {"steps": 2} if name == "integrated-gradients" else {}
    found = mm.attribute(tiny, image=image, text="a dog", method=name, **options)
    assert found["image"].layer == found["text"].layer == INPUT_LAYER
    assert found["image"].token_scores.shape == (96 * 96,)
    later = mm.attribute(tiny, image=image, text="a dog", method=name, layer=1, **options)
    assert later["image"].token_scores.shape == (65,)
    toy = make_side(ToyImage()).encoder
    assert mm.load_method(name).default_layer(toy) == toy.default_layer


@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_captum_gives_the_same_integrated_gradients(baseline: str) -> None:
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    side = make_side(ToyText())
    found = explain("integrated-gradients", side, baseline=baseline, steps=7).scores
    content = side.grid().content
    with side.encoder.frozen():
        tokens = side.tokens()
        for row in range(3):
            start = torch.zeros_like(tokens[row])
            if baseline == "mean":
                start = tokens[row].clone()
                start[content[row]] = tokens[row][content[row]].mean(0)
            theirs = attr.IntegratedGradients(_match(side, row)).attribute(
                tokens[row : row + 1], start[None], n_steps=7, method="riemann_middle"
            )
            torch.testing.assert_close(found[row], theirs[0].float().sum(-1), rtol=1e-4, atol=1e-5)


def test_captum_gives_the_same_saliency() -> None:
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    side = make_side(ToyText())
    found = explain("saliency", side).scores
    with side.encoder.frozen():
        for row in range(3):
            tokens = side.tokens()[row : row + 1].clone().requires_grad_()
            theirs = attr.Saliency(_match(side, row)).attribute(tokens)
            torch.testing.assert_close(found[row], theirs[0].amax(-1), rtol=1e-5, atol=1e-7)


def _match(side: Side, row: int) -> Any:
    """The cosine as a function of tokens, as captum takes it."""

    def match(tokens: Tensor) -> Tensor:
        rows = torch.full((len(tokens),), row)
        return side.suffix(tokens, rows) @ side.guide.embedding[row]

    return match
