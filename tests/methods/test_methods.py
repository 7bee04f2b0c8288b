"""The methods, on a small encoder of the tests' own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.engine import Guide, fit_bottleneck
from mmattrib.engine.guidance import NoGuidance
from mmattrib.errors import MethodError, OptionError
from mmattrib.methods import Method, Side, SideScores
from mmattrib.methods.ca_m2ib import CAM2IB, attended_target
from mmattrib.methods.descent import Descent, DescentGate, DescentStart
from mmattrib.methods.gradcam import GradCAM
from mmattrib.methods.literal import CAM2IBLiteral
from mmattrib.methods.m2ib import M2IB
from mmattrib.methods.nib import NIB, GradientTimesInput
from mmattrib.methods.random import Random
from mmattrib.models.blocks import BlockEncoder
from mmattrib.models.encoder import EncoderInputs
from mmattrib.models.grids import TokenGrid
from mmattrib.placement import WordPlacement
from mmattrib.types import FloatArray, RawInput, RawText, Word

WIDTH, LENGTH, DIM = 12, 6, 10
METHODS = [CAM2IB, CAM2IBLiteral, M2IB, NIB, GradientTimesInput, GradCAM, Random]


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.mixed = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        weight = valid.to(x)[..., None]
        mean = (torch.tanh(self.mixed(x)) * weight).sum(1, keepdim=True) / weight.sum(1, True)
        return x + torch.tanh(self.inner(x)) + 2 * mean


class WordTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, WIDTH)
        self.blocks = nn.ModuleList(Mixer() for _ in range(3))
        self.head = nn.Linear(WIDTH, DIM, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x, valid = self.table(ids), ids != 0
        for block in self.blocks:
            x = block(x, valid)
        out: Tensor = self.head(x[:, 0])
        return out


class FlatGrid(TokenGrid):
    def __init__(self, valid: Tensor) -> None:
        self.valid, self.content = valid, valid.clone()
        self.content[:, 0] = False

    def placement(self, index: int) -> WordPlacement:
        count = self.valid.shape[1]
        words = tuple(Word(str(number), number, number + 1) for number in range(count))
        return WordPlacement(words, np.arange(count, dtype=np.int32))

    def to_tokens(self, maps: Sequence[FloatArray]) -> Tensor:
        return torch.from_numpy(np.stack(maps))


class WordEncoder(BlockEncoder):
    modality = "text"
    default_layer = 1

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module: nn.Module = WordTower()
        self.blocks = list(self.module.blocks)  # type: ignore[arg-type]

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        rows = []
        for raw in raws:
            assert isinstance(raw, RawText)
            ids = [1, *(ord(letter) % 27 + 2 for letter in raw.text)]
            rows.append(ids + [0] * (LENGTH - len(ids)))
        return EncoderInputs({"ids": torch.tensor(rows)}, tuple(raws))

    def forward(self, inputs: EncoderInputs) -> Tensor:
        return self.module(inputs["ids"])

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        return self.module.head(tokens)  # type: ignore[no-any-return, operator]

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        return FlatGrid(inputs["ids"] != 0)


def make_side(texts: Sequence[str] = ("cat", "a dog", "x"), layer: int = 0) -> Side:
    encoder = WordEncoder()
    inputs = encoder.preprocess([RawText(text) for text in texts])

    def unit(*shape: int) -> Tensor:
        rows = []
        for text in texts:
            generator = torch.Generator().manual_seed(len(text))
            rows.append(torch.randn(*shape, generator=generator))
        return nnf.normalize(torch.stack(rows), dim=-1)

    guide = Guide(unit(DIM), unit(4, DIM), torch.ones(len(texts), 4, dtype=torch.bool))
    return Side(encoder, inputs, layer, guide, tuple(f"{text}:text" for text in texts))


def make_paired(
    texts: Sequence[str] = ("cat", "a dog", "x"),
    guides: Sequence[str] = ("do", "bird", "cats"),
) -> Side:
    """Sides that guide each other, as :func:`mmattrib.attribute` makes them."""
    encoder = WordEncoder()
    inputs, other = (
        encoder.preprocess([RawText(text) for text in words]) for words in (texts, guides)
    )
    with encoder.frozen(), torch.no_grad():
        own, theirs = (
            Guide(
                torch.cat([encoder.embed(part.select([row])) for row in range(len(texts))]),
                encoder.token_embeddings(part).values,
                part["ids"] != 0,
            )
            for part in (inputs, other)
        )
    keys = [tuple(f"{a}+{b}:{n}" for a, b in zip(texts, guides, strict=True)) for n in (0, 1)]
    guide = Side(encoder, other, 0, own, keys[1])
    return Side(encoder, inputs, 0, theirs, keys[0], other=guide)


def explain(method: Method, side: Side) -> SideScores:
    with side.encoder.frozen():
        return method(side)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layer", [-1, 0, 1])
def test_every_method_scores_valid_tokens(method: type[Method], layer: int) -> None:
    side = make_side(layer=layer)
    found = explain(method.build(), side)
    assert found.scores.shape == (3, LENGTH)
    assert found.unit == method.unit
    valid = side.grid().valid
    assert torch.isfinite(found.scores).all()
    assert not found.scores[~valid].any()
    for row, mask, entry in zip(found.scores, valid, found.diagnostics, strict=True):
        # A rectified map may be empty, and then says so; where no token raises the match, no
        # information is bought.
        empty = "0 everywhere" in str(entry["warnings"]) or entry.get("capacity_bits") == 0
        assert row[mask].std() > 0 or (empty and not row.any())
    assert [isinstance(entry["warnings"], list) for entry in found.diagnostics] == [True] * 3


@pytest.mark.parametrize("method", [CAM2IB, CAM2IBLiteral, M2IB, Random])
def test_the_seed_acts(method: type[Method]) -> None:
    first, again, other = (explain(method.build(seed=s), make_side()) for s in (0, 0, 1))
    assert torch.equal(first.scores, again.scores)
    assert not torch.allclose(first.scores, other.scores)


def test_the_guide_acts() -> None:
    side = make_side()
    other = Side(
        side.encoder, side.inputs, 0, side.guide.select(torch.tensor([1, 2, 0])), side.keys
    )
    for method in (CAM2IB, M2IB, NIB, GradientTimesInput, GradCAM):
        first, second = explain(method.build(), side), explain(method.build(), other)
        assert not torch.allclose(first.scores, second.scores)
    assert torch.equal(explain(Random(), side).scores, explain(Random(), other).scores)


@pytest.mark.parametrize("method", METHODS)
def test_the_last_block_is_refused(method: type[Method]) -> None:
    with pytest.raises(OptionError, match=r"layer 2, the text encoder's last.*accepted: -1 to 1"):
        explain(method.build(), make_side(layer=2))
    with pytest.raises(OptionError, match="no layer 3"):
        explain(method.build(), make_side(layer=3))


def test_the_last_block_of_a_mean_pooled_tower_is_not() -> None:
    class MeanTower(WordTower):
        def forward(self, ids: Tensor) -> Tensor:
            x, valid = self.table(ids), ids != 0
            for block in self.blocks:
                x = block(x, valid)
            out: Tensor = self.head((x * valid[..., None]).sum(1))
            return out

    side = make_side(layer=2)
    side.encoder.module = MeanTower()
    side.encoder.blocks = list(side.encoder.module.blocks)  # type: ignore[attr-defined]
    assert explain(NIB(), side).scores.any()


@pytest.mark.parametrize("guidance", ["none", "attended"])
def test_ca_m2ib_gives_paired_sides_the_same_map_in_any_batch(guidance: str) -> None:
    method = CAM2IB.build(guidance=guidance)
    texts, guides = ("cat", "a dog", "x"), ("do", "bird", "cats")
    together = explain(method, make_paired())
    turned = explain(method, make_paired(texts[::-1], guides[::-1]))
    assert torch.equal(turned.scores, together.scores.flip(0))
    for row in range(3):
        alone = explain(method, make_paired(texts[row : row + 1], guides[row : row + 1]))
        assert torch.equal(alone.scores[0], together.scores[row])
        assert alone.diagnostics[0] == together.diagnostics[row]
    assert together.scores.any()


def test_ca_m2ib_looks_into_the_guide_only_where_there_is_one() -> None:
    attended, none = CAM2IB(), CAM2IB.build(guidance="none")
    lone, paired = make_side(), make_paired()
    assert torch.equal(explain(attended, lone).scores, explain(none, lone).scores)
    bare = replace(paired, other=None)
    assert torch.equal(explain(attended, bare).scores, explain(none, paired).scores)
    assert not torch.allclose(explain(attended, paired).scores, explain(none, paired).scores)


def test_the_attended_guide_counts_as_far_as_there_is_evidence_for_it() -> None:
    side = make_paired()
    e = side.guide.embedding

    def kept(evidence: float, given: Side) -> Tensor:
        with side.encoder.frozen():
            return (attended_target(given, CAM2IB.build(evidence=evidence).options) * e).sum(-1)

    strict, usual, lenient = (kept(evidence, side) for evidence in (2.0, 0.2, 1e-6))
    assert (strict >= usual - 1e-6).all()
    assert (usual >= lenient - 1e-6).all()
    assert (strict > lenient + 1e-3).any()
    # To an input whose embedding is the opposite, what spoke for it speaks against it.
    assert side.other is not None
    own = side.other.guide
    turned = Guide(-own.embedding, own.tokens, own.valid)
    against = kept(1e-6, replace(side, other=replace(side.other, guide=turned)))
    unmoved = [torch.isclose(cosine, torch.ones(3)) for cosine in (lenient, against)]
    assert (unmoved[0] | unmoved[1]).all()
    assert unmoved[1].any()


def test_without_guidance_the_fit_of_ca_m2ib_is_the_cosine_with_the_guide() -> None:
    """Nothing but the mask can raise it."""
    for entry in explain(CAM2IB.build(guidance="none"), make_paired()).diagnostics:
        assert entry["fit_clean"] == entry["clean_cosine"]
        assert entry["fit_start"] == entry["cosine_start"]
        assert entry["fit_end"] == entry["cosine_end"]
    assert any(
        entry["fit_clean"] != entry["clean_cosine"]
        for entry in explain(CAM2IB(), make_paired()).diagnostics
    )


def test_the_target_of_ca_m2ib_does_not_depend_on_what_the_mask_costs() -> None:
    cheap, dear = (explain(CAM2IB.build(beta=beta), make_paired()) for beta in (0.1, 10.0))
    for low, high in zip(cheap.diagnostics, dear.diagnostics, strict=True):
        for name in ("fit_clean", "fit_start", "clean_cosine", "slope_sum"):
            assert low[name] == high[name]
    assert (cheap.scores >= dear.scores).all()
    assert cheap.scores.sum() > dear.scores.sum()


def test_an_input_that_does_not_reach_its_embedding_holds_no_bits() -> None:
    class Deaf(WordTower):
        def forward(self, ids: Tensor) -> Tensor:
            return torch.ones(len(ids), DIM) + 0.0 * super().forward(ids)

    side = make_side()
    side.encoder.module = Deaf()
    side.encoder.blocks = list(side.encoder.module.blocks)  # type: ignore[attr-defined]
    with side.encoder.frozen():
        found = CAM2IB().explain(side)  # a call would refuse such an encoder
    assert not found.scores.any()
    assert [entry["capacity_bits"] for entry in found.diagnostics] == [0, 0, 0]


def test_ca_m2ib_scores_content_alone() -> None:
    side = make_paired()
    content = side.grid().content
    found = explain(CAM2IB(), side)
    assert not found.scores[~content].any()
    assert (found.scores >= 0).all()


def test_a_depth_past_the_last_block_but_one_ends_there() -> None:
    side = make_paired()
    two, many = (explain(CAM2IB.build(depth=depth), side).scores for depth in (2, 9))
    assert torch.equal(two, many)


def test_the_descent_without_guidance_is_a_bottleneck_with_a_mask_per_token() -> None:
    side = make_paired()
    method = Descent()
    with side.encoder.frozen():
        found = method(side)
        grid = side.grid()
        fitted = fit_bottleneck(
            side.tokens(),
            side.suffix,
            side.guide,
            grid.valid,
            grid.content,
            side.keys,
            method.engine_options(),
            NoGuidance(),
        )
    assert torch.equal(found.scores, fitted.capacity)
    assert found.scores.any()
    for entry, expected in zip(found.diagnostics, fitted.diagnostics, strict=True):
        assert entry == expected
        assert entry["fit_end"] == entry["cosine_end"]


def test_a_gate_without_strength_is_m2ib_with_a_mask_per_token() -> None:
    side = make_side()
    shared = {"antithetic": False, "standardise": False, "beta": 0.1}
    same = explain(DescentGate.build(strength=0.0, **shared), side)
    none = explain(Descent.build(**shared), side)
    assert torch.equal(same.scores, none.scores)
    assert not torch.equal(explain(DescentGate.build(**shared), side).scores, none.scores)
    published = explain(Descent.build(mask="token_channel", **shared), side)
    assert torch.equal(explain(M2IB(), side).scores, published.scores)


@pytest.mark.parametrize("method", [DescentGate, DescentStart])
def test_relevance_may_be_the_slopes_of_ca_m2ib(method: type[Method]) -> None:
    """Attention reads the guide's tokens, and slopes its embedding alone."""
    side = make_paired()
    moved = replace(side, guide=Guide(side.guide.embedding, -side.guide.tokens, side.guide.valid))
    for relevance, alike in (("attention", False), ("slopes", True)):
        made = method.build(relevance=relevance)
        assert torch.equal(explain(made, side).scores, explain(made, moved).scores) == alike


