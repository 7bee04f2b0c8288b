"""Attention weights of a tower's blocks, taken while the tower itself runs.

Most libraries compute attention in one fused call that never shows its weights. The tower is run
as it is, hooks and patched parts included, and only these calls are answered differently: the
weights are computed by the definition, kept, and used for the result. Nothing of a library's
blocks or masks is written again here. Queries and keys are those of the fused call, or the factors
of the product that the softmax was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.overrides import TorchFunctionMode

from mmattrib.errors import EncoderError, repr_of
from mmattrib.models.turns import in_this_thread


@dataclass(frozen=True)
class AttentionPass:
    """An embedding and the attention weights that led to it, in one graph.

    ``torch.autograd.grad(objective(found.embedding), found.weights)`` gives the gradient of the
    objective with respect to the weights of each block (Chefer et al. 2021).

    Attributes:
        embedding: ``(B, D)``, as ``Encoder.embed`` gives it.
        weights: per block ``(B * views, heads, n, n + extra)``: query by key. Rows sum to 1.
        views: inputs of several views (clips, crops) attend within each view; their tokens stand
            one view after the other on the token axis, so N = views * n.
        extra: keys behind the n tokens that are no tokens (ImageBind learns one).
        tokens: per block ``(B, N, C)``, what it gave, in the same graph; empty where the encoder
            keeps none.
        queries: per block ``(B * views, heads, n, E)``, from which its weights were computed; None
            for a block that does not show them, and empty where the encoder keeps none.
        keys: likewise, ``(B * views, heads, n + extra, E)``.
    """

    embedding: Tensor
    weights: tuple[Tensor, ...]
    views: int = 1
    extra: int = 0
    tokens: tuple[Tensor, ...] = ()
    queries: tuple[Tensor | None, ...] = ()
    keys: tuple[Tensor | None, ...] = ()

    __repr__ = repr_of()

    def between_tokens(self, block: int) -> Tensor:
        """``(B, heads, N, N)``: the weights of one block between the tokens of its layer.

        Views stand on the diagonal. Without the extra keys: rows then sum to less than 1.
        """
        weights = self.weights[block]
        rows, heads, count = weights.shape[:3]
        own = weights[..., :count].view(rows // self.views, self.views, heads, count, count)
        if self.views == 1:
            return own[:, 0]
        total = self.views * count
        laid = own.new_zeros(len(own), heads, self.views, count, self.views, count)
        for view in range(self.views):
            laid[:, :, view, :, view] = own[:, view]
        return laid.view(len(own), heads, total, total)


def explicit_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    keep: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda weights, _query, _key: weights,
) -> Tensor:
    """``torch.nn.functional.scaled_dot_product_attention`` by its definition.

    Args:
        query: ``(..., N, E)``.
        key: ``(..., M, E)``.
        value: ``(..., M, F)``.
        attn_mask: added to the logits, or bool: True where a key may be read.
        dropout_p: of the weights.
        is_causal: a query reads the keys up to its own place.
        scale: of the logits; ``E ** -0.5`` if None.
        enable_gqa: several query heads share a key.
        keep: gets the weights ``(..., N, M)`` with the queries and keys that they come from, and
            gives what is used in the weights' place.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    logits = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        allowed = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
        logits = logits.masked_fill(~allowed, -torch.inf)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            logits = logits.masked_fill(~attn_mask, -torch.inf)
        else:
            logits = logits + attn_mask
    if is_causal or attn_mask is not None:  # a query that may read nothing gets nothing
        blind = (logits == -torch.inf).all(-1, keepdim=True)
        weights = logits.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)
    else:
        weights = logits.softmax(-1)
    weights = keep(weights, query, key)
    if dropout_p:
        weights = nnf.dropout(weights, dropout_p)
    return weights @ value


def _own_body(function: Any) -> Callable[..., Any]:
    """The same function, not handed to the mode as a whole but call by call."""
    body = FunctionType(
        function.__code__,
        {**function.__globals__, "has_torch_function": lambda _tensors: False},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    body.__kwdefaults__ = function.__kwdefaults__
    return body


_SOFTMAX = (torch.softmax, Tensor.softmax, nnf.softmax)
_PRODUCTS = (
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm),
    *(torch.baddbmm, Tensor.baddbmm),
)
_MULTI_HEAD = nnf.multi_head_attention_forward


@dataclass(frozen=True)
class Shown:
    """One attention of a block: weights ``(rows, heads, n, m)``, and what they come from."""

    weights: Tensor
    query: Tensor | None
    key: Tensor | None

    __repr__ = repr_of()


@dataclass
class BlockRun:
    """A block that ran: its attentions, and what it gave, ``(rows, n, C)``."""

    shown: list[Shown] = field(default_factory=list)
    tokens: Tensor | None = None

    __repr__ = repr_of()


