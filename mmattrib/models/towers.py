"""Base classes for pretrained transformer towers: a true suffix, and token embeddings.

A suffix calls the tower's own blocks with what the tower itself gives them beside the tokens
(masks, flags), recorded from the tower, so that nothing about a library's masks is written twice.
An image tower needs this much::

    class MyImageEncoder(ImageTowerEncoder):
        def __init__(self, model, recipe):
            super().__init__(model.vision, model.vision.blocks, recipe, patch=(16, 16))

        def forward(self, inputs):
            return self.module(inputs["pixels"])

        def pooled_index(self, inputs):
            return torch.zeros(len(inputs), dtype=torch.long, device="cpu")  # read from CLS

        def to_joint(self, tokens):
            return self.module.head(self.module.norm(tokens))
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.errors import EncoderError
from mmattrib.models.block_calls import BlockCall, ByRow, by_row, laid_out, tensors_of
from mmattrib.models.blocks import BlockEncoder, first_of
from mmattrib.models.capabilities import ATTENTION, INPUT_GRADIENT, INPUT_LAYER
from mmattrib.models.captions import CaptionTokenizer
from mmattrib.models.encoder import EncoderInputs, TokenEmbeddings, expect
from mmattrib.models.grids import TextGrid, TokenGrid
from mmattrib.models.pixels import PixelRecipe, patch_grid, stacked
from mmattrib.models.turns import in_this_thread, turn, uncompiled
from mmattrib.types import RawImage, RawInput, RawText

PUBLISHED_LAYER = 9
"""M2IB explains the output of block 9 of CLIP ViT-B/32's 12, in both towers."""


def relative_layer(depth: int, of_twelve: int = PUBLISHED_LAYER) -> int:
    """The layer at the same relative depth as ``of_twelve`` in 12 blocks; never the last one.

    Args:
        depth: number of blocks.
        of_twelve: 0-based layer of a tower of 12 blocks.
    """
    return max(-1, min(depth - 2, round(of_twelve * depth / 12)))


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


class Parts(nn.Module):
    """A module that holds some modules and parameters of another model without copying them.

    Gives an encoder a ``module`` that holds its tower and nothing of the other one.
    """

    def __init__(self, **parts: nn.Module | nn.Parameter | None) -> None:
        """Take them in by name; None is left out."""
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            elif part is not None:
                self.add_module(name, part)
        self.training = any(part.training for part in self.children())


class _CaughtError(Exception):
    """Ends a forward pass once the first block's arguments are known."""


