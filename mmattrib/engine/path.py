"""Integrated gradients of the cosine at a layer, along the straight path from zero tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmattrib.engine.objective import cosine_gradient


def path_attribution(
    tokens: Tensor,
    suffix: Callable[[Tensor, Tensor], Tensor],
    target: Tensor,
    *,
    steps: int,
    max_rows: int = 64,
) -> Tensor:
    """Integrated gradients of the cosine at a layer, with a zero baseline.

    A = 1/n Σ_i h ⊙ ∂cos(f(i/n · h), e′)/∂(i/n · h), i = 1..n, summed over channels (NIB, ICLR
    2025; Sundararajan et al. 2017 for the path). Its sum over tokens tends to cos(f(h), e′) −
    cos(f(0), e′) as n grows (completeness). n = 1 is gradient x input.

    Args:
        tokens: h, ``(B, N, C)``.
        suffix: ``(R, N, C)`` tokens and ``(R,)`` row numbers -> ``(R, D)`` embeddings.
        target: e′, ``(B, D)``.
        steps: n.
        max_rows: most rows in one call of the suffix.

    Returns:
        ``(B, N)`` float32, in units of the cosine.
    """
    maps = []
    for pair in range(len(tokens)):
        # One pair a call: its rows then have the same shapes in any batch.
        h = tokens[pair].detach()
        goal = target[pair].to(h.device)
        total = torch.zeros(h.shape, dtype=torch.float32, device=h.device)
        scales = torch.arange(1, steps + 1, dtype=torch.float32, device=h.device) / steps
        for some in torch.split(scales, max_rows):
            points = (some[:, None, None] * h.float()).to(h.dtype)
            total += cosine_gradient(points, suffix, pair, goal).sum(0)
        maps.append((total * h.float() / steps).sum(-1))
    return torch.stack(maps)
