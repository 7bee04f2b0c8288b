"""Integrated gradients of the cosine at a layer, along the straight path from a baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from mmattrib.engine.objective import cosine_gradient
from mmattrib.engine.together import ALONE, Together

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
    together: Together = ALONE,
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
        max_rows: most rows of each pair in one call of the suffix.
        baseline: b, ``(B, N, C)``; zero if None.
        rule: where on its part of the path each gradient is taken.
        together: how many pairs go into one call.

    Returns:
        ``(B, N)`` float32, in units of the cosine.
    """

    def some(pairs: Tensor, most: int) -> Tensor:
        h = tokens[pairs].detach()
        start = None if baseline is None else baseline[pairs].detach().float()
        way = h.float() if start is None else h.float() - start
        total = torch.zeros(h.shape, dtype=torch.float32, device=h.device)
        scales = torch.arange(1, steps + 1, dtype=torch.float32, device=h.device)
        scales = (scales if rule == "right" else scales - 0.5) / steps
        goals = target[pairs.to(target.device)].to(h.device)
        for part in torch.split(scales, most):
            points = part[:, None, None] * way[:, None]
            points = (points if start is None else start[:, None] + points).to(h.dtype)
            count = len(part)
            rows, goal = (x.repeat_interleave(count, 0) for x in (pairs, goals))
            found = cosine_gradient(points.flatten(0, 1), suffix, rows, goal)
            total += found.view(len(pairs), count, *h.shape[1:]).sum(1)
        return (total * way / steps).sum(-1)

    kind = ("path", tokens.shape[1:], min(steps, max_rows))
    return torch.cat(list(together.over(len(tokens), some, rows=min(steps, max_rows), kind=kind)))
