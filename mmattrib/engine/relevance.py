"""Relevance of tokens, read off attention weights and their gradients: formulas in pure torch.

Blocks come in the tower's order. V counts views (inputs, or the clips of one), n tokens and m >= n
keys: keys behind the n tokens (ImageBind learns one) stand for no part of the input, so what
flows to them is lost to every score.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as nnf


def read_out(slopes: Tensor) -> Tensor:
    """Which tokens behind the last block the embedding is read from, each with the same share.

    A tower that pools by CLS or the end of a text reads one; one that pools by a mean or by an
    attention of its own reads all that are no padding.

    Args:
        slopes: ``(V, heads, n, m)``, the gradient of some number that depends on the whole
            embedding with respect to the last block's weights. It is 0 for queries that are not
            read.

    Returns:
        ``(V, n)`` float32: 1/k for the k tokens that are read, else 0; all 0 for a view without
        one.
    """
    read = (slopes != 0).any(-1).any(1).float()
    return read / read.sum(-1, keepdim=True).clamp_min(1.0)


def propagated(weights: Sequence[Tensor], slopes: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Relevance as Chefer, Gur and Wolf (ICCV 2021) propagate it through self-attention.

    Eq. (5) Ā = E_h((∇A ⊙ A)⁺), eq. (6) R ← R + Ā R, from R = I. What is given is row by row
    ``rows · (R - I)``: the identity says only that a token is itself.

    Args:
        weights: A of the blocks that count, ``(V, heads, n, m)`` each.
        slopes: ∇A of them, likewise.
        rows: ``(V, n)``, of which queries; from :func:`read_out`.

    Returns:
        ``(V, n)`` float32, 0 or more.
    """
    found, count = rows, rows.shape[-1]
    for weight, slope in zip(reversed(weights), reversed(slopes), strict=True):
        step = (weight.float() * slope.float()).clamp_min(0.0).mean(1)[..., :count]
        found = found + (found[:, None] @ step)[:, 0]
    return found - rows


def rolled_out(weights: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Attention rollout (Abnar and Zuidema, ACL 2020): the product of ½A + ½I over the blocks.

    A is the mean over heads; the rows of ½A + ½I are normalised to 1.

    Args:
        weights: A of the blocks that count, ``(V, heads, n, m)`` each.
        rows: ``(V, n)``, of which queries; from :func:`read_out`.

    Returns:
        ``(V, n)`` float32; sums to 1 in every view that is read.
    """
    found, count = rows, rows.shape[-1]
    own = torch.eye(count, dtype=torch.float32, device=rows.device)
    for weight in reversed(weights):
        mixed = 0.5 * weight.float().mean(1)[..., :count] + 0.5 * own
        found = (found[:, None] @ (mixed / mixed.sum(-1, keepdim=True)))[:, 0]
    return found


def formed(slopes: Sequence[Tensor], valid: Tensor) -> Tensor:
    """LeGrad (Bousselham et al., ICCV 2025): how attention to a token forms each block's output.

    The mean over blocks, heads and queries of (∂s/∂A)⁺, where s is the match of that block's own
    output.

    Args:
        slopes: ∂s/∂A of the blocks that count, ``(V, heads, n, m)`` each.
        valid: ``(V, n)`` bool; padding is no query.

    Returns:
        ``(V, n)`` float32, 0 or more.
    """
    count = valid.shape[-1]
    queries = valid.float()[:, None, :, None] / valid.sum(-1).clamp_min(1)[:, None, None, None]
    blocks = [(one.float().clamp_min(0.0) * queries).sum(2).mean(1)[:, :count] for one in slopes]
    return torch.stack(blocks).mean(0)


def loosened(query: Tensor, key: Tensor, places: Tensor) -> Tensor:
    """Grad-ECLIP's spatial weights: cosines of queries and keys, stretched to 0 to 1.

    Args:
        query: ``(V, heads, n, E)``.
        key: ``(V, heads, m, E)``.
        places: ``(V, n)`` bool, the tokens whose least cosine becomes 0 and whose largest 1.

    Returns:
        ``(V, n, n)`` float32, query by key; 1 where all places are alike.
    """
    count = places.shape[-1]
    q, k = (nnf.normalize(x.float().transpose(1, 2).flatten(2), dim=-1) for x in (query, key))
    cosine = q @ k[:, :count].transpose(1, 2)
    elsewhere = ~places[:, None]
    low = cosine.masked_fill(elsewhere, torch.inf).amin(-1, keepdim=True)
    high = cosine.masked_fill(elsewhere, -torch.inf).amax(-1, keepdim=True)
    wide = high > low  # not so with one place, or none
    found = (cosine - low) / torch.where(wide, high - low, torch.ones_like(high))
    return found.where(wide, torch.ones_like(found))


def channel_weighted(slopes: Tensor, spatial: Tensor, rows: Tensor) -> Tensor:
    """Grad-ECLIP of one block (Zhao et al., ICML 2024): Σ_c w_c v_nc, times a spatial weight.

    w is the gradient of the match with respect to the attention's output o at a query that is
    read. As o = A v head by head, Σ_c w_c v_nc is the sum over heads of ∂s/∂A of that query and
    token n: values need not be known.

    Args:
        slopes: ∂s/∂A, ``(V, heads, n, m)``.
        spatial: ``(V, n, n)``, from :func:`loosened`.
        rows: ``(V, n)``, not 0 for the queries that are read.

    Returns:
        ``(V, n)`` float32, signed.
    """
    count = rows.shape[-1]
    read = (rows != 0)[..., None]
    return (slopes.float().sum(1)[..., :count] * spatial * read).sum(1)
