"""A bank of one's own: MMATTRIB_ASSETS, and the one made of Tux Paint's stamps."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageDraw

import mmattrib as mm
from examples.tiny import stamps
from examples.tiny.build_assets import BuildError
from examples.tiny.evaluate import evaluate
from examples.tiny.stamp_list import CLASSES, IMAGE_DISTRACTORS, SOUND_DISTRACTORS, Stamp
from mmattrib.backbones.tiny.checkpoint import TinyInfo, save_tiny
from mmattrib.backbones.tiny.model import TinyConfig, TinyModel
from mmattrib.datasets.scenes import bank as assets
from mmattrib.datasets.scenes.specs import SceneOptions, draw_spec
from mmattrib.errors import InputError, OptionError, WeightsError
from mmattrib.types import RawText

NAMES = ("disc", "square", "cross", "bar", "wedge", "ring", "dot", "sea lion")
SCRIPT = """
import json, sys
import torch
import mmattrib as mm
from examples.tiny.batches import Mix, audio_batch, draw_specs, image_batch
from mmattrib.datasets.scenes import bank as assets
from mmattrib.datasets.scenes import captions
from mmattrib.datasets.scenes.specs import SceneOptions, draw_spec
torch.set_num_threads(1)
specs = draw_specs(0, 0, 4, Mix())
found = [s for s in mm.scenes(3)]
print(json.dumps({
    "classes": assets.class_names(),
    "shared": [s.shared for s in found],
    "files": sorted({o.file for s in found for o in s.objects} | {e.file for s in found
                    for e in s.events}),
    "captions": [s.caption for s in mm.scenes(30)],
    "vocabulary": captions.vocabulary(),
    "batches": [list(image_batch(specs).shape), list(audio_batch(specs).shape)],
}))
"""


def _png(seed: int, size: tuple[int, int] = (150, 100)) -> bytes:
    image = Image.new("RGBA", (size[0] + 40, size[1] + 20))
    colour = tuple(int(c) for c in np.random.default_rng(seed).integers(40, 255, 3))
    ImageDraw.Draw(image).ellipse((20, 10, 20 + size[0], 10 + size[1]), (*colour, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _ogg(*tones: tuple[float, float], rate: int = 44_100) -> bytes:
    """Tones of (Hz, seconds), one after the other."""
    parts = [0.5 * np.sin(2 * np.pi * hz * np.arange(int(s * rate)) / rate) for hz, s in tones]
    buffer = io.BytesIO()
    soundfile.write(buffer, np.concatenate(parts), rate, format="OGG", subtype="VORBIS")
    return buffer.getvalue()


def _stamps() -> tuple[list[Stamp], list[Stamp], dict[str, bytes]]:
    """Classes, distractors and the members that they are made from."""
    classes = [Stamp(n, (f"a/{n}",), (f"a/{n}",), heldout_recordings=(f"a/{n}",)) for n in NAMES]
    classes[0] = Stamp(
        "disc", ("a/disc",), ("a/disc",), ("a/disc2",), ("a/disc",), words=("disc", "plate")
    )
    rest = [
        Stamp("thing", photographs=("b/thing",), recordings=("b/thing",)),
        Stamp("other", heldout_photographs=("b/other",), heldout_recordings=("b/other",)),
    ]
    members = {stamps.COPYRIGHT: b"Files: *\nLicense: GPL-2\n"}
    for k, name in enumerate(sorted(stamps.members_of([*classes, *rest]) - set(members))):
        # 60 % of the sound is low, the rest high
        tones = ((300.0 + 40 * k, 1.8), (2500.0 + 40 * k, 1.2))
        members[name] = _png(k) if name.endswith(".png") else _ogg(*tones)
    return classes, rest, members


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classes, rest, members = _stamps()
    out = tmp_path_factory.mktemp("bank")
    stamps.convert(members, out, classes, rest)
    return out


def _catalog(bank: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    raw = json.loads((bank / "catalog.json").read_text())
    change(raw)
    target.mkdir(exist_ok=True)
    (target / "catalog.json").write_text(json.dumps(raw))
    return target


def test_the_environment_variable_replaces_the_shipped_bank(bank: Path) -> None:
    environment = {**os.environ, "MMATTRIB_ASSETS": str(bank), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["classes"] == list(NAMES)
    assert all(len(shared) == 1 and shared[0] in NAMES for shared in found["shared"])
    assert all((bank / file).is_file() for file in found["files"])
    assert {"disc", "plate", "sea", "lion"} < set(found["vocabulary"])
    assert "piano" not in found["vocabulary"]
    assert any("plate" in caption for caption in found["captions"])
    assert found["batches"] == [[4, 3, 96, 96], [4, 64, 128]]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    "file",
    ["../secret", "/etc/hostname", "sprites/../../secret", "a\\..\\b", "C:x", "./NOTICE", ""],
)
def test_no_path_leaves_the_bank(
    bank: Path, monkeypatch: pytest.MonkeyPatch, file: str, own: bool
) -> None:
    (bank.parent / "secret").write_text("secret")
    if own:
        monkeypatch.setenv(assets.ENVIRONMENT, str(bank))
    with pytest.raises(InputError, match="below the bank's folder"):
        assets.read_bytes(file)


def test_no_link_leaves_the_bank(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(bank, tmp_path / "copy")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    monkeypatch.setenv(assets.ENVIRONMENT, str(folder))
    assert assets.read_bytes("NOTICE").startswith(b"Files")
    with pytest.raises(InputError, match="link out of"):
        assets.read_bytes("link")


def test_a_folder_without_a_catalogue_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        monkeypatch.setenv(assets.ENVIRONMENT, str(folder))
        with pytest.raises(InputError, match=r"MMATTRIB_ASSETS=.*catalog\.json"):
            assets.catalog.__wrapped__()


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
    bank: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Any]], object],
    message: str,
) -> None:
    folder = _catalog(bank, tmp_path / "changed", change)
    monkeypatch.setenv(assets.ENVIRONMENT, str(folder))
    with pytest.raises(InputError, match=message):
        assets.catalog.__wrapped__()


def test_scenes_that_need_more_classes_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "class_names", lambda: NAMES)
    most = SceneOptions(0, (4, 4), (4, 4), (0, 0))
    assert len(set(draw_spec(0, 0, "train", most).image)) == 4
    with pytest.raises(OptionError, match="more classes than the 8"):
        draw_spec(0, 0, "train", SceneOptions(0, (4, 4), (4, 4), (1, 1)))


def test_the_converted_photographs(bank: Path) -> None:
    rows = json.loads((bank / "catalog.json").read_text())["sprites"]
    assert {(r["class"], r["split"]) for r in rows} == {
        ("disc", "train"),
        ("disc", "heldout"),
        *((name, "both") for name in NAMES[1:]),
        (None, "train"),
        (None, "heldout"),
    }
    for row in rows:
        with Image.open(bank / row["file"]) as image:
            assert image.mode == "RGBA"
            assert image.size == (64, 43)  # 151 x 101 within a transparent margin


def test_the_converted_sounds(bank: Path) -> None:
    rows = json.loads((bank / "catalog.json").read_text())["sounds"]
    of_class = [r for r in rows if r["class"] == "sea lion"]
    assert [r["split"] for r in of_class] == ["train"] * 16 + ["heldout"] * 6
    for row in of_class:
        samples, rate = soundfile.read(bank / row["file"])
        assert rate == 16_000
        assert 0.39 <= len(samples) / rate <= 1.41
        assert abs(len(samples) / rate - row["seconds"]) < 0.01
        assert abs(np.sqrt(np.mean(samples**2)) - 0.1) < 0.02
        # The recording is cut: training never hears its high end, nor held-out its low beginning.
        hz = np.fft.rfftfreq(len(samples), 1 / rate)[np.abs(np.fft.rfft(samples)).argmax()]
        assert (hz < 1500) == (row["split"] == "train")
    assert {r["split"] for r in rows if r["name"] == "thing"} == {"train"}


def test_the_same_members_give_the_same_bytes(bank: Path, tmp_path: Path) -> None:
    classes, rest, members = _stamps()
    stamps.convert(members, tmp_path, classes, rest)
    files = {p.relative_to(bank) for p in bank.rglob("*") if p.is_file()}
    assert files == {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()}
    assert all((bank / f).read_bytes() == (tmp_path / f).read_bytes() for f in files)


def test_members_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    one = [Stamp("disc", ("a/disc",), ("a/disc",), heldout_recordings=("a/disc",))]
    png, ogg = f"{stamps.STAMPS}a/disc.png", f"{stamps.STAMPS}a/disc.ogg"
    good = {png: _png(0), ogg: _ogg((400.0, 1.0)), stamps.COPYRIGHT: b""}
    clear = io.BytesIO()
    Image.new("RGBA", (9, 9)).save(clear, "PNG")
    for member, data, message in (
        (png, clear.getvalue(), "the drawing is empty"),
        (png, b"GIF89a", "cannot identify"),
        (png, _png(0, (5000, 10)), "at most 4096"),
        (ogg, b"text", "not a sound file"),
        (ogg, _ogg((0.0, 1.0)), "silent"),
    ):
        with pytest.raises(BuildError, match=message) as caught:
            stamps.convert({**good, member: data}, tmp_path, one, ())
        assert member in str(caught.value)


@pytest.mark.parametrize("rate", [8_000.0, 37_900.0, 44_100.0])
def test_resampling_keeps_a_tone(rate: float) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(int(rate)) / rate)
    out = stamps.to_bank_rate(tone, rate)
    np.testing.assert_allclose(
        out[500:-500], np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)[500:-500], atol=0.01
    )
    hum = stamps.to_bank_rate(np.sin(2 * np.pi * 20 * np.arange(int(rate)) / rate), rate)
    assert np.abs(hum).max() < 0.01  # outside the bank's band


def test_a_cut_shares_out_what_sounds() -> None:
    samples = np.concatenate([np.zeros(640), np.ones(3200), np.zeros(6400), np.ones(3200)])
    heard = stamps.sounding(samples, "x")
    assert len(heard) == len(samples) - 640
    train, heldout = stamps.cut(heard)
    assert (int(train.sum()), int(heldout.sum())) == (3840, 2560)


class _Answer(io.BytesIO):
    """What urlopen returns."""


@pytest.mark.parametrize(
    ("most", "right", "message"),
    [(100, True, None), (100, False, "SHA-256"), (9, True, "larger than 9 bytes")],
)
def test_a_download_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, right: bool, message: str | None
) -> None:
    data = b"0123456789"
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: _Answer(data))
    sha256 = hashlib.sha256(data if right else b"another").hexdigest()
    target = tmp_path / "file.deb"
    if message is None:
        assert stamps.fetch(target, sha256=sha256, most=most).read_bytes() == data
    else:
        with pytest.raises(BuildError, match=message):
            stamps.fetch(target, sha256=sha256, most=most)
    assert [p.name for p in tmp_path.iterdir()] == ([] if message else ["file.deb"])


def test_an_unreachable_server_leaves_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise OSError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(BuildError, match=r"no route.*--deb"):
        stamps.fetch(tmp_path / "file.deb")


def test_another_package_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.deb").write_bytes(b"another")
    with pytest.raises(SystemExit):
        stamps.main(["--out", str(tmp_path / "out"), "--deb", str(tmp_path / "x.deb")])
    assert "it is another file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _tar(entries: dict[str, bytes | None]) -> io.BytesIO:
    """An archive; None is a link to /etc/hostname."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            else:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data or b""))
    buffer.seek(0)
    return buffer