class TowerEncoder(BlockEncoder):
    """A transformer tower whose embedding is read from one token, or from all of them.

    A subclass gives what :class:`BlockEncoder` asks for, with :meth:`to_joint` in place of
    ``project``.

    Attributes:
        last: the parts of the last block; None where it is not pre-norm.
        call_depends_on_input: whether blocks get anything that differs between inputs.
    """

    capabilities = frozenset((ATTENTION, INPUT_GRADIENT))
    last: PreNorm | None = None
    call_depends_on_input = True
    _call: BlockCall | None = None
    _by_row: ByRow | None = None

    def __init__(
        self, module: nn.Module, blocks: Sequence[nn.Module], default_layer: int | None = None
    ) -> None:
        """Wrap a tower.

        Args:
            module: everything between the inputs and the joint space, and nothing of another
                modality; see :class:`Parts`.
            blocks: its blocks in order, called with their tokens as first argument.
            default_layer: the layer to explain; at M2IB's relative depth if None.
        """
        self.module = module
        self.blocks = list(blocks)
        self.default_layer = (
            relative_layer(len(self.blocks)) if default_layer is None else default_layer
        )

    @abstractmethod
    def to_joint(self, tokens: Tensor) -> Tensor:
        """``(..., C)`` final tokens through final norm and embedding head: ``(..., D)``."""

    def pooled_index(self, inputs: EncoderInputs) -> Tensor | None:
        """``(B,)`` long, the token that the embedding is read from; None for all of them."""
        return None

    def readable(self, inputs: EncoderInputs, index: Tensor, count: int) -> Tensor | None:
        """``(B, N)`` bool, what the pooled token reads in the last block; None for everything.

        Args:
            inputs: B rows.
            index: ``(B,)``, the pooled tokens.
            count: N.
        """
        return None

    def pool(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        """``(B, N, C)`` final tokens to ``(B, D)``, not normalised."""
        index = self.pooled_index(inputs)
        if index is None:
            raise EncoderError(f"the {self.modality} encoder does not say how it pools")
        return self.to_joint(pick(tokens, index))

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        return self.to_joint(tokens)

    @property
    def dtype(self) -> torch.dtype:
        """What the tower computes in."""
        return next(self.module.parameters()).dtype

    def block_call(self, inputs: EncoderInputs) -> BlockCall:
        """What the tower gives its first block beside the tokens; the same for all of them.

        Of rows that :meth:`EncoderInputs.select` repeated one goes through the tower's embedding
        layer, and what belongs to it is laid out for the others.
        """
        if self._call is not None:
            return self._call
        few, which = inputs.distinct()
        call = self._first_call(few)
        tensors = [place for place, _ in tensors_of(call)]
        if not tensors and not self.call_depends_on_input:
            self._call = call
        if not tensors or len(few) == len(inputs):
            return call
        known = self._by_row or {}
        if any(place not in known for place in tensors):
            one = few.select([0])
            twice = self._first_call(one.select([0, 0]))
            self._by_row = known = {**known, **by_row(self._first_call(one), twice)}
        return laid_out(call, known, which) or self._first_call(inputs)

    def _first_call(self, inputs: EncoderInputs) -> BlockCall:
        caught: list[BlockCall] = []

        @in_this_thread
        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append((args, kwargs))
            raise _CaughtError

        with turn(), uncompiled(self.module):
            handle = self.blocks[0].register_forward_pre_hook(before, with_kwargs=True)
            try:
                with torch.no_grad():
                    self.forward(inputs)
            except _CaughtError:
                pass
            finally:
                handle.remove()
        if len(caught) != 1 or not caught[0][0]:
            raise EncoderError(
                f"the first block of the {self.modality} encoder is not called with its tokens as "
                "first argument"
            )
        return caught[0][0][1:], caught[0][1]

    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        if self.check_layer(layer) == INPUT_LAYER:
            return self.embed_input(tokens, inputs)
        tokens, rest = tokens.to(self.dtype), self.blocks[layer + 1 :]
        index = self.pooled_index(inputs)
        shortcut = bool(rest) and index is not None and self.last is not None
        shortcut = shortcut and self.last is not None and self.last.attend is not None
        whole = rest[:-1] if shortcut else rest
        if whole:
            args, kwargs = self.block_call(inputs)
            for block in whole:
                tokens = self.tokens_from(first_of(block(tokens, *args, **kwargs)))
        if shortcut and self.last is not None and index is not None:
            index = index.to(tokens.device)
            readable = self.readable(inputs, index, tokens.shape[1])
            pooled = self.to_joint(self.last.at(tokens, index, readable))
        else:
            pooled = self.pool(tokens, inputs)
        return nnf.normalize(pooled.float(), dim=-1)

    def value_tokens(self, inputs: EncoderInputs) -> Tensor:
        """``(B, N, D)``: every token along the last attention's value path, in the joint space.

        An embedding read from one token leaves the other final tokens untrained there.
        """
        if self.last is None:
            return self.to_joint(self.prefix(inputs, self.num_layers - 1))
        return self.to_joint(self.last.value_path(self.prefix(inputs, self.num_layers - 2)))

    def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        values = self.value_tokens(inputs)
        content = self.grid(inputs, self.num_layers - 1).content.to(values.device)
        return TokenEmbeddings(nnf.normalize(values.float(), dim=-1), content)


class ImageTowerEncoder(TowerEncoder):
    """A tower of row-major patches behind some other tokens, such as CLS and registers.

    Inputs hold ``"pixels"`` ``(B, 3, h, w)`` and ``"boxes"``, the part of each picture that they
    show. A subclass adds ``forward``, ``pooled_index`` and ``to_joint``.
    """

    modality = "image"
    input_name = "pixels"
    call_depends_on_input = False

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[nn.Module],
        recipe: PixelRecipe,
        patch: tuple[int, int],
        prefix_tokens: int = 1,
        default_layer: int | None = None,
    ) -> None:
        """Wrap a tower.

        Args:
            module: as for :class:`TowerEncoder`.
            blocks: as for :class:`TowerEncoder`.
            recipe: how a picture becomes a tensor.
            patch: height and width of a patch, in the tower's pixels.
            prefix_tokens: tokens before the patches.
            default_layer: as for :class:`TowerEncoder`.
        """
        super().__init__(module, blocks, default_layer)
        self.recipe, self.patch, self.prefix_tokens = recipe, patch, prefix_tokens

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        pixels, boxes = stacked([expect(raw, RawImage) for raw in raws], self.recipe)
        return EncoderInputs(
            {"pixels": pixels.to(self.device, self.dtype), "boxes": boxes}, tuple(raws)
        )

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        pictures = [expect(raw, RawImage) for raw in inputs.raw]
        cells = layer == INPUT_LAYER
        patch, prefix = ((1, 1), 0) if cells else (self.patch, self.prefix_tokens)
        return patch_grid(pictures, self.recipe, inputs["boxes"], patch, prefix)


