"""Regions that data sets describe: outlines, run lengths, pictures of masks, boxes as shares."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mmattrib.errors import InputError, InputWarning, brief, repr_of
from mmattrib.io import Encoded
from mmattrib.io.image import MAX_PIXELS
from mmattrib.lazy import np
from mmattrib.samples import BoxRegion, MaskRegion, Region

if TYPE_CHECKING:
    from mmattrib.types import Attribution, Axis, BoolArray

MAX_RUNS: Final = 2**24
"""Of run lengths: characters where they are compressed, numbers where they are a list."""

MAX_NUMBERS: Final = 2**18
"""Of all polygons of a picture."""

MAX_CROSSINGS: Final = 2**20
"""Rows that the edges of all polygons of a picture cross, which is what filling them costs."""


@dataclass(frozen=True, eq=False)
class Outlines(Region):
    """Polygons and run lengths on a picture, filled when a map is scored against them.

    Attributes:
        shapes: polygons as x and y in turn, or ``{"counts": run lengths, "size": [h, w]}``.
        size: height and width of the picture.
        scaled: whether the picture at hand may have another size than it had when the outlines
            were drawn; they are then laid on it as shares of its height and width.
    """

    shapes: tuple[Any, ...]
    size: tuple[int, int]
    scaled: bool = False

    __repr__ = repr_of()

    def mask(self) -> BoolArray:
        """``(h, w)`` bool: a pixel belongs to it where any shape covers it."""
        from PIL import Image, ImageDraw

        height, width = self.size
        canvas = Image.new("1", (width, height))
        draw = ImageDraw.Draw(canvas)
        runs = np.zeros(self.size, dtype=bool)
        for shape in self.shapes:
            if isinstance(shape, dict):
                runs |= _run_lengths(shape["counts"], self.size)
            else:
                draw.polygon(list(zip(shape[::2], shape[1::2], strict=True)), fill=1)
        filled: BoolArray = runs | np.asarray(canvas)
        return filled

    def on(self, attribution: Attribution) -> BoolArray:
        mask = self.mask()
        if self.scaled and mask.shape != attribution.shape:
            rows, columns = _on_pixels(attribution)
            mask = mask[np.ix_(_places(rows, mask.shape[0]), _places(columns, mask.shape[1]))]
        return MaskRegion(mask).on(attribution)


class RelativeBox(BoxRegion):
    """A rectangle with edges in shares of a picture's height and width, whatever size it has."""

    def on(self, attribution: Attribution) -> BoolArray:
        rows, columns = _on_pixels(attribution)
        height, width = _extent(rows), _extent(columns)
        return BoxRegion(
            self.top * height, self.left * width, self.bottom * height, self.right * width
        ).on(attribution)


@dataclass(frozen=True)
class MaskFile(Region):
    """The pixels of a picture that are not black, read when a map is scored against them."""

    path: Path

    def on(self, attribution: Attribution) -> BoolArray:
        from mmattrib.io import load_image

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)  # 0 and 1 are as good as 0 and 255 here
            pixels = load_image(self.path).pixels
        return MaskRegion(pixels.max(axis=2) > 0).on(attribution)


def _on_pixels(attribution: Attribution) -> tuple[Axis, Axis]:
    if len(attribution.axes) != 2 or attribution.axes[0].unit != "px":
        raise InputError(f"a region of a picture lies on pictures, not on {attribution.modality}")
    return attribution.axes[0], attribution.axes[1]


def _extent(axis: Axis) -> float:
    """Length of an axis whose values are centres of its cells."""
    return float(axis.values[0]) + float(axis.values[-1])


def _places(axis: Axis, count: int) -> Any:
    """For each cell of an axis, which of ``count`` equal pieces of its length it lies in."""
    shares = np.asarray(axis.values, np.float64) / _extent(axis)
    return np.clip((shares * count).astype(np.int64), 0, count - 1)


