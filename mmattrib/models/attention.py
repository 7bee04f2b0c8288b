"""Attention weights of a tower's blocks, taken while the tower itself runs.

Most libraries compute attention in one fused call that never shows its weights. The tower is run
as it is, hooks and patched parts included, and only these calls are answered differently: the
weights are computed by the definition, kept, and used for the result. Nothing of a library's
blocks or masks is written again here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.overrides import TorchFunctionMode

from mmattrib.errors import EncoderError


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
    """

    embedding: Tensor
    weights: tuple[Tensor, ...]
    views: int = 1
    extra: int = 0

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
    keep: Callable[[Tensor], Tensor] = lambda weights: weights,
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
        keep: gets the weights ``(..., N, M)`` and gives what is used in their place.
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
    weights = keep(weights)
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
_MULTI_HEAD = nnf.multi_head_attention_forward


class Recorder(TorchFunctionMode):
    """Keeps the attention weights of the block that runs; see :func:`recording`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[Tensor]] = []
        self.rows, self.count = 0, 0
        self.inside = False

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
        return self.keep(result) if func in _SOFTMAX else result

    def enter(self, tokens: Tensor) -> None:
        """A block begins, with ``(rows, n, C)`` tokens."""
        self.inside, (self.rows, self.count) = True, tokens.shape[:2]
        self.found.append([])

    def keep(self, weights: Tensor) -> Tensor:
        """Keep ``(rows, heads, n, m >= n)`` weights, or the same with other leading axes."""
        shape = weights.shape
        if weights.dim() < 3 or shape[-2] != self.count or shape[-1] < self.count:
            return weights
        if weights.dim() > 4 or shape[0] % self.rows:
            return weights
        heads = weights if weights.dim() == 4 else weights.view(self.rows, -1, *shape[-2:])
        if len(heads) != self.rows:
            return weights
        if not heads.requires_grad:  # frozen weights: the graph begins here
            heads = heads.detach().requires_grad_(True)
        self.found[-1].append(heads)
        return heads.view(shape)


@contextmanager
def recording(
    blocks: Sequence[nn.Module], tokens_of: Callable[[Any], Tensor]
) -> Iterator[list[list[Tensor]]]:
    """Record the weights of these blocks while a tower runs inside the ``with`` block.

    Args:
        blocks: the tower's blocks.
        tokens_of: (what a block is given first) -> ``(rows, n, C)``.

    Yields:
        One list per block that ran, of its weights.
    """
    mode = Recorder()

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mode.enter(tokens_of(args[0] if args else kwargs))

    def after(_module: nn.Module, _args: Any, _output: Any) -> None:
        mode.inside = False

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


def one_each(found: Sequence[Sequence[Tensor]], blocks: int, who: str) -> tuple[Tensor, ...]:
    """The weights of every block, where each has exactly one attention.

    Raises:
        EncoderError: a block did not run, or showed no weights, or several.
    """
    if len(found) != blocks:
        raise EncoderError(f"{len(found)} of {blocks} blocks of {who} ran while attention was kept")
    for number, weights in enumerate(found):
        if len(weights) != 1:
            raise EncoderError(
                f"block {number} of {who} showed {len(weights)} sets of attention weights between "
                "its tokens; accepted: one, through torch's scaled_dot_product_attention, "
                "MultiheadAttention or a softmax. Kernels of other libraries hide them: load the "
                'model with attn_implementation="sdpa" or "eager"'
            )
    return tuple(weights[0] for weights in found)
