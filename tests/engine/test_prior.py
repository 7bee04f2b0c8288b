"""Noise that looks like the input's own tokens: its statistics, and slopes from it."""

from __future__ import annotations

import pytest
import torch
from seeded_tensors import all_valid, seeded
from torch import Tensor
from torch.nn import functional as nnf

import mmattrib as mm
from mmattrib.engine import TokenStatistics
from mmattrib.engine.rate import channel_noise, channel_slopes, expected_embedding, pooled

WIDTH, DIM = 16, 12


def suffix(tokens: Tensor, _rows: Tensor) -> Tensor:
    weights = 0.3 * seeded(tokens.shape[1], WIDTH, DIM, seed=5)
    return nnf.normalize(torch.einsum("rnc,ncd->rd", tokens, weights) + seeded(DIM, seed=6), dim=-1)


def common_of(tokens: Tensor) -> TokenStatistics:
    return TokenStatistics.of_common(tokens, all_valid(*tokens.shape[:2]))


def test_the_mean_is_shrunk_by_what_chance_gives_it() -> None:
    tokens, valid = 3 * seeded(2, 5, WIDTH) + 1, all_valid(2, 5)
    valid[1, 3:] = False
    found = TokenStatistics.of_common(tokens, valid)
    for row, own in enumerate((tokens[0], tokens[1, :3])):
        mean, chance = own.mean(0), own.var(0) / len(own)
        common = mean * (1 - chance / mean.square()).clamp(0, 1)
        assert torch.allclose(found.mean[row, 0], common, atol=1e-5)
        spread = (own - common).square().mean(0).sqrt()
        assert torch.allclose(found.std[row, 0], spread, atol=1e-5)
    assert (found.mean == 0).any()  # where the mean is no larger than chance makes it
    assert (found.mean != 0).any()
    assert torch.allclose(found.restore(found.standardise(tokens)), tokens, atol=1e-5)


def test_of_many_tokens_next_to_the_whole_mean_is_common() -> None:
    tokens = seeded(1, 400, WIDTH) + 2
    found = common_of(tokens)
    assert torch.allclose(found.mean[0, 0], tokens[0].mean(0), rtol=0.01)


def test_a_lone_token_has_nothing_in_common_with_others() -> None:
    tokens, valid = seeded(2, 3, WIDTH) + 2, torch.zeros(2, 3, dtype=torch.bool)
    valid[0, :1], valid[1] = True, True
    found, zero = TokenStatistics.of_common(tokens, valid), TokenStatistics.of_inputs(tokens, valid)
    assert not found.mean[0].any()
    assert torch.allclose(found.std[0], zero.std[0])
    assert found.mean[1].any()


def test_equal_tokens_do_not_divide_by_zero() -> None:
    found = common_of(torch.ones(1, 4, 3))
    assert (found.std > 0).all()
    assert torch.isfinite(found.standardise(torch.ones(1, 4, 3))).all()


def test_slopes_with_the_noise_that_goes_are_complete() -> None:
    """Integrated gradients along the channel: they sum to fit(clean) - fit(noise)."""
    tokens, target = seeded(1, 6, WIDTH) + 1.5, nnf.normalize(seeded(1, DIM, seed=7), dim=-1)
    rows, prior = torch.zeros(1, dtype=torch.long), common_of(tokens)
    noise = prior.restore(seeded(20_000, 1, WIDTH, seed=9).expand(-1, 6, -1))
    expected = float(
        (suffix(tokens, rows) * target).sum() - (suffix(noise, rows) * target).sum(-1).mean()
    )
    found = channel_slopes(
        tokens, suffix, target, all_valid(1, 6), ["a"],
        points=32_768, max_rows=1024, prior=prior, noise_too=True,
    )  # fmt: skip
    assert abs(expected) > 0.1
    assert float(found.sum()) == pytest.approx(expected, abs=0.01)


def test_a_token_that_equals_what_is_common_has_no_slope() -> None:
    tokens = seeded(1, 6, WIDTH) + 2
    prior = common_of(tokens)
    tokens[0, 5] = prior.mean[0, 0]
    found = channel_slopes(
        tokens, suffix, nnf.normalize(seeded(1, DIM, seed=7), dim=-1), all_valid(1, 6), ["a"],
        points=8, prior=prior,
    )  # fmt: skip
    assert found[0, 5] == 0
    assert found[0, :5].abs().max() > 1e-3


def test_behind_a_shut_mask_stands_what_the_others_have_in_common() -> None:
    tokens, valid = seeded(2, 6, WIDTH) + 2, all_valid(2, 6)
    prior = common_of(tokens)
    noise = channel_noise(tokens, valid, "ab", samples=8, sigma=1e-6, seed=0, prior=prior)
    assert torch.allclose(noise, prior.mean[:, None].expand_as(noise), atol=1e-4)
    found = expected_embedding(
        tokens, suffix, torch.zeros(2, 6), valid, "ab", samples=8, sigma=1e-6, prior=prior
    )
    same = suffix(prior.mean.expand(-1, 6, -1), torch.arange(2))
    assert torch.allclose(found, same, atol=1e-4)


def test_a_share_of_each_score_stays_its_own() -> None:
    scores, own, content = seeded(1, 6), seeded(1, 6, 5, seed=1), all_valid(1, 6)
    whole = pooled(scores, own, content, 8.0)
    half = pooled(scores, own, content, 8.0, share=0.5)
    assert torch.allclose(half, (scores + whole) / 2, atol=1e-6)


def test_a_caption_of_one_word_has_a_map() -> None:
    tiny, scene = mm.load_backbone("tiny"), next(iter(mm.load_dataset("scenes", n=1, seed=11)))
    (name,) = (part.name for part in scene.truth["image"].parts if part.shared)
    found = mm.attribute(tiny, text=name, image=scene.inputs["image"])
    assert [word.text for word in found["text"].words] == [name] == ["train"]
    assert found["text"].scores[0] > 0.5
