"""A deliberately naive M2IB: one pair, the whole model at every step, textbook formulas.

Shares no code with the engine. It exists to be compared with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def naive_m2ib(
    model: nn.Module,
    block: nn.Module,
    x: Tensor,
    valid: Tensor,
    target: Tensor,
    noise: Sequence[Tensor],
    *,
    beta: float = 0.1,
    gamma: float = 1.0,
    sigma: float = 1.0,
    learning_rate: float = 1.0,
    per_channel: bool = True,
) -> tuple[Tensor, list[float]]:
    """Capacity per token in bits, and the losses.

    Args:
        model: ``(S, N, C)`` inputs and ``(S, N)`` mask to ``(S, D)``.
        block: the bottleneck sits behind it.
        x: ``(N, C)`` one input.
        valid: ``(N,)``.
        target: ``(D,)``.
        noise: one ``(S, N, C)`` tensor per step.
    """
    samples, count, channels = noise[0].shape
    alpha = torch.full((count, channels if per_channel else 1), 5.0, dtype=x.dtype)
    alpha.requires_grad_(True)
    optimiser = torch.optim.Adam([alpha], lr=learning_rate)
    capacity, losses = torch.zeros(count), []
    for eps in noise:
        seen: list[Tensor] = []

        def bottleneck(
            _module: nn.Module,
            _args: object,
            tokens: Tensor,
            eps: Tensor = eps,
            seen: list[Tensor] = seen,
        ) -> Tensor:
            lam = torch.sigmoid(alpha)
            mean, variance = lam * tokens, (sigma * (1 - lam)) ** 2
            seen.append(-0.5 * (1 + torch.log(variance) - mean**2 - variance))
            return mean + sigma * (1 - lam) * eps

        handle = block.register_forward_hook(bottleneck)
        copies = x.expand(samples, count, channels)
        embedding = model(copies, valid.expand(samples, count))
        handle.remove()
        nats = seen[0][0]
        cosine = torch.nn.functional.cosine_similarity(embedding, target[None])
        loss = beta * nats[valid].mean() - gamma * cosine.mean()
        capacity = nats.detach().sum(-1) / torch.log(torch.tensor(2.0, dtype=x.dtype))
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return capacity * valid, losses
