"""`mmattrib tune`, and its file in `--config` of other commands."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from cli_program import Run
from PIL import Image

QUICK = ("--pair", "image,text", "--limit", 2, "--search", "grid")


@pytest.fixture
def random_tiny(checkpoint: Path) -> tuple[str, str]:
    return "--backbone-option", f"checkpoint={checkpoint}"


def test_what_is_chosen_goes_into_attribute_and_evaluate(
    run: Run, random_tiny: tuple[str, str], files: Path, tmp_path: Path
) -> None:
    out, surface = tmp_path / "tuned.toml", tmp_path / "s.png"
    result = run(
        "tune", *random_tiny, *QUICK, "--method", "nib", "--layer", "0,1", "--vary", "steps=1,2",
        "--out", out, "--surface", surface,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "Measured 4 variants on 2 samples." in result.out
    assert "text explained" in result.out
    with Image.open(surface) as drawn:
        assert drawn.width > 100
    (label,) = tomllib.loads(out.read_text())["variant"]
    evaluated = run(
        "evaluate", *random_tiny, *QUICK[:4], "--config", out, "--metric", "auc",
        "--out", tmp_path / "t.json",
    )  # fmt: skip
    assert evaluated.code == 0, evaluated.err
    told = json.loads((tmp_path / "t.json").read_text())["provenance"]["methods"]
    assert list(told) == [label]
    assert told[label]["method"] == "nib"
    pair = ("--image", files / "good.png", "--text", "a dog")
    explained = run("attribute", *random_tiny, *pair, "--config", out, "--json")
    assert explained.code == 0, explained.err
    found = json.loads(explained.out)
    layer = tomllib.loads(out.read_text())["variant"][label]["layer"]
    assert {side: each["layer"] for side, each in found["sides"].items()} == layer


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--layer", "x"), "--layer x is no list"),
        (("--layer", "0", "--layer", "image=1"), "give it alone"),
        (("--layer", "image=0", "--layer", "image=1"), "again"),
        (("--vary", "steps"), "KEY=VALUE"),
        (("--vary", "steps=1,2", "--vary", "steps=3"), "again"),
        (("--vary", "step=1,2"), "steps"),
        (("--metric", "acu"), "auc"),
        (("--metric", "cosine", "--layer", "0"), "says not whether"),
        (("--method", "nbi"), "nib"),
        (("--plan", "none.toml"), "none.toml"),
        (("--plan", "none.toml", "--layer", "1"), "leave --layer"),
        (("--surface", "s.jpg"), "--surface s.jpg"),
    ],
)
def test_wrong_options_are_one_line(
    given: tuple[object, ...], said: str, run: Run, tmp_path: Path
) -> None:
    method = () if "--method" in given else ("--method", "nib")
    result = run("tune", "--limit", 1, "--out", tmp_path / "o.toml", *method, *given)
    assert result.code == 2, result.out
    assert said in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "o.toml").exists()


def test_a_plan_of_several_methods_explains_no_pair(run: Run, files: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('[grid.a]\nmethod = "nib"\nlayer = [0, 1]\n')
    pair = ("--image", files / "good.png", "--text", "a dog", "--config", plan)
    assert "names 2 methods" in run("attribute", *pair).err
    assert "leave --layer out" in run("attribute", *pair, "--layer", 1).err
