"""Tables and JSON of data sets, read row by row within bounds: CSV, TSV, JSONL and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from mmattrib.errors import InputError, MissingExtraError, brief
from mmattrib.files import is_file
from mmattrib.lazy import np, npt

if TYPE_CHECKING:
    from mmattrib.datasets.reading import Problems

MAX_ROWS: Final = 10_000_000
"""Most lines that are read: a bound, since files come from strangers."""

MAX_ROW: Final = 2**20
"""Characters of a row, over all of its cells and lines."""

MAX_CELL: Final = 2**17 - 1
"""Characters of a cell, in CSV, TSV and Parquet."""

MAX_COLUMNS: Final = 1000

MAX_JSON: Final = 2**28
"""Bytes of a JSON file that is read whole."""

MAX_GROUP: Final = 2**30
"""Bytes that a row group of a Parquet file says that it unpacks to."""

MAX_VALUES: Final = 2**26
"""Values of one column in a row group of a Parquet file."""

Row = dict[str, Any]


def read_csv(
    path: Path,
    problems: Problems,
    check_head: Callable[[Sequence[str]], None],
    *,
    delimiter: str = ",",
    quoted: bool = True,
    head: Sequence[str] | None = None,
) -> Iterator[tuple[str, Row]]:
    """Rows of a CSV or TSV file in UTF-8, with their lines; cells are text without outer spaces.

    Args:
        path: the file.
        problems: take rows that cannot be read.
        check_head: is given the names of the columns, and raises where they do not do.
        delimiter: between cells.
        quoted: whether cells may stand in double quotes.
        head: names of the columns of a file that does not give them itself.

    Raises:
        InputError: the file is no text, or too long.
    """
    with _opened(path) as file:
        lines = _Lines(file)
        if quoted:
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
        else:
            reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        try:
            names = [n.strip() for n in next(reader, [])] if head is None else list(head)
            "".join(names).encode()
        except (csv.Error, UnicodeError, _TooLongError) as error:
            raise InputError(f"{path} is no {_kind(delimiter)} file in UTF-8: {error}") from error
        check_head(names)
        for place, cells in _records(reader, lines, path, problems):
            if cells and len(cells) > len(names):
                problems.add(place, "more cells than the head has columns")
            elif cells:
                short = len(names) - len(cells)
                texts = [*(cell.strip() for cell in cells), *[""] * short]
                yield place, dict(zip(names, texts, strict=True))


def _records(
    reader: Iterator[list[str]], lines: _Lines, path: Path, problems: Problems
) -> Iterator[tuple[str, list[str]]]:
    """Records with their places; broken ones go to ``problems``."""
    while True:
        start = lines.number + 1
        if start > MAX_ROWS:
            raise InputError(f"{path} has more than {MAX_ROWS} lines; split it")
        place = f"{path}, line {start}"
        lines.taken = 0
        try:
            cells = next(reader)
            "".join(cells).encode()
        except StopIteration:
            return
        except (csv.Error, _TooLongError) as error:
            problems.add(place, error)
        except UnicodeError:
            problems.add(place, "it is not UTF-8")
        else:
            yield place, cells


def _kind(delimiter: str) -> str:
    return "TSV" if delimiter == "\t" else "CSV"


def _opened(path: Path) -> IO[str]:
    return path.open(newline="", encoding="utf-8-sig", errors="surrogateescape")


class _TooLongError(Exception):
    """A row is longer than is read."""


class _Lines:
    """Lines of a file, of bounded length in one row."""

    def __init__(self, file: IO[str]) -> None:
        self.file, self.number, self.taken = file, 0, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.file.readline(MAX_ROW + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.taken += len(line)
        if self.taken > MAX_ROW:
            while line and not line.endswith(("\n", "\r")):
                line = self.file.readline(MAX_ROW)
            raise _TooLongError(f"a row of more than {MAX_ROW:,} characters")
        return line


def read_jsonl(path: Path, problems: Problems) -> Iterator[tuple[str, Row]]:
    """Rows of a file with one JSON object a line, in UTF-8; empty lines are passed over.

    Raises:
        InputError: the file is too long.
    """
    with _opened(path) as file:
        lines = _Lines(file)
        while True:
            place = f"{path}, line {lines.number + 1}"
            lines.taken = 0
            if lines.number >= MAX_ROWS:
                raise InputError(f"{path} has more than {MAX_ROWS} lines; split it")
            try:
                line = next(lines)
                line.encode()
                row = json.loads(line) if line.strip() else None
            except StopIteration:
                return
            except _TooLongError as error:
                problems.add(place, error)
            except UnicodeError:
                problems.add(place, "it is not UTF-8")
            except (ValueError, RecursionError) as error:
                problems.add(place, f"it is no JSON ({error})")
            else:
                if isinstance(row, dict) and len(row) <= MAX_COLUMNS:
                    yield place, row
                elif row is not None or line.strip():
                    problems.add(place, 'it is no JSON object, such as {"image": "a.jpg"}')


def read_parquet(
    path: Path, problems: Problems, check_head: Callable[[Sequence[str]], None]
) -> Iterator[tuple[str, Row]]:
    """Rows of a Parquet file, counted from 1, a few hundred in memory at a time.

    Text is read as a dictionary of its values, so that a short file cannot unpack to any length
    before its cells are measured.

    Raises:
        MissingExtraError: pyarrow is not installed.
        InputError: no Parquet file, too many rows, or row groups that are too large.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is Parquet, which needs pyarrow; install it with: "
            "pip install 'mmattrib[parquet]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            kinds = {field.name: field.type for field in file.schema_arrow}
            check_head(list(file.schema_arrow.names))
            _check_groups(path, file.metadata)
        text = [name for name, kind in kinds.items() if _is_text(arrow.types, kind)]
        with parquet.ParquetFile(path, read_dictionary=text) as file:
            yield from _batches(file, path, problems)
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from error


