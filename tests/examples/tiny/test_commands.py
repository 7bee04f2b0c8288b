"""The commands of examples/tiny: each says what it takes, and what is wrong with what it got."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from own_bank import NAMES

from examples.tiny import evaluate, train
from mmattrib.backbones.tiny.checkpoint import TinyInfo, load_tiny, save_tiny
from mmattrib.backbones.tiny.model import TinyConfig, TinyModel
from mmattrib.datasets.scenes import Bank
from mmattrib.datasets.scenes.captions import vocabulary
from mmattrib.errors import WeightsError

ROOT = Path(__file__).parents[3]
COMMANDS = ("build_assets", "stamps", "train", "evaluate")


@pytest.fixture(scope="module")
def checkpoint(own_bank_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights for the classes of the bank."""
    words = vocabulary(Bank.load(own_bank_folder))
    config = TinyConfig(depth=1, vocabulary=len(words))
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_tiny(path, TinyModel(config), TinyInfo(config, words, NAMES, {}))
    return path


LONGER = [pytest.param(name, marks=pytest.mark.slow) for name in ("train", "evaluate")]


@pytest.mark.parametrize("command", [*COMMANDS[:2], *LONGER])
def test_each_command_runs_from_the_root_of_the_repository(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"examples.tiny.{command}", "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage:" in done.stdout


def test_the_readme_names_each_command_and_each_file() -> None:
    readme = (ROOT / "examples/tiny/README.md").read_text()
    assert set(re.findall(r"python -m examples\.tiny\.(\w+)", readme)) == set(COMMANDS)
    files = {path.name for path in (ROOT / "examples/tiny").glob("*.py")} - {"__init__.py"}
    assert files <= set(re.findall(r"`(\w+\.py)`", readme))


def test_weights_are_measured_on_the_bank_that_they_were_trained_on(
    checkpoint: Path, own_bank_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--split", "heldout", "--draws", "1", "--pools", "1", "--n", "2"]
    with pytest.raises(WeightsError, match=r"8 classes \(disc, \.\.\.\).*--bank"):
        evaluate.evaluate(checkpoint)
    with pytest.raises(SystemExit):
        evaluate.main([str(checkpoint), *small])
    assert "8 classes (disc, ...)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate.main([str(checkpoint), "--bank", str(own_bank_folder / "sprites")])
    assert "catalog.json" in capsys.readouterr().err
    found = evaluate.evaluate(checkpoint, draws=1, pools=0, n=2, bank=Bank.load(own_bank_folder))
    assert set(found["single"]) == {"image-text", "audio-text", "image-audio"}


def test_untrained_folders_and_wrong_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["--assemble-only"], "train first"),
        (["--bank", str(tmp_path)], "catalog.json"),
        (["--alone", "1"], "--alone between 0 and 1"),
    ):
        with pytest.raises(SystemExit):
            train.main(["--out", str(tmp_path), *arguments])
        assert message in capsys.readouterr().err


def test_a_run_does_not_go_on_with_another_bank(
    own_bank_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = Bank.load(own_bank_folder)
    (tmp_path / "recipe.json").write_text(json.dumps({"bank": bank.fingerprint(), "seed": 0}))
    assert train.read_recipe(tmp_path, bank)["seed"] == 0
    for group in train.GROUPS:
        (tmp_path / f"{group}.pt").write_bytes(b"")
    for how in ("--resume", "--assemble-only"):
        with pytest.raises(SystemExit):
            train.main(["--out", str(tmp_path), how])
        assert "trained on another bank than Bank.shipped()" in capsys.readouterr().err


@pytest.mark.slow
def test_training_on_another_bank_knows_its_words(own_bank_folder: Path, tmp_path: Path) -> None:
    recipe = train.Recipe(stage1_minutes=0.02, stage2_minutes=0.02, stage1_batch=4, stage2_batch=4)
    _, info = load_tiny(train.train(tmp_path, recipe, bank=Bank.load(own_bank_folder)))
    assert info.class_names == NAMES
    assert "plate" in info.vocabulary


def test_the_catalogue_that_is_written_is_the_one_that_is_read(own_bank_folder: Path) -> None:
    bank = Bank.load(own_bank_folder)
    rows = json.loads((own_bank_folder / "catalog.json").read_text())
    assert [row["file"] for row in rows["sounds"]] == [sound.file for sound in bank.catalog.sounds]
