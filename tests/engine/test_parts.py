"""Objective, statistics, options, and gradients along a path."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from toy_tower import make_problem

from mmattrib.engine import BottleneckOptions, TokenStatistics, path_attribution
from mmattrib.engine.objective import compression, contrasted, fit
from mmattrib.errors import OptionError


def test_compression_is_a_mean_over_valid_tokens_and_channels() -> None:
    nats = torch.arange(12.0).view(1, 4, 3)
    nats[0, 3] = math.inf  # padding may hold anything
    valid = torch.tensor([[True, True, True, False]])
    assert float(compression(nats, valid)) == pytest.approx(4.0)
    scale = torch.tensor([[0.0, 1.0, 0.0, 5.0]])
    assert float(compression(nats, valid, scale)) == pytest.approx((3 + 4 + 5) / 9)


def test_fit_is_the_cosine() -> None:
    embedding = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    assert torch.allclose(fit(embedding, torch.tensor([[[1.0, 0.0]]])), torch.tensor([[0.6, 1.0]]))


def test_contrast_takes_away_what_a_neutral_guide_earns() -> None:
    embedding, target = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0, 0.0]]])
    neutral = torch.tensor([[0.0, 1.0]])
    assert torch.allclose(
        contrasted(embedding, target, neutral, 0.5), torch.tensor([[0.6 - 0.5 * 0.8]])
    )
    for unused in (None, neutral):
        assert torch.equal(contrasted(embedding, target, unused, 0.0), fit(embedding, target))


@pytest.mark.parametrize("kind", ["inputs", "corpus", "identity"])
def test_standardising_can_be_undone(kind: str) -> None:
    tokens = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)) * 4 + 1
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[1, 3:] = False
    statistics = {
        "inputs": lambda: TokenStatistics.of_inputs(tokens, valid),
        "corpus": lambda: TokenStatistics.of_corpus(tokens, valid),
        "identity": lambda: TokenStatistics.identity(tokens),
    }[kind]()
    scaled = statistics.standardise(tokens)
    assert torch.allclose(statistics.restore(scaled), tokens, atol=1e-5)
    kept = scaled[valid]
    if kind == "corpus":
        assert torch.allclose(kept.mean(0), torch.zeros(3), atol=1e-5)
        assert torch.allclose(kept.std(0, correction=0), torch.ones(3), atol=1e-5)
    if kind == "inputs":
        assert torch.allclose(scaled[1, :3].square().mean(0), torch.ones(3), atol=1e-5)
        assert float(statistics.mean) == 0.0  # no bag of words behind a shut token
        alone = TokenStatistics.of_inputs(tokens[1:, :3], valid[1:, :3])
        assert torch.allclose(alone.std[0], statistics.std[1])


def test_a_constant_channel_does_not_divide_by_zero() -> None:
    tokens = torch.ones(1, 4, 3)
    tokens[..., 2] = 0.0
    for statistics in (
        TokenStatistics.of_inputs(tokens, torch.ones(1, 4, dtype=torch.bool)),
        TokenStatistics.of_corpus(tokens, torch.ones(1, 4, dtype=torch.bool)),
    ):
        assert torch.isfinite(statistics.standardise(tokens)).all()
        assert (statistics.std > 0).all()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("beta", -0.1),
        ("beta", math.nan),
        ("sigma", 0.0),
        ("sigma", math.inf),
        ("steps", 0),
        ("steps", 2.5),
        ("samples", True),
        ("max_rows", 0),
        ("learning_rate", 0.0),
        ("alpha_init", 81.0),
        ("mask", "channel"),
        ("noise", "none"),
        ("target", "cap"),
        ("contrast", -1.0),
        ("seed", "x"),
    ],
)
def test_options_out_of_range_are_named(option: str, value: object) -> None:
    with pytest.raises(OptionError, match=option):
        BottleneckOptions(**{option: value})  # type: ignore[arg-type]


def cosine_at(scale: float) -> Tensor:
    problem = make_problem(dtype=torch.float64)
    embedding = problem.suffix(problem.tokens() * scale, torch.arange(3))
    return (embedding * problem.guide.embedding).sum(-1)


def test_path_attribution_is_complete() -> None:
    # The start is put where the toy's layer norms are smooth; at exactly zero they are not.
    problem = make_problem(dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    offset = torch.randn(1, 1, 16, generator=generator, dtype=torch.float64)

    def shifted(tokens: Tensor, rows: Tensor) -> Tensor:
        return problem.suffix(tokens + offset, rows)

    def cosines(tokens: Tensor) -> Tensor:
        return (shifted(tokens, torch.arange(3)) * problem.guide.embedding).sum(-1)

    h = problem.tokens()
    expected = cosines(h) - cosines(torch.zeros_like(h))
    gaps = []
    for steps in (10, 100, 1000):
        found = path_attribution(h, shifted, problem.guide.embedding, steps=steps)
        gaps.append(float((found.sum(-1) - expected).abs().max()))
    assert gaps[2] < 0.01 * float(expected.abs().max())
    assert gaps[2] < gaps[1] < gaps[0]


def test_path_in_one_step_is_gradient_times_input() -> None:
    problem = make_problem()
    h = problem.tokens().requires_grad_()
    cosine = (problem.suffix(h, torch.arange(3)) * problem.guide.embedding).sum()
    (gradient,) = torch.autograd.grad(cosine, h)
    found = path_attribution(h, problem.suffix, problem.guide.embedding, steps=1)
    assert torch.allclose(found, (gradient * h).sum(-1), atol=1e-6)


def test_path_attribution_is_the_same_in_chunks_and_alone() -> None:
    problem = make_problem(lengths=(7, 4, 7))
    h, target = problem.tokens(), problem.guide.embedding
    whole = path_attribution(h, problem.suffix, target, steps=10)
    chunked = path_attribution(h, problem.suffix, target, steps=10, max_rows=3)
    assert torch.allclose(whole, chunked, atol=1e-6)
    for pair in range(3):
        one = problem.select([pair])
        alone = path_attribution(one.tokens(), one.suffix, one.guide.embedding, steps=10)
        assert torch.equal(alone[0], whole[pair])
