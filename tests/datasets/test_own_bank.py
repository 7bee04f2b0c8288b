"""A bank of one's own: beside the shipped one, checked when opened, sent to other processes."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_bank import NAMES

import mmattrib as mm
from mmattrib.backbones.tiny.checkpoint import TinyInfo, save_tiny
from mmattrib.backbones.tiny.model import TinyConfig, TinyModel
from mmattrib.datasets.scenes import Bank, Scene, SceneOptions, generate, scene_of
from mmattrib.datasets.scenes import drawing as draw
from mmattrib.datasets.scenes.captions import vocabulary
from mmattrib.datasets.scenes.export import write_scenes
from mmattrib.datasets.scenes.specs import draw_spec
from mmattrib.errors import InputError, OptionError, WeightsError
from mmattrib.types import RawText


@pytest.fixture(scope="module")
def bank(own_bank_folder: Path) -> Bank:
    return Bank.load(own_bank_folder)


def _files(scene: Scene) -> set[str]:
    return {part.file for part in (*scene.objects, *scene.events)}


def _equal(one: Scene, other: Scene) -> bool:
    return (
        np.array_equal(one.image, other.image)
        and np.array_equal(one.audio, other.audio)
        and one.caption == other.caption
    )


def test_scenes_are_made_of_the_bank_that_is_given(bank: Bank, own_bank_folder: Path) -> None:
    found = mm.scenes(30, bank=bank, options=SceneOptions(check=False))
    assert all(scene.shared[0] in NAMES for scene in found)
    assert all((own_bank_folder / file).is_file() for scene in found for file in _files(scene))
    assert any("plate" in scene.caption for scene in found)
    words = vocabulary(bank)
    assert {"disc", "plate", "sea", "lion"} < set(words)
    assert "piano" not in words


def test_two_banks_do_not_disturb_each_other(own_bank_folder: Path) -> None:
    first = mm.scenes(2)
    bank = Bank.load(own_bank_folder)
    own = mm.scenes(2, bank=bank)
    again, own_again = mm.scenes(2), mm.scenes(2, bank=Bank.load(own_bank_folder))
    assert all(_equal(a, b) for a, b in zip([*first, *own], [*again, *own_again], strict=True))
    assert not any(_equal(a, b) for a, b in zip(first, own, strict=True))
    with pytest.raises(OptionError, match="piano"):
        scene_of(["piano"], bank=bank)
    assert scene_of(["disc"], bank=bank).shared == ("disc",)
    with pytest.raises(OptionError, match="disc"):
        scene_of(["disc"])


def test_a_background_of_one_bank_is_not_that_of_the_other(bank: Bank) -> None:
    """A background may hold a scrap of one of the bank's drawings."""
    shipped = Bank.shipped()
    pairs = [
        (draw._background(shipped, "train", k), draw._background(bank, "train", k))
        for k in range(16)
    ]
    assert 0 < sum(np.array_equal(*pair) for pair in pairs) < len(pairs)


def _without_first(scene: Scene) -> list[Scene]:
    return [scene.without(modality, 0) for modality in ("image", "audio", "text")]


@pytest.mark.slow
def test_a_scene_is_sent_to_another_process_and_drawn_again_there(bank: Bank) -> None:
    made = [mm.scenes(1)[0], mm.scenes(1, bank=bank)[0]]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        found = list(pool.map(_without_first, made))
    for scene, there in zip(made, found, strict=True):
        assert all(_equal(a, b) for a, b in zip(_without_first(scene), there, strict=True))


def test_a_pickled_bank_is_small_and_opened_once(bank: Bank) -> None:
    mm.scenes(1, bank=bank)
    data = pickle.dumps(bank)
    assert len(data) < 1000
    assert pickle.loads(data) is pickle.loads(data)
    assert pickle.loads(data).fingerprint() == bank.fingerprint()
    assert pickle.loads(pickle.dumps(Bank.shipped())) is Bank.shipped()


