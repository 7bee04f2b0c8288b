"""The objective, eq. (11): γ · cos(Ẽ_m′, g_m(Z)) − β · KL, per pair."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as nnf


def compression(nats: Tensor, valid: Tensor, scale: Tensor | None = None) -> Tensor:
    """Eq. (7) per pair: the mean of the KL over valid tokens and channels.

    Args:
        nats: ``(B, N, C)`` from :func:`mmattrib.engine.bottleneck.kl`.
        valid: ``(B, N)`` bool; padding counts neither above nor below the line.
        scale: ``(B, N)`` factor on each token's share (β per token), or None for ones.

    Returns:
        ``(B,)`` nats.
    """
    weight = valid.to(nats.dtype)
    count = weight.sum(-1).clamp_min(1.0) * nats.shape[-1]
    if scale is not None:
        weight = weight * scale.to(nats.dtype)
    # where(), not a product with zero: whatever stands at padding must not matter, even infinity.
    per_token = nats.sum(-1).where(valid, nats.new_zeros(()))
    return (per_token * weight).sum(-1) / count


def fit(embedding: Tensor, target: Tensor) -> Tensor:
    """Fit term of eq. (11) per noise sample: the cosine with the target.

    Args:
        embedding: g_m(Z), ``(B, S, D)``.
        target: Ẽ_m′, broadcastable to it.

    Returns:
        ``(B, S)`` cosines.
    """
    return nnf.cosine_similarity(embedding, target.to(embedding.dtype), dim=-1)


def contrasted(
    embedding: Tensor, target: Tensor, neutral: Tensor | None, contrast: float
) -> Tensor:
    """The fit minus what a guide without content would also reach.

    cos(g(Z), Ẽ_m′) − contrast · cos(g(Z), ē).

    Args:
        embedding: g_m(Z), ``(B, S, D)``.
        target: Ẽ_m′, broadcastable to it.
        neutral: ē, ``(B, D)``, the embedding of a guide that says nothing; unused at contrast 0.
        contrast: 0 or more; 0 is :func:`fit`.

    Returns:
        ``(B, S)``, in units of the cosine.
    """
    found = fit(embedding, target)
    if contrast == 0 or neutral is None:
        return found
    return found - contrast * fit(embedding, neutral[:, None])


def cosine_gradient(
    points: Tensor, suffix: Callable[[Tensor, Tensor], Tensor], rows: Tensor, goals: Tensor
) -> Tensor:
    """∂cos(f(h), e′)/∂h at some tokens of some inputs.

    Args:
        points: values of h, ``(R, N, C)``.
        suffix: f; ``(R, N, C)`` tokens and ``(R,)`` row numbers -> ``(R, D)`` embeddings.
        rows: ``(R,)``, the number of each input in its batch.
        goals: e′ of each, ``(R, D)``.

    Returns:
        ``(R, N, C)`` float32.
    """
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        embedding = suffix(points, rows.cpu()).float()
        cosine = fit(embedding[:, None], goals[:, None].to(embedding.device)).sum()
        (gradient,) = torch.autograd.grad(cosine, points)
    return gradient.float()
