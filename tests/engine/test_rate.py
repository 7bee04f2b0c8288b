"""Slopes along the channel, and where the attention to a guide comes from."""

from __future__ import annotations

import pytest
import torch
from seeded_tensors import all_valid, seeded
from torch import Tensor
from torch.nn import functional as nnf
from toy_tower import Pool, Suffix, make_problem

from mmattrib.engine import TokenStatistics
from mmattrib.engine.bottleneck import capacity
from mmattrib.engine.noise import PairNoise
from mmattrib.engine.rate import (
    channel_rates,
    channel_slopes,
    closed_mask,
    expected_embedding,
    pooled,
    rectified_attention,
)

WIDTH, DIM = 16, 12


# Slopes.


def slopes_of(
    tokens: Tensor, suffix: Suffix, target: Tensor, valid: Tensor | None = None, **options: object
) -> Tensor:
    valid = all_valid(*tokens.shape[:2]) if valid is None else valid
    keys = [f"pair {row}" for row in range(len(tokens))]
    given = {"points": 16, **options}
    return channel_slopes(tokens, suffix, target, valid, keys, **given)  # type: ignore[arg-type]


def affine(seed: int = 5) -> tuple[Suffix, Tensor]:
    """A suffix that is affine in its tokens up to normalisation, other weights at each token."""
    weights, offset = 0.3 * seeded(6, WIDTH, DIM, seed=seed), seeded(DIM, seed=seed + 1)

    def suffix(tokens: Tensor, _rows: Tensor) -> Tensor:
        embedding = torch.einsum("rnc,ncd->rd", tokens, weights.to(tokens)) + offset.to(tokens)
        return nnf.normalize(embedding, dim=-1)

    return suffix, nnf.normalize(seeded(1, DIM, seed=seed + 2), dim=-1)


@pytest.mark.parametrize("guided", [False, True])
def test_a_suffix_that_ignores_the_tokens_gives_exactly_no_bits(guided: bool) -> None:
    tokens, target = seeded(2, 6, WIDTH), nnf.normalize(seeded(2, DIM, seed=1), dim=-1)
    still = target if guided else nnf.normalize(seeded(2, DIM, seed=2), dim=-1)

    def suffix(z: Tensor, rows: Tensor) -> Tensor:
        return still[rows] + 0.0 * z.sum((1, 2))[:, None]

    slopes = slopes_of(tokens, suffix, target)
    assert not slopes.any()
    alpha = closed_mask(slopes, tokens.square().mean(-1), all_valid(2, 6), 1e-6)
    assert not capacity(alpha, tokens, 1.0).any()


def test_a_token_that_the_suffix_ignores_has_no_slope() -> None:
    suffix, target = affine()
    ignored = torch.ones(6, 1)
    ignored[2] = 0.0
    slopes = slopes_of(seeded(1, 6, WIDTH), lambda z, rows: suffix(z * ignored, rows), target)
    assert slopes[0, 2] == 0
    assert bool((slopes[0, [0, 1, 3, 4, 5]] != 0).all())


