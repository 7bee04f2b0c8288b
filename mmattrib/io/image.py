"""Pictures: decoding files and arrays."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mmattrib.errors import InputError
from mmattrib.io._pixels import Pixels, how_stored, rgb_of_array, rgb_of_pil
from mmattrib.io.files import (
    Encoded,
    existing_file,
    is_path,
    note,
    one_line,
    shown,
    unreadable,
    without_warnings,
)
from mmattrib.lazy import np, npt
from mmattrib.types import RawImage

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 80_000_000
"""Largest picture accepted, in pixels: 240 MB decoded. Below pillow's own warning at 89 million,
so that this bound is the one a user meets; a small file may unpack to any size."""

ACCEPTED = "a file in any format that pillow reads (PNG, JPEG, WebP, GIF, TIFF, BMP, ...)"
_SOURCES = (
    f"{ACCEPTED}, a PIL image, a RawImage, or a numpy array (H, W), (H, W, 3) or (H, W, 4), "
    "uint8, bool, or float in [0, 1]"
)


def load_image(source: object) -> RawImage:
    """Decode a picture to 8-bit RGB, upright.

    EXIF orientation is applied; of an animation the first frame is taken; transparent parts are
    laid over white. Colour profiles are not applied, since the preprocessing that models were
    trained with ignores them. EPS is not read, since pillow runs another program for it.

    What is black and what is white follows from the type alone, never from the values:

    ======================================  =====  ==============================================
    source                                  black  white
    ======================================  =====  ==============================================
    uint8 array, 8-bit file                 0      255
    bool array, 1-bit file                  False  True
    float array, float file (PIL ``F``)     0.0    1.0; values beyond are refused
    16-bit PNG, TIFF, JPEG 2000, ``I;16``   0      65535
    TIFF of 9 to 15 bits                    0      the most that its bits hold
    PGM and PPM                             0      the maximum that the file states
    TIFF with white as its lowest value     most   0
    other whole numbers (PIL ``I``, uint16  refused: the type does not say what is white; divide
    and wider arrays, signed numbers)       by it and give floats
    DICOM                                   see :func:`mmattrib.io.dicom.load_dicom`
    ======================================  =====  ==============================================

    An :class:`~mmattrib.errors.InputWarning` comes where the values suggest another white: a 16-bit
    picture without a value above 14 bits, or an 8-bit one without a value above 1.

    Args:
        source: a path, a PIL image, a numpy array ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or
            ``(H, W, 4)``, an :class:`Encoded`, or a :class:`RawImage`. A path that ends in ``.dcm``
            or ``.dicom`` goes to :func:`mmattrib.io.dicom.load_dicom`.

    Returns:
        ``(H, W, 3)`` uint8 pixels, named after the file.

    Raises:
        InputError: no such file, not a picture, truncated, empty, over :data:`MAX_PIXELS`, or of
            values whose range is not known.
    """
    if isinstance(source, RawImage):
        return _checked(source)
    if isinstance(source, np.ndarray):
        return RawImage(_from_array(source))
    if isinstance(source, Encoded):
        pixels = _decode_file(lambda: io.BytesIO(source.data), source.name)
        return RawImage(pixels, name=shown(source.name))
    if is_path(source):
        path = existing_file(source, "an image", ACCEPTED)
        if path.suffix.lower() in (".dcm", ".dicom"):
            from mmattrib.io.dicom import load_dicom

            return load_dicom(path)
        return RawImage(_decode_file(lambda: path.open("rb"), path), name=shown(path.name))
    from PIL import Image

    if isinstance(source, Image.Image):
        name = shown(Path(str(getattr(source, "filename", "") or "image")).name)
        return RawImage(_decode(source, name), name=name)
    raise InputError(
        f"cannot use {type(source).__name__} as an image; accepted: {_SOURCES}. "
        "Convert it first, e.g. a tensor with .permute(1, 2, 0).numpy()"
    )


def _checked(raw: RawImage) -> RawImage:
    pixels = raw.pixels
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise InputError(
            f"the pixels of {shown(raw.name)} must be a (H, W, 3) uint8 array; "
            "let load_image make the RawImage from your array"
        )
    if pixels.shape[2] != 3:
        raise InputError(
            f"the pixels of {shown(raw.name)} have shape {pixels.shape}; accepted: (H, W, 3). "
            "Let load_image make the RawImage from your array"
        )
    check_size(pixels.shape[1], pixels.shape[0], raw.name)
    return raw


def check_size(width: int, height: int, name: object) -> None:
    """Refuse a picture without pixels, or with more than :data:`MAX_PIXELS`.

    Raises:
        InputError: either.
    """
    if width < 1 or height < 1:
        raise InputError(
            f"{shown(name)} is {width} x {height} pixels, so there is nothing to see; accepted: "
            "at least 1 x 1. Give another picture"
        )
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{shown(name)} is {width} x {height} pixels, {width * height / 1e6:.0f} million; "
            f"accepted: up to {MAX_PIXELS // 1_000_000} million. Scale it down first: models see "
            "a few hundred pixels across"
        )


def _decode_file(opened: Callable[[], IO[bytes]], name: object) -> Pixels:
    from PIL import Image, UnidentifiedImageError

    try:
        with opened() as stream:
            try:
                with without_warnings():  # pillow's about size is answered by our own bound
                    image = Image.open(stream, formats=_formats())
            except Image.DecompressionBombError as error:
                raise InputError(
                    f"{shown(name)} unpacks to too many pixels ({one_line(error)}); accepted: up "
                    f"to {MAX_PIXELS // 1_000_000} million. Scale it down first"
                ) from error
            except UnidentifiedImageError as error:
                raise InputError(
                    f"{shown(name)} is not an image that can be read; accepted: {ACCEPTED}. "
                    "Convert it to PNG or JPEG first"
                ) from error
            with image:
                return _decode(image, name)
    except InputError:
        raise
    except PermissionError as error:
        raise unreadable(name, "an image", error) from error
    except Exception as error:  # a malformed header: each of pillow's readers raises its own
        raise _damaged(name, error) from error


def _damaged(name: object, error: Exception) -> InputError:
    return InputError(
        f"{shown(name)} is damaged or cut short and cannot be decoded ({one_line(error)}); "
        f"accepted: {ACCEPTED}, whole. Download or export it again"
    )


def _formats() -> list[str]:
    from PIL import Image

    Image.init()
    return [name for name in Image.OPEN if name != "EPS"]  # for EPS, pillow runs Ghostscript


def _decode(image: Image.Image, name: object) -> Pixels:
    """``(H, W, 3)`` uint8 of a PIL image, which is left as it was."""
    check_size(image.width, image.height, name)
    try:
        with without_warnings():  # odd metadata does not matter to the pixels
            stored = how_stored(image, name)
            image.load()
            check_size(image.width, image.height, name)  # an icon may hold a larger picture
            pixels = rgb_of_pil(_upright(image), stored)
    except InputError:
        raise
    except Exception as error:  # damaged data: each of pillow's decoders raises its own
        raise _damaged(name, error) from error
    note(stored.notes)
    return pixels


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block says nothing about the pixels, which decoded well
        return image


def _from_array(given: npt.NDArray[Any], name: object = "the image array") -> Pixels:
    """``(H, W, 3)`` uint8 of ``(H, W[, 1 | 3 | 4])``."""
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise InputError(
            f"{shown(name)} has masked values; accepted: an array in which every value counts. "
            "Fill them first, with array.filled(value)"
        )
    array = np.asarray(given)
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (1, 3, 4)):
        hint = "give one picture of (H, W), (H, W, 3) or (H, W, 4)"
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "put the channels last: array.transpose(1, 2, 0)"
        raise InputError(
            f"{shown(name)} has shape {array.shape}; accepted: (H, W), (H, W, 3) or (H, W, 4). "
            f"Please {hint}"
        )
    check_size(array.shape[1], array.shape[0], name)
    notes: list[str] = []
    pixels = rgb_of_array(array, name, notes)
    note(notes)
    return pixels
