"""The last block of a pre-norm tower, for the one token that the embedding is read from.

One query needs no keys and no values of its own for each token. With W_k and W_v of a head, and
x_n what the attention is given, its scores are q · (W_k x_n) = (W_kᵀ q) · x_n, and what it gives is
W_v Σ_n a_n x_n: two products with the weights per query in place of two per token. A bias of the
keys adds the same to every score, which cancels in the softmax; the weights a_n sum to one, so that
a bias of the values passes through. The same function as with keys and values written out, up to
rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.errors import EncoderError
from mmattrib.models.untouched import untouched

Affine: TypeAlias = tuple[Tensor, Tensor | None]
"""Weight ``(E, C)`` and bias ``(E,)`` or None of x W ᵀ + b."""


def _same(tokens: Tensor) -> Tensor:
    return tokens


@dataclass(frozen=True)
class PreNorm:
    """The parts of a pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)).

    Attributes:
        norm1: before the attention.
        attend: (query tokens ``(B, 1, C)``, all tokens ``(B, N, C)``, readable ``(B, N)`` bool or
            None) -> ``(B, 1, C)``; None where this is not known to be exact.
        values: ``(B, N, C)`` -> each token's value through the output projection.
        norm2: before the MLP.
        mlp: the MLP.
        scale1: layer scale behind the attention.
        scale2: layer scale behind the MLP.
    """

    norm1: Callable[[Tensor], Tensor]
    attend: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None
    values: Callable[[Tensor], Tensor]
    norm2: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]
    scale1: Callable[[Tensor], Tensor] = _same
    scale2: Callable[[Tensor], Tensor] = _same

    def value_path(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)``: what each token would give if attention read it alone.

        Without residual and MLP (MaskCLIP, Zhou et al. 2022, section 3.2).
        """
        return self.scale1(self.values(self.norm1(tokens)))

    def at(self, tokens: Tensor, index: Tensor, readable: Tensor | None) -> Tensor:
        """``(B, C)``: what the block gives for one token of each row, one query and all keys."""
        if self.attend is None:
            raise EncoderError("this block has no way for a single query")
        normed = self.norm1(tokens)
        query = pick(normed, index)[:, None]
        one = pick(tokens, index)[:, None] + self.scale1(self.attend(query, normed, readable))
        return (one + self.scale2(self.mlp(self.norm2(one))))[:, 0]


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    """``(B, C)``: token ``index[b]`` of each row of ``(B, N, C)``."""
    return tokens[torch.arange(len(tokens), device=tokens.device), index.to(tokens.device)]


def causal_keys(index: Tensor, count: int) -> Tensor:
    """``(B, N)`` bool: a token reads itself and those before it."""
    return torch.arange(count, device=index.device)[None] <= index[:, None]


def attend_linear(
    query: Callable[[Tensor], Tensor],
    key: Callable[[Tensor], Tensor],
    value: Callable[[Tensor], Tensor],
    out: Callable[[Tensor], Tensor],
    heads: int,
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """Multi-head attention of some queries over all tokens, scaled by the root of the head's width.

    A single query is taken to the tokens instead of the tokens to keys and values, where ``key``
    and ``value`` are plain ``torch.nn.Linear`` or :func:`packed_parts`: the same up to rounding, in
    a fraction of the arithmetic. Parts that are anything else, or that have hooks, are called.

    Returns:
        (queries ``(B, M, C)``, tokens ``(B, N, C)``, readable ``(B, N)`` bool or None) ->
        ``(B, M, C)``, which can be pickled where the parts can; None where ``key`` or ``value`` are
        of an attention that reads more than the tokens (``add_bias_kv`` or ``add_zero_attn`` of
        ``torch.nn.MultiheadAttention``).
    """
    if any(isinstance(part, PackedPart) and part.reads_more for part in (key, value)):
        return None
    return _AttendLinear(query, key, value, out, heads)


@dataclass(frozen=True)
class _AttendLinear:
    """What :func:`attend_linear` gives: no closure, so that a copy goes to another process."""

    query: Callable[[Tensor], Tensor]
    key: Callable[[Tensor], Tensor]
    value: Callable[[Tensor], Tensor]
    out: Callable[[Tensor], Tensor]
    heads: int

    def __call__(self, queries: Tensor, tokens: Tensor, readable: Tensor | None) -> Tensor:
        keys, values, query = affine(self.key), affine(self.value), self.query(queries)
        if queries.shape[1] == 1 and keys is not None and values is not None:
            mixed = single_query(query[:, 0], tokens, readable, keys, values, self.heads)
            return self.out(mixed[:, None])
        key, value = self.key(tokens), self.value(tokens)
        return self.out(many_queries(query, key, value, readable, self.heads))


def many_queries(
    query: Tensor, key: Tensor, value: Tensor, readable: Tensor | None, heads: int
) -> Tensor:
    """Multi-head attention as it is written: ``(B, M, E)`` of M queries and N keys and values."""

    def split(x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], heads, -1).transpose(1, 2)

    mixed = nnf.scaled_dot_product_attention(
        split(query),
        split(key),
        split(value),
        attn_mask=None if readable is None else readable[:, None, None, :],
    )
    return mixed.transpose(1, 2).flatten(2)