def test_ca_m2ib_goes_back_through_the_model_about_as_often_as_m2ib() -> None:
    """M2IB as published: a row for each sample of each step, without an update in the last."""

    def backward_rows(method: Method) -> int:
        counted = []

        class Counting(WordEncoder):
            def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
                counted.append(len(tokens) * tokens.requires_grad)
                return super().suffix(tokens, layer, inputs)

        side = make_paired(("cat",), ("do",))
        encoder = Counting()
        other = replace(side.other, encoder=encoder) if side.other else None
        with encoder.frozen():
            method.explain(replace(side, encoder=encoder, other=other))
        return sum(counted)

    options, published = CAM2IB().options, M2IB().options
    assert backward_rows(CAM2IB()) == options.points + options.guide_points
    assert backward_rows(M2IB()) == (published.steps - 1) * published.samples == 90
    assert backward_rows(CAM2IB()) < 1.25 * backward_rows(M2IB())


def test_published_defaults() -> None:
    for method in (M2IB(), CAM2IBLiteral()):
        options = method.engine_options()
        assert (options.beta, options.steps, options.samples) == (0.1, 10, 10)
        assert (options.learning_rate, options.alpha_init, options.sigma) == (1.0, 5.0, 1.0)
        assert options.mask == "token_channel"
        assert not options.standardise
        assert not options.antithetic


