"""Radiographs from DICOM files, for whoever has the ``dicom`` extra installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mmattrib.errors import InputError, MissingExtraError
from mmattrib.io._files import existing_file, one_line, shown
from mmattrib.types import RawImage

_ACCEPTED = "a DICOM file with one greyscale picture"


def load_dicom(source: object) -> RawImage:
    """Decode a greyscale radiograph to 8 bits, as a viewer shows it.

    The modality and value-of-interest transforms of the file are applied (its window, where it has
    one), ``MONOCHROME1`` is inverted so that bone is bright, and the result is scaled to 0-255:
    from the window's full range where there is a window, else from the lowest to the highest value
    present.

    Args:
        source: a path.

    Returns:
        ``(H, W, 3)`` uint8 pixels, named after the file.

    Raises:
        MissingExtraError: pydicom is not installed.
        InputError: not a DICOM file, no picture, several frames, colour, or a compression that
            nothing installed decodes.
    """
    path = existing_file(source, "a radiograph", _ACCEPTED)
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtraError(
            f"{shown(path)} is DICOM, which needs pydicom; install it with: "
            "pip install 'mmattrib[dicom]'"
        ) from error
    try:
        data = pydicom.dcmread(path)
        photometric = str(data.get("PhotometricInterpretation", ""))
        frames = int(data.get("NumberOfFrames", 1) or 1)
        values = data.pixel_array
    except Exception as error:  # pydicom and its decoders raise errors of many kinds
        raise InputError(
            f"{shown(path)} cannot be decoded as DICOM ({one_line(error)}); accepted: {_ACCEPTED}, "
            "whole. Export it to PNG, or install a decoder such as pylibjpeg"
        ) from error
    if frames != 1 or values.ndim != 2 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(
            f"{shown(path)} holds {frames} frame(s) of shape {values.shape} in "
            f"{photometric or 'an unnamed colour space'}; accepted: {_ACCEPTED}. Export the frame "
            "you mean to PNG"
        )
    return RawImage(_eight_bit(data, values, photometric), name=path.name)


def _eight_bit(data: Any, values: npt.NDArray[Any], photometric: str) -> npt.NDArray[np.uint8]:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    windowed = "WindowWidth" in data or "VOILUTSequence" in data
    values = apply_voi_lut(apply_modality_lut(values, data), data).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if windowed and "WindowWidth" in data and "VOILUTSequence" not in data:
        low, high = _range_of_window(data, low, high)
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    if photometric == "MONOCHROME1":
        scaled = 1.0 - scaled
    grey = np.rint(scaled.clip(0.0, 1.0) * 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _range_of_window(data: Any, low: float, high: float) -> tuple[float, float]:
    """The range that a windowed picture is mapped to: the stored range through the rescaling.

    DICOM PS3.3 C.11.2.1.2: the output of a window runs over what the stored bits can hold.
    """
    bits, signed = int(data.BitsStored), int(data.get("PixelRepresentation", 0)) == 1
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope = float(data.get("RescaleSlope", 1) or 1)
    intercept = float(data.get("RescaleIntercept", 0) or 0)
    ends = (least * slope + intercept, most * slope + intercept)
    return min(min(ends), low), max(max(ends), high)