def test_one_point_is_the_gradient_halfway() -> None:
    suffix, target = affine()
    tokens, valid = seeded(1, 6, WIDTH), all_valid(1, 6)
    silent = channel_slopes(tokens, suffix, target, valid, ["a"], points=1, sigma=1e-9)
    half = (tokens / 2).requires_grad_()
    (gradient,) = torch.autograd.grad((suffix(half, torch.zeros(1)) * target).sum(), half)
    assert torch.allclose(silent, (gradient * tokens).sum(-1), atol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_slopes_with_the_noise_that_goes_are_complete(shared: bool) -> None:
    suffix, target = affine()
    tokens, valid, rows = seeded(1, 6, WIDTH), all_valid(1, 6), torch.zeros(1, dtype=torch.long)
    clean = float((suffix(tokens, rows) * target).sum())
    spread = TokenStatistics.of_inputs(tokens, valid).std
    noise = seeded(20_000, 1 if shared else 6, WIDTH, seed=9).expand(-1, 6, -1) * spread
    behind = float((suffix(noise, rows) * target).sum(-1).mean())
    options = {"points": 32_768, "max_rows": 1024, "shared_noise": shared}
    found = float(slopes_of(tokens, suffix, target, noise_too=True, **options).sum())
    expected = clean - behind
    assert abs(expected) > 0.2
    assert found == pytest.approx(expected, abs=0.01)
    signal = float(slopes_of(tokens, suffix, target, **options).sum())
    assert abs(signal - expected) > 0.02  # what the noise took away is not in it


@pytest.mark.parametrize("points", [1, 2, 7, 80])
def test_central_rates_are_the_quantiles_of_their_density(points: int) -> None:
    share = (torch.arange(points) + 0.5) / points
    assert torch.equal(channel_rates(points), share)
    rates = channel_rates(points, central=True)
    assert torch.allclose(3 * rates**2 - 2 * rates**3, share, atol=1e-6)
    assert bool(((rates > 0) & (rates < 1)).all())
    assert bool((rates.diff() > 0).all())


def test_central_rates_weigh_the_channel_by_their_density() -> None:
    suffix, target = affine()
    tokens, valid = seeded(1, 6, WIDTH), all_valid(1, 6)

    def at(central: bool, points: int) -> Tensor:
        return channel_slopes(
            tokens, suffix, target, valid, ["a"], points=points, sigma=1e-9, central=central
        )

    rates = channel_rates(400)
    rows = torch.zeros(400, dtype=torch.long)
    path = (rates[:, None, None] * tokens).requires_grad_()
    (gradient,) = torch.autograd.grad((suffix(path, rows) * target).sum(), path)
    weights = 6 * rates * (1 - rates)
    expected = ((gradient * tokens).sum(-1) * weights[:, None]).mean(0)
    assert torch.allclose(at(True, 400)[0], expected, atol=1e-4)
    assert not torch.allclose(at(False, 400)[0], expected, atol=1e-3)


def test_with_the_noise_that_goes_it_is_the_fits_own_slope_in_the_mask() -> None:
    suffix, target = affine()
    tokens, valid = seeded(1, 6, WIDTH), all_valid(1, 6)
    found = channel_slopes(tokens, suffix, target, valid, ["a"], points=1, noise_too=True)
    drawn = PairNoise(["a"], all_valid(1, 1), WIDTH, 1, antithetic=True, purpose="slopes").draw()
    noise = drawn[0, 0] * TokenStatistics.of_inputs(tokens, valid).std[0]
    mask = torch.full((1, 6, 1), 0.5, requires_grad=True)
    z = mask * tokens + (1 - mask) * noise  # eq. (5)
    (gradient,) = torch.autograd.grad((suffix(z, torch.zeros(1)) * target).sum(), mask)
    assert torch.allclose(found, gradient[..., 0], atol=1e-6)


@pytest.mark.parametrize("layer", [-1, 0])
def test_permuting_tokens_permutes_slopes_under_shared_noise(layer: int) -> None:
    problem = make_problem(pairs=2, layer=layer)
    tokens, target = problem.tokens(), problem.guide.embedding
    order = torch.tensor([0, 4, 2, 6, 1, 3, 5])
    for suffix in (Pool(problem.valid), problem.suffix):  # the tower's reads token 0 alone
        straight = slopes_of(tokens, suffix, target)
        turned = slopes_of(tokens[:, order], suffix, target)
        assert torch.allclose(turned, straight[:, order], rtol=1e-3, atol=1e-5)
        straight = slopes_of(tokens, suffix, target, shared_noise=False)
        turned = slopes_of(tokens[:, order], suffix, target, shared_noise=False)
        assert not torch.allclose(turned, straight[:, order], rtol=1e-2, atol=1e-3)


def test_slopes_follow_target_seed_and_key_alone() -> None:
    problem = make_problem(lengths=(7, 4, 6))
    target, valid, keys = problem.guide.embedding, problem.valid, problem.keys

    def slopes(rows: list[int], **options: int) -> Tensor:
        some = problem.select(rows)
        return channel_slopes(
            some.tokens(), some.suffix, some.guide.embedding, some.valid, some.keys,
            points=12, **options,
        )  # fmt: skip

    together = slopes([0, 1, 2])
    assert torch.equal(slopes([2, 0, 1]), together[[2, 0, 1]])
    for row in range(3):
        assert torch.equal(slopes([row])[0], together[row])
    assert not torch.equal(slopes([0, 1, 2], seed=1), together)
    assert torch.allclose(slopes([0, 1, 2], max_rows=5), together, rtol=1e-4, atol=1e-6)
    other = channel_slopes(problem.tokens(), problem.suffix, -target, valid, keys, points=12)
    assert torch.equal(other, -together)
    assert not together[~valid].any()


@pytest.mark.parametrize("most", [7, 20])
def test_rows_a_call_change_slopes_by_rounding_alone(most: int) -> None:
    problem, sizes = make_problem(lengths=(7, 4, 6)), list[int]()

    def suffix(tokens: Tensor, rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        return problem.suffix(tokens, rows)

    def slopes(**bound: int) -> Tensor:
        return channel_slopes(
            problem.tokens(), suffix, problem.guide.embedding, problem.valid, problem.keys,
            points=80, **bound,
        )  # fmt: skip

    whole = slopes(max_rows=80)
    assert sizes == [80] * 3
    sizes.clear()
    parts = slopes(max_rows=most)
    assert max(sizes) == most
    assert float((parts - whole).abs().max()) <= 1e-6 * float(whole.abs().max())


@pytest.mark.parametrize("shared", [False, True])
def test_padding_changes_no_slope(shared: bool) -> None:
    problem = make_problem(pairs=2, layer=-1)
    target = problem.guide.embedding
    alone = slopes_of(problem.tokens(), Pool(problem.valid), target, shared_noise=shared)
    padded = torch.cat([problem.tokens(), 50 * seeded(2, 3, WIDTH, seed=3)], 1)
    valid = torch.cat([problem.valid, ~all_valid(2, 3)], 1)
    found = slopes_of(padded, Pool(valid), target, valid, shared_noise=shared)
    assert torch.allclose(found[:, :7], alone, rtol=1e-4, atol=1e-6)
    assert not found[:, 7:].any()


def test_an_odd_number_of_points_covers_the_same_rates() -> None:
    seen = []
    suffix, target = affine()

    def watched(tokens: Tensor, rows: Tensor) -> Tensor:
        seen.append(tokens.detach())
        return suffix(tokens, rows)

    for points in (5, 6):
        seen.clear()
        slopes_of(torch.ones(1, 6, WIDTH), watched, target, points=points, sigma=1e-9)
        rates = torch.cat(seen).mean((1, 2)).sort().values
        assert torch.allclose(rates, (torch.arange(points) + 0.5) / points, atol=1e-6)


# Pooling over look-alike tokens.


def test_an_infinite_temperature_leaves_scores_alone() -> None:
    scores, own, content = seeded(2, 8), seeded(2, 8, 5, seed=1), all_valid(2, 8)
    assert torch.allclose(pooled(scores, own, content, 1e6), scores)
    assert not torch.allclose(pooled(scores, own, content, 8.0), scores, atol=0.05)


def test_pooling_averages() -> None:
    own, content = seeded(2, 8, 5, seed=1), all_valid(2, 8)
    flat = torch.full((2, 8), 0.37)
    assert torch.allclose(pooled(flat, own, content, 8.0), flat)
    rows = torch.stack(
        [pooled(one.expand(2, 8), own, content, 8.0) for one in torch.eye(8)], dim=-1
    )  # (B, N, N): how much of each token's score reaches each token
    assert bool((rows >= 0).all())
    assert torch.allclose(rows.sum(-1), torch.ones(2, 8))
    assert bool((rows.argmax(-1) == torch.arange(8)).all())
    scores = seeded(2, 8)
    found = pooled(scores, own, content, 8.0)
    assert torch.allclose(found, (rows @ scores[..., None])[..., 0], atol=1e-6)
    assert bool((found.amax(-1) <= scores.amax(-1) + 1e-6).all())
    assert bool((found.amin(-1) >= scores.amin(-1) - 1e-6).all())


def test_what_all_tokens_share_does_not_make_them_alike() -> None:
    scores, own, content = seeded(2, 8), seeded(2, 8, 5, seed=1), all_valid(2, 8)
    found = pooled(scores, own + 3 * seeded(1, 1, 5, seed=2), content, 8.0)
    assert torch.allclose(found, pooled(scores, own, content, 8.0), atol=1e-4)


def test_tokens_that_look_the_same_get_the_same_score() -> None:
    own = seeded(1, 6, 5, seed=1)
    own[0, 4] = own[0, 1]
    scores = seeded(1, 6)
    found = pooled(scores, own, all_valid(1, 6), 1e6)
    assert torch.allclose(found[0, [1, 4]], scores[0, [1, 4]].mean().expand(2))
    assert torch.allclose(found[0, [0, 2, 3, 5]], scores[0, [0, 2, 3, 5]])


def test_what_is_not_content_neither_gives_nor_takes() -> None:
    scores, own, content = seeded(1, 6), seeded(1, 6, 5, seed=1), all_valid(1, 6)
    content[0, [0, 5]] = False
    found = pooled(scores, own, content, 4.0)
    assert torch.equal(found[~content], scores[~content])
    alone = pooled(scores[:, 1:5], own[:, 1:5], content[:, 1:5], 4.0)
    assert torch.allclose(found[:, 1:5], alone)
    lone = pooled(scores, own, torch.tensor([[False, True, False, False, False, False]]), 4.0)
    assert torch.equal(lone, scores)


# What an embedding attends to.


def test_attention_weighs_what_raises_the_match() -> None:
    slopes = torch.tensor([[9.0, 2.0, -1.0, 1.0, 0.0, 2.0]])
    content = all_valid(1, 6)
    content[0, 0] = False
    weights = rectified_attention(slopes, content)
    assert torch.equal(weights, torch.tensor([[1.0, 1.0, 0.0, 0.5, 0.0, 1.0]]))
    assert torch.equal(rectified_attention(7 * slopes, content), weights)


def test_attention_tells_nothing_apart_where_nothing_raises_the_match() -> None:
    content = all_valid(2, 4)
    content[:, 0] = False
    slopes = torch.tensor([[5.0, -1.0, -2.0, 0.0], [5.0, -1.0, 3.0, 0.0]])
    weights = rectified_attention(slopes, content)
    assert torch.equal(weights[0], torch.ones(4))
    assert torch.equal(weights[1], torch.tensor([1.0, 0.0, 1.0, 0.0]))
    assert torch.equal(rectified_attention(slopes, ~all_valid(2, 4)), torch.ones(2, 4))


def test_attention_is_between_none_and_all() -> None:
    content = seeded(50, 9, seed=1) > -1
    weights = rectified_attention(seeded(50, 9), content)
    assert bool(((weights >= 0) & (weights <= 1)).all())
    assert bool((weights[~content] == 1).all())


def test_a_distractor_is_attended_away() -> None:
    topics = torch.eye(DIM, WIDTH)
    shared, distractor = topics[0], topics[1]
    tokens = torch.stack([shared, distractor, shared, distractor])[None]
    explained = nnf.normalize(topics[0] + 0.2 * topics[2], dim=-1)[:DIM]

    def suffix(z: Tensor, _rows: Tensor) -> Tensor:
        return nnf.normalize(z.mean(1)[:, :DIM], dim=-1)

    guide = suffix(tokens, torch.zeros(1))
    slopes = slopes_of(tokens, suffix, explained[None], points=64)
    weights = rectified_attention(slopes, all_valid(1, 4))
    assert float(weights[0, [0, 2]].min()) > 0.5
    assert not weights[0, [1, 3]].any()
    attended = expected_embedding(
        tokens, suffix, weights, all_valid(1, 4), ["a"], samples=64, sigma=0.1
    )
    target = nnf.normalize(guide + attended, dim=-1)
    before, after = (float((x * explained).sum()) for x in (guide, target))
    assert after > before + 0.1


# The embedding behind a mask.


def test_the_embedding_behind_an_open_mask_is_the_clean_one() -> None:
    problem = make_problem(lengths=(7, 4, 6))
    tokens = problem.tokens()
    clean = problem.suffix(tokens, torch.arange(3))

    def behind(kept: Tensor, seed: int = 0) -> Tensor:
        return expected_embedding(
            tokens, problem.suffix, kept, problem.valid, problem.keys, samples=8, seed=seed
        )

    assert torch.allclose(behind(torch.ones(3, 7)), clean, atol=1e-5)
    shut = behind(torch.zeros(3, 7))
    assert bool((shut.norm(dim=-1) < 0.9).all())  # unit vectors that noise turns apart
    assert not torch.allclose(shut, clean, atol=0.1)
    assert torch.equal(shut, behind(torch.zeros(3, 7)))
    assert not torch.equal(shut, behind(torch.zeros(3, 7), seed=1))
    alone = problem.select([1])
    found = expected_embedding(
        alone.tokens(), alone.suffix, torch.full((1, 7), 0.5), alone.valid, alone.keys, samples=8
    )
    assert torch.equal(found[0], behind(torch.full((3, 7), 0.5))[1])


def test_what_opens_for_a_target_is_shut_for_its_opposite() -> None:
    problem = make_problem()
    tokens, target = problem.tokens(), problem.guide.embedding
    power = tokens.square().mean(-1)
    towards, away = (
        torch.sigmoid(
            closed_mask(slopes_of(tokens, problem.suffix, goal), power, problem.valid, 0.1)
        )
        for goal in (target, -target)
    )
    assert bool(((towards > 0) != (away > 0)).all())
    assert (towards > 0).any()
    assert (away > 0).any()


def test_pooling_rounds_no_pair_by_its_batch() -> None:
    """At sizes at which a product of matrices over a whole batch rounds differently."""
    scores, embeddings = seeded(3, 65), seeded(3, 65, 64, seed=1)
    content = all_valid(3, 65)
    together = pooled(scores, embeddings, content, 20.0)
    for row in range(3):
        one = slice(row, row + 1)
        alone = pooled(scores[one], embeddings[one], content[one], 20.0)
        assert torch.equal(alone[0], together[row])
