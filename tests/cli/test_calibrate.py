"""`mmattrib calibrate`."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_program import Run

from mmattrib.datasets.scenes import ScenesDataset


def test_what_others_print_stays_off_standard_output(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = ScenesDataset.fingerprint

    def loud(self: ScenesDataset) -> str:
        print("a data set that prints")
        return fingerprint(self)

    monkeypatch.setattr(ScenesDataset, "fingerprint", loud)
    made = tmp_path / "made.json"
    result = run("calibrate", "--limit", "20", "--maps", "0", "--out", str(made))
    assert result.code == 0, result.err
    assert "a data set that prints" in result.err
    assert "a data set that prints" not in result.out
    assert result.out.endswith(f"Wrote {made}\n")


@pytest.mark.parametrize(
    "given",
    [
        ["--method", "ca-m2ib"],
        ["--option", "beta=0.1"],
        ["--layer", "1"],
        ["--seed", "0"],
        ["--method", "nib", "--seed", "3"],
    ],
    ids=" ".join,
)
def test_what_says_how_to_explain_is_refused_where_nothing_is_explained(
    run: Run, tmp_path: Path, given: list[str]
) -> None:
    made = tmp_path / "made.json"
    result = run("calibrate", "--limit", "20", "--maps", "0", *given, "--out", str(made))
    assert result.code == 2
    named = " and ".join(each for each in given if each.startswith("--"))
    assert f"{named} would have no effect: with --maps 0 nothing is explained" in result.err
    assert not made.exists()
