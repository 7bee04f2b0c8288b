"""Decode radiographs from DICOM files (needs the ``dicom`` extra)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmattrib.errors import InputError, MissingExtraError
from mmattrib.io.files import existing_file, note, one_line, shown, without_warnings
from mmattrib.types import RawImage

MAX_BYTES = 1 << 30
"""Largest DICOM file accepted: a header may announce anything, and all of it is read."""

_ACCEPTED = "a DICOM file with one greyscale picture"


def load_dicom(source: object) -> RawImage:
    """Decode a greyscale radiograph to 8 bits, as a viewer shows it (DICOM PS3.3 C.7.6.3, C.11).

    In this order:

    =============================  ==============================================================
    Bits Stored, High Bit          bits outside of them are dropped, the sign is kept
    Pixel Padding Value and Range  such pixels are no part of the picture: black, and not counted
    Modality LUT, Rescale          applied; a slope of 0 or what is no finite number is refused
    VOI LUT                        its lowest output is black, the most that its bits hold white
    Window Center and Width        the window's ends are black and white (linear, linear exact or
                                   sigmoid); of several windows the first; a malformed one refused
    neither VOI LUT nor window     the lowest value present is black, the highest white
    MONOCHROME1                    inverted, so that bone is bright
    =============================  ==============================================================

    An :class:`~mmattrib.errors.InputWarning` comes where there is no window and a few outlying
    values leave less than a tenth of the greys to nearly all pixels.

    Args:
        source: a path.

    Returns:
        ``(H, W, 3)`` uint8 pixels, named after the file.

    Raises:
        MissingExtraError: pydicom is not installed.
        InputError: not a DICOM file, no picture, several frames, colour or palette, too large,
            nothing but padding, a malformed tag, a deflated file, or a compression that nothing
            installed decodes.
    """
    path = existing_file(source, "a radiograph", _ACCEPTED)
    notes: list[str] = []
    try:
        with without_warnings():  # pydicom's, about odd tags that do not matter to the pixels
            data = _read(path)
            values = _stored(data, path)
            grey = _grey(data, values, path, notes)
    except (InputError, MissingExtraError):
        raise
    except Exception as error:  # pydicom and its decoders raise errors of many kinds
        raise InputError(
            f"{shown(path)} cannot be decoded as DICOM ({one_line(error)}); accepted: {_ACCEPTED}, "
            "whole. Export it to PNG, or install a decoder such as pylibjpeg"
        ) from error
    note(notes)
    return RawImage(np.repeat(grey[:, :, None], 3, axis=2), name=shown(path.name))


def _read(path: Path) -> Any:
    """The data set, refused before its pixels are unpacked where they would not do."""
    try:
        import pydicom
        from pydicom.filereader import read_file_meta_info
    except ImportError as error:
        raise MissingExtraError(
            f"{shown(path)} is DICOM, which needs pydicom; install it with: "
            "pip install 'mmattrib[dicom]'"
        ) from error
    from mmattrib.io.image import check_size

    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(
            f"{shown(path)} has {size:,} bytes; accepted: {_ACCEPTED} of up to {MAX_BYTES:,}. "
            "Export the picture you mean to PNG"
        )
    if "Deflate" in getattr(read_file_meta_info(path).get("TransferSyntaxUID"), "name", ""):
        raise InputError(
            f"{shown(path)} is a deflated DICOM file, which may unpack to any size; accepted: "
            f"{_ACCEPTED}, not deflated. Export it to PNG"
        )
    data = pydicom.dcmread(path)
    photometric = str(data.get("PhotometricInterpretation", ""))
    frames = int(data.get("NumberOfFrames", 1) or 1)
    samples = int(data.get("SamplesPerPixel", 1) or 1)
    if frames != 1 or samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(
            f"{shown(path)} holds {frames} frame(s) of {samples} channel(s) in "
            f"{shown(photometric) or 'an unnamed colour space'}; accepted: {_ACCEPTED}. Export "
            "the frame you mean to PNG"
        )
    check_size(int(data.Columns), int(data.Rows), path)
    return data


def _stored(data: Any, path: Path) -> npt.NDArray[Any]:
    from pydicom.pixels import pixel_array

    # padding may lie outside of the stored bits, which are cut out later
    values: npt.NDArray[Any] = pixel_array(data, correct_unused_bits=False)
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise InputError(
            f"{shown(path)} holds pixels of shape {values.shape}; accepted: {_ACCEPTED}. Export "
            "the frame you mean to PNG"
        )
    return values


def _grey(
    data: Any, values: npt.NDArray[Any], path: Path, notes: list[str]
) -> npt.NDArray[np.uint8]:
    """``(H, W)`` uint8 of the values as they are stored."""
    from pydicom.pixels import apply_voi

    meant = _within_bits(data, values, path)
    padding = _padding(data, values) | _padding(data, meant)
    if padding.all():
        raise InputError(
            f"{shown(path)} holds nothing but padding (tag PixelPaddingValue); accepted: "
            f"{_ACCEPTED}. Repair the tag, or export the picture to PNG"
        )
    scaled = _rescaled(data, meant, path)
    if data.get("VOILUTSequence"):
        bits = int(data.VOILUTSequence[0].LUTDescriptor[2])
        share = apply_voi(np.rint(scaled).astype(np.int64), data) / float(2**bits - 1)
    elif data.get("WindowWidth") is not None or data.get("WindowCenter") is not None:
        share = _windowed(data, scaled, path)
    else:
        share = _stretched(scaled, padding, path, notes)
    share = np.clip(share, 0.0, 1.0)
    if str(data.PhotometricInterpretation) == "MONOCHROME1":
        share = 1.0 - share
    share[padding] = 0.0
    grey: npt.NDArray[np.uint8] = np.rint(share * 255).astype(np.uint8)
    return grey


def _within_bits(data: Any, values: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """Without the bits that are not the value's: old files keep overlays there (PS3.5 8.1.1)."""
    if values.dtype.kind == "f":
        return values
    allocated = int(data.BitsAllocated)
    stored = int(data.BitsStored)
    packed = data.file_meta.TransferSyntaxUID.is_encapsulated  # decoders put the value lowest
    high = stored - 1 if packed else int(data.get("HighBit", stored - 1))
    if not 1 <= stored <= high + 1 <= allocated:
        raise _malformed(path, "BitsStored", f"{stored} of {allocated}, HighBit {high}")
    if allocated != 8 * values.dtype.itemsize or stored == allocated:
        return values
    return (values << (allocated - high - 1)) >> (allocated - stored)


