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
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.errors import EncoderError
from mmattrib.models.block_calls import (
    BlockCall,
    ByRow,
    by_row,
    laid_out,
    shortened,
    tensors_of,
)
from mmattrib.models.blocks import BlockEncoder, first_of
from mmattrib.models.capabilities import ATTENTION, INPUT_GRADIENT, INPUT_LAYER
from mmattrib.models.captions import CaptionTokenizer
from mmattrib.models.encoder import EncoderInputs, TokenEmbeddings, expect
from mmattrib.models.grids import TextGrid, TokenGrid
from mmattrib.models.pixels import PixelRecipe, patch_grid, stacked
from mmattrib.models.prenorm import PreNorm, pick
from mmattrib.models.turns import in_this_thread, turn, uncompiled
from mmattrib.models.untouched import has_hooks
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

    def reach(self, inputs: EncoderInputs) -> int | None:
        """How many tokens, from the first on, reach the embedding of any row; None for all of them.

        A suffix leaves the others out, as a causal tower can behind the end of the text, unless
        hooks on its blocks may read them.
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
        known = self._learned(few, tensors)
        return laid_out(call, known, which) or self._first_call(inputs)

    def _learned(self, few: EncoderInputs, places: Sequence[tuple[Any, ...]]) -> ByRow:
        """How the tensors at these places go on, as the first row tells that is given them.

        A tower may give a caption that fills its call no mask.
        """
        known = self._by_row or {}
        for row in range(len(few)):
            if all(place in known for place in places):
                break
            one = few.select([row])
            call = self._first_call(one)
            if any(place not in known for place, _ in tensors_of(call)):
                known = {**known, **by_row(call, self._first_call(one.select([0, 0])))}
        self._by_row = {**dict.fromkeys(places), **known}
        return self._by_row

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
        call: BlockCall = self.block_call(inputs) if whole else ((), {})
        fewer = self.reach(inputs) if shortcut else None
        hooked = fewer is not None and any(has_hooks(block) for block in whole)
        (rows, count), short = tokens.shape[:2], None
        if fewer is not None and not hooked:
            short = shortened(call, rows, count, fewer)
        if short is not None:
            tokens, call = tokens[:, :fewer], short
        args, kwargs = call
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
        bucket: likewise, of captions that go through the tower together with others; those that
            go alone are then as short as they are.
    """

    modality = "text"
    multiple = 1
    bucket = 1

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

    def padded(self, inputs: EncoderInputs) -> EncoderInputs:
        count = inputs["ids"].shape[1]
        more = min(self.tokenizer.longest, -(-count // self.bucket) * self.bucket) - count
        if more <= 0:
            return inputs
        ids = nnf.pad(inputs["ids"], (0, more), value=self.tokenizer.pad)
        real = nnf.pad(inputs["real"], (0, more), value=False)
        return inputs.with_tensor("ids", ids).with_tensor("real", real)

    def valid(self, inputs: EncoderInputs) -> Tensor:
        """``(B, N)`` bool, tokens that reach the embedding."""
        return inputs["real"]

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        valid = self.valid(inputs).cpu()
        captions = [self.tokenizer(expect(raw, RawText)) for raw in inputs.raw]
        count = valid.shape[1]
        spans = [[*found.spans, *[None] * (count - len(found.spans))] for found in captions]
        return TextGrid.from_spans([expect(raw, RawText).text for raw in inputs.raw], spans, valid)
