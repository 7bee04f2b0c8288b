"""A data set of the ``datasets`` package: a live object, or a folder that it saved.

Nothing is fetched, and no code of a data set is run: what comes from a hub is loaded by the user,
and given as an object. Any object will do that has a length, rows by number, and ``features`` or
``column_names``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from mmattrib.datasets.reading import (
    MissingFileError,
    Problems,
    Reader,
    as_folder,
    inside,
    one_of,
    yes_or_no,
)
from mmattrib.datasets.rows import INPUTS, TRUTHS, from_row
from mmattrib.datasets.tables import shown_columns
from mmattrib.datasets.webdataset import MAX_MEMBER
from mmattrib.errors import InputError, MissingExtraError, OptionError, brief
from mmattrib.files import is_file
from mmattrib.io import Encoded
from mmattrib.lazy import np
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import Sample

if TYPE_CHECKING:
    from mmattrib.types import JSONValue

BoxForm: TypeAlias = Literal["corners", "sizes"]

USUAL: Final = {"image": ("image", "img"), "audio": ("audio",), "text": ("text", "caption")}
"""Names of columns that are taken for a side where none is given."""


class HuggingFaceDataset(Reader):
    """A sample for every row, with columns named by options."""

    name = "huggingface"

    def __init__(
        self,
        data: Any = None,
        folder: str | Path | None = None,
        split: str | None = None,
        image: str | None = None,
        audio: str | None = None,
        text: str | None = None,
        id: str | None = None,  # noqa: A002
        boxes: str | None = None,
        box_form: str = "corners",
        times: str | None = None,
        spans: str | None = None,
        strict: bool = False,
        outside: bool = False,
    ) -> None:
        """Open a data set.

        Args:
            data: a live object, such as ``datasets.load_dataset(...)`` gave.
            folder: what ``save_to_disk`` wrote; needs the ``datasets`` extra. Instead of ``data``.
            split: which split, where there are several.
            image: column of pictures. By default ``image`` or ``img``, where there is one.
            audio: column of sounds. By default ``audio``, where there is one.
            text: column of captions. By default ``text`` or ``caption``, where there is one.
            id: column of ids. By default rows are numbered.
            boxes: column of boxes, which are the truth of the picture.
            box_form: ``"corners"``: left, top, right, bottom; ``"sizes"``: left, top, width,
                height.
            times: column of stretches, start and end in seconds: the truth of the sound.
            spans: column of stretches, start and end in characters: the truth of the caption.
            strict: check every row now, and make the first broken one an error.
            outside: whether a saved data set may name files outside of its folder. Cells of a live
                one are taken as they are: the program that made it could open any file itself.

        Raises:
            MissingExtraError: a folder is given, and the package is not installed.
            InputError: there is no such column or split, or no row can be used.
            OptionError: neither ``data`` nor ``folder`` is given, or both, or an option is of
                another kind.
        """
        if (data is None) == (folder is None):
            raise OptionError("give one of data, a live data set, and folder, a saved one")
        self.box_form = one_of(box_form, "box_form", get_args(BoxForm))
        if boxes is None and box_form != "corners":
            raise OptionError("box_form acts with boxes alone; name their column too")
        if yes_or_no(outside, "outside") and folder is None:
            raise OptionError(
                "outside acts with folder alone; cells of a live data set are taken as they are"
            )
        self.folder = None if outside or folder is None else as_folder(folder)
        source = Path(f"data set {type(data).__name__}")
        if folder is not None:
            source = as_folder(folder)
            data = _saved(source)
        self.data = _split(data, split)
        given = {"image": image, "audio": audio, "text": text, "id": id}
        given |= {"boxes": boxes, "times": times, "spans": spans}
        self.columns = _columns(self.data, given)
        self.data = _undecoded(self.data, [self.columns.get(s) for s in ("image", "audio")])
        super().__init__(source, strict, columns=self.columns, box_form=box_form)

    def describe(self) -> dict[str, JSONValue]:
        own = getattr(self.data, "_fingerprint", None)
        if isinstance(own, str):  # of the package: of all that made the data set
            return {**self._options, "fingerprint": own}
        return super().describe()

    def _entries(self, problems: Problems) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for number in range(len(self.data)):
            place = f"{self.source}, row {number}"
            try:
                row = self.data[number]
            except Exception as error:  # a package's, of any kind, about this row
                problems.add(place, f"it cannot be read: {type(error).__name__}: {error}"[:300])
                continue
            if isinstance(row, Mapping):
                yield place, row
            else:
                problems.add(place, f"it is {type(row).__name__}; accepted: column -> value")

    def _made(self, place: str, entry: Mapping[str, Any]) -> Iterator[Sample]:
        inputs: dict[str, Any] = {}
        for side in INPUTS:
            column = self.columns.get(side)
            value = None if column is None else entry.get(column)
            if value is not None and (found := _input(side, value, self.folder)) is not None:
                inputs[side] = found
        if len(inputs) < 2:
            raise InputError(f"fewer than two of {', '.join(INPUTS)} are given")
        row = {
            each: _listed(entry.get(self.columns[each])) for each in TRUTHS if each in self.columns
        }
        if self.box_form == "sizes" and row.get("boxes"):
            row["boxes"] = [_corners(box) for box in row["boxes"]]
        used = set(self.columns.values())
        tags = {
            name: value
            for name, value in entry.items()
            if name not in used and isinstance(value, bool | int | float | str)
        }
        number = place.rpartition(" ")[2]
        name = str(entry.get(self.columns["id"]) if "id" in self.columns else number)
        yield from_row(name, inputs, {**row, "tags": tags})


def _saved(folder: Path) -> Any:
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise MissingExtraError(
            "a saved data set needs the package datasets; install it with: "
            "pip install 'mmattrib[datasets]'"
        ) from error
    try:
        return load_from_disk(str(folder))
    except Exception as error:  # the package raises errors of many kinds
        raise InputError(f"{folder} cannot be read by load_from_disk: {error}") from error


def _split(data: Any, split: str | None) -> Any:
    if isinstance(data, Mapping):
        if split not in data:
            raise InputError(
                f"there is no split {brief(split)}; give split= one of {shown_columns(tuple(data))}"
            )
        data = data[split]
    elif split is not None:
        raise OptionError("split acts where there are several; this data set is one")
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise OptionError(
            f"data is {type(data).__name__}; accepted: an object with a length and rows by number, "
            "no stream"
        )
    return data


def _columns(data: Any, given: Mapping[str, str | None]) -> dict[str, str]:
    """What each column stands for -> its name."""
    known = getattr(data, "features", None) or getattr(data, "column_names", None) or ()
    names = [str(name) for name in known]
    found: dict[str, str] = {}
    for meaning, name in given.items():
        if name is not None and name not in names:
            raise InputError(f"there is no column {brief(name)}; there are {shown_columns(names)}")
        usual = [each for each in USUAL.get(meaning, ()) if each in names]
        if name or usual:
            found[meaning] = name or usual[0]
    if sum(side in found for side in INPUTS) < 2:
        raise InputError(
            f"the columns are {shown_columns(names)}; name two of them with image=, audio= and "
            "text="
        )
    return found


def _undecoded(data: Any, columns: Sequence[str | None]) -> Any:
    """The data set with files of pictures and sounds as they are, so that they are decoded here."""
    features = getattr(data, "features", None)
    if not isinstance(features, Mapping) or not hasattr(data, "cast_column"):
        return data
    for column in columns:
        feature = None if column is None else features.get(column)
        if getattr(feature, "decode", None) is True:
            kind: Any = type(feature)
            data = data.cast_column(column, kind(decode=False))
    return data


def _input(side: str, value: Any, folder: Path | None) -> Any:
    """A cell as what :func:`mmattrib.attribute` takes, or None for an empty one."""
    if side == "text":
        if not isinstance(value, str):
            raise InputError(f"the caption is {type(value).__name__}; accepted: text")
        return value.strip() or None
    name = side
    if isinstance(value, Mapping):
        if value.get("array") is not None:
            return np.asarray(value["array"], np.float32), value.get("sampling_rate")
        name = str(value.get("path") or side)
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        if len(value) > MAX_MEMBER:
            raise InputError(f"the {side} has {len(value):,} bytes; accepted: up to {MAX_MEMBER:,}")
        return Encoded(value, Path(name).name)
    if isinstance(value, str):
        path = Path(value) if folder is None else inside(folder, value)
        if not is_file(path):
            raise MissingFileError(f"{side} {brief(value, 300)} is missing")
        return path
    if side == "audio" and hasattr(value, "get_all_samples"):  # torchcodec's decoder
        found = value.get_all_samples()
        return np.asarray(found.data, np.float32).T, int(found.sample_rate)
    return value


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _corners(box: Any) -> list[float]:
    try:
        left, top, width, height = map(float, box)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"box {brief(box, 100)} is not four numbers: left top width height"
        ) from error
    return [left, top, left + width, top + height]


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``huggingface``."""
    register(
        HuggingFaceDataset.name,
        HuggingFaceDataset,
        summary="a data set of the package datasets: a live object, or a folder that it saved",
        modalities=INPUTS,
    )
