"""The bottleneck: masks, noise mixed into tokens, and the bits that each token passes on.

λ = σ(α) says how much of a token passes. Everything is computed from the logits α, because 1 − λ
rounds to zero in float32 from α ≈ 16.6 on, where log(1 − λ) would be infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.errors import OptionError, brief

BITS_PER_NAT = 1.0 / math.log(2.0)

MaskShape = Callable[[int, int], tuple[int, int]]
"""``(N, C)`` of the tokens -> ``(N, G)``, the shape of one input's α; G divides C."""

GROUPS = 8
"""Most groups of channels of the mask ``"group"``: between its neighbours, 1 and C."""


def token_mask(tokens: int, channels: int) -> tuple[int, int]:
    """One λ per token, shared by its channels."""
    return tokens, 1


def token_channel_mask(tokens: int, channels: int) -> tuple[int, int]:
    """One λ per token and channel, as M2IB (Wang et al. 2023) and CA-M2IB publish it."""
    return tokens, channels


def group_mask(tokens: int, channels: int) -> tuple[int, int]:
    """One λ per token and group of contiguous channels, as many groups as divide C, 8 at most."""
    return tokens, max(g for g in range(1, GROUPS + 1) if channels % g == 0)


MASKS: dict[str, MaskShape] = {
    "token": token_mask,
    "group": group_mask,
    "token_channel": token_channel_mask,
}
"""Masks by name. A new mask is one function and one entry."""


def mask_shape(name: str) -> MaskShape:
    """The mask of this name.

    Raises:
        OptionError: there is none.
    """
    try:
        return MASKS[name]
    except KeyError:
        raise OptionError(f"unknown mask {brief(name)}; accepted: {', '.join(MASKS)}") from None


def mask(alpha: Tensor) -> Tensor:
    """λ = σ(α), in (0, 1), of any shape."""
    return torch.sigmoid(alpha)


def per_channel(alpha: Tensor, tokens: Tensor) -> Tensor:
    """α ``(..., N, G)`` of G groups of channels, repeated to ``(..., N, C)``.

    What broadcasts against ``tokens``, ``(..., N, C)``, comes back as it is.
    """
    groups, channels = (x.shape[-1] if x.dim() else 1 for x in (alpha, tokens))
    if 1 < groups < channels and channels % groups == 0:
        return alpha.repeat_interleave(channels // groups, dim=-1)
    return alpha


def blend(alpha: Tensor, tokens: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Eq. (5): Z = λ ⊙ R + σ (1 − λ) ⊙ ε.

    Where λ rounds to one (α above 17 in float32) the tokens come back bit for bit.

    Args:
        alpha: mask logits, ``(..., N, G)`` with G a divisor of C, or broadcastable to ``tokens``.
        tokens: R, ``(..., N, C)``.
        noise: ε, broadcastable to ``tokens``, standard normal.
        sigma: σ_m > 0, the noise's standard deviation in a token that is shut.

    Returns:
        Z, in the broadcast shape.
    """
    kept = mask(per_channel(alpha, tokens))
    return kept * tokens + sigma * (1.0 - kept) * noise


def kl(alpha: Tensor, tokens: Tensor, sigma: float) -> Tensor:
    """Eq. (7) per element: KL of N(λ r, σ² (1 − λ)²) from N(0, 1), in nats.

    With s = σ (1 − λ) it is ½ (λ² r² + s² − 1) − log s, and log s = log σ + logsigmoid(−α), which
    is finite, with a finite gradient, at any α that the float type holds.

    Args:
        alpha: mask logits, ``(..., N, G)`` with G a divisor of C, or broadcastable to ``tokens``.
        tokens: r, ``(..., N, C)``. Half precision is computed in float32.
        sigma: σ_m > 0.

    Returns:
        nats in the broadcast shape, float32 or wider, never below zero but for rounding.
    """
    wide = torch.promote_types(torch.promote_types(alpha.dtype, tokens.dtype), torch.float32)
    alpha, tokens = per_channel(alpha, tokens).to(wide), tokens.to(wide)
    mean = mask(alpha) * tokens
    deviation = sigma * torch.sigmoid(-alpha)
    log_deviation = math.log(sigma) + nnf.logsigmoid(-alpha)
    return 0.5 * (mean.square() + deviation.square() - 1.0) - log_deviation


def capacity(alpha: Tensor, tokens: Tensor, sigma: float) -> Tensor:
    """Information that each token lets pass: KL summed over channels, in bits.

    Args:
        alpha: mask logits, as for :func:`kl`.
        tokens: ``(B, N, C)``.
        sigma: σ_m > 0.

    Returns:
        ``(B, N)`` bits.
    """
    return kl(alpha, tokens, sigma).expand(tokens.shape).sum(-1) * BITS_PER_NAT
