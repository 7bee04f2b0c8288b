"""An explanation in a few lines, or as JSON: where the highest scores lie."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmattrib.lazy import np, npt
from mmattrib.render.wording import kept
from mmattrib.types import Attribution, Explanation, JSONValue

PLACES = 5
_FINEST = 1024  # places along an axis; longer axes are searched in so many equal parts
_NEIGHBOURHOOD = 10  # a place stands for a tenth of each axis to either side


def summarise(explanation: Explanation, files: Sequence[Path] = ()) -> dict[str, JSONValue]:
    """What an explanation says, for JSON.

    Args:
        explanation: of any pair.
        files: what was written.

    Returns:
        ``verdict``: ``level`` and ``sentence``; ``similarity``; ``sides``: modality -> ``name``,
        ``unit``, ``layer``, ``shape``, ``seen_share`` (how much of the input the model saw at all),
        ``words`` with their scores for text or ``places`` for all else, highest first, ``kept``
        (how much of the match the mask keeps, in words), and ``diagnostics``; ``files``;
        ``provenance``. Numbers that are not finite become None.
    """
    verdict = explanation.verdict
    found = {
        "verdict": {"level": verdict.level, "sentence": verdict.sentence},
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
        "shape": attribution.shape,
        "seen_share": attribution.seen_share,
        "axes": [{"name": axis.name, "unit": axis.unit} for axis in attribution.axes],
    }
    if attribution.words:
        found["words"] = [
            {"word": word.text, "start": word.start, "end": word.end, "score": score}
            for word, score in zip(attribution.words, attribution.scores.tolist(), strict=True)
        ]
    else:
        found["places"] = top_places(attribution)
    found["kept"] = kept(attribution)
    found["diagnostics"] = attribution.diagnostics
    return found


def top_places(attribution: Attribution, count: int = PLACES) -> list[dict[str, JSONValue]]:
    """The highest peaks of a map.

    Args:
        attribution: with one axis per dimension of its scores.
        count: at most so many.

    Returns:
        Axis name -> the centre of the cell, in the axis's unit, and ``score``; highest first. A
        peak is above zero and no lower than any cell that touches it; of peaks less than a tenth
        of each axis apart only the highest counts, so that a plateau is one place.
    """
    size = tuple(min(count, _FINEST) for count in attribution.shape)
    laid, axes = attribution.scores_at(size), attribution.axes_at(size)
    scores = np.where(np.isfinite(laid), laid, -np.inf)
    left = np.where(_is_peak(scores) & (scores > 0), scores, -np.inf).astype(np.float64)
    places: list[dict[str, JSONValue]] = []
    while len(places) < count and left.size and np.isfinite(left.max()):
        cell = np.unravel_index(int(left.argmax()), left.shape)
        place: dict[str, JSONValue] = {
            axis.name: float(axis.values[index]) for axis, index in zip(axes, cell, strict=True)
        }
        places.append({**place, "score": float(left[cell])})
        left[_around(cell, left.shape)] = -np.inf
    return places


def _is_peak(scores: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    """Cells that no neighbour exceeds, diagonal ones included."""
    padded = np.pad(scores, 1, constant_values=-np.inf)
    peak = np.ones(scores.shape, dtype=bool)
    for shift in itertools.product((0, 1, 2), repeat=scores.ndim):
        window = tuple(slice(s, s + n) for s, n in zip(shift, scores.shape, strict=True))
        peak &= scores >= padded[window]
    return peak


def _around(cell: Sequence[np.intp], shape: tuple[int, ...]) -> tuple[slice, ...]:
    reach = [max(1, round(size / _NEIGHBOURHOOD)) for size in shape]
    return tuple(
        slice(max(0, int(index) - far), int(index) + far + 1)
        for index, far in zip(cell, reach, strict=True)
    )


def describe(summary: Mapping[str, JSONValue]) -> str:
    """A summary in a few lines, for people."""
    made = ", ".join(
        f"{name} {summary['provenance'][name]}"
        for name in ("method", "backbone")
        if name in summary["provenance"]
    )
    cosine = summary["similarity"]
    lines = [summary["verdict"]["sentence"]]
    lines += [f"cosine of {' and '.join(summary['sides'])}: {_number(cosine).strip()} ({made})"]
    for side, found in summary["sides"].items():
        head = f"{side}, layer {found['layer']}: highest"
        lines.append(f"{head}, in {found['unit']}:" if found["unit"] else f"{head}:")
        lines += _ranked(found) or ["  nothing above zero"]
        lines += [found["kept"]] if found["kept"] else []
    lines += [f"Wrote {file}" for file in summary["files"]]
    return "\n".join(lines)


def _ranked(found: Mapping[str, JSONValue]) -> list[str]:
    """A side's highest words or places, one per line."""
    if "words" not in found:
        return [f"  {_number(p['score'])}  {_where(p, found['axes'])}" for p in found["places"]]
    words = [word for word in found["words"] if word["score"] is not None]
    ranked = sorted(words, key=lambda word: -word["score"])
    return [f"  {_number(word['score'])}  {word['word']}" for word in ranked[:PLACES]]


def _where(place: Mapping[str, JSONValue], axes: Sequence[Mapping[str, str]]) -> str:
    return ", ".join(
        f"{axis['name']} {place[axis['name']]:.4g} {axis['unit']}".rstrip() for axis in axes
    )


def _number(value: float | None) -> str:
    return f"{'none' if value is None else format(value, '.3g'):>8}"


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
