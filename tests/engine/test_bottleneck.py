from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattrib.engine.bottleneck import BITS_PER_NAT, MASKS, blend, capacity, kl, mask, mask_shape
from mmattrib.errors import OptionError

ALPHAS = [-80.0, -30.0, -5.0, 0.0, 5.0, 16.7, 20.0, 50.0, 80.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("token", [0.0, 1.0, -300.0])
def test_kl_has_finite_value_and_gradient(alpha: float, token: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([alpha], dtype=dtype, requires_grad=True)
    nats = kl(logits, torch.tensor([token], dtype=dtype), 1.0)
    nats.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(nats).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_blend_has_finite_value_and_gradient(alpha: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([alpha], dtype=dtype, requires_grad=True)
    z = blend(logits, torch.tensor([2.0], dtype=dtype), torch.tensor([-1.0], dtype=dtype), 1.0)
    z.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(z).all()
    assert torch.isfinite(logits.grad).all()


@settings(max_examples=200, deadline=None)
@given(
    alpha=st.floats(-12, 12),
    token=st.floats(-20, 20),
    sigma=st.floats(0.05, 4),
)
def test_kl_equals_that_of_two_normals(alpha: float, token: float, sigma: float) -> None:
    logits = torch.tensor(alpha, dtype=torch.float64)
    lam = torch.sigmoid(logits)
    posterior = torch.distributions.Normal(lam * token, sigma * (1 - lam))
    prior = torch.distributions.Normal(
        torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    )
    expected = torch.distributions.kl_divergence(posterior, prior)
    nats = kl(logits, torch.tensor(token, dtype=torch.float64), sigma)
    assert float(nats) == pytest.approx(float(expected), rel=1e-6, abs=1e-9)
    assert float(nats) >= -1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("alpha", [80.0, math.inf])
def test_lambda_one_gives_the_tokens_back_exactly(alpha: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 4, 3, generator=generator).to(dtype)
    tokens[0, 0, 0] = 0.0
    noise = torch.randn(2, 4, 3, generator=generator).to(dtype)
    z = blend(torch.full((2, 4, 1), alpha, dtype=dtype), tokens, noise, 1.7)
    assert torch.equal(z, tokens)


def test_lambda_zero_gives_noise_of_sigma() -> None:
    tokens, noise = torch.full((1, 2, 3), 9.0), torch.arange(6.0).view(1, 2, 3)
    z = blend(torch.full((1, 2, 1), -80.0), tokens, noise, 0.5)
    assert torch.allclose(z, 0.5 * noise)


def test_a_shut_token_has_no_capacity_and_sigma_enters_it() -> None:
    shut, tokens = torch.full((1, 2, 1), -80.0), torch.randn(1, 2, 3)
    assert torch.allclose(kl(shut, tokens, 1.0), torch.zeros(1, 2, 3), atol=1e-6)
    # KL of N(0, 4) from N(0, 1): (4 - 1) / 2 - log 2
    assert torch.allclose(kl(shut, tokens, 2.0), torch.full((1, 2, 3), 1.5 - math.log(2)))


def test_capacity_is_kl_summed_over_channels_in_bits() -> None:
    alpha, tokens = torch.full((2, 3, 1), 1.0), torch.ones(2, 3, 4)
    nats = kl(torch.tensor(1.0), torch.tensor(1.0), 1.0)
    assert capacity(alpha, tokens, 1.0).shape == (2, 3)
    assert torch.allclose(capacity(alpha, tokens, 1.0), 4 * nats * BITS_PER_NAT)
    assert BITS_PER_NAT * math.log(2) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (6, 6), (8, 8), (11, 1), (20, 5), (768, 8)]
)
def test_groups_are_the_most_that_divide_the_channels(channels: int, groups: int) -> None:
    assert mask_shape("group")(5, channels) == (5, groups)


def test_a_group_is_a_run_of_channels() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, noise, alpha = (torch.randn(2, 5, c, generator=generator) for c in (12, 12, 4))
    each = torch.stack([alpha[..., c // 3] for c in range(12)], -1)
    assert torch.equal(blend(alpha, tokens, noise, 0.7), blend(each, tokens, noise, 0.7))
    assert torch.equal(kl(alpha, tokens, 0.7), kl(each, tokens, 0.7))
    assert torch.equal(capacity(alpha, tokens, 0.7), capacity(each, tokens, 0.7))


def test_masks_broadcast_and_unknown_ones_are_named() -> None:
    shapes = {name: shape(5, 3) for name, shape in MASKS.items()}
    assert shapes == {"token": (5, 1), "group": (5, 3), "token_channel": (5, 3)}
    assert torch.equal(mask(torch.zeros(2)), torch.full((2,), 0.5))
    with pytest.raises(
        OptionError, match="unknown mask 'chanel'; accepted: token, group, token_channel"
    ):
        mask_shape("chanel")
