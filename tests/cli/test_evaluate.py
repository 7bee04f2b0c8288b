"""`mmattrib evaluate` on a model with random weights: a table, and the same numbers as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from cli_program import Run


def test_a_table_and_every_number(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    given = ("--backbone-option", f"checkpoint={checkpoint}", "--scenes", 2, "--pair", "image,text")
    outs = ("--out", tmp_path / "t.md", "--out", tmp_path / "t.json")
    result = run("evaluate", *given, "--method", "random", "--metric", "auc", *outs)
    assert result.code == 0, result.err
    assert "random" in result.out
    assert "auc" in result.out
    assert (tmp_path / "t.md").read_text(encoding="utf-8") == result.out
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert {path.name for path in tmp_path.iterdir()} == {"t.md", "t.json"}