def test_only_wanted_regular_members_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"./a": b"1", "../b": b"2", "./c": None, "./d": b"12345"}
    assert stamps.read_tar(_tar(entries), ["a"]) == {"a": b"1"}
    with pytest.raises(BuildError, match="lacks b"):
        stamps.read_tar(_tar(entries), ["a", "b"])
    with pytest.raises(BuildError, match="c: a regular file"):
        stamps.read_tar(_tar(entries), ["c"])
    monkeypatch.setattr(stamps, "MEMBER_BYTES", 4)
    with pytest.raises(BuildError, match="d: a regular file of at most 4 bytes"):
        stamps.read_tar(_tar(entries), ["d"])


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_debian_package_is_read(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    (tree / "usr").mkdir()
    (tree / "usr" / "file").write_bytes(b"content")
    deb = tmp_path / "x.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(deb)], check=True, capture_output=True)
    assert stamps.read_deb(deb, ["usr/file"]) == {"usr/file": b"content"}
    deb.write_bytes(b"no package")
    with pytest.raises(BuildError, match=r"cannot be unpacked: .*dpkg-deb"):
        stamps.read_deb(deb, ["usr/file"])


def test_a_missing_dpkg_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BuildError, match="apt install dpkg"):
        stamps.read_deb(tmp_path / "x.deb", ["a"])


