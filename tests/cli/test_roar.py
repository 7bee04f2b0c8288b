"""`mmattrib roar` on a model with random weights: a table, every number, and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_program import Run


@pytest.fixture
def quick(checkpoint: Path) -> tuple[object, ...]:
    return (
        "roar", "--backbone-option", f"checkpoint={checkpoint}", "--limit", 5, "--method", "random",
        "--direction", "text|image", "--option", "steps=1", "--option", "batch=2", "--seed", 3,
    )  # fmt: skip


def test_a_table_and_every_number(run: Run, quick: tuple[object, ...], tmp_path: Path) -> None:
    outs = ("--out", tmp_path / "t.md", "--out", tmp_path / "t.json")
    asked = (*quick, "--percentile", "text=25", "--fill", "text=delete", "--control", "truth")
    result = run(*asked, "--folder", tmp_path / "f", *outs)
    assert result.code == 0, result.err
    assert (tmp_path / "t.md").read_text(encoding="utf-8") == result.out
    found = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in found["rows"]] == ["truth", "random"]
    assert {row["seed"] for row in found["rows"]} == {3}
    told = found["provenance"]
    assert (told["fills"]["text"], told["percentiles"]["text"]) == ("delete", 25.0)
    assert told["recipe"]["steps"] == 1
    assert found["rows"][1]["removed"]["text"] > 0.6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--option", "pairs=3"), "no option 'pairs'"),
        (("--direction", "image"), "'image' is no direction"),
        (("--direction", "image|depth"), "is of no pair"),
        (("--percentile", "text"), "is not KEY=VALUE"),
        (("--method", "randon"), "randon"),
        (("--out", "t.csv"), "has the suffix '.csv'"),
    ],
)
def test_what_does_not_fit_is_one_line(
    run: Run, quick: tuple[object, ...], tmp_path: Path, given: tuple[str, str], message: str
) -> None:
    result = run(*quick, "--folder", tmp_path / "f", *given)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
