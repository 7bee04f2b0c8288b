"""Values of pictures to 8-bit RGB: what is black, what is white, and what is not said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from mmattrib.errors import InputError
from mmattrib.io.files import shown
from mmattrib.lazy import np, npt

if TYPE_CHECKING:
    from PIL import Image

Pixels: TypeAlias = "npt.NDArray[np.uint8]"

DEEP_FORMATS = (None, "PNG", "TIFF", "JPEG2000")
"""Formats (None: made in memory) whose PIL mode ``I;16`` is known to run from 0 to 65535."""

SCALED_FORMATS = ("PNG", "PPM")
"""Formats that pillow brings to 0 to 65535 although it calls their mode ``I``."""

_DEPTHS = (8, 10, 12, 14)  # that cameras and scanners put into 16 bits
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE = 258, 262, 339


@dataclass(frozen=True)
class Stored:
    """How a picture's file stores its values; pillow forgets it when the pixels are loaded.

    Attributes:
        name: of the picture, for messages.
        format: as pillow calls it; None for a picture made in memory.
        deep: 16 bits a channel, of which pillow keeps 8.
        white: the highest value of ``I;16`` pixels.
        inverted: the lowest value is white, and pillow has not turned it round.
        signed: whole numbers with a sign, which pillow reads as if without.
        scale: what pillow multiplies grey values of less than 8 bits by.
        notes: sentences for the user, added to while decoding.
    """

    name: object
    format: str | None = None
    deep: bool = False
    white: int = 65535
    inverted: bool = False
    signed: bool = False
    scale: int = 1
    notes: list[str] = field(default_factory=list)


def how_stored(image: Image.Image, name: object) -> Stored:
    """Read it off a PIL image that is not loaded yet; less is known of one that is."""
    tiles = getattr(image, "tile", None) or ()
    args = tiles[0][3] if tiles else ""
    raw = str(args[0] if isinstance(args, tuple) and args else args)
    scale = {"L;2": 85, "L;4": 17}.get(raw, 1) if image.format == "PNG" else 1
    deep = raw.partition(";")[2].startswith("16") and image.mode not in ("I;16", "I;16B", "I")
    tags: Any = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    if tags is None:
        return Stored(name, image.format, deep, scale=scale)
    bits = int(tags.get(_TIFF_BITS, (1,))[0])
    return Stored(
        name,
        image.format,
        deep,
        white=2**bits - 1 if 8 < bits <= 16 else 65535,
        inverted=tags.get(_TIFF_PHOTOMETRIC) == 0 and image.mode[0] in "IF",
        signed=bits == 8 and 2 in tags.get(_TIFF_SAMPLE, (1,)),
    )


def rgb_of_pil(image: Image.Image, stored: Stored) -> Pixels:
    """``(H, W, 3)`` uint8 of a loaded, upright PIL image.

    Raises:
        InputError: the mode or the format does not say which value is white.
    """
    from PIL import Image

    if stored.signed:
        raise InputError(
            f"{shown(stored.name)} holds signed 8-bit numbers; accepted: numbers without sign. "
            "Save it as 8 bits without sign, or give an array of floats in [0, 1]"
        )
    if image.mode.startswith("I"):
        return _of_whole_numbers(image, stored)
    if image.mode == "F":
        values = np.asarray(image)
        return rgb_of_array(1 - values if stored.inverted else values, stored.name, stored.notes)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = _transparent_colour(image, stored).convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    elif image.mode == "LAB":
        image = _lab_to_rgb(image)
    pixels = np.array(image.convert("RGB"), dtype=np.uint8)
    if stored.deep:
        _note_depth(int(pixels.max()) * 256 + 255, 65535, stored)
    else:
        _note_black(int(pixels.max()), stored.name, stored.notes)
    return pixels


def _of_whole_numbers(image: Image.Image, stored: Stored) -> Pixels:
    """Modes ``I;16`` (0 to 65535, or what a TIFF's bits hold) and ``I`` (where the format says)."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    known = SCALED_FORMATS if image.mode == "I" else DEEP_FORMATS
    if stored.format not in known or low < 0 or high > stored.white:
        raise InputError(
            f"{shown(stored.name)} holds whole numbers from {low} to {high} (PIL mode "
            f"{image.mode}), and nothing says which of them is white; accepted: 8 bits, 16-bit "
            "PNG or TIFF (mode I;16), or floats in [0, 1]. Divide by what is white, e.g. "
            f"numpy.asarray(image) / {_likely_white(low, high)}, and give that array"
        )
    _note_depth(high, stored.white, stored)
    table = (np.arange(stored.white + 1, dtype=np.int64) * 255 + stored.white // 2) // stored.white
    if stored.inverted:
        table = table[::-1]
    grey = table.astype(np.uint8)[values]
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return three(grey)


def _transparent_colour(image: Image.Image, stored: Stored) -> Image.Image:
    """With PNG's transparent colour in the numbers that pillow scaled the pixels to."""
    colour = image.info.get("transparency")
    if isinstance(colour, int) and stored.scale > 1:
        scaled: Any = colour * stored.scale
    elif isinstance(colour, tuple) and (stored.deep or max(colour, default=0) > 255):
        scaled = tuple(int(value) >> 8 for value in colour)
        stored.notes.append(
            f"{shown(stored.name)} has 16 bits a channel and a transparent colour; pillow keeps "
            "8 bits, so that colours within 1/256 of it are taken as transparent too. For the "
            "exact ones, save it with an alpha channel"
        )
    else:
        return image
    image = image.copy()  # the user's picture is left as it was
    image.info["transparency"] = scaled
    return image


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted: Any = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    return converted if converted is not None else image


def three(grey: npt.NDArray[Any]) -> Pixels:
    """``(H, W, 3)`` of ``(H, W)``."""
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def rgb_of_array(array: npt.NDArray[Any], name: object, notes: list[str]) -> Pixels:
    """``(H, W, 3)`` uint8 of ``(H, W, 1 | 3 | 4)`` or ``(H, W)``: uint8, bool, or float in [0, 1].

    Raises:
        InputError: NaN, infinite, floats beyond [0, 1], masked values, or another type.
    """
    if array.ndim == 2:
        array = array[:, :, None]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        array = _of_floats(array, name, notes)
    elif array.dtype != np.uint8:
        raise InputError(_other_type(array, name))
    else:
        _note_black(int(array[:, :, :3].max()), name, notes)
    if array.shape[2] == 1:
        return three(array[:, :, 0])
    if array.shape[2] == 3:
        return np.array(array)
    alpha = array[:, :, 3:].astype(np.uint16)
    blended = array[:, :, :3] * alpha + 255 * (255 - alpha)
    return ((blended + 127) // 255).astype(np.uint8)


def _of_floats(array: npt.NDArray[Any], name: object, notes: list[str]) -> Pixels:
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(
            f"{shown(name)} holds NaN or infinite values; accepted: floats in [0, 1]. "
            "Replace them first, e.g. with numpy.nan_to_num"
        )
    if low < -1e-6 or high > 1 + 1e-6:
        hint = "Divide by what is white, e.g. array / 255.0 for 8-bit values"
        if low < 0:
            hint = "Bring them there first, e.g. (array + 1) / 2 for values in [-1, 1]"
        raise InputError(
            f"{shown(name)} holds floats from {low:.4g} to {high:.4g}; accepted: [0, 1], where 1 "
            f"is white, or 0 to 255 as uint8. {hint}"
        )
    values = array.astype(np.float32)
    np.clip(values, 0, 1, out=values)
    values *= 255
    np.rint(values, out=values)
    if 0 < high < 1:
        _note_black(max(1, int(values[:, :, :3].max())), name, notes)
    return values.astype(np.uint8)


def _other_type(array: npt.NDArray[Any], name: object) -> str:
    what = f"{shown(name)} holds {array.dtype}"
    accepted = "accepted: uint8 (255 is white), bool, or float in [0, 1] (1 is white)"
    if array.dtype.kind not in "iu":
        return f"{what}; {accepted}. Convert it to one of them first"
    low, high = int(array.min()), int(array.max())
    hint = f"Divide by what is white, e.g. array / {_likely_white(low, high)}"
    if low >= 0 and high <= 1:
        hint = "For a mask of 0 and 1 give array.astype(bool)"
    elif low < 0:
        hint = "Bring them to [0, 1] first, e.g. (array - array.min()) / numpy.ptp(array)"
    return f"{what} from {low} to {high}, whose type does not say what is white; {accepted}. {hint}"


def _likely_white(low: int, high: int) -> str:
    bits = next((bits for bits in (*_DEPTHS, 16, 32) if high < 2**bits), 64)
    return f"{2**bits - 1}.0"


def _note_depth(high: int, white: int, stored: Stored) -> None:
    """Say so where values of 16 bits would fit into fewer: the picture is then nearly black."""
    bits = next((bits for bits in _DEPTHS if 0 < high < 2**bits), None)
    if bits is None or 2 ** (bits + 1) > white:
        return
    stored.notes.append(
        f"{shown(stored.name)} has no value above {high} of {white}, which {bits} bits would hold; "
        f"taken as it says, {white} is white, so that it is dark. If {2**bits - 1} is white, give "
        f"an array of floats: the picture's values / {2**bits - 1}"
    )


def _note_black(high: int, name: object, notes: list[str]) -> None:
    """Say so where the brightest value is the darkest above black: a mask, or scaled twice."""
    if high == 1:
        notes.append(
            f"{shown(name)} has no value above 1 of 255; taken as it says, it is nearly black. "
            "If 1 is white, give the array as bool or as floats in [0, 1]"
        )