def _run_lengths(counts: Sequence[int], size: tuple[int, int]) -> BoolArray:
    """COCO's run lengths: off and on in turn, column by column."""
    values = np.arange(len(counts)) % 2 == 1
    flat: BoolArray = np.repeat(values, counts)
    mask: BoolArray = flat.reshape(size[::-1]).T
    return mask


def check_picture_size(height: int, width: int, what: str) -> tuple[int, int]:
    """Height and width that an index states, within what pictures may have.

    Raises:
        InputError: they are not.
    """
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise InputError(
            f"{what} has {brief(height)} x {brief(width)} pixels; accepted: 1 to {MAX_PIXELS} in "
            "all"
        )
    return height, width


def run_lengths(given: Mapping[str, Any], size: tuple[int, int], where: str) -> dict[str, Any]:
    """COCO's run lengths of a mask, as a list or compressed to text, checked and as a list.

    Args:
        given: ``{"counts": list or text, "size": [h, w]}``; the size may be left out.
        size: height and width of the picture.
        where: what messages call them.

    Raises:
        InputError: they do not fill the picture, or are broken.
    """
    counts = given["counts"]
    if isinstance(counts, str):
        counts = list(_uncompressed(counts, where))
    if not isinstance(counts, list) or len(counts) > MAX_RUNS:
        raise InputError(f"{where} has no list of up to {MAX_RUNS:,} run lengths")
    if any(isinstance(count, bool) or not isinstance(count, int) for count in counts):
        raise InputError(f"{where} has run lengths that are no whole numbers")
    if sum(counts) != size[0] * size[1]:
        raise InputError(f"{where} has run lengths that do not fill the picture")
    if min(counts) < 0:
        raise InputError(f"{where} has a run length below 0")
    if (stated := given.get("size")) is not None and list(stated) != list(size):
        raise InputError(
            f"{where} has run lengths of a picture of {brief(stated)}, height and width; this one "
            f"has {list(size)}"
        )
    return {"counts": counts}


def _uncompressed(text: str, where: str) -> Iterator[int]:
    """The numbers in COCO's compressed run lengths.

    Each is written five bits a character, the lowest first, with 48 added; the sixth bit says that
    more follow, and the highest of the last five is the sign. From the fourth on, what is written
    is the difference from the number two before.
    """
    if len(text) > MAX_RUNS:
        raise InputError(f"{where} has more than {MAX_RUNS:,} characters of run lengths")
    before, last, value, shift, number = 0, 0, 0, 0, 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise InputError(f"{where} has compressed run lengths that are broken")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if number > 2:
            value += before
        before, last = last, value
        yield value
        value, shift, number = 0, 0, number + 1
    if shift:
        raise InputError(f"{where} has compressed run lengths that are cut short")