def _is_text(types: Any, kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _check_groups(path: Path, meta: Any) -> None:
    """Refuse what would unpack to more than is read at a time."""
    groups = [meta.row_group(at) for at in range(min(meta.num_row_groups, MAX_ROWS))]
    size = max((group.total_byte_size for group in groups), default=0)
    columns = range(meta.num_columns)
    values = max((group.column(at).num_values for group in groups for at in columns), default=0)
    if meta.num_rows > MAX_ROWS or size > MAX_GROUP or values > MAX_VALUES:
        raise InputError(
            f"{path} has {meta.num_rows:,} rows in groups of up to {size:,} bytes and {values:,} "
            f"values a column; accepted: {MAX_ROWS:,} rows, {MAX_GROUP:,} bytes, {MAX_VALUES:,} "
            "values. Write it again with smaller row groups"
        )


def _batches(file: Any, path: Path, problems: Problems) -> Iterator[tuple[str, Row]]:
    number = 0
    for batch in file.iter_batches(batch_size=256):
        lengths = np.max([_lengths(column) for column in batch.columns], axis=0)
        whole = batch.to_pylist() if (lengths <= MAX_CELL).all() else None
        for at in range(batch.num_rows):
            number += 1
            place = f"{path}, row {number}"
            if whole is not None:
                yield place, whole[at]
            elif lengths[at] <= MAX_CELL:
                yield place, batch.slice(at, 1).to_pylist()[0]
            else:
                problems.add(place, f"a cell of more than {MAX_CELL:,} bytes")


def _lengths(column: Any) -> npt.NDArray[np.int64]:
    """``(rows,)`` bytes of each cell of text or bytes; of another kind, what cells have at most."""
    import pyarrow as arrow
    import pyarrow.compute as compute

    if arrow.types.is_dictionary(column.type):
        values = _lengths(column.dictionary)
        places = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return values[places] if len(values) else np.zeros(len(column), np.int64)
    kind, types = column.type, arrow.types
    if _is_text(types, kind) or types.is_binary(kind) or types.is_large_binary(kind):
        found = compute.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        return np.asarray(found, np.int64)
    if types.is_list(kind) or types.is_large_list(kind):
        found = compute.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        return np.asarray(found, np.int64)
    return np.zeros(len(column), np.int64)


def read_json(path: Path, accepted: str) -> Any:
    """A JSON file, whole.

    Args:
        path: the file.
        accepted: what it should hold, for messages.

    Raises:
        InputError: missing, too large, or no JSON.
    """
    if not is_file(path):
        raise InputError(f"{path} is missing; accepted: {accepted}")
    if path.stat().st_size > MAX_JSON:
        raise InputError(f"{path} has more than {MAX_JSON:,} bytes; accepted: {accepted}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error}); accepted: {accepted}") from error


def needs_columns(path: Path, needed: Sequence[str]) -> Callable[[Sequence[str]], None]:
    """A check of a head that must have some columns, each once."""

    def check(names: Sequence[str]) -> None:
        if any(names.count(name) != 1 for name in needed):
            raise InputError(
                f"{path} has the columns {shown_columns(names)}; needed, each once: "
                f"{', '.join(needed)}"
            )

    return check


def shown_columns(names: Sequence[str]) -> str:
    """Names of columns for a message."""
    shown = (name if str(name).isprintable() else repr(name) for name in names)
    return (", ".join(map(str, shown)) or "none")[:300]


def said(value: object, what: str) -> str:
    """A text of an index that must say something.

    Raises:
        InputError: it is none, or empty.
    """
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{what} is {brief(value, 80)}; accepted: text")
    return value


def by_id(entries: Sequence[Any], what: str) -> dict[Any, Any]:
    """Entries of an index in COCO's form by their ``id``.

    Raises:
        InputError: two have one.
    """
    found = {each["id"]: each for each in entries}
    if len(found) < len(entries):
        raise InputError(f"two {what} have one id")
    return found


def number_of(text: object, what: str) -> float:
    """A finite number out of a cell.

    Raises:
        InputError: it is none.
    """
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = float("nan")
    if not abs(value) < float("inf"):
        raise InputError(f"{what} is {brief(text, 80)}; accepted: a number")
    return value
