"""Explanations in files: ``.npz`` and ``.json`` hold everything and load again, bit for bit.

A file holds the small form of a map: token scores and where they lie. Pictures are PNG inside it,
recordings 16- or 24-bit numbers where these give exactly the samples, otherwise float32.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmattrib.errors import InputError, OptionError, brief
from mmattrib.files import as_path
from mmattrib.io._archive import (
    Array,
    Leaf,
    expect,
    read_json,
    read_npz,
    to_json,
    to_npz,
)
from mmattrib.io.files import existing_file, one_line
from mmattrib.io.image import MAX_PIXELS
from mmattrib.lazy import np
from mmattrib.placement import Cells, EvenCells, PlanePlacement, WeightedCells, WordPlacement
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.types import (
    Attribution,
    Axis,
    Explanation,
    Placement,
    RawArray,
    RawAudio,
    RawImage,
    RawInput,
    RawText,
    Word,
)

FromLeaf = Callable[[Any], Array]

MAX_PLACES = 2**28
"""Most places of a map that is read: it would take 1 GB once laid."""

_FORMAT = "mmattrib-explanation"
_VERSION = 2
_ACCEPTED = "what Explanation.save wrote as .npz or .json"


def load(path: str | Path) -> Explanation:
    """Read an explanation that :meth:`mmattrib.Explanation.save` wrote as ``.npz`` or ``.json``.

    Files may come from strangers: nothing in them is run, and no more is allocated than the bounds
    in :mod:`mmattrib.io._archive` allow.

    Raises:
        OptionError: another suffix.
        InputError: the file is missing, no regular file, damaged, too large, or no explanation.
    """
    source = as_path(path, "load").expanduser()
    reader = _READERS.get(source.suffix.lower())
    if reader is None:
        raise OptionError(
            f"cannot load {str(source)!r}: its suffix is {source.suffix!r}; accepted are "
            f"{', '.join(_READERS)}."
        )
    existing_file(source, "an explanation", _ACCEPTED)
    try:
        tree, leaf = reader(source)
        return _from_tree(tree, leaf)
    # What a stranger's bytes make of numpy's, zipfile's, json's and pillow's parsers is theirs.
    except Exception as error:
        raise InputError(
            f"cannot load {str(source)!r}: it is damaged, too large or no explanation "
            f"({type(error).__name__}: {one_line(error)}); accepted is {_ACCEPTED}."
        ) from error


# To a tree ---------------------------------------------------------------------------------------


def _to_tree(explanation: Explanation, leaf: Leaf) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "similarity": _plain(float(explanation.similarity)),
        "sample": None if explanation.sample is None else str(explanation.sample),
        "index": None if explanation.index is None else int(explanation.index),
        "provenance": _plain(explanation.provenance),
        "attributions": {
            side: _attribution_tree(side, attribution, leaf)
            for side, attribution in explanation.attributions.items()
        },
        "inputs": {side: _input_tree(side, raw, leaf) for side, raw in explanation.inputs.items()},
    }


def _attribution_tree(side: str, attribution: Attribution, leaf: Leaf) -> dict[str, Any]:
    return {
        "modality": attribution.modality,
        "unit": attribution.unit,
        "layer": int(attribution.layer),
        "token_scores": leaf(f"{side}.token_scores", attribution.token_scores),
        "content": leaf(f"{side}.content", attribution.content.astype(np.int32)),
        "placement": _placement_tree(side, attribution.placement, leaf),
        "diagnostics": _plain(attribution.diagnostics),
    }


def _placement_tree(side: str, placement: Placement, leaf: Leaf) -> dict[str, Any]:
    if isinstance(placement, WordPlacement):
        return {
            "kind": "words",
            "words": [[word.text, int(word.start), int(word.end)] for word in placement.words],
            "word_of_token": leaf(f"{side}.word_of_token", placement.word_of_token),
        }
    if isinstance(placement, PlanePlacement):
        return {
            "kind": "plane",
            "axes": [_axis_tree(side, axis, leaf) for axis in placement.axes],
            "cells": [
                _cells_tree(f"{side}.cells.{axis.name}", cells, leaf)
                for axis, cells in zip(placement.axes, placement.cells, strict=True)
            ],
            "order": leaf(f"{side}.order", placement.order),
        }
    raise InputError(
        f"the placement of {side!r} is a {type(placement).__name__}: accepted are PlanePlacement "
        "and WordPlacement."
    )


def _axis_tree(side: str, axis: Axis, leaf: Leaf) -> dict[str, Any]:
    named = {"name": axis.name, "unit": axis.unit}
    known = np.asarray(axis.values, dtype=np.float32)
    if len(known) > 1:
        even = {"first": float(known[0]), "step": float(known[1]) - float(known[0])}
        if np.array_equal(_even(even["first"], even["step"], len(known)), known):
            return {**named, **even, "count": len(known)}
    return {**named, "values": leaf(f"{side}.axis.{axis.name}", known)}


def _even(first: float, step: float, count: int) -> Any:
    return (first + step * np.arange(count, dtype=np.float64)).astype(np.float32)


def _cells_tree(name: str, cells: Cells, leaf: Leaf) -> dict[str, Any]:
    if isinstance(cells, EvenCells):
        return {
            "kind": "even",
            "count": int(cells.count),
            "length": int(cells.length),
            "start": float(cells.start),
            "stop": float(cells.stop),
        }
    if isinstance(cells, WeightedCells):
        return {"kind": "weighted", "weights": leaf(name, cells.weights)}
    raise InputError(
        f"{name} is a {type(cells).__name__}: accepted are EvenCells and WeightedCells."
    )


def _input_tree(side: str, raw: RawInput, leaf: Leaf) -> dict[str, Any]:
    if isinstance(raw, RawImage):
        png = np.frombuffer(_to_png(raw), dtype=np.uint8)
        return {"kind": "image", "name": raw.name, "png": leaf(f"{side}.png", png)}
    if isinstance(raw, RawAudio):
        stored, scale = _exact_integers(raw.samples)
        return {
            "kind": "audio",
            "name": raw.name,
            "sample_rate": int(raw.sample_rate),
            "scale": scale,
            "samples": leaf(f"{side}.samples", stored),
        }
    if isinstance(raw, RawText):
        return {"kind": "text", "name": raw.name, "text": raw.text}
    if isinstance(raw, RawArray):
        return {
            "kind": "array",
            "name": raw.name,
            "modality": raw.modality,
            "rate": None if raw.rate is None else float(raw.rate),
            "values": leaf(f"{side}.values", raw.values),
        }
    raise InputError(
        f"the raw input of {side!r} is a {type(raw).__name__}: accepted are RawImage, RawAudio, "
        "RawText and RawArray."
    )


def _to_png(raw: RawImage) -> bytes:
    from PIL import Image

    pixels = raw.pixels
    fits = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    if not fits or not 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS:
        raise InputError(
            f"the pixels of {brief(raw.name)} are {pixels.dtype} of {pixels.shape}: accepted are "
            f"uint8 (H, W, 3) with 1 to {MAX_PIXELS} pixels."
        )
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def _exact_integers(samples: Array) -> tuple[Array, int | None]:
    """Samples as int16 or 24 bits in int32 with their scale, where that gives the same bits."""
    if samples.dtype == np.float32 and np.isfinite(samples).all():
        for bits, kind in ((15, np.int16), (23, np.int32)):
            scaled = np.rint(samples.astype(np.float64) * 2**bits)
            if np.abs(scaled).max(initial=0.0) < 2**bits:
                stored = scaled.astype(kind)
                if _scaled(stored, 2**bits).tobytes() == samples.tobytes():
                    return stored, 2**bits
    return samples, None


def _scaled(stored: Array, scale: int) -> Any:
    return (stored / np.float64(scale)).astype(np.float32)


def _plain(value: Any) -> Any:
    """Plain JSON values; floats that JSON lacks become ``{"$float": "nan"}``."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    raise InputError(
        f"provenance and diagnostics hold a {type(value).__name__} ({brief(value)}): accepted are "
        "None, bool, int, float, str, lists and mappings."
    )


