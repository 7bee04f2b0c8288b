"""PlacedGrid: tokens placed on an input by weights, where cells overlap, leave gaps or repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmattrib.errors import EncoderError, repr_of
from mmattrib.models.grids.base import TokenGrid
from mmattrib.models.grids.plane import Layout
from mmattrib.placement import PlanePlacement, WeightedCells
from mmattrib.types import Axis, FloatArray


@dataclass(frozen=True, eq=False)
class AxisPlacement:
    """Where the cells of a plane lie along one axis of an input; cells may overlap and repeat.

    Attributes:
        weights: ``(n, cells)`` float32, what each place of the input takes from each cell; a row
            sums to one where the model saw the place, and is zero elsewhere.
        averages: ``(cells, n)`` float32, the mean over each cell's own places; zero for a cell
            that stands for no place of the input.
    """

    weights: Tensor
    averages: Tensor

    __repr__ = repr_of()

    @classmethod
    def of_views(
        cls,
        positions: Sequence[npt.NDArray[Any]],
        cells: int,
        bounds: Sequence[tuple[int, int]] | None = None,
    ) -> AxisPlacement:
        """Several views of one input, such as overlapping clips or repetitions of a recording.

        Within a view, scores are interpolated linearly between the cells' centres; a place that
        several views show takes their mean.

        Args:
            positions: per view, ``(n,)`` where each place of the input lies in the plane: cell k
                covers ``k`` to ``k + 1``. NaN where the view does not show the place.
            cells: length of the plane along this axis.
            bounds: per view, the first cell that is its own and the one after its last; all cells
                if None.
        """
        count = len(positions[0])
        weights, averages = np.zeros((count, cells)), np.zeros((cells, count))
        views = np.zeros(count)
        ranges = bounds if bounds is not None else [(0, cells)] * len(positions)
        for place, (low, high) in zip(positions, ranges, strict=True):
            shown = np.flatnonzero(np.isfinite(place))
            if not len(shown):
                continue
            at = np.asarray(place, dtype=np.float64)[shown]
            own = np.clip(np.floor(at).astype(int), low, high - 1)
            averages[own, shown] += 1
            here = np.zeros(cells, dtype=bool)  # others stand for no place: never read
            here[own] = True
            centred = np.clip(at - 0.5, low, high - 1)
            left = np.minimum(centred.astype(int), max(low, high - 2))
            right = np.minimum(left + 1, high - 1)
            part = centred - left
            shares = np.stack([(1 - part) * here[left], part * here[right]])
            shares /= shares.sum(axis=0)
            np.add.at(weights, (shown, left), shares[0])
            np.add.at(weights, (shown, right), shares[1])
            views[shown] += 1
        weights /= np.maximum(views, 1)[:, None]
        averages /= np.maximum(averages.sum(1, keepdims=True), 1)
        return cls(torch.from_numpy(weights).float(), torch.from_numpy(averages).float())

    @property
    def used(self) -> Tensor:
        """``(cells,)`` bool, the cells that stand for some place of the input."""
        return self.averages.sum(dim=1) > 0


class PlacedGrid(TokenGrid):
    """Tokens on one or more axes, placed along each axis by a :class:`AxisPlacement`.

    For what :class:`PlaneGrid` cannot say: clips that overlap or leave gaps, a short recording that
    the model hears several times, receptive fields larger than their stride, a line of time or a
    volume instead of a plane. Places that the model did not see have score zero. A token whose cell
    stands for no place of the input, such as the padding of a short clip, is no content."""

    def __init__(
        self,
        layout: Layout,
        axes: Sequence[tuple[Axis, ...]],
        placements: Sequence[tuple[AxisPlacement, ...]],
        laid: Tensor,
        valid: Tensor | None = None,
    ) -> None:
        """Describe the grid of a batch.

        Args:
            layout: how the laid tokens unfold; its plane may have any number of axes.
            axes: per input, its axes; their lengths are the shape of its map.
            placements: per input, where the plane's cells lie along each of these axes.
            laid: ``(B, N)`` bool, the tokens that ``layout`` lays out; not CLS.
            valid: ``(B, N)`` bool, tokens that carry something; all if None.

        Raises:
            EncoderError: placements do not fit the axes or the layout.
        """
        self.layout = layout
        self._axes = [tuple(each) for each in axes]
        self._placements = [tuple(each) for each in placements]
        self._laid = laid.cpu()
        self.valid = torch.ones_like(self._laid) if valid is None else valid.cpu()
        plane = layout.shape
        for own, places in zip(self._axes, self._placements, strict=True):
            wanted = [(len(axis.values), cells) for axis, cells in zip(own, plane, strict=False)]
            given = [tuple(place.weights.shape) for place in places]
            if wanted != given or len(own) != len(plane):
                raise EncoderError(
                    f"placements of {given} (places, cells) do not fit axes of "
                    f"{[len(axis.values) for axis in own]} and a plane of {plane}"
                )
        used = torch.zeros(len(self._axes), layout.count, dtype=torch.bool, device="cpu")
        for row, places in enumerate(self._placements):
            inside = _outer([place.used.float() for place in places])
            used[row] = self.layout.fold(inside[None])[0] > 0
        self.content = self._laid.clone()
        self.content[self._laid] = used.flatten()
        self.content &= self.valid

    def placement(self, index: int) -> PlanePlacement:
        cells = tuple(WeightedCells(place.weights.numpy()) for place in self._placements[index])
        return PlanePlacement(self._axes[index], cells, self.layout.order(self._laid[index]))

    def to_tokens(self, maps: Sequence[FloatArray]) -> Tensor:
        planes = [
            _along(
                torch.from_numpy(np.array(values, dtype=np.float32)),
                [place.averages for place in places],
            )
            for values, places in zip(maps, self._placements, strict=True)
        ]
        out = torch.zeros(self.content.shape, dtype=torch.float32, device="cpu")
        out[self._laid] = self.layout.fold(torch.stack(planes)).reshape(-1)
        return out * self.content

    def axes(self, index: int) -> tuple[Axis, ...]:
        return self._axes[index]


def _along(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Apply the i-th ``(out, in)`` matrix along axis i."""
    for axis, matrix in enumerate(matrices):
        values = torch.tensordot(matrix, values, dims=([1], [axis])).movedim(0, axis)
    return values.contiguous()


def _outer(vectors: Sequence[Tensor]) -> Tensor:
    """The outer product of any number of vectors."""
    product = vectors[0]
    for vector in vectors[1:]:
        product = product[..., None] * vector
    return product
