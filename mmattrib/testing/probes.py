"""How :func:`mmattrib.testing.check_grid` disturbs a raw input, and where it expects to find it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from mmattrib.errors import InputError, OptionError, brief
from mmattrib.models.encoder import Encoder
from mmattrib.models.grids import TokenGrid
from mmattrib.types import Axis, FloatArray, Modality, RawAudio, RawImage, RawInput, RawText

Region: TypeAlias = "tuple[float, float, float, float] | int"
"""``(top, left, bottom, right)`` in pixels, ``(low, high, start, end)`` in Hz and seconds, or the
number of a word."""

_COMMON = ("dog", "cat", "red", "blue", "car", "house", "big", "man", "drum", "music", "bird")


class Probe(ABC):
    """One raw input with its ways of being disturbed."""

    base: RawInput

    @abstractmethod
    def look(self, grid: TokenGrid) -> None:
        """Learn the axes and the cells' size from the grid of the base alone."""

    @abstractmethod
    def choose(self) -> list[tuple[Region, Region]]:
        """What to disturb and where that must be found again, from the grid looked at."""

    @abstractmethod
    def disturbed(self, region: Region, encoder: Encoder, layer: int) -> list[RawInput]:
        """The base, changed within the region in several ways."""

    @abstractmethod
    def inside(self, region: Region, found: FloatArray) -> bool:
        """Whether the change ``found`` lies in the region."""

    @abstractmethod
    def say(self, region: Region) -> str:
        """The region, for a message."""

    @abstractmethod
    def say_found(self, found: FloatArray) -> str:
        """The place of the change, for a message."""


def probe_for(modality: Modality, raw: RawInput, count: int, slack: float, seed: int) -> Probe:
    """The probe of a modality.

    Raises:
        OptionError: there is none.
        InputError: the raw input is of another modality.
    """
    if modality != raw.modality:
        raise InputError(f"check_grid got a raw {raw.modality} for an encoder of {modality}")
    if count < 1:
        raise OptionError(f"count must be at least 1, got {count}")
    if isinstance(raw, RawImage):
        return _ImageProbe(raw, count, slack, seed)
    if isinstance(raw, RawAudio):
        return _AudioProbe(raw, count, slack, seed)
    if isinstance(raw, RawText):
        return _TextProbe(raw, count)
    raise OptionError(f"check_grid has no probe for {modality!r}; it has image, audio and text")


