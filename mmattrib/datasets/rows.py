"""A row of a table as a sample: what its columns say of each side, and the checks on that."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mmattrib.datasets.regions import MaskFile, picture_size
from mmattrib.errors import InputError
from mmattrib.samples import BoxRegion, Part, Region, Sample, SpanRegion, TimeRegion, Truth

if TYPE_CHECKING:
    from mmattrib.types import JSONValue

INPUTS: Final = ("image", "audio", "text")

TRUTHS: Final = {"mask": "image", "boxes": "image", "times": "audio", "spans": "text"}
"""Column -> the side whose truth it gives."""

KNOWN: Final = (*INPUTS, "id", *TRUTHS)

MAX_PLACES: Final = 10_000
"""Boxes, times or spans of one row."""


def from_row(name: str, inputs: Mapping[str, Any], row: Mapping[str, Any]) -> Sample:
    """A sample out of its inputs and the other columns of its row.

    Args:
        name: its id.
        inputs: side -> path, caption, or what else :func:`mmattrib.attribute` takes.
        row: ``boxes``, ``times`` and ``spans`` as text or lists, ``mask`` as a path; what is no
            column of :data:`KNOWN` becomes a tag, and an object in ``tags`` is taken apart.

    Raises:
        InputError: the truth is broken, of a side that is not there, or does not lie on its input.
    """
    places = {
        column: _places(column, row[column])
        for column in _WANTED
        if row.get(column) is not None and row[column] != ""
    }
    mask = row.get("mask")
    for column in (*places, *(("mask",) if mask else ())):
        if (side := TRUTHS[column]) not in inputs:
            raise InputError(
                "a mask or boxes are given without an image"
                if side == "image"
                else f"{column} are given without {side}"
            )
    given = dict(inputs)
    if "text" in given:
        given["text"] = unicodedata.normalize("NFC", given["text"])
    return Sample(name, given, _truth(given, places, mask), _tags(row))


_WANTED: Final = {
    "boxes": ("left", "top", "right", "bottom"),
    "times": ("start", "end"),
    "spans": ("start", "end"),
}


def _places(column: str, value: object) -> list[tuple[float, ...]]:
    """Boxes, times or spans: tuples of numbers with an extent."""
    texts: Sequence[Any]
    if isinstance(value, str):
        texts = [part for part in value.split(";") if part.strip()]
    elif isinstance(value, list | tuple):
        texts = value if not value or isinstance(value[0], list | tuple) else [value]
    else:
        raise InputError(f"{column} are {type(value).__name__}; accepted: lists of numbers")
    if len(texts) > MAX_PLACES:
        raise InputError(f"{len(texts):,} {column} are given; accepted: up to {MAX_PLACES:,}")
    return [_place(column, text) for text in texts]


def _place(column: str, text: Any) -> tuple[float, ...]:
    wanted, one = _WANTED[column], "box" if column == "boxes" else column[:-1]
    try:
        pieces = text.replace(",", " ").split() if isinstance(text, str) else list(text)
        numbers = tuple(map(float, pieces))
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) != len(wanted):
        count = {4: "four", 2: "two"}[len(wanted)]
        raise InputError(f"{one} {_shown(text)} is not {count} numbers: {' '.join(wanted)}")
    low, high = numbers[: len(wanted) // 2], numbers[len(wanted) // 2 :]
    if not all(0 <= a < b < math.inf for a, b in zip(low, high, strict=True)):
        nothing, side = ("area", "picture") if column == "boxes" else ("length", TRUTHS[column])
        raise InputError(f"{one} {_shown(text)} has no {nothing}, or lies outside of every {side}")
    return numbers


def _shown(text: Any) -> str:
    return repr(text.strip() if isinstance(text, str) else text)[:100]


def _truth(
    inputs: Mapping[str, Any], places: Mapping[str, Sequence[tuple[float, ...]]], mask: Path | None
) -> dict[str, Truth]:
    regions: dict[str, list[Region]] = {}
    if mask or places.get("boxes"):
        regions["image"] = _on_picture(inputs["image"], places.get("boxes", ()), mask)
    if places.get("times"):
        regions["audio"] = [TimeRegion(*times) for times in places["times"]]
    if places.get("spans"):
        regions["text"] = [_span(inputs["text"], *span) for span in places["spans"]]
    return {side: Truth((Part(tuple(found)),)) for side, found in regions.items()}


def _span(text: str, start: float, end: float) -> SpanRegion:
    if end > len(text) or start % 1 or end % 1 or not text[int(start) : int(end)].strip():
        raise InputError(
            f"span {start:g} {end:g} holds no word of the caption, which has {len(text)} characters"
        )
    return SpanRegion(int(start), int(end))


def _on_picture(image: Any, boxes: Sequence[tuple[float, ...]], mask: Path | None) -> list[Region]:
    """Boxes and mask, held against the picture; one that cannot be read is told of when used."""
    regions: list[Region] = []
    size = picture_size(image)
    for left, top, right, bottom in boxes:
        if size and (right > size[0] or bottom > size[1]):
            raise InputError(
                f"box {left:g} {top:g} {right:g} {bottom:g} reaches outside of the picture of "
                f"{size[0]} x {size[1]} pixels"
            )
        regions.append(BoxRegion(top, left, bottom, right))
    if mask:
        own = picture_size(mask)
        if size and own and size != own:
            raise InputError(
                f"the mask has {own[0]} x {own[1]} pixels, the picture {size[0]} x {size[1]}; "
                "they must agree"
            )
        regions.append(MaskFile(mask))
    return regions


def _tags(row: Mapping[str, Any]) -> dict[str, JSONValue]:
    found: dict[str, JSONValue] = {}
    for name, value in row.items():
        if name == "tags" and isinstance(value, Mapping):
            found.update(value)
        elif name not in KNOWN:
            found[name] = value
    return found
