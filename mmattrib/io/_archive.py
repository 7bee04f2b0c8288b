"""Trees of plain values with arrays at their leaves, as ``.npz`` and as ``.json``.

In ``.npz`` the arrays are members and the rest is the member ``explanation``, JSON in UTF-8. In
``.json`` small arrays are lists and larger ones base64. Neither holds a pickle, equal trees are
equal files, and reading allocates nothing before a bound has been checked: the size of the file,
what it unpacks to, the items of its text, and every shape against the bytes that are there.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from mmattrib.errors import InputError, brief
from mmattrib.lazy import np, npt

Array: TypeAlias = "npt.NDArray[Any]"
Leaf: TypeAlias = Callable[[str, Array], Any]
"""Name and array -> what stands for it in the tree."""

MAX_BYTES = 1024**3
"""Largest explanation that is written or read, in bytes of its arrays and text."""
MAX_JSON = 256 * 1024**2
"""Largest ``.json``, in bytes."""
MAX_ITEMS = 2_000_000
"""Most values in the text of one file; each may cost some hundred bytes once it is read."""
SMALL = 64 * 1024**2
GROWTH = 64
"""A file unpacks to at most ``SMALL`` bytes plus ``GROWTH`` times its own size."""

_META = "explanation"
_LIST_LIMIT = 4096  # longer arrays go into .json as base64
_DATE = (1980, 1, 1, 0, 0, 0)  # a fixed date makes equal trees equal files
_MAX_DIRECTORY = 1024**2
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class BrokenError(Exception):
    """What a file holds is no explanation."""


def expect(holds: bool, what: str) -> None:
    """Raise :class:`BrokenError` with this text unless ``holds``."""
    if not holds:
        raise BrokenError(what)


class Budget:
    """Counts what reading a file has allocated."""

    def __init__(self) -> None:
        self.left = MAX_BYTES

    def spend(self, size: int, what: str) -> None:
        """Account for ``size`` bytes before they are allocated.

        Raises:
            BrokenError: that would be more than :data:`MAX_BYTES` in all.
        """
        self.left -= size
        expect(self.left >= 0, f"{what} brings it to more than {MAX_BYTES} bytes unpacked")


def _bounded(size: int, limit: int, hint: str) -> None:
    if size > limit:
        raise InputError(f"the explanation takes {size} bytes: accepted are {limit}; {hint}")


def _supported(name: str, array: Array) -> Array:
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise InputError(f"{name} has type {array.dtype}: accepted are floats, integers and bool.")
    # As stored: little-endian, in C order.
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)


def _text(value: Any) -> str:
    expect(isinstance(value, str), f"{brief(value)} where text belongs")
    return str(value)


def parsed_json(text: bytes) -> Any:
    """JSON from a stranger; refuses more than :data:`MAX_ITEMS` values before any is made."""
    items = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    expect(items <= MAX_ITEMS, f"its text holds {items} values, accepted are {MAX_ITEMS}")
    return json.loads(text.decode("utf-8"))


def _shaped(dtype: np.dtype[Any], shape: Any, size: int, name: str) -> tuple[int, ...]:
    """The shape, once it is known to account for exactly ``size`` bytes."""
    expect(dtype.kind in "fiub" and dtype.itemsize <= 8, f"{name} is of type {dtype}")
    expect(
        isinstance(shape, list | tuple)
        and len(shape) <= 8
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape),
        f"{name} of shape {brief(shape)}",
    )
    expect(math.prod(shape) * dtype.itemsize == size, f"{name} of shape {shape} and {size} bytes")
    return tuple(shape)


# .json -------------------------------------------------------------------------------------------


def to_json(make: Callable[[Leaf], Any]) -> bytes:
    """Write a tree as ``.json``.

    Args:
        make: builds the tree with the function it is given at its leaves.

    Raises:
        InputError: it is larger than :data:`MAX_JSON`.
    """
    total = 0

    def leaf(name: str, array: Array) -> Any:
        nonlocal total
        total += array.nbytes
        _bounded(total, min(MAX_JSON, MAX_BYTES), "save it as .npz, or shrink its inputs")
        return _json_leaf(name, array)

    data = json.dumps(make(leaf), allow_nan=False, indent=1).encode("ascii")
    _bounded(len(data), min(MAX_JSON, MAX_BYTES), "save it as .npz, or shrink its inputs")
    return data


def _json_leaf(name: str, array: Array) -> Any:
    data = _supported(name, array)
    if array.size <= _LIST_LIMIT and 0 not in array.shape and not np.isinf(array).any():
        if array.dtype == np.float32:
            # A float32 written as the float64 of the same value reads back to the same bits.
            return _null_nan(array.tolist())
        if array.dtype == np.int32:
            return {
                "dtype": data.dtype.str,
                "shape": list(array.shape),
                "list": data.ravel().tolist(),
            }
    return {
        "dtype": data.dtype.str,
        "shape": list(array.shape),
        "base64": base64.b64encode(data.tobytes()).decode("ascii"),
    }


def _null_nan(values: Any) -> Any:
    if isinstance(values, list):
        return [_null_nan(value) for value in values]
    return None if math.isnan(values) else values


def read_json(path: Path) -> tuple[Any, Callable[[Any], Array]]:
    """Read a tree, and what turns its leaves into arrays."""
    size = path.stat().st_size
    expect(size <= MAX_JSON, f"it holds {size} bytes, accepted are {MAX_JSON}")
    tree, budget = parsed_json(path.read_bytes()), Budget()

    def array(leaf: Any) -> Array:
        if isinstance(leaf, list):
            found = np.array(leaf, dtype=np.float32)
            budget.spend(found.nbytes, "a list")
            return found
        dtype = np.dtype(_text(leaf["dtype"]))
        if "list" in leaf:
            flat = np.array(leaf["list"], dtype=dtype)
            return flat.reshape(_shaped(dtype, leaf["shape"], flat.nbytes, "a list"))
        encoded = _text(leaf["base64"])
        budget.spend(2 * len(encoded), "an array")
        data = base64.b64decode(encoded, validate=True)
        shape = _shaped(dtype, leaf["shape"], len(data), "an array")
        return np.frombuffer(data, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="))

    return tree, array


# .npz --------------------------------------------------------------------------------------------


def to_npz(make: Callable[[Leaf], Any]) -> bytes:
    """Write a tree as ``.npz``; arguments and errors as for :func:`to_json`."""
    arrays: dict[str, Array] = {}
    total = 0

    def leaf(name: str, array: Array) -> dict[str, str]:
        nonlocal total
        total += array.nbytes
        _bounded(total, MAX_BYTES, "shrink its inputs")
        key = base = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]
        count = 1
        while key in arrays or key == _META:
            count += 1
            key = f"{base}-{count}"
        arrays[key] = _supported(name, array)
        return {"npy": key}

    text = json.dumps(make(leaf), allow_nan=False).encode("ascii")
    leaf("text", np.frombuffer(text, dtype=np.uint8))
    arrays[_META] = arrays.pop(next(reversed(arrays)))
    data = _zipped(arrays, zipfile.ZIP_DEFLATED)
    if total > SMALL // 2 + GROWTH // 2 * len(data):
        data = _zipped(arrays, zipfile.ZIP_STORED)  # so that its size accounts for what it holds
    return data


def _zipped(arrays: dict[str, Array], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=4) as archive:
        for key, array in arrays.items():
            info = zipfile.ZipInfo(f"{key}.npy", _DATE)
            info.compress_type = zipfile.ZIP_STORED if key.endswith(".png") else method
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def read_npz(path: Path) -> tuple[Any, Callable[[Any], Array]]:
    """Read a tree, and what turns its leaves into arrays."""
    _check_directory(path)
    budget = Budget()
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        size = path.stat().st_size
        total = sum(info.file_size for info in members.values())
        most = min(MAX_BYTES, SMALL + GROWTH * size)
        expect(total <= most, f"{size} bytes that become {total} unpacked, accepted are {most}")
        expect(
            all(info.compress_type in _METHODS for info in members.values()),
            "a member is neither stored nor deflated",
        )
        arrays: dict[str, Array] = {}
        for name, info in members.items():
            budget.spend(info.file_size, f"member {brief(name)}")
            with archive.open(info) as member:
                arrays[name] = _npy(member, info.file_size, f"member {brief(name)}")

    def array(key: str) -> Array:
        found = arrays.pop(f"{key}.npy", None)
        if found is None:
            raise BrokenError(f"no member {brief(key + '.npy')}, or one that is used twice")
        return found

    return parsed_json(array(_META).tobytes()), lambda leaf: array(_text(leaf["npy"]))


def _check_directory(path: Path) -> None:
    """Bound the list of members, which the library reads whole: its size stands in the last 22
    bytes of a zip file without a comment, as ours and numpy's are."""
    with path.open("rb") as stream:
        stream.seek(0, io.SEEK_END)
        stream.seek(max(0, stream.tell() - 42))
        end = stream.read()
    record = end[-22:]
    expect(
        record[:4] == b"PK\5\6" and record[-2:] == b"\0\0" and not end.startswith(b"PK\6\7"),
        "no zip file without a comment",
    )
    size = int.from_bytes(record[12:16], "little")
    expect(size <= _MAX_DIRECTORY, f"its list of members takes {size} bytes")


def _npy(member: Any, size: int, name: str) -> Array:
    """Read one member; its header must account for exactly the bytes that are there."""
    version = np.lib.format.read_magic(member)
    expect(version in ((1, 0), (2, 0)), f"{name} is of npy version {version}")
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(member)
    left = size - member.tell()
    _shaped(dtype, shape, left, name)
    flat = np.empty(left // dtype.itemsize, dtype)
    view: Any = flat.view(np.uint8)
    at = 0
    while at < left:
        count = member.readinto(view[at:])
        expect(bool(count), f"{name} ends early")
        at += count
    member.read(1)  # reaches the end, so that the checksum is compared
    return flat.reshape(shape, order="F" if fortran else "C").astype(
        dtype.newbyteorder("="), copy=False
    )
