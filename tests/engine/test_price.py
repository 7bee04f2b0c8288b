"""The price that is found: where the share is reached, and where none can be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.engine.price import HALVINGS, STEP, WORTHS, Match, dearest_price, prices_that_keep
from mmattrib.engine.rate import channel_noise, closed_mask, expected_embedding

FINEST = STEP ** (1 / 2**HALVINGS)
"""Ratio of the last two prices that are compared."""
WIDTH, DIM, LENGTH = 8, 6, 5


def saturating(price: float) -> float:
    """A share that rises from 0 to 1 as the price falls."""
    return 1 / (1 + price)


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.5, 0.9, 0.95])
@pytest.mark.parametrize("unit", [0.3, 1.0, 7.0])
def test_the_price_found_is_the_highest_that_keeps_the_share(keep: float, unit: float) -> None:
    price = dearest_price(saturating, unit, keep)
    exact = 1 / keep - 1
    assert saturating(price) >= keep
    dearest = STEP * unit / WORTHS[0]  # a sixteenth of a worth buys next to nothing
    assert price == pytest.approx(min(exact, dearest), rel=FINEST - 1)


def test_a_larger_share_never_has_a_higher_price_however_the_share_behaves() -> None:
    generator, different = torch.Generator().manual_seed(0), set()
    for _ in range(50):
        wave = (3 * torch.rand(4, generator=generator)).tolist()

        def share(price: float, wave: list[float] = wave) -> float:
            depth = math.log(price)
            return 0.5 + wave[0] * math.sin(wave[1] * depth + wave[2]) - wave[3] * depth / 5

        found = [dearest_price(share, 2.0, keep / 40) for keep in range(1, 41)]
        assert found == sorted(found, reverse=True)
        different.add(len(set(found)))
    assert max(different) > 20


def test_what_cannot_be_kept_is_kept_as_far_as_it_can() -> None:
    def hump(price: float) -> float:
        return 0.6 * math.exp(-((math.log(price / 0.25)) ** 2))

    assert dearest_price(hump, 1.0, 0.9) == 0.25
    assert hump(dearest_price(hump, 1.0, 0.5)) >= 0.5
    assert dearest_price(lambda price: -1.0, 1.0, 0.9) == math.inf
    assert dearest_price(lambda price: 0.0, 1.0, 1e-6) == math.inf


@pytest.mark.parametrize("share", [saturating, lambda price: 0.0, lambda price: 2.0])
def test_a_price_takes_a_bounded_number_of_tries(share: Callable[[float], float]) -> None:
    tried = []

    def counted(price: float) -> float:
        tried.append(price)
        return share(price)

    dearest_price(counted, 3.0, 0.9)
    assert len(tried) <= len(WORTHS) + HALVINGS
    assert len(set(tried)) == len(tried)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pooling(tokens: Tensor, rows: Tensor) -> Tensor:
    """A suffix that is the normalised sum of what tokens map to, plus a constant."""
    weights, offset = 0.3 * seeded(WIDTH, DIM, seed=5), 0.2 * seeded(DIM, seed=6)
    return nnf.normalize((tokens @ weights).sum(1) + offset, dim=-1)


@dataclass(frozen=True)
class Problem:
    """Some pairs, as :func:`prices_that_keep` takes them."""

    tokens: Tensor
    guide: Tensor
    slopes: Tensor
    power: Tensor
    valid: Tensor
    content: Tensor
    keys: list[str]

    @classmethod
    def make(cls, turn: float = 1.0) -> Problem:
        """Three pairs whose guide is their own embedding times ``turn``; padding in the second."""
        tokens, valid = 2 * seeded(3, LENGTH, WIDTH), torch.ones(3, LENGTH, dtype=torch.bool)
        valid[1, 3:] = False
        content = valid.clone()
        content[:, 0] = False
        slopes = 0.1 * seeded(3, LENGTH, seed=2).abs() * content
        guide = turn * pooling(tokens, torch.arange(3))
        return cls(tokens, guide, slopes, tokens.square().mean(-1), valid, content, ["a", "b", "c"])

    def only(self, row: int) -> Problem:
        return Problem(*(getattr(self, each.name)[row : row + 1] for each in fields(self)))

    def prices(self, keep: float, seed: int = 0) -> Tensor:
        return prices_that_keep(
            self.tokens, pooling, self.guide, self.slopes, self.power, self.valid, self.content,
            self.keys, keep=keep, samples=8, seed=seed,
        )  # fmt: skip

    def mask(self, prices: Tensor) -> Tensor:
        alpha = closed_mask(self.slopes, self.power, self.valid, prices[:, None])
        return torch.sigmoid(alpha[..., 0]).float()

    def kept(self, prices: Tensor) -> Tensor:
        """The share of the match that is kept, with what the report of a map is made of."""
        shut = torch.zeros_like(self.slopes)
        behind, noise = (
            self.cosine(mask.where(self.content, torch.ones(())))
            for mask in (self.mask(prices), shut)
        )
        clean = (pooling(self.tokens, torch.arange(3)) * self.guide).sum(-1)
        return (behind - noise) / (clean - noise)

    def cosine(self, mask: Tensor) -> Tensor:
        found = expected_embedding(self.tokens, pooling, mask, self.valid, self.keys, samples=8)
        return (found * self.guide).sum(-1)


def test_the_mask_bought_keeps_the_share() -> None:
    problem = Problem.make()
    for keep in (0.3, 0.5, 0.7):
        found = problem.kept(problem.prices(keep))
        assert bool((found >= keep - 1e-5).all())
        assert bool((found <= keep + 0.03).all())


def test_a_guide_that_the_input_does_not_match_has_no_price_and_buys_nothing() -> None:
    problem = Problem.make(turn=-1.0)
    found = problem.prices(0.9)
    assert found.tolist() == [math.inf] * 3
    assert not problem.mask(found).any()


def test_tokens_that_do_not_raise_the_match_have_no_price() -> None:
    problem = Problem.make()
    falling = replace(problem, slopes=-problem.slopes)
    assert falling.prices(0.9).tolist() == [math.inf] * 3


def test_a_pair_has_the_same_price_alone_and_another_under_another_seed() -> None:
    problem = Problem.make()
    together = problem.prices(0.6)
    for row in range(3):
        assert torch.equal(problem.only(row).prices(0.6)[0], together[row])
    assert not torch.equal(problem.prices(0.6, seed=1), together)


def test_the_match_behind_an_open_mask_is_the_clean_one() -> None:
    problem = Problem.make()
    noise = channel_noise(problem.tokens, problem.valid, problem.keys, samples=4, sigma=1.0, seed=0)
    for pair in range(3):
        guide, content = problem.guide[pair], problem.content[pair]
        match = Match(problem.tokens, noise, pooling, guide, content, pair)
        assert match.clean() == pytest.approx(1.0, abs=1e-5)
        assert match.behind(torch.ones(LENGTH)) == pytest.approx(match.clean(), abs=1e-5)
        assert match.behind(torch.zeros(LENGTH)) < 0.9
