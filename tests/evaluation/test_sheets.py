"""Tables as data: each format holds the same cells, whatever their text."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest

from mmattrib.errors import MissingExtraError, OptionError
from mmattrib.evaluation import Cell, Column, Problem, Report, Results, Table, View, numbers
from mmattrib.evaluation.presets import beside_published
from mmattrib.evaluation.published import METHODS, METRICS, TABLE_1
from mmattrib.evaluation.sheets import FORMATS, escape_tex
from mmattrib.evaluation.tidy import COLUMNS, numbers_csv, numbers_parquet

ODD = r"a_b & 50% \x {y} | #1 ~^ $z"
REPORT = Report(
    ["A head."],
    [
        Table(
            "one",
            ["direction", "metric", "first", "second"],
            [
                ["image|text", "auc", Cell(50.04, 1.26), Cell(-2.0, note="(+1.0)")],
                ["image|text", "iou", Cell(math.nan), Cell(7.0, 0.5, mark="†")],
                ["text|image", "auc", Cell(1.0), "none"],
            ],
            grouped=1,
        ),
        Table(ODD, ["method", ODD], [["x", Cell(1.23456, decimals=3)]]),
    ],
    ["A note."],
)


def made(seeds: tuple[int, ...] = (0, 1)) -> Results:
    """Two methods on three samples, one of them under seeds."""
    columns = {
        Column("d", "m", "noisy", seed, "image|text", "auc"): np.array([0.1, 0.2, 0.6]) + seed / 10
        for seed in seeds
    }
    columns[Column("d", "m", "plain", None, "image|text", "auc")] = np.array([0.5, np.nan, 0.7])
    problem = Problem("d", "b", "none.png: no picture", "m", "plain", None, "image-text")
    return Results(columns, {"d": {0: "a", 1: "b", 2: "c"}}, {}, (problem,))


def test_text_is_aligned_and_says_a_group_once() -> None:
    text = REPORT.text(".txt")
    assert text.count("image|text") == 1
    lines = text.split("\n\n")[1].splitlines()
    assert lines[0] == "one"
    assert lines[2].endswith("50.0 ± 1.3  -2.0 (+1.0)")
    assert lines[2].index("50.0") == lines[1].index("first") - 5
    assert "7.0 ± 0.5†" in lines[3]


def test_markdown_has_a_cell_for_each_column() -> None:
    lines = [line for line in REPORT.text(".md").splitlines() if line.startswith("|")]
    counts = [line.replace("\\|", "").count("|") for line in lines]
    assert counts == [5] * 5 + [3] * 3


def test_latex_sets_any_text_and_its_braces_match() -> None:
    text = REPORT.text(".tex")
    assert r"a\_b \& 50\% \textbackslash{}x \{y\}" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    plain = text.replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert line.replace(r"\&", "").count("&") in (3, 1)
    assert escape_tex("a\x07\nb ± ↑") == r"a\textbackslash{}x07 b $\pm$ $\uparrow$"


@pytest.mark.parametrize("suffix", FORMATS)
def test_labels_cannot_break_a_line_or_command_a_terminal(suffix: str) -> None:
    odd = "a|b\nc\x1b[31m\u202e`"
    report = Report([f"head {odd}", odd], [Table(odd, [odd, "n"], [[odd, "1"]])], [odd])
    text = report.text(suffix)
    assert not {"\x1b", "\u202e"} & set(text)
    assert "x1b[31m" in text
    assert not any(line.startswith("c") for line in text.splitlines())


def test_csv_keeps_numbers_in_full_beside_their_errors() -> None:
    rows = list(csv.DictReader(io.StringIO(REPORT.text(".csv"))))
    assert [row["table"] for row in rows] == ["one"] * 3 + [ODD]
    assert (rows[0]["first"], rows[0]["first error"]) == ("50.04", "1.26")
    assert rows[1]["direction"] == "image|text"
    assert rows[1]["first"] == ""
    assert rows[3][ODD] == "1.23456"


def test_an_unknown_format_is_refused_by_naming_those_there_are() -> None:
    with pytest.raises(OptionError, match=r"\.txt, \.md, \.csv, \.tex"):
        REPORT.text(".doc")
    assert set(FORMATS) == {".txt", ".md", ".csv", ".tex"}


def test_errors_over_seeds_are_those_of_the_seeds_means() -> None:
    found = made()
    (table,) = found.report(View(errors="seeds")).tables
    cells = {row[0]: row[2] for row in table.rows}
    assert cells["noisy"] == Cell(pytest.approx(35.0), pytest.approx(5.0))  # type: ignore[arg-type]
    assert cells["plain"].mark == "†"  # type: ignore[union-attr]
    notes = found.report(View(errors="seeds")).notes
    assert "one seed was given" in notes[0]
    (one,) = made((0,)).report(View(errors="seeds")).tables
    (over,) = made((0,)).report(View(errors="samples")).tables
    assert list(map(str, one.rows[0])) == list(map(str, over.rows[0]))


def test_the_layout_of_the_paper_turns_the_table() -> None:
    (turned,) = made().report(layout="paper").tables
    assert turned.columns == ["direction", "metric", "noisy", "plain"]
    ((direction, metric, noisy, plain),) = turned.rows
    (usual,) = made().report().tables
    assert (direction, metric) == ("image|text", "auc ↑")
    assert [noisy, plain] == [row[2] for row in usual.rows]
    with pytest.raises(OptionError, match="no place"):
        made().report(View(baseline="plain"), "paper")


def test_failed_pairs_are_counted_once_with_their_reason_and_method() -> None:
    (note,) = made().report().notes
    assert note.startswith("1 of 3 pairs of d lack numbers. b, with plain: none.png")


def test_every_number_and_problem_is_a_row() -> None:
    found = list(numbers(made()))
    assert len(found) == 3 * 3 + 1
    assert found[0] == ("m", "d", "a", "image|text", "noisy", 0, "auc", 0.1, None)
    assert found[7].value is None
    assert found[-1].problem == "none.png: no picture"
    rows = list(csv.reader(io.StringIO(numbers_csv(made()).decode())))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 11


def test_parquet_holds_the_same_rows() -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(numbers_parquet(made())))
    assert tuple(table.column_names) == COLUMNS
    assert [tuple(row.values()) for row in table.to_pylist()] == [tuple(n) for n in numbers(made())]


def test_parquet_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"mmattrib\[parquet\]"):
        numbers_parquet(made())


def test_the_published_table_is_whole() -> None:
    assert len(TABLE_1) == 13
    assert all(tuple(cells) == METHODS for cells in TABLE_1.values())
    assert {row for _, _, row in TABLE_1} == set(METRICS)
    assert TABLE_1["ms-cxr", "image|text", "Localization"]["ca-m2ib"] == (25.21, 0.16)
    assert TABLE_1["cc", "text|image", "ROAR+"]["kernel-shap"] == (48.56, 3.65)


def test_published_numbers_stand_beside_those_of_the_same_data_alone() -> None:
    column = Column("cc", "clip", "m2ib", 0, "image|text", "confidence_drop")
    found = Results({column: np.array([0.01, 0.03])}, {"cc": {0: "a", 1: "b"}})
    report = beside_published(found, ["rise"])
    rows = [row for row in report.tables[-1].rows if row[2] == "m2ib"]
    assert [str(cell) for cell in rows[0][3:]] == ["2.00 ± 1.00", "1.08 ± 0.01", "+0.92"]
    assert {str(row[0]).split()[0] for row in report.tables[-1].rows} == {"cc"}
    assert "rise" in report.notes[-1]
    other = Results({column._replace(dataset="scenes"): np.ones(1)}, {"scenes": {0: "a"}})
    assert len(beside_published(other, []).tables) == 1