class TextTowerEncoder(TowerEncoder):
    """A tower of captions that a :class:`CaptionTokenizer` reads.

    Inputs hold ``"ids"`` ``(B, N)`` and ``"real"`` ``(B, N)`` bool, False for padding. A subclass
    adds ``forward``, ``pooled_index`` and ``to_joint``.

    Attributes:
        multiple: captions are padded to a multiple of it, so that more of them can be batched; 1
            where padding would reach the embedding.
    """

    modality = "text"
    multiple = 1

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[nn.Module],
        tokenizer: CaptionTokenizer,
        default_layer: int | None = None,
    ) -> None:
        """Wrap a tower.

        Args:
            module: as for :class:`TowerEncoder`.
            blocks: as for :class:`TowerEncoder`.
            tokenizer: of the tower.
            default_layer: as for :class:`TowerEncoder`.
        """
        super().__init__(module, blocks, default_layer)
        self.tokenizer, self.pad_id = tokenizer, tokenizer.pad

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        captions = [self.tokenizer(expect(raw, RawText)) for raw in raws]
        ids, real = self.tokenizer.padded(captions, self.multiple)
        tensors = {"ids": ids.to(self.device), "real": real.to(self.device)}
        return EncoderInputs(tensors, tuple(raws))

    def valid(self, inputs: EncoderInputs) -> Tensor:
        """``(B, N)`` bool, tokens that reach the embedding."""
        return inputs["real"]

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        valid = self.valid(inputs).cpu()
        captions = [self.tokenizer(expect(raw, RawText)) for raw in inputs.raw]
        count = valid.shape[1]
        spans = [[*found.spans, *[None] * (count - len(found.spans))] for found in captions]
        return TextGrid.from_spans([expect(raw, RawText).text for raw in inputs.raw], spans, valid)


def causal_keys(index: Tensor, count: int) -> Tensor:
    """``(B, N)`` bool: a token reads itself and those before it."""
    return torch.arange(count, device=index.device)[None] <= index[:, None]


def attend_linear(
    query: Callable[[Tensor], Tensor],
    key: Callable[[Tensor], Tensor],
    value: Callable[[Tensor], Tensor],
    out: Callable[[Tensor], Tensor],
    heads: int,
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Multi-head attention of some queries over all tokens, scaled by the root of the head's width.

    Returns:
        (queries ``(B, M, C)``, tokens ``(B, N, C)``, readable ``(B, N)`` bool or None) ->
        ``(B, M, C)``.
    """

    def split(x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], heads, -1).transpose(1, 2)

    def attend(queries: Tensor, tokens: Tensor, readable: Tensor | None) -> Tensor:
        mixed = nnf.scaled_dot_product_attention(
            split(query(queries)),
            split(key(tokens)),
            split(value(tokens)),
            attn_mask=None if readable is None else readable[:, None, None, :],
        )
        return out(mixed.transpose(1, 2).flatten(2))

    return attend


def packed_parts(attention: nn.MultiheadAttention) -> tuple[Callable[[Tensor], Tensor], ...]:
    """Query, key and value projections of torch's attention, as functions of ``(B, N, C)``."""

    def part(number: int) -> Callable[[Tensor], Tensor]:
        def project(x: Tensor) -> Tensor:
            width = attention.embed_dim
            rows = slice(number * width, (number + 1) * width)
            separate = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
            weight = separate[number]
            if weight is None:
                weight = attention.in_proj_weight[rows]
            bias = attention.in_proj_bias
            return nnf.linear(x, weight, None if bias is None else bias[rows])

        return project

    return part(0), part(1), part(2)
