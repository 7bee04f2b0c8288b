"""What the methods share that read the attention of a tower's blocks.

The blocks behind the explained layer count: their attention is what leads from its tokens to the
embedding.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.errors import EncoderError, OptionError
from mmattrib.methods.base import Method, MethodOptions, Side, SideScores, option
from mmattrib.models.capabilities import ATTENTION, INPUT_LAYER

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.models.attention import AttentionPass
    from mmattrib.models.encoder import Encoder, EncoderInputs

MOST_BLOCKS = 10_000
"""Bound of ``start``, far above any tower."""


@dataclass(frozen=True)
class BlockOptions(MethodOptions):
    """Options of a method that reads attention.

    Attributes:
        start: the first block that counts; from the end if negative, -1 the last. Blocks in front
            of it are taken for the identity, and those in front of the explained layer never count.
    """

    start: int = option(0, least=-MOST_BLOCKS, most=MOST_BLOCKS)


@dataclass(frozen=True)
class Reading:
    """A pass of b inputs with the attention of every block, and the blocks that count.

    Attributes:
        encoder: of the inputs.
        inputs: a batch of b.
        found: the pass; V views of n tokens, those of each input one after the other.
        target: ``(b, D)``, the guides' embeddings.
        blocks: numbers of those that count.
        valid: ``(V, n)`` bool.
        content: ``(V, n)`` bool.
    """

    encoder: Encoder
    inputs: EncoderInputs
    found: AttentionPass
    target: Tensor
    blocks: range
    valid: Tensor
    content: Tensor

    def match(self, embedding: Tensor) -> Tensor:
        """``(b,)`` cosines of embeddings ``(b, D)`` with the guides, in the embeddings' graph."""
        from mmattrib.engine.objective import fit

        return fit(embedding.float()[:, None], self.target[:, None])[:, 0]

    @cached_property
    def weights(self) -> list[Tensor]:
        """Of the blocks that count, ``(V, heads, n, m)`` each, without gradients."""
        return [self.found.weights[block].detach() for block in self.blocks]

    def slopes(self, value: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Gradients of a sum with respect to the weights of some blocks.

        Raises:
            EncoderError: it does not depend on them: the model cuts the graph behind a block.
        """
        import torch

        wanted = [self.found.weights[block] for block in blocks]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if value.requires_grad:
            found = torch.autograd.grad(value.sum(), wanted, retain_graph=True, allow_unused=True)
        slopes = [slope for slope in found if slope is not None]
        if len(slopes) < len(wanted):
            from mmattrib.models.attention import not_followed

            cut = max(b for b, slope in zip(blocks, found, strict=True) if slope is None)
            raise not_followed(
                f"the {self.encoder.modality} encoder ({type(self.encoder).__name__})",
                f"no gradient reaches the attention of block {cut}, so a part at it or behind it "
                "is detached",
            )
        return slopes

    @cached_property
    def rows(self) -> Tensor:
        """``(V, n)``, which tokens the embedding is read from; it does not depend on the guide."""
        import torch

        from mmattrib.engine.relevance import read_out

        with torch.enable_grad():
            places = torch.arange(self.found.embedding.shape[1], dtype=torch.float32, device="cpu")
            # No multiple of the embedding itself, whose length is fixed.
            value = (self.found.embedding.float() * places.cos().to(self.found.embedding)).sum()
            (last,) = self.slopes(value, [len(self.found.weights) - 1])
        return read_out(last)


class AttentionMethod(Method):
    """A method that reads the attention of the blocks behind the explained layer.

    A subclass gives :meth:`relevance`. Inputs go through the tower with two passes: one that keeps
    attention, and one that sees that it led to the model's embedding. The clips of a recording
    attend by themselves, so each is read by itself. The score is that of a token of the layer;
    every layer from -1 on has the tokens of the blocks.

    Diagnostics: ``clean_cosine``; ``first_block``, the first that counts; ``read_from``, how many
    tokens behind the last block the embedding is read from.
    """

    requires = frozenset({ATTENTION})
    unit = "relevance"
    Options: ClassVar[type[Any]] = BlockOptions
    options: BlockOptions

    @abstractmethod
    def relevance(self, reading: Reading) -> Tensor:
        """``(V, n)`` scores of the inputs' tokens; gradients can be taken inside."""

    def default_layer(self, encoder: Encoder) -> int:
        """-1: the tokens that enter the first block, so that every block can count."""
        return -1

    def explain(self, side: Side) -> SideScores:
        import torch

        blocks = self.counted(side)
        kind = ("attention", side.encoder.modality, side.grid().valid.shape[1])

        def some(pairs: Tensor, _rows: int) -> tuple[Tensor, list[dict[str, Any]]]:
            return self._explain_some(side, pairs, blocks)

        found = list(side.together.over(len(side), some, kind=kind))
        scores = torch.cat([part for part, _ in found])
        return self.scored(scores, [entry for _, entries in found for entry in entries])

    def _explain_some(
        self, side: Side, pairs: Tensor, blocks: range
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        import torch

        grid, count = side.grid(), len(pairs)
        reading = _read(side, pairs, blocks, grid.valid[pairs], grid.content[pairs])
        with torch.enable_grad():
            scores = self.relevance(reading).detach().float().reshape(count, -1)
        cosines = reading.match(reading.found.embedding.detach()).tolist()
        read = (reading.rows != 0).reshape(count, -1).sum(-1).tolist()
        some = (scores != 0).logical_and(reading.content.reshape(count, -1)).any(-1).tolist()
        diagnostics = []
        for row in range(count):
            warnings = []
            if not some[row]:
                warnings.append(
                    f"no content token has any {self.unit}: the map is 0 everywhere; another "
                    "start= lets other blocks count"
                )
            diagnostics.append(
                {
                    "clean_cosine": cosines[row],
                    "first_block": blocks[0],
                    "read_from": read[row],
                    "warnings": warnings,
                }
            )
        return scores, diagnostics

    def counted(self, side: Side) -> range:
        """The blocks that count.

        Raises:
            OptionError: the layer has other tokens than the blocks, no block lies behind it, or
                ``start`` is none of the encoder's blocks or lies in front of the layer.
        """
        encoder, layer = side.encoder, side.layer
        depth, start = encoder.num_layers, self.options.start
        usual = start == type(self.options)().start
        if layer == INPUT_LAYER and encoder.input_name is not None:
            raise OptionError(
                f"method {self.name!r} scores the tokens of the blocks, and layer {layer} of the "
                f"{encoder.modality} encoder is its preprocessed input; accepted: -1 to {depth - 2}"
            )
        if layer >= depth - 1:
            raise OptionError(
                f"behind layer {layer}, the {encoder.modality} encoder's last, is no block whose "
                f"attention method {self.name!r} could read; accepted: -1 to {depth - 2}"
            )
        first = start + depth if start < 0 else start
        first = max(first, 0) if usual else first
        if not 0 <= first < depth:
            raise OptionError(
                f"start={start}: the {encoder.modality} encoder has {depth} blocks; accepted: "
                f"{-depth} to {depth - 1}"
            )
        if first <= layer and not usual:
            raise OptionError(
                f"start={start} would have no effect: block {first} lies in front of layer {layer},"
                f" which is explained; accepted: {layer + 1} to {depth - 1}, or an earlier layer"
            )
        return range(max(first, layer + 1), depth)


def _read(side: Side, pairs: Tensor, blocks: range, valid: Tensor, content: Tensor) -> Reading:
    """The pass of some inputs; ``valid`` and ``content`` are theirs, ``(b, N)``.

    Raises:
        EncoderError: the blocks have another number of tokens than the layer.
    """
    encoder, inputs = side.encoder, side.inputs.select(pairs)
    found = encoder.embed_with_attention(inputs)
    count, tokens = found.weights[0].shape[2], valid.shape[1]
    if found.views * count != tokens:
        raise EncoderError(
            f"layer {side.layer} of the {encoder.modality} encoder has {tokens} tokens, and "
            f"the attention of its blocks is between {found.views * count}; a method that reads "
            "attention explains layers whose tokens are the blocks' own"
        )
    device = found.embedding.device
    valid, content = (part.reshape(-1, count).to(device) for part in (valid, content))
    target = side.guide.embedding[pairs.to(side.guide.embedding.device)]
    target = target.to(device, found.embedding.dtype)
    return Reading(encoder, inputs, found, target, blocks, valid, content)
