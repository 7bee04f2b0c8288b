"""Every number of an evaluation in a long table, one row each, as CSV or Parquet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mmattrib.errors import MissingExtraError

if TYPE_CHECKING:
    from mmattrib.evaluation.results import Results


class Number(NamedTuple):
    """One number, or one reason why there is none.

    Attributes:
        backbone: label.
        data: label of the data set.
        sample: id.
        direction: e.g. ``"image|text"``; of a problem the pair, ``"image-text"``.
        method: label.
        seed: of the noise; None where none is drawn.
        metric: name, or ``"seconds"``; None for a problem.
        value: as measured, shares from 0 to 1; None where the metric does not apply.
        problem: what went wrong; None for a number.
    """

    backbone: str
    data: str
    sample: str
    direction: str
    method: str
    seed: int | None
    metric: str | None
    value: float | None
    problem: str | None


COLUMNS: Final = Number._fields


def numbers(results: Results) -> Iterator[Number]:
    """Every number of an evaluation, then every problem."""
    for column, values in results.columns.items():
        for name, value in zip(results.samples[column.dataset].values(), values, strict=True):
            known = None if math.isnan(value) else float(value)
            yield Number(
                column.backbone, column.dataset, name, column.direction, column.method,
                column.seed, column.metric, known, None,
            )  # fmt: skip
    for each in results.problems:
        yield Number(
            each.backbone, each.dataset, each.sample, each.pair, each.method, each.seed, None,
            None, each.reason,
        )  # fmt: skip


def numbers_csv(results: Results) -> bytes:
    """The long table as CSV; what is None is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(numbers(results))
    return out.getvalue().encode("utf-8")


def numbers_parquet(results: Results) -> bytes:
    """The long table as Parquet; what is None is null.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    kinds = {"seed": arrow.int64(), "value": arrow.float64()}
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in COLUMNS])
    rows = [each._asdict() for each in numbers(results)]
    out = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), out)
    return out.getvalue()


def check_parquet() -> None:
    """Make sure that Parquet can be written, before anything is measured.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    _pyarrow()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "a .parquet file needs pyarrow, which is not installed: pip install "
            "'mmattrib[parquet]', or name a file that ends in .numbers.csv"
        ) from error
    return pyarrow, pyarrow.parquet