class Recorder(TorchFunctionMode):
    """Keeps the attention weights of the block that runs; see :func:`recording`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[BlockRun] = []
        self.rows, self.count = 0, 0
        self.inside = False
        self.product: tuple[torch.Size, Tensor, Tensor] | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer attention and softmax inside a block; let everything else through."""
        given = kwargs or {}
        if not self.inside:
            return func(*args, **given)
        if func is nnf.scaled_dot_product_attention:
            return explicit_attention(*args, **{**given, "keep": self.keep})
        if func is _MULTI_HEAD:
            with self:
                return _own_body(func)(*args, **given)
        result = func(*args, **given)
        if func in _PRODUCTS and len(args) > 1 and result.shape[-1] >= self.count:
            self.product = (result.shape, args[-2], args[-1])
        if func not in _SOFTMAX:
            return result
        known = self.product is not None and self.product[0] == result.shape
        if self.product is None or not known:
            return self.keep(result)
        return self.keep(result, self.product[1], self.product[2].transpose(-2, -1))

    def enter(self, tokens: Tensor) -> None:
        """A block begins, with ``(rows, n, C)`` tokens."""
        self.inside, (self.rows, self.count) = True, tokens.shape[:2]
        self.product = None
        self.found.append(BlockRun())

    def leave(self) -> None:
        """The block ends."""
        self.inside, self.product = False, None

    def keep(
        self, weights: Tensor, query: Tensor | None = None, key: Tensor | None = None
    ) -> Tensor:
        """Keep ``(rows, heads, n, m >= n)`` weights, or the same with other leading axes."""
        shape = weights.shape
        if weights.dim() < 3 or shape[-2] != self.count or shape[-1] < self.count:
            return weights
        if weights.dim() > 4 or shape[0] % self.rows:
            return weights
        heads = self._by_head(weights)
        if len(heads) != self.rows:
            return weights
        if not heads.requires_grad:  # frozen weights: the graph begins here
            heads = heads.detach().requires_grad_(True)
        parts = [self._by_head(x) if x is not None and x.dim() > 2 else None for x in (query, key)]
        self.found[-1].shown.append(Shown(heads, *parts))
        return heads.view(shape)

    def _by_head(self, x: Tensor) -> Tensor:
        """``(rows, heads, ...)`` of that or of ``(rows * heads, ...)``."""
        return x if x.dim() == 4 else x.reshape(self.rows, -1, *x.shape[-2:])


@contextmanager
def recording(
    blocks: Sequence[nn.Module], given: Callable[[Any], Tensor], gave: Callable[[Any], Tensor]
) -> Iterator[list[BlockRun]]:
    """Record the weights of these blocks while a tower runs inside the ``with`` block.

    What the tower does in other threads meanwhile is not recorded.

    Args:
        blocks: the tower's blocks.
        given: (what a block is given first) -> ``(rows, n, C)``.
        gave: (what a block gives) -> ``(rows, n, C)``.

    Yields:
        What every block that ran has shown.
    """
    mode = Recorder()

    @in_this_thread
    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mode.enter(given(args[0] if args else kwargs))

    @in_this_thread
    def after(_module: nn.Module, _args: Any, output: Any) -> None:
        mode.leave()
        mode.found[-1].tokens = gave(output)

    handles = []
    try:
        for block in dict.fromkeys(blocks):
            handles.append(block.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(block.register_forward_hook(after))
        with mode:
            yield mode.found
    finally:
        for handle in handles:
            handle.remove()


def one_each(found: Sequence[BlockRun], blocks: int, who: str) -> tuple[Shown, ...]:
    """The attention of every block, where each has exactly one.

    Raises:
        EncoderError: a block did not run, or showed no weights, or several.
    """
    if len(found) != blocks:
        raise EncoderError(
            f"{len(found)} of {blocks} blocks of {who} ran while attention was kept; if blocks "
            "have been replaced or skipped since it was wrapped, wrap the model again"
        )
    for number, run in enumerate(found):
        if len(run.shown) != 1:
            raise EncoderError(
                f"block {number} of {who} showed {len(run.shown)} sets of attention weights "
                "between its tokens; accepted: one, through torch's scaled_dot_product_attention, "
                "MultiheadAttention or a softmax. Kernels of other libraries hide them: load the "
                'model with attn_implementation="sdpa" or "eager"'
            )
    return tuple(run.shown[0] for run in found)


def not_followed(who: str, why: str) -> EncoderError:
    """The error for attention that does not lead from the blocks' tokens to the embedding.

    Args:
        who: the encoder, as messages name it.
        why: what was found, a clause.
    """
    return EncoderError(
        f"the attention of {who} cannot be followed from block to block: {why}. The model was "
        "changed, by a hook or a part in another's place, or is not made for it. Take that away, "
        "or take a method that reads no attention: ca-m2ib; rise or leave-one-out, which need no "
        "gradient either"
    )


def pass_of(embedding: Tensor, found: Sequence[BlockRun], blocks: int, who: str) -> AttentionPass:
    """What a tower's blocks have shown, as one pass.

    Args:
        embedding: ``(B, D)``, computed while they were recorded.
        found: from :func:`recording`.
        blocks: how many the tower has.
        who: the encoder, for messages.

    Raises:
        EncoderError: as :func:`one_each`; or blocks have other numbers of tokens.
    """
    shown = one_each(found, blocks, who)
    batch = len(embedding)
    rows, _, count, keys = shown[0].weights.shape
    for number, (one, run) in enumerate(zip(shown, found, strict=True)):
        width = count if run.tokens is None else run.tokens.shape[1]
        if (one.weights.shape[0], *one.weights.shape[2:], width) != (rows, count, keys, count):
            raise not_followed(
                who,
                f"block 0 attends between {count} tokens, and block {number} between "
                f"{one.weights.shape[2]} and gives {width}",
            )
    return AttentionPass(
        embedding,
        tuple(one.weights for one in shown),
        views=rows // batch,
        extra=keys - count,
        tokens=tuple(
            run.tokens.reshape(batch, -1, run.tokens.shape[-1])
            for run in found
            if run.tokens is not None
        ),
        queries=tuple(one.query for one in shown),
        keys=tuple(one.key for one in shown),
    )