def test_the_list_of_stamps_keeps_its_own_rules() -> None:
    everything = (*CLASSES, *IMAGE_DISTRACTORS, *SOUND_DISTRACTORS)
    names = [stamp.name for stamp in everything]
    assert len(set(names)) == len(names)
    assert 30 <= len(CLASSES) <= 41
    photographs = [p for s in everything for p in (*s.photographs, *s.heldout_photographs)]
    assert len(set(photographs)) == len(photographs)
    recordings = [p for s in everything for p in {*s.recordings, *s.heldout_recordings}]
    assert len(set(recordings)) == len(recordings)
    assert not any(path.endswith("_desc") for path in recordings)  # spoken
    for stamp in CLASSES:
        assert stamp.photographs
        assert stamp.recordings
        assert stamp.heldout_recordings
    for distractors, kind in (
        (IMAGE_DISTRACTORS, "photographs"),
        (SOUND_DISTRACTORS, "recordings"),
    ):
        assert any(getattr(stamp, kind) for stamp in distractors)
        assert any(getattr(stamp, f"heldout_{kind}") for stamp in distractors)


def test_tiny_loads_weights_of_another_world(tmp_path: Path) -> None:
    words = ("<pad>", "<cls>", "<unk>", "a", "plate", "disc")
    config = TinyConfig(depth=1, vocabulary=len(words))
    path = tmp_path / "own.safetensors"
    save_tiny(path, TinyModel(config), TinyInfo(config, words, NAMES, {}))
    backbone = mm.load_backbone("tiny", checkpoint=str(path))
    inputs = backbone["text"].preprocess([RawText("a plate", "a"), RawText("a piano", "b")])
    assert inputs["x"][:, :3].tolist() == [[1, 3, 4], [1, 3, 2]]
    assert backbone.provenance["checkpoint"] == "own.safetensors"
    assert "licence" not in backbone.provenance
    with pytest.raises(WeightsError, match=r"8 classes \(disc, \.\.\.\).*MMATTRIB_ASSETS"):
        evaluate(path)
    path.write_bytes(b"pickle")
    with pytest.raises(WeightsError, match="not a checkpoint of tiny"):
        mm.load_backbone("tiny", checkpoint=str(path))
