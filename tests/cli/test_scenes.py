"""`mmattrib scenes`: the files are the scenes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_program import Run
from PIL import Image

import mmattrib as mm
from mmattrib.cli.scenes import scenes as command
from mmattrib.datasets.scenes import SPLITS, Bank, export
from mmattrib.errors import InputError, OptionError


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_files_hold_the_scenes_and_their_truth(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "set"
    result = run("scenes", "--out", out, "--n", 2, "--seed", 5)
    assert (result.code, result.out) == (0, f"Wrote 2 scenes to {out}\n")
    index = json.loads((out / "scenes.json").read_text())
    assert index == {"seed": 5, "split": "heldout", "scenes": ["scene-0000", "scene-0001"]}
    for name, scene in zip(index["scenes"], mm.scenes(2, seed=5), strict=True):
        folder = out / name
        assert np.array_equal(pixels(folder / "image.png"), scene.image)
        samples, rate = soundfile.read(folder / "audio.flac", dtype="float32")
        assert rate == scene.sample_rate
        assert np.abs(samples - scene.audio).max() <= 2**-23
        assert (folder / "caption.txt").read_text() == f"{scene.caption}\n"
        truth = json.loads((folder / "truth.json").read_text())
        with np.load(folder / "masks.npz") as file:
            masks = {key: file[key] for key in file}
        assert truth["shared"] == list(scene.shared)
        assert [o["class"] for o in truth["objects"]] == [o.class_name for o in scene.objects]
        for given, scene_object in zip(truth["objects"], scene.objects, strict=True):
            assert np.array_equal(masks["image"][given["mask"]], scene_object.mask)
            assert given["pixels"] == scene_object.mask.sum()
        for given, event in zip(truth["events"], scene.events, strict=True):
            assert np.array_equal(masks["audio"][given["mask"]], event.mask)
            assert (given["class"], given["start"], given["end"]) == (
                event.class_name,
                event.start,
                event.end,
            )
        for given, mention in zip(truth["mentions"], scene.mentions, strict=True):
            assert (given["class"], given["start"], given["end"]) == (
                mention.class_name,
                *mention.span,
            )
        assert masks["audio"].shape[1:] == (
            len(truth["axes"]["mel_hz"]),
            len(truth["axes"]["frame_seconds"]),
        )
        shared = np.any([o.mask for o in scene.objects if o.class_name in scene.shared], axis=0)
        assert np.array_equal(pixels(folder / "shared.png") > 0, shared)


def test_an_empty_folder_may_be_given_and_split_matters(run: Run, tmp_path: Path) -> None:
    for split in SPLITS:
        out = tmp_path / split
        out.mkdir()
        assert run("scenes", "--out", out, "--n", 1, "--split", split).code == 0
        assert json.loads((out / "scene-0000" / "truth.json").read_text())["split"] == split
    images = [(tmp_path / split / "scene-0000" / "image.png").read_bytes() for split in SPLITS]
    assert images[0] != images[1]


def test_the_command_offers_the_splits_that_there_are() -> None:
    option = next(p for p in command.params if p.name == "split")
    assert tuple(option.type.choices) == SPLITS  # type: ignore[attr-defined]


@pytest.mark.slow
def test_scenes_can_be_made_of_another_bank(
    run: Run, tmp_path: Path, own_bank_folder: Path
) -> None:
    out = tmp_path / "set"
    assert run("scenes", "--out", out, "--n", 1, "--bank", own_bank_folder).code == 0
    truth = json.loads((out / "scene-0000" / "truth.json").read_text())
    (scene,) = mm.scenes(1, bank=Bank.load(own_bank_folder))
    assert truth["shared"] == list(scene.shared)
    assert np.array_equal(pixels(out / "scene-0000" / "image.png"), scene.image)
    refused = run("scenes", "--out", tmp_path / "none", "--bank", tmp_path)
    assert refused.code == 2
    assert "a folder with a catalog.json is accepted" in refused.err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), soundfile.LibsndfileError(2)],
    ids=["of Python", "of libsndfile"],
)
def test_a_failure_midway_leaves_nothing(
    error: Exception, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def failing(scene: mm.Scene, folder: Path) -> None:
        if made:
            raise error
        made.append(folder)
        folder.mkdir()

    monkeypatch.setattr(export, "write_scene", failing)
    result = run("scenes", "--out", tmp_path / "set", "--n", 3)
    assert result.code == 2
    assert re.search(r"set': (No space left|System error).*where there is room", result.err)
    assert list(tmp_path.iterdir()) == []


def test_bad_calls_from_python(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="n must be a whole number from 1 to"):
        export.write_scenes(tmp_path / "s", 0)
    with pytest.raises(OptionError, match="split 'test'"):
        export.write_scenes(tmp_path / "s", 1, split="test")  # type: ignore[arg-type]
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        export.write_scenes(tmp_path / "file", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
