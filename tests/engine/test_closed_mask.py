"""The mask in closed form is the best that the slopes buy."""

from __future__ import annotations

import math

import pytest
import torch
from seeded_tensors import all_valid, seeded
from torch import Tensor

from mmattrib.engine.bottleneck import capacity, kl
from mmattrib.engine.objective import compression
from mmattrib.engine.rate import (
    closed_mask,
)


def solve(worth: float, power: float) -> float:
    """λ of one token whose slope over price is ``worth``."""
    alpha = closed_mask(torch.tensor([[worth]]), torch.tensor([[power]]), all_valid(1, 1), 1.0)
    assert alpha.shape == (1, 1, 1)
    return float(torch.sigmoid(alpha))


def derivative(kept: float, worth: float, power: float) -> float:
    """d/dλ of u λ − KL(λ), written from eq. (7)."""
    return worth - kept * power + (1 - kept) - 1 / (1 - kept)


def best_by_search(worth: float, power: float) -> float:
    """The maximum of u λ − KL(λ) over [0, 1): its derivative falls, so halve where it is 0."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle < 1 and derivative(middle, worth, power) > 0:
            low = middle
        else:
            high = middle
    return low


@pytest.mark.parametrize("power", [0.0, 0.1, 1.0, 7.5, 400.0])
@pytest.mark.parametrize("worth", [1e-6, 1e-3, 0.3, 1.0, 5.0, 60.0, 1e6])
def test_the_mask_is_the_maximum_that_search_finds(worth: float, power: float) -> None:
    worth = float(torch.tensor(worth))  # slopes are float32
    power = float(torch.tensor(power))
    kept = solve(worth, power)
    assert kept == pytest.approx(best_by_search(worth, power), rel=1e-6, abs=1e-14)
    assert 0 < kept < 1
    # What is left of the noise is what a large worth decides.
    assert 1 - kept == pytest.approx(1 - best_by_search(worth, power), rel=1e-6)

    def gain(share: Tensor) -> Tensor:
        nats = 0.5 * (share**2 * power + (1 - share) ** 2 - 1) - torch.log1p(-share)
        return worth * share - nats

    grid = torch.linspace(0, 0.99999, 2001, dtype=torch.float64)
    best = gain(torch.tensor(kept, dtype=torch.float64))
    assert float(best) > 0
    assert bool((gain(grid) <= best + 1e-9 * worth).all())


def test_the_mask_is_stationary_for_the_engines_own_objective() -> None:
    tokens = seeded(3, 7, 5, dtype=torch.float64)
    valid = all_valid(3, 7)
    valid[1, 4:] = False
    slopes = seeded(3, 7, seed=1).abs() / 7
    alpha = closed_mask(slopes, tokens.square().mean(-1), valid, 0.3).where(
        valid[..., None], torch.zeros(())
    )
    alpha.requires_grad_()
    kept = torch.sigmoid(alpha[..., 0])
    objective = (kept * slopes * valid).sum(-1) - 0.3 * compression(kl(alpha, tokens, 1.0), valid)
    (gradient,) = torch.autograd.grad(objective.sum(), alpha)
    assert float(gradient.abs().max()) < 1e-9
    elsewhere = (alpha.detach() + 0.1).requires_grad_()
    kept = torch.sigmoid(elsewhere[..., 0])
    objective = (kept * slopes * valid).sum(-1) - 0.3 * compression(
        kl(elsewhere, tokens, 1.0), valid
    )
    (gradient,) = torch.autograd.grad(objective.sum(), elsewhere)
    assert float(gradient.abs().max()) > 1e-4


def test_a_token_that_does_not_raise_the_fit_holds_exactly_nothing() -> None:
    slopes = torch.tensor([[-1.0, -1e-30, 0.0, 1e-4, 2.0]])
    tokens = seeded(1, 5, 8)
    alpha = closed_mask(slopes, tokens.square().mean(-1), all_valid(1, 5), 1.0)
    assert torch.equal(torch.sigmoid(alpha[0, :3, 0]), torch.zeros(3, dtype=torch.float64))
    bits = capacity(alpha, tokens, 1.0)[0]
    assert torch.equal(bits[:3], torch.zeros(3, dtype=bits.dtype))
    assert bool((bits[3:] > 0).all())
    assert torch.isfinite(bits).all()


def test_capacity_is_finite_at_any_slope() -> None:
    slopes = torch.tensor([[0.0, 1e-30, 1e-6, 1.0, 1e6, 1e12]])
    for scale in (0.0, 1.0, 1e3):
        tokens = scale * seeded(1, 6, 8)
        alpha = closed_mask(slopes, tokens.square().mean(-1), all_valid(1, 6), 3.0)
        bits = capacity(alpha, tokens, 1.0)
        assert torch.isfinite(bits).all()
        assert bool((bits >= -1e-9).all())


@pytest.mark.parametrize("power", [0.0, 1.0, 50.0])
def test_the_mask_and_its_bits_grow_with_the_slope(power: float) -> None:
    slopes = torch.logspace(-5, 3, 200)[None]
    rho = torch.full_like(slopes, power)
    kept = torch.sigmoid(closed_mask(slopes, rho, all_valid(1, 200), 3.0))[0, :, 0]
    assert bool((kept.diff() > 0).all())
    tokens = torch.full((1, 200, 1), power**0.5)
    bits = capacity(closed_mask(slopes, rho, all_valid(1, 200), 3.0), tokens, 1.0)[0]
    assert bool((bits.diff() > 0).all())


def test_only_the_slope_over_the_price_counts() -> None:
    slopes, power, valid = seeded(2, 6), seeded(2, 6, seed=1).square(), all_valid(2, 6)
    once = closed_mask(slopes, power, valid, 1.5)
    assert torch.equal(closed_mask(2 * slopes, power, valid, 3.0), once)
    assert not torch.equal(closed_mask(2 * slopes, power, valid, 1.5), once)
    per_token = closed_mask(slopes, power, valid, torch.full((2, 6), 1.5))
    assert torch.equal(per_token, once)


def test_padding_buys_nothing_and_changes_nothing() -> None:
    slopes, power = seeded(1, 4).abs(), seeded(1, 4, seed=1).square()
    alone = closed_mask(slopes, power, all_valid(1, 4), 1.0)
    padded = torch.cat([all_valid(1, 4), ~all_valid(1, 3)], 1)
    found = closed_mask(
        torch.cat([slopes, torch.full((1, 3), 9.0)], 1),
        torch.cat([power, torch.full((1, 3), 9.0)], 1),
        padded,
        1.0,
    )
    assert torch.equal(found[:, :4], alone)
    assert bool((found[:, 4:] == -math.inf).all())


def test_no_random_mask_beats_the_solution() -> None:
    tokens, valid = seeded(2, 9, 6, dtype=torch.float64), all_valid(2, 9)
    valid[1, 6:] = False
    slopes, beta, gamma = 0.2 * seeded(2, 9, seed=1, dtype=torch.float64) * valid, 0.7, 1.3
    alpha = closed_mask(slopes, tokens.square().mean(-1), valid, beta / gamma)

    def terms(logits: Tensor) -> tuple[Tensor, Tensor]:
        bought = gamma * (torch.sigmoid(logits[..., 0]) * slopes).sum(-1)
        return bought, beta * compression(kl(logits, tokens, 1.0), valid)

    bought, paid = terms(alpha)
    assert bool((paid > 0).all())
    assert bool((paid <= bought).all())
    around = alpha.where(alpha.isfinite(), torch.full_like(alpha, -20.0))
    for seed in range(200):
        drawn = seeded(2, 9, 1, seed=seed, dtype=torch.float64)
        for other in (3 * drawn, around + 0.1 * drawn):
            gain, price = terms(other)
            assert bool((gain - price <= bought - paid).all())
