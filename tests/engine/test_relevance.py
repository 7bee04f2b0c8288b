"""Formulas over attention weights, on two blocks of two tokens whose numbers are worked by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from mmattrib.engine.relevance import (
    channel_weighted,
    formed,
    loosened,
    propagated,
    read_out,
    rolled_out,
)


def block(*heads: list[list[float]]) -> Tensor:
    return torch.tensor([list(heads)])


FIRST, SECOND = [[0.5, 0.5], [0.0, 1.0]], [[0.25, 0.75], [0.5, 0.5]]
WEIGHTS = [block(FIRST), block(SECOND)]
SLOPES = [block([[2.0, -1.0], [0.0, 1.0]]), block([[0.0, 4.0], [2.0, -2.0]])]
CLS = torch.tensor([[1.0, 0.0]])


def test_relevance_is_propagated_as_on_paper() -> None:
    # (∇A ⊙ A)⁺ is I in the first block and ((0, 3), (1, 0)) in the second, so that R is 2I, then
    # 2I + ((0, 6), (2, 0)) = ((2, 6), (2, 2)); less the identity, row 0 is (1, 6).
    assert propagated(WEIGHTS, SLOPES, CLS).tolist() == [[1.0, 6.0]]
    assert propagated(WEIGHTS, SLOPES, 1 - CLS).tolist() == [[2.0, 1.0]]
    assert propagated(WEIGHTS[1:], SLOPES[1:], CLS).tolist() == [[0.0, 3.0]]


def test_relevance_takes_positive_parts_before_the_mean_over_heads() -> None:
    weights = [block(FIRST, FIRST)]
    slopes = [block([[2.0, 4.0], [0.0, 0.0]], [[-2.0, -4.0], [0.0, 0.0]])]
    assert propagated(weights, slopes, CLS).tolist() == [[0.5, 1.0]]


def test_rollout_is_the_product_of_half_the_attention_and_half_the_identity() -> None:
    # ((.75, .25), (0, 1)), then ((.625, .375), (.25, .75)): row 0 of the product of the second with
    # the first is (.625 · .75, .625 · .25 + .375).
    assert rolled_out(WEIGHTS, CLS).tolist() == [[0.46875, 0.53125]]


def test_a_rollout_shares_out_one() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.rand(2, 3, 5, 6, generator=generator).softmax(-1) for _ in range(4)]
    rows = torch.tensor([[0, 1.0, 0, 0, 0], [0.2] * 5])
    torch.testing.assert_close(rolled_out(weights, rows).sum(-1), torch.ones(2))


def test_formation_is_the_mean_of_positive_slopes_over_queries_heads_and_blocks() -> None:
    valid = torch.ones(1, 2, dtype=torch.bool)
    # Positive parts ((2, 0), (0, 1)) and ((0, 4), (2, 0)): columns' means (1, .5) and (1, 2).
    assert formed(SLOPES, valid).tolist() == [[1.0, 1.25]]
    two = [torch.cat([one, torch.zeros_like(one)], 1) for one in SLOPES]
    assert formed(two, valid).tolist() == [[0.5, 0.625]]


def test_padding_is_no_query() -> None:
    valid = torch.tensor([[True, False]])
    assert formed(SLOPES[:1], valid).tolist() == [[2.0, 0.0]]


def test_the_token_that_is_read_is_the_one_whose_attention_matters() -> None:
    slopes = torch.zeros(3, 2, 3, 4)
    slopes[0, 1, 2, 3] = -1e-9  # a key behind the tokens counts as reading
    slopes[1, :, :2] = 1.0
    assert read_out(slopes).tolist() == [[0, 0, 1], [0.5, 0.5, 0], [0, 0, 0]]


def test_keys_that_are_no_tokens_score_nothing() -> None:
    extra = [torch.cat([one, torch.full((1, 1, 2, 1), 9.0)], -1) for one in WEIGHTS]
    steep = [torch.cat([one, torch.full((1, 1, 2, 1), 9.0)], -1) for one in SLOPES]
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert torch.equal(propagated(extra, steep, CLS), propagated(WEIGHTS, SLOPES, CLS))
    assert torch.equal(formed(steep, valid), formed(SLOPES, valid))
    assert torch.equal(rolled_out(extra, CLS), rolled_out(WEIGHTS, CLS))


def test_likeness_runs_from_0_to_1_over_the_places() -> None:
    query = torch.tensor([[[[1.0, 0.0]] * 3]])
    key = torch.tensor([[[[0.0, -5.0], [0.0, 2.0], [3.0, 0.0]]]])  # cosines 0, 0 and 1
    places = torch.tensor([[False, True, True]])
    assert loosened(query, key, places)[0, 0].tolist() == [0.0, 0.0, 1.0]
    alone = torch.tensor([[False, True, False]])
    assert loosened(query, key, alone)[0, 0].tolist() == [1.0, 1.0, 1.0]


def test_likeness_is_over_all_heads_at_once() -> None:
    query = torch.tensor([[[[3.0], [0.0]], [[4.0], [0.0]]]])  # two heads of one channel: (3, 4)
    key = torch.tensor([[[[3.0], [4.0]], [[4.0], [-3.0]]]])  # (3, 4) and (4, -3)
    found = loosened(query, key, torch.ones(1, 2, dtype=torch.bool))
    assert found[0, 0].tolist() == [1.0, 0.0]


def test_channels_are_weighted_without_knowing_values() -> None:
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(1, 2, 3, 3, generator=generator).softmax(-1).requires_grad_()
    values = torch.randn(1, 2, 3, 4, generator=generator)
    output = weights @ values
    (slopes,) = torch.autograd.grad((output[:, :, 0].tanh() ** 2).sum(), weights, retain_graph=True)
    (w,) = torch.autograd.grad((output[:, :, 0].tanh() ** 2).sum(), output)
    spatial = torch.rand(1, 3, 3, generator=generator)
    rows = torch.tensor([[1.0, 0.0, 0.0]])
    expected = (w[:, :, :1] * values).sum((1, 3)) * spatial[:, 0]
    torch.testing.assert_close(channel_weighted(slopes, spatial, rows), expected)
