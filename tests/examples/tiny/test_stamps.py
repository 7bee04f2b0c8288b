"""The bank made of Tux Paint's stamps: what is read, checked and written."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile
from own_bank import NAMES, ogg, png, stamps_and_members
from PIL import Image

from examples.tiny import stamps
from examples.tiny.build_assets import BuildError
from examples.tiny.stamp_list import CLASSES, IMAGE_DISTRACTORS, SOUND_DISTRACTORS, Stamp


def test_the_converted_photographs(own_bank_folder: Path) -> None:
    rows = json.loads((own_bank_folder / "catalog.json").read_text())["sprites"]
    assert {(r["class"], r["split"]) for r in rows} == {
        ("disc", "train"),
        ("disc", "heldout"),
        *((name, "both") for name in NAMES[1:]),
        (None, "train"),
        (None, "heldout"),
    }
    for row in rows:
        with Image.open(own_bank_folder / row["file"]) as image:
            assert image.mode == "RGBA"
            assert image.size == (64, 43)  # 151 x 101 within a transparent margin


def test_the_converted_sounds(own_bank_folder: Path) -> None:
    rows = json.loads((own_bank_folder / "catalog.json").read_text())["sounds"]
    of_class = [r for r in rows if r["class"] == "sea lion"]
    assert [r["split"] for r in of_class] == ["train"] * 16 + ["heldout"] * 6
    for row in of_class:
        samples, rate = soundfile.read(own_bank_folder / row["file"])
        assert rate == 16_000
        assert 0.39 <= len(samples) / rate <= 1.41
        assert abs(len(samples) / rate - row["seconds"]) < 0.01
        assert abs(np.sqrt(np.mean(samples**2)) - 0.1) < 0.02
        # The recording is cut: training never hears its high end, nor held-out its low beginning.
        hz = np.fft.rfftfreq(len(samples), 1 / rate)[np.abs(np.fft.rfft(samples)).argmax()]
        assert (hz < 1500) == (row["split"] == "train")
    assert {r["split"] for r in rows if r["name"] == "thing"} == {"train"}


def test_the_same_members_give_the_same_bytes(own_bank_folder: Path, tmp_path: Path) -> None:
    """One class and the distractors again: the other classes go the same way."""
    classes, rest, members = stamps_and_members()
    stamps.convert(members, tmp_path, classes[:1], rest)
    files = {p.relative_to(tmp_path) for p in tmp_path.rglob("*.*") if p.suffix != ".json"}
    assert {p.parts[0] for p in files} == {"sprites", "sounds"}
    assert all((own_bank_folder / f).read_bytes() == (tmp_path / f).read_bytes() for f in files)
    old, new = (json.loads((p / "catalog.json").read_text()) for p in (own_bank_folder, tmp_path))
    for kind in ("sprites", "sounds"):
        again = [row for row in old[kind] if row["class"] in (None, classes[0].name)]
        assert new[kind] == again


def test_members_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    one = [Stamp("disc", ("a/disc",), ("a/disc",), heldout_recordings=("a/disc",))]
    drawing, sound = f"{stamps.STAMPS}a/disc.png", f"{stamps.STAMPS}a/disc.ogg"
    good = {drawing: png(0), sound: ogg((400.0, 1.0)), stamps.COPYRIGHT: b""}
    clear = io.BytesIO()
    Image.new("RGBA", (9, 9)).save(clear, "PNG")
    for member, data, message in (
        (drawing, clear.getvalue(), "the drawing is empty"),
        (drawing, b"GIF89a", "cannot identify"),
        (drawing, png(0, (5000, 10)), "at most 4096"),
        (sound, b"text", "not a sound file"),
        (sound, ogg((0.0, 1.0)), "silent"),
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
