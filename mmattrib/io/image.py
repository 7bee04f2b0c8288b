"""Pictures: decoding files and arrays."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmattrib.errors import InputError
from mmattrib.io._files import existing_file, is_path, one_line, shown, unreadable
from mmattrib.types import RawImage

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 80_000_000
"""Largest picture accepted, in pixels: 240 MB decoded. Below pillow's own warning at 89 million,
so that this bound is the one a user meets; a small file may unpack to any size."""

ACCEPTED = "a file in any format that pillow reads (PNG, JPEG, WebP, GIF, TIFF, BMP, ...)"
_SOURCES = (
    f"{ACCEPTED}, a PIL image, a RawImage, or a numpy array (H, W), (H, W, 3) or (H, W, 4), "
    "uint8 or float in [0, 1]"
)


def load_image(source: object) -> RawImage:
    """Decode a picture to 8-bit RGB, upright.

    EXIF orientation is applied; of an animation the first frame is taken; transparent parts are
    laid over white; 16-bit greyscale is scaled from its full range, without stretching. Colour
    profiles are not applied, since the preprocessing that models were trained with ignores them.

    Args:
        source: a path, a PIL image, a numpy array ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``,
            uint8 or float in [0, 1], or a :class:`RawImage`. A path that ends in ``.dcm`` goes to
            :func:`mmattrib.io.dicom.load_dicom`.

    Returns:
        ``(H, W, 3)`` uint8 pixels, named after the file.

    Raises:
        InputError: no such file, not a picture, truncated, empty, or over :data:`MAX_PIXELS`.
    """
    if isinstance(source, RawImage):
        return _checked(source)
    if isinstance(source, np.ndarray):
        return RawImage(_from_array(source))
    if is_path(source):
        path = existing_file(source, "an image", ACCEPTED)
        if path.suffix.lower() in (".dcm", ".dicom"):
            from mmattrib.io.dicom import load_dicom

            return load_dicom(path)
        return RawImage(_decode_file(path), name=path.name)
    from PIL import Image

    if isinstance(source, Image.Image):
        name = Path(str(getattr(source, "filename", "") or "image")).name
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
    _check_size(pixels.shape[1], pixels.shape[0], raw.name)
    return raw


def _check_size(width: int, height: int, name: object) -> None:
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


def _decode_file(path: Path) -> npt.NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with path.open("rb") as stream, warnings.catch_warnings():
            # Pillow's warning about size is answered by our own bound, with a remedy.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            try:
                image = Image.open(stream)
            except Image.DecompressionBombError as error:
                raise InputError(
                    f"{shown(path)} unpacks to too many pixels ({one_line(error)}); accepted: up "
                    f"to {MAX_PIXELS // 1_000_000} million. Scale it down first"
                ) from error
            except UnidentifiedImageError as error:
                raise InputError(
                    f"{shown(path)} is not an image that can be read; accepted: {ACCEPTED}. "
                    "Convert it to PNG or JPEG first"
                ) from error
            with image:
                return _decode(image, path)
    except InputError:
        raise
    except PermissionError as error:
        raise unreadable(path, "an image", error) from error
    except Exception as error:  # a malformed header: each of pillow's readers raises its own
        raise _damaged(path, error) from error


def _damaged(name: object, error: Exception) -> InputError:
    return InputError(
        f"{shown(name)} is damaged or cut short and cannot be decoded ({one_line(error)}); "
        f"accepted: {ACCEPTED}, whole. Download or export it again"
    )


def _decode(image: Image.Image, name: object) -> npt.NDArray[np.uint8]:
    """``(H, W, 3)`` uint8 of a PIL image, which is left as it was."""
    _check_size(image.width, image.height, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata does not matter to the pixels
            image.load()
            if image.width < 1 or image.height < 1:
                _check_size(image.width, image.height, name)
            return _to_rgb(_upright(image), name)
    except InputError:
        raise
    except Exception as error:  # damaged data: each of pillow's decoders raises its own
        raise _damaged(name, error) from error


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block says nothing about the pixels, which decoded well
        return image


def _to_rgb(image: Image.Image, name: object) -> npt.NDArray[np.uint8]:
    from PIL import Image

    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise InputError(
                f"{shown(name)} holds whole numbers from {low} to {high}; accepted: 8 bits, or 16 "
                "bits without sign (0 to 65535). Rescale it first"
            )
        return _three((values * 255 + 32767) // 65535)
    if image.mode == "F":
        return _from_array(np.asarray(image), name)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    elif image.mode == "LAB":
        image = _lab_to_rgb(image)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted: Any = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    return converted if converted is not None else image


def _three(grey: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def _from_array(array: npt.NDArray[Any], name: object = "the image array") -> npt.NDArray[np.uint8]:
    """``(H, W, 3)`` uint8 of ``(H, W[, 1 | 3 | 4])``, uint8 or float in [0, 1]."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        hint = "give one picture of (H, W), (H, W, 3) or (H, W, 4)"
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "put the channels last: array.transpose(1, 2, 0)"
        raise InputError(
            f"{shown(name)} has shape {array.shape}; accepted: (H, W), (H, W, 3) or (H, W, 4). "
            f"Please {hint}"
        )
    _check_size(array.shape[1], array.shape[0], name)
    if np.issubdtype(array.dtype, np.floating):
        values = array.astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError(
                f"{shown(name)} holds NaN or infinite values; accepted: floats in [0, 1]. "
                "Replace them first, e.g. with numpy.nan_to_num"
            )
        low, high = float(values.min()), float(values.max())
        if low < -1e-6 or high > 1 + 1e-6:
            raise InputError(
                f"{shown(name)} holds floats from {low:.4g} to {high:.4g}; accepted: [0, 1]. "
                "Rescale them, or give 0 to 255 as uint8"
            )
        array = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(
            f"{shown(name)} holds {array.dtype}; accepted: uint8, or float in [0, 1]. "
            "Convert it first, e.g. with array.astype(numpy.uint8)"
        )
    if array.shape[2] == 1:
        return _three(array[:, :, 0])
    if array.shape[2] == 3:
        return np.array(array)
    alpha = array[:, :, 3:].astype(np.uint16)
    blended = array[:, :, :3] * alpha + 255 * (255 - alpha)
    return ((blended + 127) // 255).astype(np.uint8)
