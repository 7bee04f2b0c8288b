"""Convolutional towers: tokens are the places of a feature map.

A block gives ``(B, C, H, W)``. Its tokens are the places row by row, ``(B, H * W, C)``, and where
they lie follows from the tower's convolutions: their strides say how far apart two places are, and
their padding where the first one is centred, often half a cell beside the cell of an even grid::

    stem = ConvCells.of_input((224, 224)).through(7, stride=2, padding=3).through(3, 2, 1)

    class MyEncoder(ConvImageEncoder):
        def forward(self, inputs):
            return self.module(inputs["pixels"])

        def project(self, tokens, inputs):
            return self.module.head(tokens)

    MyEncoder(model, blocks, recipe, cells=[stem, ...])  # the embedding output, then every block
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import einops
import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.errors import EncoderError
from mmattrib.models.blocks import BlockEncoder, first_of, with_first
from mmattrib.models.capabilities import INPUT_GRADIENT, INPUT_LAYER
from mmattrib.models.encoder import EncoderInputs, expect
from mmattrib.models.grids import AxisPlacement, Layout, PlacedGrid, TokenGrid
from mmattrib.models.pixels import PixelRecipe, patch_grid, stacked
from mmattrib.types import Axis, RawImage, RawInput


@dataclass(frozen=True)
class ConvCells:
    """How the places of a feature map lie on the tower's input.

    Attributes:
        size: height and width of the tower's input, in pixels.
        count: rows and columns of the map.
        stride: pixels from one place to the next.
        centre: where the receptive field of the first place is centred, in pixels from the edge;
            an even grid has ``stride / 2``.
    """

    size: tuple[int, int]
    count: tuple[int, int]
    stride: float = 1
    centre: float = 0.5

    @classmethod
    def of_input(cls, size: tuple[int, int]) -> ConvCells:
        """The pixels themselves."""
        return cls(size, size)

    def through(
        self,
        kernel: int,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int = 1,
    ) -> ConvCells:
        """Behind one more convolution or pooling, as torch counts its arguments.

        Args:
            kernel: its height and width.
            stride: from one place to the next.
            padding: on every side, or before and after where these differ, as they do on even
                maps with TensorFlow's ``SAME``.
            dilation: of the kernel.

        Raises:
            EncoderError: nothing is left of the map.
        """
        reach = dilation * (kernel - 1)
        before, after = (padding, padding) if isinstance(padding, int) else padding
        rows, columns = ((n + before + after - reach - 1) // stride + 1 for n in self.count)
        if min(rows, columns) < 1:
            raise EncoderError(
                f"a map of {self.count} has no place left behind a kernel of {kernel}, stride "
                f"{stride}, padding {before}, {after}"
            )
        return replace(
            self,
            count=(rows, columns),
            stride=self.stride * stride,
            centre=self.centre + (reach / 2 - before) * self.stride,
        )

    def positions(self, axis: int, length: int, start: float, stop: float) -> npt.NDArray[Any]:
        """Where each pixel of a picture lies on the map: place k covers ``k`` to ``k + 1``.

        Args:
            axis: 0 for rows, 1 for columns.
            length: of the picture, in its own pixels.
            start: where the tower's input starts on the picture, in the picture's pixels.
            stop: where it ends.

        Returns:
            ``(length,)``; NaN where the tower saw nothing.
        """
        pixels = np.arange(length) + 0.5
        own = (pixels - start) * (self.size[axis] / (stop - start))
        found = (own - self.centre) / self.stride + 0.5
        return np.where((pixels >= start) & (pixels < stop), found, np.nan)


def conv_grid(raws: Sequence[RawImage], boxes: Tensor, cells: ConvCells) -> PlacedGrid:
    """Where the places of a feature map lie on each picture.

    Scores are interpolated between the centres of the receptive fields; what lies beyond the
    outermost centres, and was seen, takes the outermost places' scores.

    Args:
        raws: the pictures.
        boxes: ``(B, 4)``, what the tower saw of each: top, left, bottom, right in its own pixels.
        cells: of the layer.
    """
    rows, columns = cells.count
    axes, placements = [], []
    for raw, (top, left, bottom, right) in zip(raws, boxes.tolist(), strict=True):
        height, width = raw.pixels.shape[:2]
        axes.append((_pixels("y", height), _pixels("x", width)))
        placements.append(
            (
                AxisPlacement.of_views([cells.positions(0, height, top, bottom)], rows),
                AxisPlacement.of_views([cells.positions(1, width, left, right)], columns),
            )
        )
    layout = Layout("h w", "h w", {"h": rows, "w": columns})
    laid = boxes.new_ones(len(axes), rows * columns).bool()
    return PlacedGrid(layout, axes, placements, laid)


def _pixels(name: str, count: int) -> Axis:
    return Axis(name, "px", np.arange(count, dtype=np.float32) + 0.5)


class ConvEncoder(BlockEncoder):
    """A :class:`BlockEncoder` whose blocks take and give feature maps ``(B, C, H, W)``.

    The numbers of rows and columns may differ from layer to layer.
    """

    def tokens_from(self, output: Any) -> Tensor:
        """``(B, H * W, C)``: the places of a map, row by row."""
        found = first_of(output)
        if not isinstance(found, Tensor) or found.dim() != 4:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise EncoderError(
                f"a block of the {self.modality} encoder gave {shape}; accepted: a feature map "
                "(batch, channels, rows, columns), or a tuple that starts with one"
            )
        return einops.rearrange(found, "b c h w -> b (h w) c")

    def with_tokens(self, output: Any, tokens: Tensor) -> Any:
        rows = first_of(output).shape[2]
        laid = einops.rearrange(tokens, "b (h w) c -> b c h w", h=rows)
        return with_first(output, laid.clone())  # blocks may work in place


class ConvImageEncoder(ConvEncoder):
    """A convolutional tower of pictures.

    Inputs hold ``"pixels"`` ``(B, 3, h, w)`` and ``"boxes"``. A subclass adds ``forward`` and
    ``project``. ``suffix`` replays the tower, unless the subclass adds :meth:`pool` too: then it
    runs the blocks behind the layer alone.

    Attributes:
        cells: of the embedding output (what the first block is given), then of every block.
    """

    modality = "image"
    input_name = "pixels"
    capabilities = frozenset((INPUT_GRADIENT,))

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[nn.Module],
        recipe: PixelRecipe,
        cells: Sequence[ConvCells],
        default_layer: int | None = None,
    ) -> None:
        """Wrap a tower.

        Args:
            module: everything between the pixels and the joint space.
            blocks: its blocks in order, called with their map as first argument.
            recipe: how a picture becomes a tensor.
            cells: see above.
            default_layer: the layer to explain; the output of the last block but one if None.
                Methods that compare tokens in the joint space need one with the last map's size.

        Raises:
            EncoderError: not one :class:`ConvCells` for every layer.
        """
        self.module, self.blocks, self.recipe = module, list(blocks), recipe
        self.cells = tuple(cells)
        if len(self.cells) != len(self.blocks) + 1:
            raise EncoderError(
                f"{len(self.cells)} cells were given for {len(self.blocks)} blocks; accepted: one "
                "for the embedding output and one for every block"
            )
        self.default_layer = len(self.blocks) - 2 if default_layer is None else default_layer

    def pool(self, maps: Tensor, inputs: EncoderInputs) -> Tensor:
        """``(B, C, H, W)`` of the last block to ``(B, D)``, as ``forward`` ends; optional."""
        raise NotImplementedError

    def prefix(self, inputs: EncoderInputs, layer: int) -> Tensor:
        tokens = super().prefix(inputs, layer)
        if layer != INPUT_LAYER:
            rows, columns = self.cells[layer + 1].count
            if tokens.shape[1] != rows * columns:
                raise EncoderError(
                    f"layer {layer} of the {self.modality} encoder has {tokens.shape[1]} places, "
                    f"and its cells say {rows} x {columns}; state the cells of the tower as it is "
                    "(kernel, stride and padding of every block)"
                )
        return tokens

    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        replayed = type(self).pool is ConvImageEncoder.pool
        if replayed or self.check_layer(layer) == INPUT_LAYER:
            return super().suffix(tokens, layer, inputs)
        rows = self.cells[layer + 1].count[0]
        dtype = next(self.module.parameters()).dtype
        maps = einops.rearrange(tokens.to(dtype), "b (h w) c -> b c h w", h=rows)
        maps = maps.clone()  # blocks may work in place
        for block in self.blocks[layer + 1 :]:
            maps = first_of(block(maps))
        return nnf.normalize(self.pool(maps, inputs).float(), dim=-1)

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        pixels, boxes = stacked([expect(raw, RawImage) for raw in raws], self.recipe)
        dtype = next(self.module.parameters()).dtype
        return EncoderInputs({"pixels": pixels.to(self.device, dtype), "boxes": boxes}, tuple(raws))

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        pictures = [expect(raw, RawImage) for raw in inputs.raw]
        if layer == INPUT_LAYER:
            return patch_grid(pictures, self.recipe, inputs["boxes"], (1, 1), 0)
        return conv_grid(pictures, inputs["boxes"], self.cells[layer + 1])