class Polygons:
    """The polygons of one picture, checked one by one as they come.

    What lies outside of the picture is cut off when they are filled; one that reaches farther
    outside than the picture is large belongs to another picture, or is broken.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """Start without any.

        Args:
            size: height and width of the picture.
        """
        self.size = size
        self._numbers = 0
        self._crossings = 0.0

    def checked(self, points: Sequence[Any], where: str) -> tuple[float, ...]:
        """A polygon as x and y in turn.

        Args:
            points: the numbers.
            where: what messages call it.

        Raises:
            InputError: fewer than three points, numbers that are not finite or lie far outside of
                the picture, or, with the polygons before, more than :data:`MAX_NUMBERS` or
                :data:`MAX_CROSSINGS`.
        """
        self._numbers += len(points)
        if self._numbers > MAX_NUMBERS:
            raise InputError(
                f"{where} brings the polygons of its picture to more than {MAX_NUMBERS:,} numbers; "
                "give them as run lengths"
            )
        found = np.asarray([float(number) for number in points])
        if len(found) < 6 or len(found) % 2 or not np.isfinite(found).all():
            raise InputError(f"{where} has a polygon that is not three points or more")
        height, width = self.size
        x, y = found[::2], found[1::2]
        if x.min() < -width or x.max() > 2 * width or y.min() < -height or y.max() > 2 * height:
            raise InputError(
                f"{where} has a polygon from x {x.min():g} to {x.max():g} and y {y.min():g} to "
                f"{y.max():g}, far outside of its picture of {width} x {height} pixels"
            )
        self._crossings += float(np.abs(np.diff(y)).sum()) + len(y)
        if self._crossings > MAX_CROSSINGS:
            raise InputError(
                f"{where} brings the edges of its picture's polygons to more than "
                f"{MAX_CROSSINGS:,} rows; give them as run lengths"
            )
        return tuple(found.tolist())


def box_in(
    left: float,
    top: float,
    right: float,
    bottom: float,
    width: float,
    height: float,
    slack: float = 1.0,
) -> RelativeBox:
    """A box of an index as shares of the size that the index states for the picture.

    Boxes are drawn by hand and rounded: one that reaches outside by up to ``slack`` is cut there.

    Raises:
        InputError: it has no area, or reaches farther outside.
    """
    edges = (left, top, right, bottom)
    shown = " ".join(f"{edge:g}" for edge in edges)
    if not all(map(math.isfinite, edges)) or not (left < right and top < bottom):
        raise InputError(f"box {shown} has no area")
    if min(left, top) < -slack or right > width + slack or bottom > height + slack:
        raise InputError(
            f"box {shown} reaches outside of the picture of {width:g} x {height:g} pixels"
        )
    x = [min(max(edge / width, 0.0), 1.0) for edge in (left, right)]
    y = [min(max(edge / height, 0.0), 1.0) for edge in (top, bottom)]
    if not (x[0] < x[1] and y[0] < y[1]):
        raise InputError(f"box {shown} has no area in the picture of {width:g} x {height:g} pixels")
    return RelativeBox(y[0], x[0], y[1], x[1])


def picture_size(given: Any) -> tuple[int, int] | None:
    """Width and height of a picture, as it is shown; None where they cannot be read.

    Args:
        given: what :func:`mmattrib.io.load_image` takes. Of a file the head alone is read; of a
            DICOM file it needs pydicom.
    """
    if isinstance(given, np.ndarray):
        return given.shape[1], given.shape[0]
    if isinstance(given, Path) and given.suffix.lower() in (".dcm", ".dicom"):
        return _dicom_size(given)
    from PIL import Image

    try:
        if isinstance(given, Image.Image):
            return _upright_size(given)
        with Image.open(BytesIO(given.data) if isinstance(given, Encoded) else given) as image:
            return _upright_size(image)
    except Exception:  # whatever pillow raises: the file names itself when it is decoded
        return None


def _upright_size(image: Any) -> tuple[int, int]:
    lying = image.getexif().get(0x0112, 1) >= 5  # on its side
    width, height = image.size
    return (height, width) if lying else (width, height)


def _dicom_size(path: Path) -> tuple[int, int] | None:
    try:
        import pydicom

        data = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["Rows", "Columns"], defer_size=1024
        )
        return int(data.Columns), int(data.Rows)
    except Exception:  # not installed, or broken: the file names itself when it is decoded
        return None


def check_shape(path: Path, size: tuple[int, int]) -> None:
    """Whether a picture may be another one only scaled: its sides have the same proportions.

    Args:
        path: of the picture.
        size: width and height of the original.

    Raises:
        InputError: the proportions differ by more than rounding explains, so that boxes on the
            original do not tell where they lie on this one.
    """
    found = picture_size(path)
    if found is None or found == size:
        return
    slack = 1 / min(found) + 1 / min(size)
    if abs(math.log(found[0] / found[1] * size[1] / size[0])) > slack:
        raise InputError(
            f"the picture has {found[0]} x {found[1]} pixels, and its boxes were drawn on "
            f"{size[0]} x {size[1]}: it was cut or padded, not only scaled. Where the reader takes "
            "stretched=true, that says that it was scaled to other proportions"
        )
