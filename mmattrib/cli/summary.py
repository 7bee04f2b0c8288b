"""An explanation in a few lines, or as JSON: where the highest scores lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmattrib.types import Attribution, Explanation, JSONValue

PLACES = 5
_NEIGHBOURHOOD = 10  # a place stands for a tenth of each axis to either side


def summarise(explanation: Explanation, files: Sequence[Path] = ()) -> dict[str, JSONValue]:
    """What an explanation says, for JSON.

    Args:
        explanation: of any pair.
        files: what was written.

    Returns:
        ``similarity``; ``sides``: modality -> ``name``, ``unit``, ``layer``, ``shape``, and
        ``words`` with their scores for text or ``places`` for all else, highest first;
        ``diagnostics``; ``files``; ``provenance``. Numbers that are not finite become None.
    """
    found = {
        "similarity": explanation.similarity,
        "sides": {
            side: _summarise_side(attribution, explanation.inputs[side].name)
            for side, attribution in explanation.items()
        },
        "files": [str(path) for path in files],
        "provenance": explanation.provenance,
    }
    cleaned: dict[str, JSONValue] = jsonable(found)
    return cleaned


def _summarise_side(attribution: Attribution, name: str) -> dict[str, JSONValue]:
    found: dict[str, JSONValue] = {
        "name": name,
        "unit": attribution.unit,
        "layer": attribution.layer,
        "shape": attribution.scores.shape,
        "axes": [{"name": axis.name, "unit": axis.unit} for axis in attribution.axes],
    }
    if attribution.words:
        found["words"] = [
            {"word": word.text, "start": word.start, "end": word.end, "score": score}
            for word, score in zip(attribution.words, attribution.scores.tolist(), strict=True)
        ]
    else:
        found["places"] = top_places(attribution)
    found["diagnostics"] = attribution.diagnostics
    return found


def top_places(attribution: Attribution, count: int = PLACES) -> list[dict[str, JSONValue]]:
    """The highest places of a map, no two of them next to each other.

    Args:
        attribution: with one axis per dimension of its scores.
        count: at most so many.

    Returns:
        Axis name -> the centre of the cell, in the axis's unit, and ``score``; highest first. A
        place keeps others a tenth of each axis away, so that one blob counts once. Places with a
        score of zero or less are left out.
    """
    left = np.where(np.isfinite(attribution.scores), attribution.scores, -np.inf)
    left = left.astype(np.float64)
    places: list[dict[str, JSONValue]] = []
    while len(places) < count and left.size and left.max() > 0:
        cell = np.unravel_index(int(left.argmax()), left.shape)
        place: dict[str, JSONValue] = {
            axis.name: float(axis.values[index])
            for axis, index in zip(attribution.axes, cell, strict=True)
        }
        places.append({**place, "score": float(left[cell])})
        left[_around(cell, left.shape)] = -np.inf
    return places


def _around(cell: Sequence[np.intp], shape: tuple[int, ...]) -> tuple[slice, ...]:
    reach = [max(1, round(size / _NEIGHBOURHOOD)) for size in shape]
    return tuple(
        slice(max(0, int(index) - far), int(index) + far + 1)
        for index, far in zip(cell, reach, strict=True)
    )


def describe(summary: Mapping[str, JSONValue]) -> str:
    """A summary in a few lines, for people."""
    provenance = summary["provenance"]
    head = " ".join(
        f"{label} {provenance[key]}"
        for label, key in (("by", "method"), ("on", "backbone"))
        if key in provenance
    )
    lines = [f"{' and '.join(summary['sides'])}: cosine {_number(summary['similarity'])} {head}"]
    for side, found in summary["sides"].items():
        lines.append(
            f"{side} (layer {found['layer']}), highest, in {found['unit'] or 'raw scores'}:"
        )
        if "words" in found:
            ranked = sorted(found["words"], key=lambda word: -(word["score"] or 0))
            lines += [f"  {_number(w['score'])}  {w['word']}" for w in ranked[:PLACES]]
        else:
            lines += [
                f"  {_number(p['score'])}  {_where(p, found['axes'])}" for p in found["places"]
            ]
            if not found["places"]:
                lines.append("  nothing above zero")
    lines += [f"Wrote {file}" for file in summary["files"]]
    return "\n".join(line.rstrip() for line in lines)


def _where(place: Mapping[str, JSONValue], axes: Sequence[Mapping[str, str]]) -> str:
    return ", ".join(
        f"{axis['name']} {place[axis['name']]:.4g} {axis['unit']}".rstrip() for axis in axes
    )


def _number(value: float | None) -> str:
    return "     none" if value is None else f"{value:9.3g}".strip().rjust(8)


def jsonable(value: JSONValue) -> JSONValue:
    """The same value in plain JSON types; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return jsonable(value.tolist())
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
