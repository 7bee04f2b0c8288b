"""A table of inputs that belong together: CSV, TSV, JSONL or Parquet.

One row is one sample. Columns ``image`` and ``audio`` hold paths relative to the table, ``text`` a
caption; two of them are needed, and a cell may be empty. Optional, as the truth of each side:
``boxes``, rectangles ``left top right bottom`` in pixels; ``mask``, the path of a picture of the
image's size whose pixels, where not black, are what the others share; ``times``, stretches ``start
end`` of the sound in seconds; ``spans``, stretches ``start end`` of the caption in characters, end
exclusive. Several are separated by ``;``, or are lists of lists in JSONL and Parquet. ``id`` names
the sample. Other columns are kept as tags; an object in ``tags`` is taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from mmattrib.datasets.reading import MissingFileError, Problems, Reader, as_path, inside, yes_or_no
from mmattrib.datasets.rows import INPUTS, TRUTHS, from_row
from mmattrib.datasets.tables import Row, read_csv, read_jsonl, read_parquet, shown_columns
from mmattrib.errors import InputError, brief
from mmattrib.files import is_file
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import Sample

FILES: Final = ("image", "audio", "mask")
FORMATS: Final = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
}  # fmt: skip


class ManifestDataset(Reader):
    """The rows of a table, each checked and made into a sample as it is read."""

    name = "manifest"

    def __init__(self, path: str | Path, strict: bool = False, outside: bool = False) -> None:
        """Open a table.

        Args:
            path: a file that ends in ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson`` or ``.parquet``
                (with the ``parquet`` extra). CSV and TSV may quote cells with ``"``.
            strict: check every row now, and make the first broken one an error. By default a
                broken row is left out and told of.
            outside: whether rows may name files outside of the table's folder, by paths from the
                root or with ``..``: of a table that you wrote yourself. A stranger's could name
                any file of yours. Links inside the folder are followed anyway.

        Raises:
            InputError: the file is missing or of another kind, its columns will not do, or no row
                can be used. The message names the line.
            OptionError: ``path`` is no path.
        """
        self.index = as_path(path, "path")
        self.folder = self.index.parent
        self.outside = yes_or_no(outside, "outside")
        if not is_file(self.index):
            raise InputError(f"{self.index} is missing; a table is accepted")
        if self.index.suffix.lower() not in FORMATS:
            raise InputError(
                f"{self.index} ends in {self.index.suffix!r}; accepted: {', '.join(FORMATS)}"
            )
        super().__init__(self.index, strict)

    def _entries(self, problems: Problems) -> Iterator[tuple[str, Row]]:
        form = FORMATS.get(self.index.suffix.lower(), "csv")
        if form == "parquet":
            return read_parquet(self.index, problems, self._check_head)
        if form == "jsonl":
            return read_jsonl(self.index, problems)
        delimiter = "\t" if form == "tsv" else ","
        return read_csv(self.index, problems, self._check_head, delimiter=delimiter)

    def _check_head(self, names: Sequence[str]) -> None:
        if sum(name in INPUTS for name in names) < 2 or len(set(names)) < len(names):
            raise InputError(
                f"{self.index} has the columns {shown_columns(names)}; accepted: "
                f"two or more of {', '.join(INPUTS)}, each once, and optional id, "
                f"{', '.join(TRUTHS)}"
            )

    def _made(self, place: str, entry: Row) -> Iterator[Sample]:
        row = {column: _text(column, entry.get(column)) for column in (*INPUTS, "mask", "id")}
        given = [name for name in INPUTS if row[name]]
        if len(given) < 2:
            raise InputError(f"fewer than two of {', '.join(INPUTS)} are given")
        files = {column: self._file(row[column]) for column in FILES if row[column]}
        for column, path in files.items():
            if not is_file(path):
                raise MissingFileError(f"{column} {brief(row[column], 300)} is missing")
        name = row["id"] or "-".join(place.rsplit(", ", 1)[-1].split())
        inputs = {name: row[name] if name == "text" else files[name] for name in given}
        yield from_row(name, inputs, {**entry, "mask": files.get("mask")})

    def _file(self, name: str) -> Path:
        if self.outside:
            return self.folder / name
        try:
            return inside(self.folder, name)
        except InputError as error:
            raise InputError(f"{error}; outside=true accepts it") from error


def _text(column: str, value: object) -> str:
    """A cell as text without outer spaces; empty where it is missing."""
    if column == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, str):
        return (value or "").strip()
    raise InputError(f"{column} is {type(value).__name__}; accepted: text")


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``manifest``."""
    register(
        ManifestDataset.name,
        ManifestDataset,
        summary="a CSV, TSV, JSONL or Parquet table: columns image, audio, text, and their truth",
        modalities=INPUTS,
    )