def test_a_bank_that_has_changed_does_not_redraw_old_scenes(
    own_bank_folder: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(own_bank_folder, tmp_path / "bank")
    data = pickle.dumps(Bank.load(moved))
    catalog = json.loads((moved / "catalog.json").read_text())
    catalog["classes"].reverse()
    (moved / "catalog.json").write_text(json.dumps(catalog))
    with pytest.raises(InputError, match="not the one that these scenes were made from"):
        pickle.loads(data)


def test_a_fingerprint_tells_of_every_file(own_bank_folder: Path, tmp_path: Path) -> None:
    one, other = (shutil.copytree(own_bank_folder, tmp_path / name) for name in ("one", "other"))
    known = Bank.load(one).fingerprint()
    assert known == Bank.load(other).fingerprint()
    bank = Bank.load(other)
    sprites = [other / row.file for row in bank.catalog.sprites]
    sprites[0].write_bytes(sprites[1].read_bytes())
    assert bank.fingerprint() != known
    assert Bank.shipped().fingerprint() != known


def test_written_scenes_are_made_of_the_bank(bank: Bank, tmp_path: Path) -> None:
    (scene,) = write_scenes(tmp_path / "set", 1, bank=bank)
    assert json.loads((scene / "truth.json").read_text())["shared"][0] in NAMES


@pytest.mark.parametrize(
    "file",
    ["../secret", "/etc/hostname", "sprites/../../secret", "a\\..\\b", "C:x", "./NOTICE", ""],
)
def test_no_path_leaves_the_bank(bank: Bank, own_bank_folder: Path, file: str) -> None:
    (own_bank_folder.parent / "secret").write_text("secret")
    for each in (bank, Bank.shipped()):
        with pytest.raises(InputError, match="below the bank's folder"):
            each.read_bytes(file)


def test_no_link_leaves_the_bank(own_bank_folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(own_bank_folder, tmp_path / "copy")
    (tmp_path / "secret").write_text("secret")
    (copied / "link").symlink_to(tmp_path / "secret")
    bank = Bank.load(copied)
    assert bank.read_bytes("NOTICE").startswith(b"Files")
    with pytest.raises(InputError, match="link out of"):
        bank.read_bytes("link")


def test_a_folder_without_a_catalogue_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"bank .*catalog\.json"):
            Bank.load(place)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.update(version=2), "version 2"),
        (lambda raw: raw.pop("sounds"), "not a catalogue"),
        (lambda raw: raw["sprites"][0].update(colour="red"), "not a catalogue"),
        (
            lambda raw: raw.update(sounds=[s for s in raw["sounds"] if s["split"] == "train"]),
            "disc needs a sound",
        ),
        (
            lambda raw: raw.update(sprites=[s for s in raw["sprites"] if s["class"]]),
            "what belongs to no class needs a drawing",
        ),
    ],
)
def test_a_broken_catalogue_is_refused(
    own_bank_folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    raw = json.loads((own_bank_folder / "catalog.json").read_text())
    change(raw)
    (tmp_path / "catalog.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match=message):
        Bank.load(tmp_path)


def test_scenes_that_need_more_classes_than_there_are(bank: Bank) -> None:
    most = SceneOptions(0, (4, 4), (4, 4), (0, 0))
    assert len(set(draw_spec(bank, 0, 0, "train", most).image)) == 4
    with pytest.raises(OptionError, match="more classes than the 8"):
        generate(0, 0, "train", SceneOptions(0, (4, 4), (4, 4), (1, 1)), bank)


def test_tiny_loads_weights_of_another_bank(tmp_path: Path) -> None:
    words = ("<pad>", "<cls>", "<unk>", "a", "plate", "disc")
    config = TinyConfig(depth=1, vocabulary=len(words))
    path = tmp_path / "own.safetensors"
    save_tiny(path, TinyModel(config), TinyInfo(config, words, NAMES, {}))
    backbone = mm.load_backbone("tiny", checkpoint=str(path))
    inputs = backbone["text"].preprocess([RawText("a plate", "a"), RawText("a piano", "b")])
    assert "'piano'" in backbone["text"].notes(RawText("a piano"))[0]
    assert inputs["x"][:, :3].tolist() == [[1, 3, 4], [1, 3, 2]]
    with pytest.raises(InputError, match="knows 3, such as 'plate', 'disc'"):
        backbone["text"].preprocess([RawText("piano", "c")])
    assert backbone.provenance["checkpoint"] == "own.safetensors"
    assert "licence" not in backbone.provenance
    path.write_bytes(b"pickle")
    with pytest.raises(WeightsError, match="not a checkpoint of tiny"):
        mm.load_backbone("tiny", checkpoint=str(path))