def single_query(
    query: Tensor,
    tokens: Tensor,
    readable: Tensor | None,
    key: Affine,
    value: Affine,
    heads: int,
    extra: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """:func:`many_queries` for one query, without a key or a value of any token.

    Args:
        query: projected, ``(B, E)``.
        tokens: not projected, ``(B, N, C)``.
        readable: ``(B, N)`` bool, what the query reads; None for everything. A query that reads
            nothing is given zeros.
        key: weight ``(E, C)`` and bias of the keys.
        value: weight ``(F, C)`` and bias of the values.
        heads: E and F are multiples of it.
        extra: a key ``(E,)`` and a value ``(F,)`` that are no token's and are always read
            (``bias_k`` and ``bias_v`` of ``torch.nn.MultiheadAttention``).

    Returns:
        ``(B, F)``, heads side by side.
    """
    rows, width = len(query), query.shape[-1] // heads
    q = query.view(rows, heads, width).transpose(0, 1) * width**-0.5  # (heads, B, E / heads)
    sought = q @ key[0].view(heads, width, -1)  # (heads, B, C)
    scores = sought.transpose(0, 1) @ tokens.transpose(1, 2)  # (B, heads, N)
    nothing = None
    if readable is not None:
        if extra is None:
            nothing = ~readable.any(-1, keepdim=True)
            readable = readable | nothing
        scores = scores.masked_fill(~readable[:, None, :], -torch.inf)
    beside = None
    if extra is not None:  # against a key of none of the tokens, their bias does not cancel
        offset = extra[0] if key[1] is None else extra[0] - key[1]
        beside = (q @ offset.view(heads, width, 1)).transpose(0, 1)  # (B, heads, 1)
        scores = torch.cat([scores, beside], -1)
    weights = scores.softmax(-1)
    read = (weights if beside is None else weights[..., :-1]) @ tokens  # (B, heads, C)
    mixed = read.transpose(0, 1) @ value[0].view(heads, -1, tokens.shape[-1]).transpose(1, 2)
    found: Tensor = mixed.transpose(0, 1).flatten(1)
    if extra is None:
        found = found if value[1] is None else found + value[1]
        return found if nothing is None else found.masked_fill(nothing, 0)
    share = weights[..., -1:].expand(-1, -1, mixed.shape[-1]).flatten(1)
    found = found + share * extra[1]
    return found if value[1] is None else found + (1 - share) * value[1]


@dataclass(frozen=True)
class PackedPart:
    """One of the projections of torch's attention, a function of ``(B, N, C)``.

    Attributes:
        attention: whose it is.
        number: 0 of the queries, 1 of the keys, 2 of the values.
    """

    attention: nn.MultiheadAttention
    number: int

    @property
    def reads_more(self) -> bool:
        """Whether the attention has keys and values that are no token's."""
        return self.attention.bias_k is not None or self.attention.add_zero_attn

    def affine(self) -> Affine:
        """Weight ``(E, C)`` and bias."""
        width, separate = self.attention.embed_dim, (
            self.attention.q_proj_weight, self.attention.k_proj_weight,
            self.attention.v_proj_weight,
        )  # fmt: skip
        rows = slice(self.number * width, (self.number + 1) * width)
        weight, bias = separate[self.number], self.attention.in_proj_bias
        if weight is None:
            weight = self.attention.in_proj_weight[rows]
        return weight, None if bias is None else bias[rows]

    def __call__(self, x: Tensor) -> Tensor:
        """Project ``(B, N, C)``."""
        return nnf.linear(x, *self.affine())


def packed_parts(attention: nn.MultiheadAttention) -> tuple[PackedPart, PackedPart, PackedPart]:
    """Query, key and value projections of torch's attention, as functions of ``(B, N, C)``."""
    return PackedPart(attention, 0), PackedPart(attention, 1), PackedPart(attention, 2)


def affine(part: object) -> Affine | None:
    """Weight and bias of a part that is x Wᵀ + b and nothing else; None for any other.

    Other are subclasses (adapters, quantised layers), weights of another kind than a plain tensor,
    and whatever is patched or hooked (:func:`mmattrib.models.untouched.untouched`): those must be
    called.
    """
    if isinstance(part, PackedPart):
        return part.affine()
    if type(part) is not nn.Linear or not untouched(part):
        return None
    plain = all(
        type(x) in (Tensor, nn.Parameter) for x in (part.weight, part.bias) if x is not None
    )
    return (part.weight, part.bias) if plain else None
