"""MS-CXR: radiographs with phrases of their reports, and boxes for each phrase.

The annotations are ``MS_CXR_Local_Alignment_v*.json`` (COCO's form, with ``label_text`` in each
annotation) or the CSV made of it; the radiographs are those of MIMIC-CXR, as JPG or DICOM. Boecking
et al. 2022, Making the Most of Text Semantics to Improve Biomedical Vision-Language Processing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mmattrib.datasets.reading import (
    Problems,
    Reader,
    as_folder,
    as_path,
    as_word,
    first_file,
    in_layout,
    inside,
    with_suffixes,
    yes_or_no,
)
from mmattrib.datasets.regions import RelativeBox, box_in, check_picture_size, check_shape
from mmattrib.datasets.tables import Row, by_id, needs_columns, number_of, read_csv, read_json, said
from mmattrib.errors import InputError
from mmattrib.files import is_file
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import Part, Sample, Truth

PATTERN: Final = "MS_CXR_Local_Alignment_v*"
COLUMNS: Final = (
    "dicom_id", "category_name", "label_text", "path", "x", "y", "w", "h", "image_width",
    "image_height",
)  # fmt: skip
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".dcm", ".dicom")
MAX_BOXES: Final = 1_000_000


class _Phrase:
    """A phrase on a picture, with its boxes and where each stands in the annotations."""

    def __init__(self, number: int, first: Row) -> None:
        self.number, self.first = number, first
        self.boxes: list[tuple[str, Row]] = []


class MSCXRDataset(Reader):
    """A sample for every phrase of a radiograph; the truth is all of the phrase's boxes."""

    name = "ms-cxr"

    def __init__(
        self,
        folder: str | Path,
        annotations: str | Path | None = None,
        split: str | None = None,
        stretched: bool = False,
        strict: bool = False,
    ) -> None:
        """Open a folder.

        Args:
            folder: of the radiographs: what the annotations' ``path`` is relative to, or its
                folder ``files``, or a flat folder of files named by ``dicom_id``. JPG, PNG or
                DICOM, at any size: boxes are scaled with the picture.
            annotations: the JSON or CSV file. By default the newest in ``folder``.
            split: take rows of this ``split`` alone, which version 1.1.0 states.
            stretched: whether pictures may have been scaled to other proportions, with nothing
                cut off or added. By default a picture of other proportions is left out.
            strict: check every phrase now, and make the first broken one an error.

        Raises:
            InputError: there are no annotations, or no phrase can be used.
            OptionError: an option is of another kind.
        """
        self.folder = as_folder(folder)
        index = _newest(self.folder) if annotations is None else as_path(annotations, "annotations")
        if not is_file(index):
            raise InputError(f"{index} is missing; annotations must be {PATTERN}.json or .csv")
        self.split = None if split is None else as_word(split, "split")
        self.stretched = yes_or_no(stretched, "stretched")
        super().__init__(index, strict, split=split, stretched=stretched)

    def _entries(self, problems: Problems) -> Iterator[tuple[str, _Phrase]]:
        phrases: dict[tuple[str, str, str], _Phrase] = {}
        numbers: dict[str, int] = {}
        rows = _json_rows if self.source.suffix.lower() == ".json" else _csv_rows
        for count, (place, row) in enumerate(rows(self.source, problems)):
            if count >= MAX_BOXES:
                raise InputError(f"{self.source} has more than {MAX_BOXES:,} boxes")
            if self.split is not None and row.get("split") != self.split:
                continue
            key = row["dicom_id"], row["label_text"], row["category_name"]
            if key not in phrases:
                numbers[key[0]] = numbers.get(key[0], -1) + 1
                phrases[key] = _Phrase(numbers[key[0]], row)
            phrases[key].boxes.append((place, row))
        for phrase in phrases.values():
            yield phrase.boxes[0][0], phrase

    def _made(self, place: str, entry: _Phrase) -> Iterator[Sample]:
        row = entry.first
        text = " ".join(str(row["label_text"]).split())
        if not text:
            raise InputError("label_text is empty")
        picture = self._picture(row)
        boxes = []
        for own, each in entry.boxes:
            try:
                boxes.append(_box(each))
            except InputError as error:
                line = "" if own == place else f"{own.rpartition(', ')[2]}: "
                raise InputError(f"{line}{error}") from error
        if not self.stretched:
            check_shape(picture, (int(row["image_width"]), int(row["image_height"])))
        category = str(row["category_name"])
        yield Sample(
            f"{row['dicom_id']}-{entry.number}",
            {"image": picture, "text": text},
            {"image": Truth((Part(tuple(boxes), True, category),))},
            {key: row[key] for key in ("dicom_id", "category_name", "split") if row.get(key)},
        )

    def _picture(self, row: Row) -> Path:
        path = str(row["path"])
        places = [inside(self.folder, path), inside(self.folder, path.removeprefix("files/"))]
        places += [inside(self.folder, f"{row['dicom_id']}{Path(path).suffix or '.jpg'}")]
        stems = [place.with_suffix("") for place in places]
        named = [*places, *(p for stem in stems for p in with_suffixes(stem, SUFFIXES))]
        return first_file(named, "radiograph")


def _newest(folder: Path) -> Path:
    found = [*folder.glob(f"{PATTERN}.csv"), *folder.glob(f"{PATTERN}.json")]
    if not found:
        raise InputError(f"{folder} has no {PATTERN}.json or .csv; name it with annotations=")
    return max(found, key=lambda path: (path.stem, path.suffix))


def _box(row: Row) -> RelativeBox:
    left, top, width, height = (number_of(row[key], key) for key in "xywh")
    across, down = (int(number_of(row[key], key)) for key in ("image_width", "image_height"))
    check_picture_size(down, across, "the picture of the annotation")
    return box_in(left, top, left + width, top + height, across, down)


def _csv_rows(path: Path, problems: Problems) -> Iterator[tuple[str, Row]]:
    return read_csv(path, problems, needs_columns(path, COLUMNS))


def _json_rows(path: Path, problems: Problems) -> Iterator[tuple[str, Row]]:
    """The annotations of the JSON form, as the CSV form has them."""
    accepted = "images, categories and annotations in COCO's form, with label_text"
    index = read_json(path, accepted)
    try:
        images = by_id(index["images"], "images")
        kinds = by_id(index["categories"], "categories")
        names = {key: said(each["name"], "the name of a category") for key, each in kinds.items()}
        annotations = list(index["annotations"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} holds no {error}; accepted: {accepted}") from error
    for number, each in enumerate(annotations):
        place = f"{path}, annotation {number + 1}"
        try:
            with in_layout():
                row = _as_row(each, images, names)
        except InputError as error:
            problems.add(place, error)
        else:
            yield place, row


def _as_row(each: Mapping[str, Any], images: Mapping[Any, Any], names: Mapping[Any, Any]) -> Row:
    image = images[each["image_id"]]
    left, top, width, height = each["bbox"]
    return {
        "dicom_id": Path(str(image["file_name"])).stem,
        "category_name": str(names[each["category_id"]]),
        "label_text": str(each["label_text"]),
        "path": str(image.get("path") or image["file_name"]),
        "x": left,
        "y": top,
        "w": width,
        "h": height,
        "image_width": image["width"],
        "image_height": image["height"],
        "split": each.get("split", image.get("split")),
    }


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``ms-cxr``."""
    register(
        MSCXRDataset.name,
        MSCXRDataset,
        summary="MS-CXR: radiographs, phrases of their reports, and boxes for each phrase",
        modalities=("image", "text"),
    )