def _padding(data: Any, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Pixels that only fill the rectangle: one value, or all from it to the range's limit."""
    name = "FloatPixelPadding" if values.dtype.kind == "f" else "PixelPadding"
    first = data.get(f"{name}Value")
    if first is None:
        return np.zeros(values.shape, dtype=np.bool_)
    limit = data.get(f"{name}RangeLimit")
    ends = [float(end) for end in (first, first if limit is None else limit)]
    if values.dtype.kind != "f":
        bounds, count = np.iinfo(values.dtype), float(2 ** (8 * values.dtype.itemsize))
        for place, end in enumerate(ends):  # with the other sign than the pixels: the same bits
            if bounds.min < 0 and bounds.max < end < count:
                ends[place] = end - count
            elif bounds.min == 0 and -count / 2 <= end < 0:
                ends[place] = end + count
    return (values >= min(ends)) & (values <= max(ends))


def _rescaled(data: Any, values: npt.NDArray[Any], path: Path) -> npt.NDArray[np.float64]:
    from pydicom.pixels import apply_modality_lut

    if data.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(values, data), dtype=np.float64)
    slope = _number(data, "RescaleSlope", 1.0, path)
    intercept = _number(data, "RescaleIntercept", 0.0, path)
    if slope == 0:
        raise _malformed(path, "RescaleSlope", "0")
    scaled = values.astype(np.float64) * slope + intercept
    if not np.isfinite(scaled).all():
        raise InputError(
            f"{shown(path)} holds NaN or infinite values; accepted: {_ACCEPTED} of finite values. "
            "Repair it, or export it to PNG as a viewer shows it"
        )
    return scaled


def _windowed(data: Any, values: npt.NDArray[np.float64], path: Path) -> npt.NDArray[np.float64]:
    """Share of white of each value behind the first window (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    centre = _number(data, "WindowCenter", math.nan, path)
    width = _number(data, "WindowWidth", math.nan, path)
    function = str(data.get("VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise _malformed(path, "VOILUTFunction", function)
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise _malformed(path, "WindowWidth", width)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return np.where(values > centre, 1.0, 0.0)
    return (values - centre) / width + 0.5


def _stretched(
    values: npt.NDArray[np.float64],
    padding: npt.NDArray[np.bool_],
    path: Path,
    notes: list[str],
) -> npt.NDArray[np.float64]:
    """From the lowest value present to the highest, with a word where outliers take it all."""
    seen = values[~padding]
    low, high = float(seen.min()), float(seen.max())
    if high == low:
        notes.append(f"{shown(path)} holds the one value {low:g}, so that its picture is even")
        return np.zeros_like(values)
    inner = np.quantile(seen, (0.01, 0.99))
    share = float(inner[1] - inner[0]) / (high - low)
    if share < 0.1:
        notes.append(
            f"{shown(path)} has no window, and 98 % of its pixels lie within {share:.1%} of the "
            f"values present ({low:g} to {high:g}), which were taken as black and white: it shows "
            "little. Set WindowCenter and WindowWidth or PixelPaddingValue, or export it to PNG"
        )
    return (values - low) / (high - low)


def _number(data: Any, tag: str, default: float, path: Path) -> float:
    """A tag's first number; the default where the tag is absent or empty."""
    value = data.get(tag)
    if value is not None and not isinstance(value, str | int | float) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    number = default if value is None or value == "" else float(value)
    if not math.isfinite(number):
        raise _malformed(path, tag, "missing" if value is None else number)
    return number


def _malformed(path: Path, tag: str, value: object) -> InputError:
    return InputError(
        f"the tag {tag} of {shown(path)} is {shown(value)}, which has no meaning; accepted: what "
        "DICOM allows. Repair it, or export the picture to PNG as a viewer shows it"
    )
