"""Where tokens lie on an input, and laying their scores on it at any size, in plain numpy.

Laying is separable: one step along each axis, so that a map costs what its own size costs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from math import ceil, isfinite, prod
from typing import TypeAlias

from mmattrib.errors import InputError, brief, repr_of
from mmattrib.lazy import np, npt
from mmattrib.types import (
    Attribution,
    Axis,
    BoolArray,
    FloatArray,
    JSONValue,
    Modality,
    Placement,
    Size,
    Word,
)

Floats: TypeAlias = "npt.NDArray[np.float64]"
IntArray: TypeAlias = "npt.NDArray[np.intp]"

MUCH_SEEN = 2 / 3
"""An explanation warns where the model saw a smaller share of its input than this."""

_BLOCK = 1 << 20  # values laid at a time: bounds what is held besides the map itself


class Cells(ABC):
    """How the cells of a plane lie along one axis of an input."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Number of places and of cells."""

    @abstractmethod
    def lay(self, values: FloatArray, axis: int, size: int) -> FloatArray:
        """Replace the ``cells`` values along ``axis`` by ``size`` places; 0 where none is seen."""

    @abstractmethod
    def own(self, size: int) -> IntArray:
        """``(size,)`` the cell that each place belongs to; -1 where the model saw nothing."""


