"""Samples: inputs that belong together, with what is known of them.

Importing this module imports numpy alone, no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mmattrib.errors import InputError, brief, repr_of
from mmattrib.lazy import np, npt
from mmattrib.types import Attribution, Axis, BoolArray, JSONValue


class Region(ABC):
    """A part of an input, on that input's own axes."""

    @abstractmethod
    def on(self, attribution: Attribution) -> BoolArray:
        """Which cells of an attribution's scores lie in the region.

        Returns:
            bool, in the shape of ``attribution.scores``.

        Raises:
            InputError: the region is of another kind of input.
        """


@dataclass(frozen=True, eq=False)
class MaskRegion(Region):
    """A region given cell by cell.

    Attributes:
        values: bool, in the shape of the input's own axes: ``(H, W)`` pixels, ``(rows, columns)``
            of a spectrogram, ``(words,)``.
        axes: where the cells lie, if they are not those of the map that is scored (a spectrogram
            with other bands or frames); cells are then looked up by the nearest centre.
    """

    values: BoolArray
    axes: tuple[Axis, ...] = ()

    __repr__ = repr_of()

    def on(self, attribution: Attribution) -> BoolArray:
        wanted = attribution.shape
        if self.values.shape == wanted:
            return self.values
        if len(self.axes) != len(wanted) or self.values.shape != tuple(
            len(axis.values) for axis in self.axes
        ):
            raise InputError(
                f"the truth has shape {self.values.shape}, the map {wanted}; they must agree, or "
                "the truth must say where its cells lie (axes=)"
            )
        index = [
            _nearest(own.values, axis.values)
            for own, axis in zip(self.axes, attribution.axes, strict=True)
        ]
        found: BoolArray = self.values[np.ix_(*index)]
        return found


