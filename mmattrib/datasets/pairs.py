"""A folder of inputs that belong together: ``pairs.csv`` and the files that it names.

One row is one sample. Columns ``image`` and ``audio`` hold paths relative to the folder, ``text`` a
caption; two of them are needed, and a cell may be empty. Optional: ``id``; ``mask``, the path of a
picture of the image's size whose pixels, where not black, are what the others share; ``boxes``,
rectangles ``left top right bottom`` in pixels, separated by ``;``. Other columns are kept as tags.
"""

from __future__ import annotations

import csv
import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmattrib.datasets.base import Dataset
from mmattrib.errors import InputError, InputWarning, OptionError
from mmattrib.files import is_file, is_folder
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import BoxRegion, MaskRegion, Part, Region, Sample, Truth

if TYPE_CHECKING:
    from mmattrib.types import Attribution, BoolArray, JSONValue

INDEX = "pairs.csv"
INPUTS = ("image", "audio", "text")
KNOWN = (*INPUTS, "id", "mask", "boxes")
MAX_ROWS = 10_000_000
"""Most rows that are read: a bound, since the file may come from strangers."""


class PairsDataset(Dataset):
    """The rows of a folder's ``pairs.csv``, checked when it is opened and decoded when needed."""

    name = "pairs"

    def __init__(self, folder: str | Path) -> None:
        """Open a folder.

        Args:
            folder: holds ``pairs.csv``; or the path of a CSV file itself.

        Raises:
            InputError: the file is missing or broken; a row names a file that is missing, repeats
                an id, or has fewer than two inputs. The message names the line.
            OptionError: ``folder`` is no path.
        """
        if not isinstance(folder, str | Path):
            raise OptionError(f"folder must be a path, got {type(folder).__name__}")
        given = Path(folder).expanduser()
        self.index = given / INDEX if is_folder(given) else given
        self.folder = self.index.parent
        if not is_file(self.index):
            raise InputError(f"{self.index} is missing; a folder with a {INDEX} is accepted")
        self._rows = list(self._read())
        if not self._rows:
            raise InputError(f"{self.index} has no rows below its head")

    def __iter__(self) -> Iterator[Sample]:
        for line, row in self._rows:
            yield self._sample(line, row)

    def size(self) -> int:
        return len(self._rows)

    def describe(self) -> dict[str, JSONValue]:
        digest = hashlib.sha256()
        for _, row in self._rows:
            digest.update(repr(sorted(row.items())).encode())
            for column in ("image", "audio", "mask"):
                if row.get(column):
                    digest.update((self.folder / row[column]).read_bytes())
        return {"rows": len(self._rows), "sha256": digest.hexdigest()}

    def _read(self) -> Iterator[tuple[int, dict[str, str]]]:
        seen: dict[str, int] = {}
        try:
            with self.index.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, strict=True)
                self._check_head(reader.fieldnames or ())
                for row in reader:
                    line = reader.line_num
                    if line > MAX_ROWS:
                        raise InputError(f"{self.index} has more than {MAX_ROWS} lines; split it")
                    clean = {k: (v or "").strip() for k, v in row.items() if k is not None}
                    if None in row:
                        raise self._broken(line, "more cells than the head has columns")
                    name = clean.setdefault("id", "") or f"line-{line}"
                    if name in seen:
                        raise self._broken(line, f"id {name!r} stands in line {seen[name]} too")
                    seen[name] = line
                    self._check_row(line, clean)
                    yield line, {**clean, "id": name}
        except (csv.Error, UnicodeError) as error:
            raise InputError(f"{self.index} is no CSV file in UTF-8: {error}") from error

    def _check_head(self, names: Any) -> None:
        if sum(name in INPUTS for name in names) < 2 or len(set(names)) < len(names):
            raise InputError(
                f"{self.index} has the columns {', '.join(map(str, names)) or 'none'}; accepted: "
                f"two or more of {', '.join(INPUTS)}, each once, and optional id, mask, boxes"
            )

    def _check_row(self, line: int, row: Mapping[str, str]) -> None:
        if sum(bool(row.get(name)) for name in INPUTS) < 2:
            raise self._broken(line, f"fewer than two of {', '.join(INPUTS)} are given")
        for column in ("image", "audio", "mask"):
            if row.get(column) and not is_file(self.folder / row[column]):
                raise self._broken(line, f"{column} {row[column]!r} is missing")
        if (row.get("mask") or row.get("boxes")) and not row.get("image"):
            raise self._broken(line, "a mask or boxes are given without an image")
        if row.get("mask") or row.get("boxes"):
            self._check_sizes(line, row)

    def _boxes(self, line: int, row: Mapping[str, str]) -> tuple[BoxRegion, ...]:
        found = []
        for text in filter(None, (part.strip() for part in row.get("boxes", "").split(";"))):
            try:
                left, top, right, bottom = (
                    float(number) for number in text.replace(",", " ").split()
                )
            except ValueError:
                raise self._broken(
                    line, f"box {text!r} is not four numbers: left top right bottom"
                ) from None
            if not (0 <= left < right < math.inf and 0 <= top < bottom < math.inf):
                raise self._broken(
                    line, f"box {text!r} has no area, or lies outside of every picture"
                )
            found.append(BoxRegion(top, left, bottom, right))
        return tuple(found)

    def _sample(self, line: int, row: Mapping[str, str]) -> Sample:
        inputs: dict[str, Any] = {
            name: row[name] if name == "text" else self.folder / row[name]
            for name in INPUTS
            if row.get(name)
        }
        regions: list[Region] = list(self._boxes(line, row))
        if row.get("mask"):
            regions.append(MaskFile(self.folder / row["mask"]))
        truth = {"image": Truth((Part(tuple(regions)),))} if regions else {}
        tags = {name: value for name, value in row.items() if name not in KNOWN}
        return Sample(row["id"], inputs, truth, tags)

    def _check_sizes(self, line: int, row: Mapping[str, str]) -> None:
        """Boxes and masks against the picture; one that cannot be read is named when it is used."""
        size = _picture_size(self.folder / row["image"])
        for box in self._boxes(line, row):
            if size and (box.right > size[0] or box.bottom > size[1]):
                raise self._broken(
                    line,
                    f"box {box.left:g} {box.top:g} {box.right:g} {box.bottom:g} reaches outside of "
                    f"the picture of {size[0]} x {size[1]} pixels",
                )
        mask = _picture_size(self.folder / row["mask"]) if row.get("mask") else None
        if size and mask and size != mask:
            raise self._broken(
                line,
                f"the mask has {mask[0]} x {mask[1]} pixels, the picture {size[0]} x {size[1]}; "
                "they must agree",
            )

    def _broken(self, line: int, what: str) -> InputError:
        return InputError(f"{self.index}, line {line}: {what}")


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


def _picture_size(path: Path) -> tuple[int, int] | None:
    """Width and height from a picture's head, as it is shown; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # lying on its side
            width, height = image.size
    except Exception:  # whatever pillow raises: the file names itself when it is decoded
        return None
    return (height, width) if turned else (width, height)


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``pairs``."""
    register(
        PairsDataset.name,
        PairsDataset,
        summary=f"a folder with a {INDEX}: columns image, audio, text, and optional mask, boxes",
        modalities=INPUTS,
    )
