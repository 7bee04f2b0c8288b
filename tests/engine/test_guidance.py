from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.engine import GUIDANCES, Context, Guide
from mmattrib.engine.guidance import (
    LiteralAttention,
    NoGuidance,
    RelevanceGate,
    ResidualAttention,
    SelfQuery,
    StartGuidance,
    attend,
    standardised,
    token_relevance,
)
from mmattrib.errors import OptionError


def make_context(count: int = 6, dim: int = 8, own: bool = True) -> Context:
    generator = torch.Generator().manual_seed(1)

    def unit(*shape: int) -> Tensor:
        return nnf.normalize(torch.randn(*shape, generator=generator), dim=-1)

    valid = torch.ones(2, count, dtype=torch.bool)
    content = valid.clone()
    content[:, 0] = False
    return Context(
        tokens=torch.randn(2, count, 5, generator=generator),
        embedding=unit(2, dim),
        token_embeddings=unit(2, count, dim) if own else None,
        valid=valid,
        content=content,
        guide=Guide(unit(2, dim), unit(2, 4, dim), torch.ones(2, 4, dtype=torch.bool)),
        keys=("a", "b"),
        seed=0,
        embed=lambda z: z.mean(2),
    )


def test_attention_averages_valid_keys_only() -> None:
    values = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    valid = torch.tensor([[True, True, False]])
    even = attend(torch.zeros(1, 2, 2), values, values, valid, 1.0)
    assert torch.allclose(even, torch.full((1, 2, 2), 0.5))
    sharp = attend(torch.tensor([[[1.0, 0.0]]]), values, values, valid, 100.0)
    assert torch.allclose(sharp, values[:, :1])


def test_attention_to_nothing_is_finite() -> None:
    values = torch.randn(1, 3, 2)
    out = attend(torch.randn(1, 2, 2), values, values, torch.zeros(1, 3, dtype=torch.bool), 5.0)
    assert torch.isfinite(out).all()


def test_standardised_looks_at_content_only() -> None:
    content = torch.tensor([[False, True, True, True]])
    z = standardised(torch.tensor([[1e6, 1.0, 2.0, 3.0]]), content)
    assert z[0, 0] == 0
    assert torch.allclose(z.sum(), torch.zeros(()), atol=1e-6)
    assert torch.allclose(z.square().sum() / 3, torch.ones(()))
    flat = standardised(torch.full((1, 4), 2.0), content)
    assert torch.equal(flat, torch.zeros(1, 4))


def test_no_guidance_is_the_guides_embedding() -> None:
    context = make_context()
    steering = NoGuidance().prepare(context)
    target = steering.target(torch.empty(0), torch.empty(0))
    assert torch.equal(target[:, 0], context.guide.embedding)
    assert steering.parameters == ()
    assert steering.beta_scale is None


def test_gate_without_strength_changes_no_beta() -> None:
    steering = RelevanceGate(strength=0.0).prepare(make_context())
    assert steering.beta_scale is not None
    assert torch.equal(steering.beta_scale, torch.ones(2, 6))


def matched(words: int, match: int = 3) -> Context:
    """Tokens that share a large component; one of them alone holds what the guide is about.

    Token 5 is the emptiest: nothing but the shared component, and so the one most similar to the
    guide's own mean.
    """
    context = make_context(dim=32)
    generator = torch.Generator().manual_seed(4)

    def unit(*shape: int) -> Tensor:
        return nnf.normalize(torch.randn(*shape, generator=generator), dim=-1)

    shared, topic = unit(1, 1, 32), unit(2, 1, 32)
    own = shared + 0.5 * unit(2, 6, 32)
    own[:, match] = (shared + 0.5 * topic)[:, 0]
    own[:, 5] = shared[:, 0]
    tokens = shared + 0.5 * unit(2, words, 32)
    tokens[:, :1] = shared + 0.5 * topic
    embedding = nnf.normalize((shared + 0.5 * topic)[:, 0], dim=-1)
    guide = Guide(embedding, nnf.normalize(tokens, dim=-1), torch.ones(2, words, dtype=torch.bool))
    own = nnf.normalize(own, dim=-1)
    return replace(context, token_embeddings=own, guide=guide)


@pytest.mark.parametrize("words", [1, 2, 6])
def test_gate_makes_the_token_that_meets_the_guide_cheapest(words: int) -> None:
    context = matched(words)
    steering = RelevanceGate().prepare(context)
    assert steering.beta_scale is not None
    assert steering.beta_scale.argmin(1).tolist() == [3, 3]
    assert torch.equal(steering.beta_scale[:, 0], torch.ones(2))  # CLS keeps its beta
    target = steering.target(torch.empty(0), torch.empty(0))
    assert torch.equal(target[:, 0], context.guide.embedding)


def test_gate_does_not_take_the_emptiest_token_for_the_most_relevant() -> None:
    context = matched(words=6)
    own = context.token_embeddings
    assert own is not None
    plain = (own @ context.guide.tokens.mean(1)[:, :, None])[..., 0]
    assert plain[:, 1:].argmax(1).tolist() == [4, 4]  # token 5, were the mean left in
    relevance = token_relevance(context, 14.0)
    assert (relevance[:, 5] < relevance[:, 3] - 0.3).all()