# From a tree -------------------------------------------------------------------------------------


def _from_tree(tree: Any, leaf: FromLeaf) -> Explanation:
    expect(isinstance(tree, dict) and tree.get("format") == _FORMAT, f"no {_FORMAT}")
    expect(
        tree["version"] == _VERSION,
        f"version {brief(tree['version'])}, this release of mmattrib reads version {_VERSION}",
    )
    sample, index = tree["sample"], tree["index"]
    alone = sorted(set(tree["attributions"]) - set(tree["inputs"]))
    expect(not alone, f"no input belongs to the side {alone[:1]}")
    return Explanation(
        attributions={
            side: _attribution_from(entry, leaf) for side, entry in tree["attributions"].items()
        },
        inputs={side: _input_from(entry, leaf) for side, entry in tree["inputs"].items()},
        similarity=float(_unplain(tree["similarity"])),
        provenance=_mapping(_unplain(tree["provenance"])),
        sample=None if sample is None else _text(sample),
        index=None if index is None else _whole(index, 0, 2**62),
    )


def _attribution_from(entry: Any, leaf: FromLeaf) -> Attribution:
    return Attribution(
        modality=_text(entry["modality"]),
        unit=_text(entry["unit"]),
        token_scores=_floats(leaf(entry["token_scores"])),
        content=_numbers(leaf(entry["content"])) > 0,
        placement=_placement_from(entry["placement"], leaf),
        layer=_whole(entry["layer"], -1, 10**6),
        diagnostics=_mapping(_unplain(entry["diagnostics"])),
    )