class _PlaneProbe(Probe):
    """Regions are rectangles on a plane; subclasses say what may be disturbed, and how."""

    smallest: int  # cells, in rows or columns of the plane, that a disturbance can fill
    shares: Sequence[tuple[float, float]] = ((0.0, 1.0),)  # of a cell to disturb, in turn

    def __init__(self, count: int, slack: float, seed: int) -> None:
        self.count, self.slack = count, slack
        self.random = np.random.default_rng(seed)
        self.plane: tuple[Axis, Axis]
        self.cells: list[tuple[tuple[int, int], tuple[int, int]]] = []
        self.cell: tuple[float, float] = (0.0, 0.0)

    def possible(self, rows: tuple[float, float], columns: tuple[float, float]) -> bool:
        """Whether the base can be disturbed there."""
        return True

    def order(self, rows: tuple[float, float], columns: tuple[float, float]) -> Region:
        """The region's four numbers, in the modality's order."""
        return (*rows, *columns)

    def parts(self, region: Region) -> tuple[tuple[float, float], tuple[float, float]]:
        """Rows and columns of a region, in the axes' units."""
        if isinstance(region, int) or len(region) != 4:
            raise OptionError(f"a region on a plane is four numbers, got {brief(region)}")
        return (region[0], region[1]), (region[2], region[3])

    def choose(self) -> list[tuple[Region, Region]]:
        # The median: a cell at the border may be cut, or reach further than the others.
        full = float(np.median([(b - a) * (d - c) for (a, b), (c, d) in self.cells]))
        pairs: list[tuple[Region, Region]] = []
        for rows, columns in self.cells:
            whole = (rows[1] - rows[0]) * (columns[1] - columns[0]) >= 0.75 * full
            large = min(rows[1] - rows[0], columns[1] - columns[0]) >= self.smallest
            spans = [
                _span(axis, ends) for axis, ends in zip(self.plane, (rows, columns), strict=True)
            ]
            if whole and large and self.possible(spans[0], spans[1]):
                for share in self.shares:
                    part = self.order(*(_part(span, share) for span in spans))
                    pairs.append((part, self.order(spans[0], spans[1])))
        if len(pairs) < min(3, len(self.cells)) * len(self.shares):
            raise InputError(
                f"check_grid finds only {len(pairs) // len(self.shares)} of {len(self.cells)} "
                f"token cells that it can disturb in {self.base.name}; give a larger picture, or "
                "a longer recording at a higher sample rate"
            )
        return pairs[: self.count * len(self.shares)]

    def inside(self, region: Region, found: FloatArray) -> bool:
        for axis, place, (low, high), cell in zip(
            self.plane, _centre(found), self.parts(region), self.cell, strict=True
        ):
            edges = _edges(axis)
            places = np.arange(len(edges), dtype=np.float64)
            first, last = np.interp([low, high], edges, places)
            if not first - self.slack * cell <= place <= last + self.slack * cell:
                return False
        return True

    def say(self, region: Region) -> str:
        rows, columns = self.parts(region)
        return " and ".join(
            f"{axis.name} {low:.4g} to {high:.4g} {axis.unit}"
            for axis, (low, high) in zip(self.plane, (rows, columns), strict=True)
        )

    def say_found(self, found: FloatArray) -> str:
        return " and ".join(
            f"{axis.name} {axis.values[min(int(place), len(axis.values) - 1)]:.4g} {axis.unit}"
            for axis, place in zip(self.plane, _centre(found), strict=True)
        )

    def look(self, grid: TokenGrid) -> None:
        axes = grid.axes(0)
        if len(axes) != 2:
            raise InputError(f"check_grid needs a grid on a plane, got {len(axes)} axes")
        self.plane = (axes[0], axes[1])
        content = np.flatnonzero(grid.content[0].numpy())
        for token in self.random.permutation(content)[: 4 * self.count]:
            scores = torch.zeros(grid.valid.shape, dtype=torch.float32, device="cpu")
            scores[0, int(token)] = 1.0
            claimed = grid.to_input(scores)[0]
            if claimed.max() <= 0:
                continue
            high = claimed >= 0.5 * claimed.max()
            rows, columns = (np.flatnonzero(high.any(axis=axis)) for axis in (1, 0))
            self.cells.append(((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)))
        if not self.cells:
            raise InputError("check_grid finds no token that lies on the input")
        sizes = [[b - a, d - c] for (a, b), (c, d) in self.cells]
        self.cell = tuple(np.median(sizes, axis=0))


def _part(span: tuple[float, float], share: tuple[float, float]) -> tuple[float, float]:
    length = span[1] - span[0]
    return span[0] + share[0] * length, span[0] + share[1] * length


def _centre(found: FloatArray) -> tuple[float, ...]:
    """Where a change lies: its centre of mass above half of its largest, in places from the edge.

    Of a token of its own patch this is the peak; overlapping receptive fields spread a change over
    several tokens, whose largest need not be the nearest.
    """
    above = np.maximum(found.astype(np.float64) - 0.5 * float(found.max()), 0.0)
    return tuple(
        float((np.indices((n,))[0] + 0.5) @ above.sum(axis=1 - axis) / above.sum())
        for axis, n in enumerate(above.shape)
    )


def _edges(axis: Axis) -> np.ndarray:
    """``(n + 1,)`` borders between the cells of an axis, in its unit."""
    values = axis.values.astype(np.float64)
    if len(values) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate([[2 * values[0] - middle[0]], middle, [2 * values[-1] - middle[-1]]])


def _span(axis: Axis, places: tuple[int, int]) -> tuple[float, float]:
    edges = _edges(axis)
    return float(edges[places[0]]), float(edges[places[1]])


