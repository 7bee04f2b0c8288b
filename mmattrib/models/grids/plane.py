"""Tokens that tile a plane: patches of pictures, cells of spectrograms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import einops
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.errors import EncoderError
from mmattrib.models.grids.base import TokenGrid, content_mask
from mmattrib.placement import EvenCells, PlanePlacement
from mmattrib.types import Axis, FloatArray

_BATCH = "batchaxis"  # unlikely as the name of a layout's axis, unlike "b"


@dataclass(frozen=True)
class Layout:
    """How content tokens unfold into a plane of rows and columns.

    Attributes:
        tokens: einops pattern of the token sequence, e.g. ``"h w"``, ``"f t"``,
            ``"chunk f t"``.
        plane: einops pattern of the plane, e.g. ``"h w"``, ``"f t"``, ``"f (chunk t)"``.
        sizes: the length of every axis that ``tokens`` names.
    """

    tokens: str
    plane: str
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        axes = [sorted(re.findall(r"\w+", pattern)) for pattern in (self.tokens, self.plane)]
        if axes != [sorted(self.sizes)] * 2 or min(self.sizes.values(), default=0) < 1:
            raise EncoderError(
                f"layout {self.tokens!r} -> {self.plane!r} does not fit the sizes "
                f"{dict(self.sizes)}; both patterns must name every axis once, each at least 1 long"
            )

    @property
    def count(self) -> int:
        """Number of content tokens."""
        return int(np.prod(list(self.sizes.values())))

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the plane's axes."""
        flat = np.empty(self.count, dtype=bool)
        return einops.rearrange(flat, f"({self._flat}) -> {self.plane}", **self.sizes).shape

    def unfold(self, scores: Tensor) -> Tensor:
        """``(B, count)`` to ``(B, rows, columns)``."""
        pattern = f"{_BATCH} ({self._flat}) -> {_BATCH} {self.plane}"
        return einops.rearrange(scores, pattern, **self.sizes)

    def fold(self, plane: Tensor) -> Tensor:
        """``(B, rows, columns)`` to ``(B, count)``."""
        pattern = f"{_BATCH} {self.plane} -> {_BATCH} ({self._flat})"
        return einops.rearrange(plane, pattern, **self.sizes)

    def order(self, laid: Tensor) -> npt.NDArray[np.int32]:
        """The number of the token on each cell of the plane.

        Args:
            laid: ``(N,)`` bool, the tokens that this layout lays out.
        """
        numbers = torch.nonzero(laid.cpu())[:, 0]
        order: npt.NDArray[np.int32] = self.unfold(numbers[None])[0].numpy().astype(np.int32)
        return order

    @property
    def _flat(self) -> str:
        """``tokens`` without its brackets: a sequence is flat, however it came about."""
        return self.tokens.replace("(", "").replace(")", "")


@dataclass(frozen=True)
class Box:
    """The part of an input plane that the model sees: rows ``top:bottom``, columns ``left:right``.

    May reach outside the plane where the model pads its input, and need not lie on whole places:
    tokens may be centred beside the middle of their patch.
    """

    top: float
    left: float
    bottom: float
    right: float


