"""Inputs of any other modality: numeric arrays, such as depth, thermal, IMU or video frames."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, BinaryIO

from mmattrib.errors import InputError
from mmattrib.io.files import existing_file, is_path, one_line, shown, unreadable, without_warnings
from mmattrib.lazy import np
from mmattrib.types import Modality, RawArray

MAX_VALUES = 500_000_000
"""Most numbers accepted in one array: 2 GB in float32."""

ACCEPTED = "a .npy file of numbers"
_SOURCES = f"a numpy array, an (array, rate in Hz) pair, a RawArray, or {ACCEPTED}"


def load_array(modality: Modality, source: object) -> RawArray:
    """Take an array for a modality that is neither image, audio nor text.

    Args:
        modality: whose input it is; its encoder says which shape and unit it takes.
        source: an array of numbers; ``(array, rate)`` where it has a time axis; a path to a
            ``.npy`` file without pickles; or a :class:`RawArray` of this modality.

    Returns:
        The values as float32, named after the file.

    Raises:
        InputError: none of these, empty, not numeric, NaN or infinite, or too large.
    """
    if isinstance(source, RawArray):
        if source.modality != modality:
            raise InputError(
                f"{shown(source.name)} is a RawArray of {source.modality!r}; accepted here: "
                f"{modality!r}"
            )
        values = _numbers(source.values, modality, source.name)
        return RawArray(values, modality, source.name, _rate(source.rate, source.name))
    if is_path(source):
        path = existing_file(source, f"an input of {modality}", ACCEPTED)
        name = shown(path.name)
        return RawArray(_numbers(_read(path, modality), modality, name), modality, name)
    rate: object = None
    if isinstance(source, tuple) and len(source) == 2:
        source, rate = source
    if not isinstance(source, np.ndarray):
        raise InputError(
            f"cannot use {type(source).__name__} as an input of {modality}; accepted: {_SOURCES}"
        )
    return RawArray(_numbers(source, modality, modality), modality, modality, _rate(rate, modality))


def _read(path: Path, modality: Modality) -> Any:
    if path.suffix.lower() != ".npy":
        raise InputError(
            f"{shown(path)} is no .npy file; accepted for {modality}: {_SOURCES}. Decode the file "
            "and give the array"
        )
    try:
        with path.open("rb") as stream, without_warnings():
            kind, shape, order = _header(stream)
            count = math.prod(shape)
            _check_count(kind, shape, count, modality, shown(path))
            left = path.stat().st_size - stream.tell()
            if count * kind.itemsize > left:
                raise InputError(
                    f"{shown(path)} announces {count * kind.itemsize:,} bytes of numbers and holds "
                    f"{left:,}; accepted: {ACCEPTED}, whole. Write it again with numpy.save"
                )
            values = np.fromfile(stream, dtype=kind, count=count)
        return values.reshape(shape, order="F" if order else "C")
    except InputError:
        raise
    except PermissionError as error:
        raise unreadable(path, f"an input of {modality}", error) from error
    except Exception as error:  # a damaged header: Python's parser raises errors of many kinds
        raise InputError(
            f"{shown(path)} cannot be read as an array ({one_line(error)}); accepted: {ACCEPTED}. "
            "Write it again with numpy.save"
        ) from error


def _header(stream: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Type, shape and whether the first axis runs fastest, before anything is allocated."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0}
    readers |= {(2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    shape, order, kind = readers[version](stream)
    return kind, shape, order


def _check_count(
    kind: np.dtype[Any], shape: tuple[int, ...], count: int, modality: Modality, name: str
) -> None:
    if kind.kind not in "buif":
        raise InputError(f"{name} holds no plain numbers; accepted for {modality}: {_SOURCES}")
    if len(shape) == 0 or min(shape) < 1 or count > MAX_VALUES:
        raise InputError(
            f"{name} has shape {shown(shape)}; accepted for {modality}: an array of 1 to "
            f"{MAX_VALUES:,} numbers"
        )


def _numbers(values: Any, modality: Modality, name: str) -> Any:
    if not isinstance(values, np.ndarray):
        raise InputError(
            f"{shown(name)} holds no plain numbers; accepted for {modality}: {_SOURCES}"
        )
    _check_count(values.dtype, values.shape, values.size, modality, shown(name))
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise InputError(
            f"{shown(name)} has masked values; accepted: an array in which every value counts. "
            "Fill them first, with array.filled(value)"
        )
    with np.errstate(over="ignore"):  # what float32 does not hold is infinite, and refused
        numbers = np.array(values, dtype=np.float32)
    if not np.isfinite(numbers).all():
        raise InputError(
            f"{shown(name)} holds NaN or infinite values, or such beyond float32; accepted: finite "
            "numbers. Replace them first, e.g. with numpy.nan_to_num"
        )
    return numbers


def _rate(rate: object, name: str) -> float | None:
    if rate is None:
        return None
    number = isinstance(rate, int | float | np.integer | np.floating) and not isinstance(rate, bool)
    if not number or not 0 < rate <= sys.float_info.max:  # type: ignore[operator]
        raise InputError(
            f"the rate of {shown(name)} is {shown(rate)}; accepted: a positive number of Hz"
        )
    return float(rate)  # type: ignore[arg-type]
