"""`mmattrib bench`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cli_program import Run

from mmattrib import benchmark


def test_a_quick_one_prints_ratios_and_writes_numbers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "QUICK", replace(benchmark.QUICK, rounds=1))
    made = tmp_path / "bench.json"
    given = ["bench", "--backbone", "tiny", "--quick", "--method", "nib", "--out", made]
    result = run(*given)
    assert result.code == 0, result.err
    assert "| NIB as published | nib |" in result.out
    assert "GFLOP" in result.out
    assert "round 1 of 1: nib," in result.err
    assert f"Wrote {made}" in result.err
    numbers = json.loads(made.read_text(encoding="utf-8"))
    assert [row["label"] for row in numbers["single"]] == ["NIB as published", "nib"]
    theirs, own = numbers["single"]
    assert theirs["gflop"] > own["gflop"] > 0
    assert own["gflop"] == pytest.approx(sum(p["gflop"] for p in own["phases"].values()))
    assert set(own["phases"]) >= {"prefix", "loop", "laying on", "page", "picture"}
    (ratio,) = numbers["ratios"]
    assert ratio["gflop"] == pytest.approx(theirs["gflop"] / own["gflop"])
    assert numbers["machine"]["torch"]


def test_a_profile_names_operations_of_every_phase(run: Run) -> None:
    result = run(
        "bench", "--backbone", "tiny", "--profile", "--method", "gradient-x-input", "--json"
    )
    assert result.code == 0, result.err
    phases = json.loads(result.out)["gradient-x-input"]
    assert {"prefix", "loop"} <= set(phases)
    for rows in phases.values():
        assert rows
        assert 0 < sum(row["share"] for row in rows) <= 1.0001
    assert any("mm" in row["operation"] for row in phases["loop"])


@pytest.mark.slow
def test_a_whole_one_fills_every_table(run: Run, tmp_path: Path) -> None:
    made = tmp_path / "bench.json"
    result = run(
        "bench", "--backbone", "tiny", "--method", "nib", "--batch", 1, "--batch", 2,
        "--layer", 1, "--layer", 2, "--out", made,
    )  # fmt: skip
    assert result.code == 0, result.err
    for heading in (
        "Other layers",
        "Pairs together",
        "Peak memory",
        "Start-up",
        "With which power",
    ):
        assert f"## {heading}" in result.out
    numbers = json.loads(made.read_text(encoding="utf-8"))
    assert {each["of"] for each in numbers["exponents"]} == {
        "pairs", "steps", "tokens", "blocks behind the layer",
    }  # fmt: skip
    (memory,) = numbers["memory"]
    assert memory["loaded_mb"] > 50
    assert memory["pair_mb"] >= 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--quick", "--profile"], "--quick would have no effect with --profile"),
        (["--quick", "--batch", "2"], "--batch would have no effect with --quick"),
        (["--profile", "--layer", "2"], "--layer would have no effect with --profile"),
        (["--batch", "0"], "0 is not in the range 1<=x<=1024"),
        (["--batch", "2", "--batch", "2"], "--batch 2 is given twice"),
        (["--method", "nothing"], "nothing"),
        (["--backbone", "nothing"], "nothing"),
        (["--backbone-option", "a=1"], "--backbone-option belongs to a --backbone; name one"),
        (["--out", "bench.txt"], "accepted: .json"),
        (["--threads", "0"], "0 is not in the range"),
    ],
    ids=[
        "quick-profile", "quick-batch", "profile-layer", "no-pair", "batch-twice", "method",
        "backbone", "option", "suffix", "threads",
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_any_work(
    run: Run, given: list[str], said: str
) -> None:
    result = run("bench", *given)
    assert result.code == 2
    assert said in result.err
    assert not result.out