def _placement_from(entry: Any, leaf: FromLeaf) -> Placement:
    if entry["kind"] == "words":
        words = tuple(
            Word(_text(text), _whole(start, 0, 2**31), _whole(end, 0, 2**31))
            for text, start, end in entry["words"]
        )
        return WordPlacement(words, _numbers(leaf(entry["word_of_token"])))
    expect(entry["kind"] == "plane", f"a placement of kind {brief(entry['kind'])}")
    cells = tuple(_cells_from(each, leaf) for each in entry["cells"])
    places = math.prod(each.shape[0] for each in cells)
    expect(places <= MAX_PLACES, f"a map of {places} places, accepted are {MAX_PLACES}")
    axes = tuple(_axis_from(each, leaf) for each in entry["axes"])
    return PlanePlacement(axes, cells, _numbers(leaf(entry["order"])))


def _cells_from(entry: Any, leaf: FromLeaf) -> Cells:
    if entry["kind"] == "weighted":
        weights = _floats(leaf(entry["weights"]))
        expect(bool(np.isfinite(weights).all()), "weights that are not finite")
        return WeightedCells(weights)
    expect(entry["kind"] == "even", f"cells of kind {brief(entry['kind'])}")
    return EvenCells(
        _whole(entry["count"], 1, MAX_PLACES),
        _whole(entry["length"], 0, MAX_PLACES),
        float(entry["start"]),
        float(entry["stop"]),
    )


def _axis_from(entry: Any, leaf: FromLeaf) -> Axis:
    if "values" in entry:
        values = _floats(leaf(entry["values"]))
    else:
        count = _whole(entry["count"], 0, MAX_PLACES)
        values = _even(float(entry["first"]), float(entry["step"]), count)
    expect(values.ndim == 1 and bool(np.isfinite(values).all()), "an axis that is not finite")
    return Axis(_text(entry["name"]), _text(entry["unit"]), values)


def _input_from(entry: Any, leaf: FromLeaf) -> RawInput:
    kind, name = entry["kind"], _text(entry["name"])
    if kind == "image":
        return RawImage(_from_png(leaf(entry["png"])), name)
    if kind == "audio":
        samples, scale = leaf(entry["samples"]), entry["scale"]
        if scale is not None:
            expect(samples.dtype.kind == "i", f"samples of {samples.dtype}")
            samples = _scaled(samples, _whole(scale, 1, 2**31))
        expect(samples.ndim == 1 and samples.dtype == np.float32, f"samples of {samples.shape}")
        return RawAudio(samples, _whole(entry["sample_rate"], 1, 2**31 - 1), name)
    if kind == "array":
        values, given = leaf(entry["values"]), entry["rate"]
        expect(values.dtype.kind == "f", f"values of {values.dtype}")
        rate = None if given is None else float(given)
        expect(rate is None or 0 < rate < math.inf, f"a rate of {brief(given)}")
        return RawArray(values, _text(entry["modality"]), name, rate)
    expect(kind == "text", f"a raw input of kind {brief(kind)}")
    return RawText(_text(entry["text"]), name)


def _from_png(data: Array) -> Any:
    from PIL import Image

    expect(data.ndim == 1 and data.dtype == np.uint8, f"a PNG of {data.dtype}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pillow's bound on size is answered by our own
        with Image.open(io.BytesIO(data.tobytes()), formats=("PNG",)) as picture:
            count = picture.width * picture.height
            expect(count <= MAX_PIXELS, f"a picture of {count} pixels, accepted are {MAX_PIXELS}")
            expect(picture.mode == "RGB", f"a picture of mode {picture.mode}")
            return np.array(picture, dtype=np.uint8)


def _text(value: Any) -> str:
    expect(isinstance(value, str), f"{brief(value)} where text belongs")
    return str(value)


def _whole(value: Any, low: int, high: int) -> int:
    fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    expect(fits, "a whole number is missing or out of range")
    return int(value)


def _floats(array: Array) -> Any:
    expect(array.dtype == np.float32, f"{array.dtype} where float32 belongs")
    return array


def _numbers(array: Array) -> Any:
    expect(array.dtype == np.int32, f"{array.dtype} where int32 belongs")
    return array


def _mapping(value: Any) -> dict[str, Any]:
    expect(isinstance(value, dict), f"{brief(value)} where a mapping belongs")
    return dict(value)


def _unplain(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"$float"}:
            return float(value["$float"])
        return {key: _unplain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_unplain(entry) for entry in value]
    return value


_READERS: dict[str, Callable[[Path], tuple[Any, FromLeaf]]] = {".npz": read_npz, ".json": read_json}


def _npz_bytes(explanation: Explanation) -> bytes:
    return to_npz(lambda leaf: _to_tree(explanation, leaf))


def _json_bytes(explanation: Explanation) -> bytes:
    return to_json(lambda leaf: _to_tree(explanation, leaf))


@hookimpl
def register_writers(register: Register) -> None:
    """Register the ``.npz`` and ``.json`` writers, whose files :func:`load` reads back."""
    register(
        "npz",
        lambda: _npz_bytes,
        summary="the whole explanation, compressed; mmattrib.load reads it back",
    )
    register(
        "json",
        lambda: _json_bytes,
        summary="the whole explanation, as text; mmattrib.load reads it back",
    )