def _nearest(known: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """For each wanted place the number of the nearest known one."""
    middle = (known[1:].astype(np.float64) + known[:-1]) / 2
    return np.searchsorted(middle, wanted)


@dataclass(frozen=True)
class BoxRegion(Region):
    """A rectangle on a picture: rows ``top`` to ``bottom``, columns ``left`` to ``right``, in px.

    A pixel belongs to it where its centre does.
    """

    top: float
    left: float
    bottom: float
    right: float

    def on(self, attribution: Attribution) -> BoolArray:
        if len(attribution.axes) != 2 or attribution.axes[0].unit != "px":
            raise InputError(f"a box lies on pictures, not on {attribution.modality}")
        rows, columns = (axis.values for axis in attribution.axes)
        return np.logical_and.outer(
            (self.top <= rows) & (rows < self.bottom),
            (self.left <= columns) & (columns < self.right),
        )


@dataclass(frozen=True)
class TimeRegion(Region):
    """A stretch of time, ``start`` to ``end`` in seconds, in every band of frequency."""

    start: float
    end: float

    def on(self, attribution: Attribution) -> BoolArray:
        place = next((k for k, axis in enumerate(attribution.axes) if axis.unit == "s"), None)
        if place is None:
            raise InputError(f"{attribution.modality} has no axis of time for onset and offset")
        seconds = attribution.axes[place].values
        inside = (self.start <= seconds) & (seconds < self.end)
        shape = [1] * len(attribution.axes)
        shape[place] = -1
        whole: BoolArray = np.broadcast_to(inside.reshape(shape), attribution.shape).copy()
        return whole


@dataclass(frozen=True)
class SpanRegion(Region):
    """Characters ``start`` to ``end`` of a caption, end exclusive; a word that they touch is in."""

    start: int
    end: int

    def on(self, attribution: Attribution) -> BoolArray:
        if attribution.modality != "text":
            raise InputError(
                f"a span of characters lies in captions, not in {attribution.modality}"
            )
        return np.array(
            [word.start < self.end and self.start < word.end for word in attribution.words], bool
        )


@dataclass(frozen=True, eq=False)
class Part:
    """One thing in an input.

    Attributes:
        region: where it is; several regions are its pieces.
        shared: whether the other inputs of the sample hold it too.
        name: what it is, or None.
    """

    region: Region | tuple[Region, ...]
    shared: bool = True
    name: str | None = None

    __repr__ = repr_of()

    def on(self, attribution: Attribution) -> BoolArray:
        """Which cells of an attribution's scores it covers, bool in their shape."""
        regions = self.region if isinstance(self.region, tuple) else (self.region,)
        mask: BoolArray = np.zeros(attribution.shape, dtype=bool)
        for region in regions:
            mask |= region.on(attribution)
        return mask


@dataclass(frozen=True, eq=False)
class TruthMasks:
    """A truth laid on the axes of one attribution.

    Attributes:
        mask: bool, in the shape of the scores; True on everything that is shared.
        parts: one such mask for each part.
        shared: for each of ``parts``, whether it is shared.
    """

    mask: BoolArray
    parts: tuple[BoolArray, ...]
    shared: tuple[bool, ...]

    __repr__ = repr_of()

    def within(self, where: BoolArray) -> TruthMasks:
        """The masks at some places alone, flat: ``(n,)`` for n places where ``where`` is True."""
        return TruthMasks(self.mask[where], tuple(part[where] for part in self.parts), self.shared)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of one input of a sample: its parts, shared with the others or not."""

    parts: tuple[Part, ...]

    def __repr__(self) -> str:
        shared = [part.name for part in self.parts if part.shared]
        others = [part.name for part in self.parts if not part.shared]
        return f"Truth({len(self.parts)} parts: shared {brief(shared)}, others {brief(others)})"

    @property
    def names(self) -> frozenset[str]:
        """Names of the parts, of those that have one."""
        return frozenset(part.name for part in self.parts if part.name is not None)

    def on(self, attribution: Attribution) -> TruthMasks:
        """The truth in the shape of an attribution of this input.

        Raises:
            InputError: a part is of another kind of input, or of another shape.
        """
        masks = tuple(part.on(attribution) for part in self.parts)
        shared = tuple(part.shared for part in self.parts)
        mask: BoolArray = np.zeros(attribution.shape, dtype=bool)
        for own, yes in zip(masks, shared, strict=True):
            if yes:
                mask |= own
        return TruthMasks(mask, masks, shared)


@dataclass(frozen=True, eq=False)
class Sample:
    """Two or more inputs that belong together.

    Attributes:
        id: what names it, unique in its data set.
        inputs: side -> what :func:`mmattrib.attribute` takes: a path, an array, a caption, a raw
            input. Paths are decoded when the sample is explained. A side is named by its
            modality; the second of one modality has ``_2`` behind it.
        truth: side -> what is known of it; a side of which nothing is known is missing.
        tags: whatever else a data set knows, JSON values.
    """

    id: str
    inputs: Mapping[str, Any]
    truth: Mapping[str, Truth] = field(default_factory=dict)
    tags: Mapping[str, JSONValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no sample.

        Raises:
            InputError: ``id`` is no text, or ``inputs`` or ``truth`` no mapping.
        """
        for name, kind, accepted in (
            ("id", str, "text"),
            ("inputs", Mapping, "a mapping from side to input"),
            ("truth", Mapping, "a mapping from side to Truth"),
        ):
            if not isinstance(value := getattr(self, name), kind):
                raise InputError(f"a sample's {name} is {accepted}, got {type(value).__name__}")

    def pair(self, first: str, second: str) -> Sample:
        """The sample with two of its inputs alone.

        Raises:
            InputError: it has no such side.
        """
        for side in (first, second):
            if side not in self.inputs:
                raise InputError(
                    f"sample {self.id!r} has no {side!r}; it has {', '.join(self.inputs)}"
                )
        sides = (first, second)
        return replace(
            self,
            inputs={side: self.inputs[side] for side in sides},
            truth={side: self.truth[side] for side in sides if side in self.truth},
        )

    def __repr__(self) -> str:
        known = f", truth of {', '.join(self.truth)}" if self.truth else ""
        return f"Sample({self.id!r}: {', '.join(self.inputs)}{known})"
