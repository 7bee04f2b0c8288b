"""Tokens that tile a plane: patches of pictures, cells of spectrograms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import einops
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.errors import EncoderError
from mmattrib.models.grids.base import TokenGrid, content_mask
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

    def unfold(self, scores: Tensor) -> Tensor:
        """``(B, count)`` to ``(B, rows, columns)``."""
        pattern = f"{_BATCH} ({self._flat}) -> {_BATCH} {self.plane}"
        return einops.rearrange(scores, pattern, **self.sizes)

    def fold(self, plane: Tensor) -> Tensor:
        """``(B, rows, columns)`` to ``(B, count)``."""
        pattern = f"{_BATCH} {self.plane} -> {_BATCH} ({self._flat})"
        return einops.rearrange(plane, pattern, **self.sizes)

    @property
    def _flat(self) -> str:
        """``tokens`` without its brackets: a sequence is flat, however it came about."""
        return self.tokens.replace("(", "").replace(")", "")


@dataclass(frozen=True)
class Box:
    """The part of an input plane that the model sees: rows ``top:bottom``, columns ``left:right``.

    May reach outside the plane where the model pads its input.
    """

    top: int
    left: int
    bottom: int
    right: int


class PlaneGrid(TokenGrid):
    """Tokens that tile a plane: pixels, or time x frequency.

    Scores are interpolated bilinearly to the plane, as M2IB does, then cropped to the part of the
    input that the model saw; the rest of the input is zero, since it had no influence.
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
        self._axes = [tuple(pair) for pair in axes]
        shapes = [tuple(len(axis.values) for axis in pair) for pair in self._axes]
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
        if not bool((self._laid.sum(dim=1) == layout.count).all()):
            raise EncoderError(
                f"every row of laid must mark the {layout.count} tokens of layout "
                f"{layout.tokens!r}, got {self._laid.sum(dim=1).tolist()}"
            )
        self.content = self._laid & self.valid

    def to_input(self, scores: Tensor) -> list[FloatArray]:
        scores = self._checked(scores)
        planes = self.layout.unfold(scores[self._laid].view(len(scores), self.layout.count))
        known = self.layout.unfold(self.valid[self._laid].view(planes.shape[0], -1))
        maps: list[FloatArray] = []
        for plane, real, box, shape in zip(planes, known, self._boxes, self._shapes, strict=True):
            size = (box.bottom - box.top, box.right - box.left)
            seen = _enlarge(plane, real, size)
            full = np.zeros(shape, dtype=np.float32)
            rows, columns = _overlap(box, shape)
            full[rows, columns] = seen[
                rows.start - box.top : rows.stop - box.top,
                columns.start - box.left : columns.stop - box.left,
            ]
            maps.append(full)
        return maps

    def to_tokens(self, maps: Sequence[FloatArray]) -> Tensor:
        rows, columns = self.layout.unfold(torch.zeros(1, self.layout.count)).shape[1:]
        planes = []
        for values, box, shape in zip(maps, self._boxes, self._shapes, strict=True):
            seen = np.zeros((box.bottom - box.top, box.right - box.left), dtype=np.float32)
            inside_rows, inside_columns = _overlap(box, shape)
            seen[
                inside_rows.start - box.top : inside_rows.stop - box.top,
                inside_columns.start - box.left : inside_columns.stop - box.left,
            ] = np.asarray(values, dtype=np.float32)[inside_rows, inside_columns]
            cells = nnf.interpolate(
                torch.from_numpy(seen)[None, None], (rows, columns), mode="area"
            )
            planes.append(cells[0, 0])
        out = torch.zeros(self.content.shape)
        out[self._laid] = self.layout.fold(torch.stack(planes)).reshape(-1)
        return out * self.content

    def axes(self, index: int) -> tuple[Axis, ...]:
        return self._axes[index]


def _overlap(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the plane inside the box; empty where they do not meet."""
    top, left = min(max(0, box.top), box.bottom), min(max(0, box.left), box.right)
    return (
        slice(top, max(top, min(shape[0], box.bottom))),
        slice(left, max(left, min(shape[1], box.right))),
    )


def _enlarge(plane: Tensor, real: Tensor, size: tuple[int, int]) -> FloatArray:
    """Bilinear ``(rows, columns)`` to ``size``; where ``real`` is false, zero.

    Cells that are not real are first filled from the last real one to their left, so that what
    padding holds (NaN even) does not bleed into its neighbours.
    """
    if bool(real.all()):
        return _interpolated(plane, size, "bilinear")
    columns = torch.arange(plane.shape[1]).expand_as(plane)
    last = torch.where(real, columns, -1).cummax(dim=1).values
    filled = plane.gather(1, last.clamp(min=0)).masked_fill(last < 0, 0.0)
    shown = _interpolated(real.float(), size, "nearest-exact") > 0
    return np.where(shown, _interpolated(filled, size, "bilinear"), np.float32(0))


def _interpolated(plane: Tensor, size: tuple[int, int], mode: str) -> FloatArray:
    values: FloatArray = nnf.interpolate(plane[None, None], size=size, mode=mode)[0, 0].numpy()
    return values


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
