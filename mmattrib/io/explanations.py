"""Explanations in files: ``.npz`` and ``.json`` hold everything and load again, bit for bit.

Both hold one tree of plain values with arrays at its leaves. In ``.npz`` the arrays are members
and the rest is the member ``explanation``, JSON in UTF-8; in ``.json`` small float32 arrays are
lists (null for NaN) and all others ``{"dtype", "shape", "base64"}``.

``.npz`` files are read without pickle, and nothing is allocated that the file's own size does not
account for.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmattrib.errors import InputError, OptionError
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.types import (
    Attribution,
    Axis,
    Explanation,
    RawArray,
    RawAudio,
    RawImage,
    RawInput,
    RawText,
    Word,
)

Array = npt.NDArray[Any]

MAX_BYTES = 2 * 1024**3
"""Largest explanation that is written or read, in bytes of its arrays and text."""

_FORMAT = "mmattrib-explanation"
_VERSION = 1
_META = "explanation"
_LIST_LIMIT = 512 * 512  # longer arrays go into .json as base64
_KINDS = "fiub"
_DATE = (1980, 1, 1, 0, 0, 0)  # a fixed date makes equal explanations equal files


def load(path: str | Path) -> Explanation:
    """Read an explanation that :meth:`mmattrib.Explanation.save` wrote as ``.npz`` or ``.json``.

    Raises:
        OptionError: another suffix.
        InputError: the file is missing, damaged, too large, or no explanation.
    """
    source = Path(path)
    reader = _READERS.get(source.suffix.lower())
    if reader is None:
        raise OptionError(
            f"cannot load {str(source)!r}: its suffix is {source.suffix!r}; accepted are "
            f"{', '.join(_READERS)}."
        )
    if not source.is_file():
        raise InputError(f"cannot load {str(source)!r}: there is no such file.")
    if source.stat().st_size > MAX_BYTES:
        raise InputError(f"cannot load {str(source)!r}: it is larger than {MAX_BYTES} bytes.")
    try:
        return reader(source)
    except (
        _BrokenError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        NotImplementedError,
        OSError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(
            f"cannot load {str(source)!r}: it is damaged or no explanation "
            f"({type(error).__name__}: {error}); accepted is what Explanation.save wrote as "
            f"{' or '.join(_READERS)}."
        ) from error


class _BrokenError(Exception):
    """What a file holds is no explanation."""


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise _BrokenError(what)


# The tree ----------------------------------------------------------------------------------------


def _to_tree(explanation: Explanation, leaf: Callable[[str, Array], Any]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "similarity": _plain(float(explanation.similarity)),
        "provenance": _plain(explanation.provenance),
        "attributions": {
            side: _attribution_tree(side, attribution, leaf)
            for side, attribution in explanation.attributions.items()
        },
        "inputs": {side: _input_tree(side, raw, leaf) for side, raw in explanation.inputs.items()},
    }


def _attribution_tree(
    side: str, attribution: Attribution, leaf: Callable[[str, Array], Any]
) -> dict[str, Any]:
    return {
        "modality": attribution.modality,
        "unit": attribution.unit,
        "layer": int(attribution.layer),
        "scores": leaf(f"{side}.scores", attribution.scores),
        "token_scores": leaf(f"{side}.token_scores", attribution.token_scores),
        "axes": [
            {
                "name": axis.name,
                "unit": axis.unit,
                "values": leaf(f"{side}.axis.{axis.name}", axis.values),
            }
            for axis in attribution.axes
        ],
        "words": [[word.text, int(word.start), int(word.end)] for word in attribution.words],
        "diagnostics": _plain(attribution.diagnostics),
    }


def _input_tree(side: str, raw: RawInput, leaf: Callable[[str, Array], Any]) -> dict[str, Any]:
    if isinstance(raw, RawImage):
        return {"kind": "image", "name": raw.name, "pixels": leaf(f"{side}.pixels", raw.pixels)}
    if isinstance(raw, RawAudio):
        return {
            "kind": "audio",
            "name": raw.name,
            "sample_rate": int(raw.sample_rate),
            "samples": leaf(f"{side}.samples", raw.samples),
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


def _from_tree(tree: Any, leaf: Callable[[Any], Array]) -> Explanation:
    _expect(isinstance(tree, dict) and tree.get("format") == _FORMAT, f"no {_FORMAT}")
    _expect(
        tree["version"] == _VERSION,
        f"version {tree['version']!r}, this release of mmattrib reads version {_VERSION}",
    )
    return Explanation(
        attributions={
            side: _attribution_from(entry, leaf) for side, entry in tree["attributions"].items()
        },
        inputs={side: _input_from(entry, leaf) for side, entry in tree["inputs"].items()},
        similarity=float(_unplain(tree["similarity"])),
        provenance=_mapping(_unplain(tree["provenance"])),
    )


def _attribution_from(entry: Any, leaf: Callable[[Any], Array]) -> Attribution:
    axes = tuple(
        Axis(_text(axis["name"]), _text(axis["unit"]), leaf(axis["values"]))
        for axis in entry["axes"]
    )
    scores = leaf(entry["scores"])
    _expect(
        scores.shape == tuple(len(axis.values) for axis in axes),
        f"scores of shape {scores.shape} on axes of {[axis.values.shape for axis in axes]}",
    )
    return Attribution(
        modality=_text(entry["modality"]),
        scores=scores,
        unit=_text(entry["unit"]),
        axes=axes,
        token_scores=leaf(entry["token_scores"]),
        layer=int(entry["layer"]),
        words=tuple(Word(_text(text), int(start), int(end)) for text, start, end in entry["words"]),
        diagnostics=_mapping(_unplain(entry["diagnostics"])),
    )


def _input_from(entry: Any, leaf: Callable[[Any], Array]) -> RawInput:
    kind, name = entry["kind"], _text(entry["name"])
    if kind == "image":
        pixels = leaf(entry["pixels"])
        _expect(
            pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3,
            f"pixels of shape {pixels.shape} and type {pixels.dtype}",
        )
        return RawImage(pixels, name)
    if kind == "audio":
        samples, rate = leaf(entry["samples"]), int(entry["sample_rate"])
        _expect(samples.ndim == 1 and samples.dtype.kind == "f", f"samples of {samples.shape}")
        _expect(rate > 0, f"a sample rate of {rate}")
        return RawAudio(samples, rate, name)
    if kind == "array":
        values, given = leaf(entry["values"]), entry["rate"]
        _expect(values.dtype.kind == "f", f"values of {values.dtype}")
        frequency = None if given is None else float(given)
        _expect(frequency is None or frequency > 0, f"a rate of {given}")
        return RawArray(values, _text(entry["modality"]), name, frequency)
    _expect(kind == "text", f"a raw input of kind {kind!r}")
    return RawText(_text(entry["text"]), name)


def _text(value: Any) -> str:
    _expect(isinstance(value, str), f"{value!r} where text belongs")
    return str(value)


def _mapping(value: Any) -> dict[str, Any]:
    _expect(isinstance(value, dict), f"{value!r} where a mapping belongs")
    return dict(value)


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
        f"provenance and diagnostics hold a {type(value).__name__} ({value!r:.80}): accepted are "
        "None, bool, int, float, str, lists and mappings."
    )


def _unplain(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"$float"}:
            return float(value["$float"])
        return {key: _unplain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_unplain(entry) for entry in value]
    return value


# .json -------------------------------------------------------------------------------------------


def _json_bytes(explanation: Explanation) -> bytes:
    tree = _to_tree(explanation, _json_leaf)
    data = json.dumps(tree, allow_nan=False, indent=1).encode("ascii")
    return _bounded(data, len(data))


def _json_leaf(name: str, array: Array) -> Any:
    plain = array.dtype == np.float32 and array.size <= _LIST_LIMIT and 0 not in array.shape
    if plain and not np.isinf(array).any():
        # A float32 written as the float64 of the same value reads back to the same bits.
        return _null_nan(array.tolist())
    _supported(name, array)
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return {
        "dtype": data.dtype.str,
        "shape": list(array.shape),
        "base64": base64.b64encode(data.tobytes()).decode("ascii"),
    }


def _null_nan(values: Any) -> Any:
    if isinstance(values, list):
        return [_null_nan(value) for value in values]
    return None if math.isnan(values) else values


def _json_array(leaf: Any) -> Array:
    if isinstance(leaf, list):
        return np.array(leaf, dtype=np.float32)
    dtype = np.dtype(_text(leaf["dtype"]))
    _expect(dtype.kind in _KINDS, f"an array of type {dtype}")
    data = base64.b64decode(leaf["base64"], validate=True)
    array = np.frombuffer(data, dtype=dtype).reshape([int(n) for n in leaf["shape"]])
    return array.astype(dtype.newbyteorder("="))


def _read_json(path: Path) -> Explanation:
    return _from_tree(json.loads(path.read_text(encoding="utf-8")), _json_array)


# .npz --------------------------------------------------------------------------------------------


def _npz_bytes(explanation: Explanation) -> bytes:
    arrays: dict[str, Array] = {}

    def leaf(name: str, array: Array) -> dict[str, str]:
        _supported(name, array)
        key = base = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        count = 1
        while key in arrays or key == _META:
            count += 1
            key = f"{base}-{count}"
        arrays[key] = array
        return {"npy": key}

    tree = _to_tree(explanation, leaf)
    text = json.dumps(tree, allow_nan=False).encode("ascii")
    arrays[_META] = np.frombuffer(text, dtype=np.uint8)
    size = sum(array.nbytes for array in arrays.values())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive:
        for key, array in arrays.items():
            info = zipfile.ZipInfo(f"{key}.npy", _DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
    return _bounded(buffer.getvalue(), size)


def _read_npz(path: Path) -> Explanation:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        total = sum(info.file_size for info in members.values())
        _expect(total <= MAX_BYTES, f"{total} bytes unpacked, accepted are {MAX_BYTES}")

        def array(key: str) -> Array:
            name = f"{key}.npy"
            _expect(name in members, f"no member {name!r}")
            return _npy(archive.read(members[name]), name)

        tree = json.loads(array(_META).tobytes().decode("ascii"))
        return _from_tree(tree, lambda leaf: array(_text(leaf["npy"])))


def _npy(data: bytes, name: str) -> Array:
    """Decode one member; its header must account for exactly the bytes that are there."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    _expect(version in ((1, 0), (2, 0)), f"{name!r} of npy version {version}")
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(stream)
    _expect(dtype.kind in _KINDS, f"{name!r} of type {dtype}")
    _expect(
        math.prod(shape) * dtype.itemsize == len(data) - stream.tell(),
        f"{name!r} of shape {shape} and {len(data)} bytes",
    )
    flat = np.frombuffer(data, dtype=dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C").copy()


def _supported(name: str, array: Array) -> None:
    if array.dtype.kind not in _KINDS:
        raise InputError(f"{name} has type {array.dtype}: accepted are floats, integers and bool.")


def _bounded(data: bytes, size: int) -> bytes:
    if size > MAX_BYTES:
        raise InputError(
            f"the explanation takes {size} bytes: accepted are {MAX_BYTES}; shrink its inputs."
        )
    return data


_READERS: dict[str, Callable[[Path], Explanation]] = {".npz": _read_npz, ".json": _read_json}


@hookimpl
def register_writers(register: Register) -> None:
    """Register the forms that load again."""
    register("npz", lambda: _npz_bytes, summary="everything, compressed; loads again")
    register("json", lambda: _json_bytes, summary="everything, as text; loads again")