@dataclass(frozen=True)
class EvenCells(Cells):
    """Equal cells from ``start`` to ``stop``, in the input's own places.

    A place takes the linear interpolation of the two cells whose centres enclose its own centre;
    beyond the outermost centres the outermost cell holds (``align_corners=False`` elsewhere).

    Attributes:
        count: number of cells.
        length: places of the input along this axis.
        start: where the first cell starts; below 0 where the model pads its input.
        stop: where the last cell ends; above ``length`` likewise. What lies outside was not seen.
    """

    count: int
    length: int
    start: float
    stop: float

    def __post_init__(self) -> None:
        whole = self.count >= 1 and self.length >= 0
        if not (whole and isfinite(self.start) and isfinite(self.stop) and self.start < self.stop):
            raise InputError(
                f"{self} cannot be: at least one cell, and a start below the stop, are needed"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return self.length, self.count

    def lay(self, values: FloatArray, axis: int, size: int) -> FloatArray:
        if self.start == 0 and self.stop == self.length == self.count == size:
            return values  # every place is a token
        at, inside = self._samples(size)
        source = np.clip(self._cell(at) - 0.5, 0.0, self.count - 1)
        left = source.astype(np.intp)
        right = np.minimum(left + 1, self.count - 1)
        part = np.where(inside, source - left, 0.0).astype(np.float32)
        found = _between(values, left, right, part, axis)
        if not inside.all():
            _clear(found, ~inside, axis)
        if len(at) > size:
            counts = np.maximum(inside.reshape(size, -1).sum(axis=1), 1).astype(np.float32)
            parts = (*found.shape[:axis], size, -1, *found.shape[axis + 1 :])
            found = found.reshape(parts).sum(axis=axis + 1) / _along(counts, axis, found.ndim)
            _clear(found, self.own(size) < 0, axis)
        return found

    def own(self, size: int) -> IntArray:
        at, inside = self._samples(size)
        own = np.clip(np.floor(self._cell(at)), 0, self.count - 1).astype(np.intp)
        if len(at) > size:
            middle = (np.arange(size, dtype=np.float64) + 0.5) * (self.length / size)
            own = np.clip(np.floor(self._cell(middle)), 0, self.count - 1).astype(np.intp)
            inside = inside.reshape(size, -1).mean(axis=1) >= 0.5
        return np.where(inside, own, -1)

    def _samples(self, size: int) -> tuple[Floats, BoolArray]:
        """Where to look, and whether the model saw that: one sample a place, or more for places
        that span several cells."""
        each = 1
        if size != self.length and size > 0:
            spanned = self.count / (self.stop - self.start) * self.length / size
            each = max(1, ceil(2.0 * min(spanned, self.count)))
        step = self.length / max(1, size * each)
        at = (np.arange(size * each, dtype=np.float64) + 0.5) * step
        return at, (at >= self.start) & (at < self.stop)

    def _cell(self, at: Floats) -> Floats:
        """Places in the input -> places on the cells: cell k covers ``k`` to ``k + 1``."""
        return (at - self.start) * (self.count / (self.stop - self.start))


@dataclass(frozen=True, eq=False)
class WeightedCells(Cells):
    """Cells that overlap, repeat or leave gaps along an axis.

    Attributes:
        weights: ``(places, cells)`` float32, what each place of the input takes from each cell; a
            row sums to one where the model saw the place, and is zero elsewhere.
    """

    weights: FloatArray

    __repr__ = repr_of()

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.weights.shape[1] < 1:
            raise InputError(f"weights of {self.weights.shape}: accepted is (places, cells)")

    @property
    def shape(self) -> tuple[int, int]:
        return self.weights.shape[0], self.weights.shape[1]

    def lay(self, values: FloatArray, axis: int, size: int) -> FloatArray:
        laid = np.tensordot(self._rows(size), values, axes=([1], [axis]))
        return np.ascontiguousarray(np.moveaxis(laid, 0, axis), dtype=np.float32)

    def own(self, size: int) -> IntArray:
        rows = self._rows(size)
        return np.where(rows.sum(axis=1) > 0, rows.argmax(axis=1), -1)

    def _rows(self, size: int) -> FloatArray:
        """``(size, cells)``: rows between the input's own places, or means of several."""
        places = len(self.weights)
        if size == places or size == 0 or places == 0:
            return self.weights if size == places else np.zeros((size, self.shape[1]), np.float32)
        each = max(1, ceil(places / size))
        at = (np.arange(size * each) + 0.5) * (places / (size * each)) - 0.5
        at = np.clip(at, 0.0, places - 1)
        left = at.astype(np.intp)
        right = np.minimum(left + 1, places - 1)
        rows = _between(self.weights, left, right, (at - left).astype(np.float32), 0)
        rows = rows.reshape(size, each, -1).mean(axis=1)
        total = rows.sum(axis=1, keepdims=True)
        return np.where(total >= 0.5, rows / np.maximum(total, 0.5), 0.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class PlanePlacement(Placement):
    """Tokens on the cells of a line, a plane or a volume, one :class:`Cells` for each axis.

    Attributes:
        axes: of the input, at its own size.
        cells: where the cells lie along each axis.
        order: the number of the token on each cell, in the shape of the cells.
    """

    axes: tuple[Axis, ...]
    cells: tuple[Cells, ...]
    order: npt.NDArray[np.int32]
    words: tuple[Word, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        given = [each.shape for each in self.cells]
        if given != list(zip(self.shape, self.order.shape, strict=False)) or (
            len(given) != self.order.ndim or len(given) != len(self.axes) or not given
        ):
            raise InputError(
                f"cells of {given} (places, cells) do not fit axes of {list(self.shape)} and an "
                f"order of {self.order.shape}"
            )

    def check(self, count: int) -> None:
        if self.order.size and (self.order.min() < 0 or self.order.max() >= count):
            raise InputError(
                f"the placement names tokens {self.order.min()} to {self.order.max()}, there are "
                f"{count}"
            )

    def lay(self, scores: FloatArray, content: BoolArray, size: Size | None = None) -> FloatArray:
        size = self.sized(size)
        real = content[self.order]
        values = np.asarray(scores, dtype=np.float32)[self.order]
        if not real.all():
            values = _filled(values, real)
        with np.errstate(invalid="ignore", over="ignore"):  # a score may be infinite
            for axis, (cells, count) in enumerate(zip(self.cells, size, strict=True)):
                values = cells.lay(values, axis, count)
        if not real.all():
            values = np.where(self.seen(content, size), values, np.float32(0))
        return values

    def seen(self, content: BoolArray, size: Size | None = None) -> BoolArray:
        own = [cells.own(count) for cells, count in zip(self.cells, self.sized(size), strict=True)]
        seen = reduce(np.logical_and.outer, [each >= 0 for each in own])
        real = content[self.order]
        found: BoolArray = seen if real.all() else seen & real[np.ix_(*own)]
        return found

    def seen_share(self, content: BoolArray) -> float:
        if not content[self.order].all() or 0 in self.shape:
            return super().seen_share(content)
        shares = [
            (cells.own(n) >= 0).mean() for cells, n in zip(self.cells, self.shape, strict=True)
        ]
        return float(prod(shares))

    __repr__ = repr_of("shape", "cells", "order")


@dataclass(frozen=True, eq=False)
class WordPlacement(Placement):
    """Tokens on words. A word's score is the sum over its tokens: information in bits adds up.

    Attributes:
        words: in order.
        word_of_token: ``(N,)`` the index of each token's word; -1 for tokens of no word.
    """

    words: tuple[Word, ...]
    word_of_token: npt.NDArray[np.int32]
    axes: tuple[Axis, ...] = field(init=False)

    def __post_init__(self) -> None:
        count = np.arange(len(self.words), dtype=np.float32)
        object.__setattr__(self, "axes", (Axis("word", "", count),))

    def check(self, count: int) -> None:
        given = self.word_of_token
        if given.shape != (count,) or (count and not given.max() < len(self.words)):
            raise InputError(
                f"word_of_token of {given.shape} does not fit {count} tokens and "
                f"{len(self.words)} words"
            )

    def lay(self, scores: FloatArray, content: BoolArray, size: Size | None = None) -> FloatArray:
        self.sized(size)
        own = content & (self.word_of_token >= 0)
        values = np.asarray(scores, dtype=np.float64)[own]
        totals = np.bincount(self.word_of_token[own], values, len(self.words))
        return totals[: len(self.words)].astype(np.float32)

    def seen(self, content: BoolArray, size: Size | None = None) -> BoolArray:
        self.sized(size)
        seen = np.zeros(len(self.words), dtype=bool)
        seen[self.word_of_token[content & (self.word_of_token >= 0)]] = True
        return seen

    def sized(self, size: Size | None) -> Size:
        if super().sized(size) != self.shape:
            raise InputError(f"size {brief(size)}: words have no other size than {self.shape}")
        return self.shape

    __repr__ = repr_of("words", "word_of_token")


def from_map(
    modality: Modality,
    scores: npt.ArrayLike,
    unit: str,
    axes: Sequence[Axis] = (),
    *,
    words: Sequence[Word] = (),
    layer: int = 0,
    diagnostics: Mapping[str, JSONValue] | None = None,
) -> Attribution:
    """An attribution out of a finished map: every place is a token of its own.

    Args:
        modality: of the explained input.
        scores: the map, at the input's own size.
        unit: of the scores.
        axes: one for each dimension of ``scores``; for text give ``words`` instead.
        words: for text, one for each score.
        layer: as for :class:`mmattrib.Attribution`.
        diagnostics: likewise.

    Raises:
        InputError: axes or words do not fit the map.
    """
    values = np.array(scores, dtype=np.float32)
    order = np.arange(values.size, dtype=np.int32)
    placement: Placement
    if axes:
        cells = tuple(EvenCells(n, n, 0, n) for n in values.shape)
        placement = PlanePlacement(tuple(axes), cells, order.reshape(values.shape))
    else:
        placement = WordPlacement(tuple(words), order)
        if values.shape != placement.shape:
            raise InputError(f"scores of {values.shape} do not fit {len(words)} words")
    content = np.ones(values.size, dtype=bool)
    return Attribution(modality, unit, values.ravel(), content, placement, layer, diagnostics or {})


def which_part(attribution: Attribution) -> str:
    """What the model saw of an input, for a sentence: ``"its middle part (33 %)"``.

    Returns:
        Empty where it saw everything.
    """
    share = attribution.seen_share
    if share >= 1.0:
        return ""
    percent = f"{100 * share:.0f} %" if 0.005 <= share < 0.995 else f"{100 * share:.2g} %"
    if isinstance(attribution.placement, PlanePlacement) and share > 0:
        names = [
            _ends(cells.own(length), axis.name)
            for cells, length, axis in zip(
                attribution.placement.cells, attribution.shape, attribution.axes, strict=True
            )
        ]
        named = [name for name in names if name]
        if len(named) == 1:
            return f"its {named[0]} part ({percent})"
    return f"{percent} of it"


def with_unseen_warning(attribution: Attribution) -> Attribution:
    """The attribution, with a warning among its diagnostics if more than a third was not seen."""
    if attribution.seen_share >= MUCH_SEEN:
        return attribution
    message = f"the model saw only {which_part(attribution)}; the rest had no influence"
    given = attribution.diagnostics.get("warnings") or ()
    given = list(given) if isinstance(given, list | tuple) else [given]
    return replace(
        attribution, diagnostics={**attribution.diagnostics, "warnings": [*given, message]}
    )


_ENDS = {"x": ("left", "right"), "y": ("upper", "lower"), "time": ("first", "last")}


def _ends(own: IntArray, axis: str) -> str:
    """Which part of an axis was seen; empty for all of it, or for more than one piece."""
    seen = own >= 0
    if seen.all() or not seen.any() or np.abs(np.diff(seen.astype(int))).sum() > 2:
        return ""
    first, last = _ENDS.get(axis, ("first", "last"))
    if seen[0] and seen[-1]:
        return ""
    return first if seen[0] else last if seen[-1] else "middle"


def _between(
    values: FloatArray, left: IntArray, right: IntArray, part: FloatArray, axis: int
) -> FloatArray:
    """``values[left] + part * (values[right] - values[left])`` along an axis, in blocks."""
    shape = (*values.shape[:axis], len(left), *values.shape[axis + 1 :])
    out = np.empty(shape, dtype=np.float32)
    share = _along(part, axis, values.ndim)
    if axis == 0:
        step = max(1, _BLOCK // max(1, prod(shape[1:])))
        for start in range(0, len(left), step):
            rows = slice(start, start + step)
            low = values[left[rows]]
            out[rows] = low + share[rows] * (values[right[rows]] - low)
        return out
    step = max(1, _BLOCK // max(1, prod(shape[1:])))
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        low = np.take(values[rows], left, axis)
        out[rows] = low + share * (np.take(values[rows], right, axis) - low)
    return out


def _clear(values: FloatArray, places: BoolArray, axis: int) -> None:
    """Set places along an axis to zero."""
    np.moveaxis(values, axis, 0)[places] = 0.0


def _along(vector: FloatArray, axis: int, dimensions: int) -> FloatArray:
    """A vector shaped so that it broadcasts along one axis."""
    return vector.reshape([-1 if d == axis else 1 for d in range(dimensions)])


def _filled(plane: FloatArray, real: BoolArray) -> FloatArray:
    """Fill cells that are not real from the last real one before them along the last axis, so that
    what padding holds (NaN even) does not bleed into its neighbours; 0 where there is none."""
    columns = np.broadcast_to(np.arange(plane.shape[-1]), plane.shape)
    last = np.maximum.accumulate(np.where(real, columns, -1), axis=-1)
    filled = np.take_along_axis(plane, np.maximum(last, 0), axis=-1)
    return np.where(last >= 0, filled, np.float32(0))
