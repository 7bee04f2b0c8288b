"""A table as data, and the formats that it is written in: text, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from mmattrib.errors import OptionError
from mmattrib.io.files import shown

_WIDTH = 100  # columns of a sentence in text


@dataclass(frozen=True)
class Cell:
    """A number of a table.

    Attributes:
        value: as shown, in percent where the metric is a share; NaN where there is none.
        error: its standard error; NaN where there is none, and none is shown.
        decimals: of both.
        note: behind them, e.g. a paired difference.
        mark: behind the error, where it is over something else; explained below the table.
        plus: whether a positive number shows its sign.
    """

    value: float
    error: float = math.nan
    decimals: int = 1
    note: str = ""
    mark: str = ""
    plus: bool = False

    def __str__(self) -> str:
        if math.isnan(self.value):
            return ""
        told = f"{self.value:{'+' if self.plus else ''}.{self.decimals}f}"
        if not math.isnan(self.error):
            told += f" ± {self.error:.{self.decimals}f}{self.mark}"
        return told + (f" {self.note}" if self.note else "")


Content: TypeAlias = str | Cell


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Attributes:
        title: what it is of.
        columns: their names.
        rows: one cell or text for each column.
        grouped: so many leading columns repeat their text from row to row; formats for people
            show it once.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Content]]
    grouped: int = 0

    def shown(self) -> list[list[str]]:
        """Every row as text, without what groups repeat."""
        found = [[str(cell) for cell in row] for row in self.rows]
        cleared = [list(row) for row in found]
        for above, own, kept in zip(found, found[1:], cleared[1:], strict=False):
            for column in range(self.grouped):
                if own[: column + 1] == above[: column + 1]:
                    kept[column] = ""
        return cleared


@dataclass(frozen=True)
class Report:
    """Tables with sentences above and below.

    Attributes:
        head: above.
        tables: one below the other.
        notes: below: what marks mean, what failed.
    """

    head: Sequence[str]
    tables: Sequence[Table]
    notes: Sequence[str] = ()

    def text(self, suffix: str = ".txt") -> str:
        """The report in the format of a suffix.

        Raises:
            OptionError: no such format.
        """
        if suffix not in FORMATS:
            raise OptionError(f"no table has the suffix {suffix!r}; accepted: {', '.join(FORMATS)}")
        return FORMATS[suffix](self)


def as_text(report: Report) -> str:
    """Columns aligned by spaces, for a terminal."""
    parts = [textwrap.fill(_flat(line), _WIDTH) for line in report.head]
    for table in report.tables:
        lines = [[_flat(cell) for cell in row] for row in [list(table.columns), *table.shown()]]
        numeric = _numeric(table)
        widths = [max(len(row[k]) for row in lines) for k in range(len(table.columns))]
        drawn = [
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, numeric, strict=True)
            ).rstrip()
            for row in lines
        ]
        parts.append("\n".join([*([_flat(table.title)] if table.title else []), *drawn]))
    parts += [textwrap.fill(_flat(line), _WIDTH) for line in report.notes]
    return "\n\n".join(parts) + "\n"


def as_markdown(report: Report) -> str:
    """Markdown, as GitHub reads it."""
    parts = [_flat(line) for line in report.head]
    for table in report.tables:
        lines = [f"**{_flat(table.title)}**", ""] if table.title else []
        lines += [row(table.columns), row(["---"] * len(table.columns))]
        parts.append("\n".join([*lines, *(row(cells) for cells in table.shown())]))
    return "\n\n".join([*parts, *map(_flat, report.notes)]) + "\n"


def row(cells: Sequence[str]) -> str:
    """A line of a Markdown table; what would break it is escaped or becomes a space."""
    return "| " + " | ".join(_flat(cell.replace("|", "\\|")) for cell in cells) + " |"


def as_csv(report: Report) -> str:
    """One line for each row of each table, behind its title; a number and its error each have a
    column, in full precision. Sentences are left out."""
    lines: list[dict[str, str]] = []
    for table in report.tables:
        numeric = _numeric(table)
        for cells in table.rows:
            line = {"table": table.title}
            for name, cell, number in zip(table.columns, cells, numeric, strict=True):
                if number:
                    line.update(_numbers(name, cell))
                else:
                    line[name] = str(cell)
            lines.append(line)
    names = list(dict.fromkeys(name for line in lines for name in line))
    if all(not line["table"] for line in lines):
        names = [name for name in names if name != "table"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_flat, names))
    writer.writerows([_flat(line.get(name, "")) for name in names] for line in lines)
    return out.getvalue()


def _numbers(name: str, cell: Content) -> dict[str, str]:
    if isinstance(cell, str):
        return {name: cell}
    values = {name: cell.value, f"{name} error": cell.error}
    found = {key: "" if math.isnan(number) else repr(number) for key, number in values.items()}
    return {**found, **({f"{name} note": cell.note} if cell.note else {})}


_TEX: Final[Mapping[str, str]] = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "β": r"$\beta$",
    "σ": r"$\sigma$",
    "γ": r"$\gamma$",
    "†": r"$\dagger$",
}


def escape_tex(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return re.sub("|".join(map(re.escape, _TEX)), lambda found: _TEX[found[0]], _flat(text))


def as_latex(report: Report) -> str:
    """LaTeX with booktabs: ``\\usepackage{booktabs}`` in the preamble."""
    parts = [f"% {escape_tex(line)}" for line in report.head]
    for table in report.tables:
        align = "".join("r" if right else "l" for right in _numeric(table))
        body = [" & ".join(map(escape_tex, table.columns)) + r" \\", r"\midrule"]
        for number, cells in enumerate(table.shown()):
            if number and table.grouped and cells[0]:
                body.append(r"\addlinespace")
            body.append(" & ".join(map(escape_tex, cells)) + r" \\")
        caption = [rf"\caption{{{escape_tex(table.title)}}}"] if table.title else []
        opening = [r"\begin{table}", r"\centering", *caption, rf"\begin{{tabular}}{{{align}}}"]
        closing = [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        parts.append("\n".join([*opening, r"\toprule", *body, *closing]))
    parts += [rf"\noindent {escape_tex(line)}" for line in report.notes]
    return "\n\n".join(parts) + "\n"


FORMATS: Final[Mapping[str, Callable[[Report], str]]] = {
    ".txt": as_text,
    ".md": as_markdown,
    ".csv": as_csv,
    ".tex": as_latex,
}
"""Suffix -> what writes a report in its format."""


def _numeric(table: Table) -> list[bool]:
    """Which columns hold numbers."""
    return [
        any(isinstance(cells[k], Cell) for cells in table.rows) for k in range(len(table.columns))
    ]


def _flat(text: str) -> str:
    """Text of any origin on one line; a character that shows nothing, or turns what follows (an
    escape of terminals, an override of the writing direction), is written out: ``\\x1b``."""
    return shown(" ".join(text.split()), limit=sys.maxsize)