class PlaneGrid(TokenGrid):
    """Tokens that tile a plane: pixels, or time x frequency.

    Scores are interpolated bilinearly over the part of the input that the model saw, as M2IB does;
    the rest of the input is zero, since it had no influence, and not ``seen``.
    """

    def __init__(
        self,
        layout: Layout,
        axes: Sequence[tuple[Axis, Axis]],
        boxes: Sequence[Box] | None = None,
        prefix: int = 0,
        suffix: int = 0,
        laid: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """Describe the grid of a batch.

        Args:
            layout: how the content tokens unfold into rows and columns.
            axes: per input, its row axis and its column axis; their lengths are its shape.
            boxes: per input, the part that the model saw; the whole plane if None.
            prefix: tokens before the content, such as CLS and registers.
            suffix: tokens after the content.
            laid: ``(B, N)`` bool, the tokens that ``layout`` lays on the plane, where ``prefix``
                and ``suffix`` cannot say it (a CLS token in every clip).
            valid: ``(B, N)`` bool, tokens that carry something; all if None.
        """
        self.layout = layout
        self._axes = [(rows, columns) for rows, columns in axes]
        shapes = [(len(rows.values), len(columns.values)) for rows, columns in self._axes]
        self._shapes = shapes
        self._boxes = list(boxes) if boxes is not None else [Box(0, 0, h, w) for h, w in shapes]
        self._laid = (
            content_mask(len(self._axes), layout.count, prefix, suffix) if laid is None else laid
        ).cpu()
        self.valid = torch.ones_like(self._laid) if valid is None else valid.cpu()
        if self._laid.shape != self.valid.shape or len(self._laid) != len(self._axes):
            raise EncoderError(
                f"laid {tuple(self._laid.shape)} and valid {tuple(self.valid.shape)} must both be "
                f"(batch, tokens) for the {len(self._axes)} inputs of the batch"
            )
        if len(self._boxes) != len(self._axes):
            raise EncoderError(f"{len(self._boxes)} boxes were given for {len(self._axes)} inputs")
        if any(box.bottom <= box.top or box.right <= box.left for box in self._boxes):
            raise EncoderError(f"a box must hold at least one row and one column: {self._boxes}")
        if not bool((self._laid.sum(dim=1) == layout.count).all()):
            raise EncoderError(
                f"every row of laid must mark the {layout.count} tokens of layout "
                f"{layout.tokens!r}, got {self._laid.sum(dim=1).tolist()}"
            )
        self.content = self._laid & self.valid

    def placement(self, index: int) -> PlanePlacement:
        box, (height, width) = self._boxes[index], self._shapes[index]
        order = self.layout.order(self._laid[index])
        rows, columns = order.shape
        down = EvenCells(rows, height, box.top, box.bottom)
        across = EvenCells(columns, width, box.left, box.right)
        return PlanePlacement(self._axes[index], (down, across), order)

    def to_tokens(self, maps: Sequence[FloatArray]) -> Tensor:
        rows, columns = self.layout.shape
        planes = []
        for values, box, shape in zip(maps, self._boxes, self._shapes, strict=True):
            planes.append(
                _averaged(np.asarray(values, dtype=np.float32), box, shape, (rows, columns))
            )
        out = torch.zeros(self.content.shape, dtype=torch.float32, device="cpu")
        out[self._laid] = self.layout.fold(torch.stack(planes)).reshape(-1)
        return out * self.content

    def axes(self, index: int) -> tuple[Axis, ...]:
        return self._axes[index]


def _averaged(
    values: FloatArray, box: Box, shape: tuple[int, int], cells: tuple[int, int]
) -> Tensor:
    """``cells`` means of a plane over the parts of a box; zero is taken for what is outside."""
    ends = (box.top, box.left, box.bottom, box.right)
    if not all(float(end).is_integer() for end in ends):
        down = _shares(shape[0], box.top, box.bottom, cells[0])
        across = _shares(shape[1], box.left, box.right, cells[1])
        return torch.from_numpy((down @ values @ across.T).astype(np.float32))
    top, left, bottom, right = map(int, ends)
    seen = np.zeros((bottom - top, right - left), dtype=np.float32)
    rows, columns = _overlap(box, shape)
    inside = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    seen[inside] = values[rows, columns]
    return nnf.interpolate(torch.from_numpy(seen)[None, None], cells, mode="area")[0, 0]


def _shares(length: int, start: float, stop: float, count: int) -> FloatArray:
    """``(count, length)``: the share of each even part of ``start:stop`` that each place fills."""
    edges = np.linspace(start, stop, count + 1)
    places = np.arange(length)
    low = np.maximum(edges[:-1, None], places)
    high = np.minimum(edges[1:, None], places + 1)
    shares: FloatArray = np.maximum(high - low, 0.0) / np.diff(edges)[:, None]
    return shares


def _overlap(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the plane inside the box; empty where they do not meet."""
    top, left, bottom, right = map(int, (box.top, box.left, box.bottom, box.right))
    first, start = min(max(0, top), bottom), min(max(0, left), right)
    return (
        slice(first, max(first, min(shape[0], bottom))),
        slice(start, max(start, min(shape[1], right))),
    )


class ImageGrid(PlaneGrid):
    """Patches of pictures, on each picture's own pixels."""

    def __init__(
        self,
        layout: Layout,
        sizes: Sequence[tuple[int, int]],
        boxes: Sequence[Box] | None = None,
        prefix: int = 0,
        suffix: int = 0,
    ) -> None:
        """Describe the grid of a batch of pictures.

        Args:
            layout: how the patch tokens unfold; rows run down.
            sizes: per picture, its height and width in its own pixels.
            boxes: per picture, the part that the model saw after resizing and cropping, in the
                picture's own pixels; the whole picture if None.
            prefix: tokens before the patches.
            suffix: tokens after the patches.
        """
        axes = [(_pixels("y", height), _pixels("x", width)) for height, width in sizes]
        super().__init__(layout, axes, boxes, prefix, suffix)


def _pixels(name: str, count: int) -> Axis:
    return Axis(name, "px", np.arange(count, dtype=np.float32) + 0.5)


class SpectrogramGrid(PlaneGrid):
    """Patches of spectrograms, in Hz and seconds; row 0 is the lowest frequency."""

    def __init__(
        self,
        layout: Layout,
        hertz: FloatArray,
        seconds: Sequence[FloatArray],
        boxes: Sequence[Box] | None = None,
        prefix: int = 0,
        suffix: int = 0,
        laid: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """Describe the grid of a batch of recordings.

        Args:
            layout: how the patch tokens unfold; rows run from low to high frequency.
            hertz: ``(mel,)`` centre frequency of each row.
            seconds: per recording, ``(frames,)`` centre time of each column in the recording.
            boxes: per recording, the part of its own plane that the model saw.
            prefix: tokens before the patches.
            suffix: tokens after the patches.
            laid: as for :class:`PlaneGrid`.
            valid: as for :class:`PlaneGrid`.
        """
        frequency = Axis("frequency", "Hz", np.asarray(hertz, dtype=np.float32))
        axes = [
            (frequency, Axis("time", "s", np.asarray(times, dtype=np.float32))) for times in seconds
        ]
        super().__init__(layout, axes, boxes, prefix, suffix, laid, valid)