@pytest.mark.parametrize("guidance", [RelevanceGate, StartGuidance])
def test_relevance_may_be_given(guidance: type[RelevanceGate | StartGuidance]) -> None:
    context = matched(words=6)
    own = guidance().prepare(context)
    same = replace(context, relevance=token_relevance(context, 14.0), token_embeddings=None)
    given = guidance(source="given").prepare(same)
    scaled = guidance(source="given").prepare(replace(same, relevance=3 + 40 * same.relevance))
    turned = guidance(source="given").prepare(replace(same, relevance=-same.relevance))
    for field in ("beta_scale", "alpha_init"):
        values = [getattr(steering, field) for steering in (own, given, scaled, turned)]
        if values[0] is None:
            assert values == [None] * 4
        else:
            assert torch.equal(values[1], values[0])
            assert torch.allclose(values[2], values[0], rtol=1e-4)
            assert not torch.allclose(values[3], values[0], rtol=0.1)
    with pytest.raises(OptionError, match="'given' needs a relevance"):
        guidance(source="given").prepare(context)
    with pytest.raises(OptionError, match="unknown source 'map'; accepted: attention, given"):
        guidance(source="map")


def test_start_is_a_bounded_rising_map_of_relevance() -> None:
    context = make_context()
    relevance = torch.tensor([[9.0, -400.0, 1.0, 2.0, 3.0, 500.0], [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    given = replace(context, relevance=relevance)
    steering = StartGuidance(alpha_init=4.0, source="given").prepare(given)
    start = steering.alpha_init
    assert start is not None
    assert steering.beta_scale is None
    assert torch.equal(start[:, 0], torch.full((2,), 4.0))  # CLS starts open
    assert (start[0, 1:].diff() > 0).all()
    assert float(start.abs().max()) <= 4.0
    assert torch.equal(start[1, 1:], torch.zeros(5))  # nothing tells the tokens apart
    z = standardised(relevance, context.content)
    assert torch.allclose(start[0, 1:], 4.0 * torch.tanh(0.75 * z[0, 1:]), atol=1e-5)


def test_a_neutral_guide_follows_its_pair() -> None:
    guide = make_context().guide.against(torch.eye(2))
    turned = guide.select(torch.tensor([1, 0])).to(torch.device("cpu"))
    assert turned.neutral is not None
    assert torch.equal(turned.neutral, torch.eye(2).flip(0))
    assert torch.equal(turned.embedding, guide.embedding.flip(0))


@pytest.mark.parametrize("words", [0, 1])
def test_gate_is_finite_where_there_is_little_to_attend_to(words: int) -> None:
    context = matched(6)
    valid = torch.zeros(2, 6, dtype=torch.bool)
    valid[:, :words] = True
    content = torch.zeros(2, 6, dtype=torch.bool)
    content[:, 1 : 1 + words] = True
    guide = Guide(context.guide.embedding, context.guide.tokens, valid)
    steering = RelevanceGate().prepare(replace(context, guide=guide, content=content))
    assert steering.beta_scale is not None
    assert torch.isfinite(steering.beta_scale).all()
    assert torch.allclose(steering.beta_scale, torch.ones(2, 6))  # one has no rival


def test_gate_needs_tokens_of_the_explained_side() -> None:
    with pytest.raises(OptionError, match="needs token embeddings"):
        RelevanceGate().prepare(make_context(own=False))


def test_literal_trains_attention_of_its_own_for_each_pair() -> None:
    context = make_context()
    steering = LiteralAttention().prepare(context)
    assert [tuple(p.shape) for p in steering.parameters] == [(2, 5, 8), (2, 8, 8), (2, 8, 8)]
    assert all(p.requires_grad and p.is_leaf for p in steering.parameters)
    again = LiteralAttention().prepare(context)
    for first, second in zip(steering.parameters, again.parameters, strict=True):
        assert torch.equal(first, second)
        assert not torch.equal(first[0], first[1])
    target = steering.target(torch.randn(2, 3, 6, 5), torch.empty(0))
    assert target.shape == (2, 3, 8)
    assert torch.allclose(target.norm(dim=-1), torch.ones(2, 3))


def test_literal_equals_equation_4_written_out() -> None:
    context = make_context()
    steering = LiteralAttention(key_dim=3).prepare(context)
    z = torch.randn(2, 3, 6, 5)
    query, key, value = (p[1] for p in steering.parameters)
    guide = context.guide.tokens[1]
    rows = [
        torch.softmax((z[1, 2, n] @ query) @ (guide @ key).T / 3**0.5, 0) @ (guide @ value)
        for n in range(6)
    ]
    expected = nnf.normalize(torch.stack(rows).mean(0), dim=0)
    assert torch.allclose(steering.target(z, torch.empty(0))[1, 2], expected, atol=1e-5)


def test_residual_without_weight_is_the_guides_embedding() -> None:
    context = make_context()
    target = ResidualAttention(weight=0.0).prepare(context).target(torch.empty(0), torch.empty(0))
    assert torch.allclose(target[:, 0], context.guide.embedding)


def test_self_query_follows_the_embedding() -> None:
    context = make_context()
    steering = SelfQuery(temperature=200.0).prepare(context)
    target = steering.target(torch.empty(0), context.guide.tokens[:, 1:2])
    assert torch.allclose(target[:, 0], context.guide.tokens[:, 1], atol=1e-3)


def test_every_guidance_is_listed_under_its_name() -> None:
    assert set(GUIDANCES) == {"none", "literal", "gate", "start", "residual", "self_query"}
    for name, guidance in GUIDANCES.items():
        assert guidance.name == name
        steering = guidance().prepare(make_context())
        target = steering.target(torch.randn(2, 3, 6, 5), torch.randn(2, 3, 8))
        assert target.shape[-1] == 8
        assert torch.isfinite(target).all()