class _ImageProbe(_PlaneProbe):
    """Paints over a rectangle; two corners of each cell, so that a wrong scale shows too."""

    smallest = 4
    shares = ((0.15, 0.5), (0.5, 0.85))

    def __init__(self, raw: RawImage, count: int, slack: float, seed: int) -> None:
        super().__init__(count, slack, seed)
        self.base: RawImage = raw

    def order(self, rows: tuple[float, float], columns: tuple[float, float]) -> Region:
        return rows[0], columns[0], rows[1], columns[1]

    def parts(self, region: Region) -> tuple[tuple[float, float], tuple[float, float]]:
        (top, left), (bottom, right) = super().parts(region)
        return (top, bottom), (left, right)

    def disturbed(self, region: Region, encoder: Encoder, layer: int) -> list[RawInput]:
        (top, bottom), (left, right) = self.parts(region)
        rows = slice(math.floor(top), math.ceil(bottom))
        columns = slice(math.floor(left), math.ceil(right))
        part = self.base.pixels[rows, columns]
        if part.size == 0:
            raise OptionError(f"region {region!r} holds no pixel of {self.base.name}")
        far = np.where(part.mean(axis=(0, 1)) < 128, 255, 0)
        down, across = np.indices(part.shape[:2])
        checks = (down * 2 // part.shape[0] + across * 2 // part.shape[1]) % 2 * 255
        variants = (np.broadcast_to(far, part.shape), 255 - part, checks[:, :, None])
        raws: list[RawInput] = []
        for variant in variants:
            pixels = self.base.pixels.copy()
            pixels[rows, columns] = variant
            raws.append(RawImage(pixels, self.base.name))
        return raws


class _AudioProbe(_PlaneProbe):
    """Adds a burst of tones at a time and in a band, over low noise."""

    smallest = 1
    noise = 0.01  # of full scale: hides what the burst's flanks spill into other bands
    burst = 0.1  # low, so that an encoder that levels its input changes little elsewhere

    def __init__(self, raw: RawAudio, count: int, slack: float, seed: int) -> None:
        super().__init__(count, slack, seed)
        floor = self.random.normal(0, self.noise, len(raw.samples)).astype(np.float32)
        self.base: RawAudio = RawAudio(floor, raw.sample_rate, raw.name)

    def possible(self, rows: tuple[float, float], columns: tuple[float, float]) -> bool:
        (low, high), (start, end) = rows, columns
        return (
            low >= 0
            and high < 0.45 * self.base.sample_rate
            and 0 <= start < end <= self.base.seconds
        )

    def disturbed(self, region: Region, encoder: Encoder, layer: int) -> list[RawInput]:
        (low, high), (start, end) = self.parts(region)
        times = np.arange(len(self.base.samples)) / self.base.sample_rate
        phase = np.clip((times - start) / (end - start), 0, 1)
        envelope = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
        if not envelope.any():
            raise OptionError(f"region {region!r} holds no sample of {self.base.name}")
        hertz = low + (high - low) * np.linspace(0.3, 0.7, 3)
        raws: list[RawInput] = []
        for _ in range(3):
            phases = self.random.uniform(0, 2 * np.pi, 3)
            tones = np.sin(2 * np.pi * hertz[:, None] * times + phases[:, None]).mean(axis=0)
            samples = self.base.samples + self.burst * envelope * tones
            raws.append(RawAudio(samples.astype(np.float32), self.base.sample_rate, self.base.name))
        return raws


class _TextProbe(Probe):
    """Replaces a word by others of as many tokens."""

    def __init__(self, raw: RawText, count: int) -> None:
        self.base: RawText = raw
        self.count = count
        self.grid: TokenGrid

    def look(self, grid: TokenGrid) -> None:
        self.grid = grid

    def choose(self) -> list[tuple[Region, Region]]:
        words = self.grid.words(0)
        real = [place for place, word in enumerate(words) if any(map(str.isalnum, word.text))]
        if len(real) < 2:
            raise InputError(
                f"check_grid needs a caption of several words, got {brief(self.base.text)}"
            )
        spread = np.linspace(0, len(real) - 1, min(len(real), self.count)).round()
        return [(real[int(place)], real[int(place)]) for place in spread]

    def disturbed(self, region: Region, encoder: Encoder, layer: int) -> list[RawInput]:
        grid, words = self.grid, self.grid.words(0)
        if not isinstance(region, int) or not 0 <= region < len(words):
            raise OptionError(
                f"a region of {self.base.text!r} is a word's number from 0 to {len(words) - 1}, "
                f"got {brief(region)}"
            )
        word, text = words[region], self.base.text
        numbers = [np.arange(len(words), dtype=np.float32)]
        place = grid.to_tokens(numbers)
        raws: list[RawInput] = []
        for other in dict.fromkeys([*(each.text for each in words), *_COMMON]):
            raw = RawText(text[: word.start] + other + text[word.end :], self.base.name)
            if other.lower() == word.text.lower() or len(raws) == 3:
                continue
            try:
                same = encoder.grid(encoder.preprocess([raw]), layer)
            except InputError:  # a closed vocabulary may not know the word
                continue
            alike = len(same.words(0)) == len(words) and same.content.equal(grid.content)
            if alike and same.to_tokens(numbers).equal(place):
                raws.append(raw)
        if not raws:
            raise InputError(
                f"check_grid knows no word with as many tokens as {word.text!r} to put in its "
                "place; give a caption of common words"
            )
        return raws

    def inside(self, region: Region, found: FloatArray) -> bool:
        return int(found.argmax()) == region

    def say(self, region: Region) -> str:
        return f"a change of word {region}"

    def say_found(self, found: FloatArray) -> str:
        return f"word {int(found.argmax())}"