def test_nib_is_complete_in_the_limit() -> None:
    side = make_side()
    gaps = []
    for steps in (10, 100, 1000):
        found = explain(NIB.build(steps=steps), side)
        for row, entry in enumerate(found.diagnostics):
            expected = entry["clean_cosine"] - entry["cosine_at_zero"]
            gap = float(found.scores[row].sum()) - expected
            assert gap == pytest.approx(entry["completeness_gap"], abs=1e-5)
        gaps.append(max(abs(entry["completeness_gap"]) for entry in found.diagnostics))
    assert gaps[2] < 0.005
    assert gaps[2] < gaps[1] < gaps[0]


def test_nib_in_one_step_is_gradient_times_input() -> None:
    side = make_side()
    one, gradient = explain(NIB.build(steps=1), side), explain(GradientTimesInput(), side)
    assert torch.equal(one.scores, gradient.scores)


def test_options_are_parsed_checked_and_described() -> None:
    method = Descent.build(steps="4", beta="0.5", antithetic="false", mask="group", seed="7")
    described = method.describe()
    assert described["steps"] == 4
    assert described["beta"] == 0.5
    assert described["antithetic"] is False
    assert described["seed"] == 7
    assert described["sigma"] == 1.0
    closed = CAM2IB.build(points="32", shared_noise="no", slope="channel", pooling="8").options
    assert (closed.points, closed.shared_noise, closed.slope, closed.pooling) == (
        32,
        False,
        "channel",
        8.0,
    )


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        (M2IB, {"step": 4}, r"'m2ib' has no option 'step' \(did you mean 'steps'\?\); accepted"),
        (M2IB, {"zzz": 4}, "'m2ib' has no option 'zzz'; accepted: .*beta, sigma, steps"),
        (M2IB, {"steps": "many"}, "steps must be a whole number, got 'many'"),
        (M2IB, {"steps": 0}, "steps must be from 2 to 10000, got 0"),
        (M2IB, {"steps": True}, "steps must be a whole number, got True"),
        (M2IB, {"beta": "x"}, "beta must be a number, got 'x'"),
        (Descent, {"antithetic": 7}, "antithetic must be true or false, got 7"),
        (Descent, {"mask": 3}, "mask must be text, got 3"),
        (Descent, {"mask": "row"}, "unknown mask 'row'; accepted: token, group, token_channel"),
        (Descent, {"samples": 1}, "antithetic=True draws noise in pairs and needs samples of 2"),
        (CAM2IB, {"guidance": "gates"}, "unknown guidance 'gates'; accepted: none, attended$"),
        (CAM2IB, {"guidance": "gate"}, "unknown guidance 'gate'; accepted: none, attended$"),
        (CAM2IB, {"slope": "total"}, "unknown slope 'total'; accepted: signal, channel"),
        (DescentGate, {"relevance": "x"}, "unknown relevance 'x'; accepted: attention, slopes"),
        (CAM2IB, {"points": 0}, "points must be from 1 to 4096, got 0"),
        (CAM2IB, {"points": 5000}, "points must be from 1 to 4096, got 5000"),
        (CAM2IB, {"guide_points": 0}, "guide_points must be from 1 to 4096, got 0"),
        (CAM2IB, {"draws_behind": -1}, "draws_behind must be from 1 to 4096, got -1"),
        (CAM2IB, {"depth": 0}, "depth must be from 1 to 4096, got 0"),
        (CAM2IB, {"depth": 1.5}, "depth must be a whole number, got 1.5"),
        (CAM2IB, {"evidence": 0}, "evidence must be 1e-09 or more and at most 2, got 0"),
        (CAM2IB, {"pooling": -1}, "pooling must be 1e-09 or more and at most 1000, got -1"),
        (CAM2IB, {"pooling": float("nan")}, "pooling must be 1e-09 or more and .*, got nan"),
        (CAM2IB, {"beta": 0}, "beta must be 1e-09 or more and at most 1e\\+09, got 0"),
        (CAM2IB, {"keep": 0}, "keep must be 1e-09 or more and at most 1, got 0"),
        (CAM2IB, {"keep": 1.01}, "keep must be 1e-09 or more and at most 1, got 1.01"),
        (CAM2IB, {"keep": "most"}, "keep must be a number, got 'most'"),
        (CAM2IB, {"keep": 0.9, "beta": 1}, "beta=1.0 .* beside keep=0.9: give beta or keep, not"),
        (CAM2IB, {"keep": 0.9, "beta": 3}, "beta=3.0 .* beside keep=0.9: give beta or keep, not"),
        (CAM2IB, {"guidance": "none", "guide_points": 32}, "guide_points=32 would have no effect"),
        (CAM2IB, {"gamma": 2}, "'ca-m2ib' has no option 'gamma'"),
        (CAM2IB, {"samples": 2}, "'ca-m2ib' has no option 'samples'"),
        (NIB, {"seed": 2}, "'nib' has no option 'seed'"),
        (GradientTimesInput, {"x": 2}, "has no option 'x'; accepted: none"),
        (CAM2IB, {"shared_noise": 3}, "shared_noise must be true or false, got 3"),
        (DescentGate, {"strength": -1}, "strength must be from 0 to 10, got -1"),
        (NIB, {"steps": 0}, "steps must be from 1 to 10000, got 0"),
        (NIB, {"sigma": 1}, "'nib' has no option 'sigma'"),
        (Random, {"steps": 1}, "'random' has no option 'steps'"),
    ],
)
def test_bad_options_say_what_is_accepted(
    method: type[Method], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        method.build(**given)


def test_scores_of_a_wrong_shape_are_an_error() -> None:
    class Broken(Method):
        name, unit = "broken", "none"

        def explain(self, side: Side) -> SideScores:
            return SideScores(torch.zeros(3, 2), "none", ({}, {}, {}))

    with pytest.raises(MethodError, match=r"'broken' gave scores of shape \(3, 2\)"):
        explain(Broken(), make_side())


def test_scores_that_are_not_finite_are_reported() -> None:
    class Wild(Method):
        name, unit = "wild", "none"

        def explain(self, side: Side) -> SideScores:
            scores = torch.ones(3, LENGTH)
            scores[1, 1] = float("nan")
            return SideScores(scores, "none", ({}, {}, {}))

    found = explain(Wild(), make_side())
    assert [bool(entry["warnings"]) for entry in found.diagnostics] == [False, True, False]
