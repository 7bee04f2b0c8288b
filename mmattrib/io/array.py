"""Inputs of any other modality: numeric arrays, such as depth, thermal, IMU or video frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmattrib.errors import InputError
from mmattrib.io._files import existing_file, is_path, one_line, shown
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
        return RawArray(_numbers(_read(path, modality), modality, path.name), modality, path.name)
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
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(
            f"{shown(path)} cannot be read as an array ({one_line(error)}); accepted: {ACCEPTED}. "
            "Write it again with numpy.save"
        ) from error


def _numbers(values: Any, modality: Modality, name: str) -> Any:
    kind = getattr(values, "dtype", np.dtype(object)).kind
    if not isinstance(values, np.ndarray) or kind not in "buif":
        raise InputError(
            f"{shown(name)} holds no plain numbers; accepted for {modality}: {_SOURCES}"
        )
    if values.size == 0 or values.ndim == 0 or values.size > MAX_VALUES:
        raise InputError(
            f"{shown(name)} has shape {values.shape}; accepted for {modality}: an array of 1 to "
            f"{MAX_VALUES:,} numbers"
        )
    numbers = np.array(values, dtype=np.float32)
    if not np.isfinite(numbers).all():
        raise InputError(
            f"{shown(name)} holds NaN or infinite values; accepted: finite numbers. Replace them "
            "first, e.g. with numpy.nan_to_num"
        )
    return numbers


def _rate(rate: object, name: str) -> float | None:
    if rate is None:
        return None
    number = isinstance(rate, int | float | np.integer | np.floating) and not isinstance(rate, bool)
    if not number or not 0 < float(rate) < float("inf"):  # type: ignore[arg-type]
        raise InputError(
            f"the rate of {shown(name)} is {shown(rate)}; accepted: a positive number of Hz"
        )
    return float(rate)  # type: ignore[arg-type]
