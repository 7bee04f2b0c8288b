"""Integrated gradients of the cosine at a layer, along the straight path from a baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from mmattrib.engine.objective import cosine_gradient

Rule: TypeAlias = Literal["right", "midpoint"]


def path_attribution(
    tokens: Tensor,
    suffix: Callable[[Tensor, Tensor], Tensor],
    target: Tensor,
    *,
    steps: int,
    max_rows: int = 64,
    baseline: Tensor | None = None,
    rule: Rule = "right",
) -> Tensor:
    """Integrated gradients of the cosine at a layer.

    A = (h − b) ⊙ 1/n Σ_i ∂cos(f(z_i), e′)/∂z_i with z_i = b + a_i (h − b), summed over channels
    (Sundararajan et al. 2017, eq. 3). a_i = i/n at the right end of each of n parts of the path
    (NIB, ICLR 2025), (i − ½)/n in its middle, i = 1..n. The sum over tokens tends to cos(f(h), e′)
    − cos(f(b), e′) as n grows (completeness): as 1/n with the right ends, as 1/n² with the middles.
    The right ends with b = 0 and n = 1 are gradient x input.

    Args:
        tokens: h, ``(B, N, C)``.
        suffix: ``(R, N, C)`` tokens and ``(R,)`` row numbers -> ``(R, D)`` embeddings.
        target: e′, ``(B, D)``.
        steps: n.
        max_rows: most rows in one call of the suffix.
        baseline: b, ``(B, N, C)``; zero if None.
        rule: where on its part of the path each gradient is taken.

    Returns:
        ``(B, N)`` float32, in units of the cosine.
    """
    maps = []
    for pair in range(len(tokens)):
        # One pair a call: its rows then have the same shapes in any batch.
        h = tokens[pair].detach()
        goal = target[pair].to(h.device)
        total = torch.zeros(h.shape, dtype=torch.float32, device=h.device)
        scales = torch.arange(1, steps + 1, dtype=torch.float32, device=h.device)
        scales = (scales if rule == "right" else scales - 0.5) / steps
        start = None if baseline is None else baseline[pair].detach().float()
        way = h.float() if start is None else h.float() - start
        for some in torch.split(scales, max_rows):
            points = some[:, None, None] * way
            points = points if start is None else start + points
            total += cosine_gradient(points.to(h.dtype), suffix, pair, goal).sum(0)
        maps.append((total * way / steps).sum(-1))
    return torch.stack(maps)
