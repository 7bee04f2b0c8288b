"""Explanations written and read back: exact, whole, and in the small form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from render_examples import audio_side, image_side, pair, seen_in_part, text_side

from mmattrib.errors import InputError, OptionError
from mmattrib.io import _archive as archive
from mmattrib.io.explanations import load
from mmattrib.placement import PlanePlacement, WeightedCells, from_map
from mmattrib.plugins.saving import save
from mmattrib.types import Attribution, Axis, Explanation, RawArray, RawAudio, RawImage, RawText


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    return (
        first.dtype == second.dtype
        and first.shape == second.shape
        and first.tobytes() == second.tobytes()
    )


def assert_same(first: Explanation, second: Explanation) -> None:
    assert list(first) == list(second)
    assert first.similarity == second.similarity
    assert dict(first.provenance) == dict(second.provenance)
    for side in first:
        one, two = first[side], second[side]
        assert same_bits(one.scores, two.scores)
        assert same_bits(one.token_scores, two.token_scores)
        assert same_bits(one.content, two.content)
        assert same_bits(one.seen, two.seen)
        assert (one.modality, one.unit, one.layer) == (two.modality, two.unit, two.layer)
        assert one.words == two.words
        assert [(a.name, a.unit) for a in one.axes] == [(a.name, a.unit) for a in two.axes]
        assert all(same_bits(a.values, b.values) for a, b in zip(one.axes, two.axes, strict=True))
        # repr, since a NaN among the losses is unequal to itself
        assert repr(dict(one.diagnostics)) == repr(dict(two.diagnostics))
        raw, back = first.inputs[side], second.inputs[side]
        assert type(raw) is type(back)
        assert raw.name == back.name
        if isinstance(raw, RawImage):
            assert isinstance(back, RawImage)
            assert same_bits(raw.pixels, back.pixels)
        elif isinstance(raw, RawAudio):
            assert isinstance(back, RawAudio)
            assert same_bits(raw.samples, back.samples)
            assert raw.sample_rate == back.sample_rate
        else:
            assert isinstance(raw, RawText)
            assert isinstance(back, RawText)
            assert raw.text == back.text


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_round_trip_is_exact(explanation: Explanation, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    assert save(explanation, path) == path
    assert_same(explanation, load(path))


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize(
    "odd",
    [
        np.array([np.nan, -0.0, 1e-45, 3.4e38, 0.1, 1 / 3], np.float32),
        np.array([np.inf, -np.inf, 0, 1, 2, 3], np.float32),
    ],
)
def test_odd_numbers_survive(odd: np.ndarray, suffix: str, tmp_path: Path) -> None:
    raw, attribution = image_side(2, 3)
    example = pair(
        (raw, replace(attribution, token_scores=odd)),
        text_side("naïve 雪 🔔 \udcff \x00 end", name="\udc80.txt"),
    )
    path = save(example, tmp_path / f"x{suffix}")
    assert_same(example, load(path))


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_no_words_and_large_arrays_survive(suffix: str, tmp_path: Path) -> None:
    example = pair(image_side(700, 500), text_side("   "))
    assert example["text"].scores.shape == (0,)
    assert_same(example, load(save(example, tmp_path / f"x{suffix}")))


def test_json_is_strict_json_with_plain_lists(tmp_path: Path) -> None:
    path = save(pair(image_side(4, 5), text_side()), tmp_path / "x.json")

    def forbid(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    tree = json.loads(path.read_text(), parse_constant=forbid)
    scores = tree["attributions"]["image"]["token_scores"]
    assert np.shape(scores) == (20,)
    assert tree["attributions"]["text"]["token_scores"][0] is None


def test_npz_opens_in_plain_numpy_without_pickle(tmp_path: Path) -> None:
    example = pair(image_side(), audio_side())
    with np.load(save(example, tmp_path / "x.npz"), allow_pickle=False) as archive:
        assert same_bits(archive["image.token_scores"], example["image"].token_scores)
        assert all(archive[name].dtype != object for name in archive.files)


def test_equal_explanations_are_equal_files(tmp_path: Path) -> None:
    first = save(pair(image_side(), audio_side()), tmp_path / "a.npz").read_bytes()
    assert first == save(pair(image_side(), audio_side()), tmp_path / "b.npz").read_bytes()


def test_sides_with_hostile_names_do_not_collide(tmp_path: Path) -> None:
    image, text = image_side(), text_side()
    example = Explanation(
        {"../a": image[1], ".._a": image[1], "explanation": text[1]},
        {"../a": image[0], ".._a": image[0], "explanation": text[0]},
        0.5,
        {},
    )
    path = save(example, tmp_path / "x.npz")
    assert_same(example, load(path))
    with zipfile.ZipFile(path) as archive:
        assert not any("/" in name for name in archive.namelist())


def test_every_form_is_written_whole(explanation: Explanation, tmp_path: Path) -> None:
    for suffix in (".npz", ".json", ".png", ".html"):
        save(explanation, tmp_path / "new" / "folder" / f"x{suffix}")
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["x.html", "x.json", "x.npz", "x.png"]
    with Image.open(tmp_path / "new" / "folder" / "x.png") as picture:
        picture.load()
        assert picture.width >= 1000


def test_save_method_of_an_explanation(tmp_path: Path) -> None:
    example = pair(image_side(), text_side())
    assert_same(example, load(example.save(tmp_path / "X.NPZ")))
    assert "<main" in example._repr_html_()


def test_unknown_suffix_lists_the_accepted_ones(tmp_path: Path) -> None:
    example = pair(image_side(), text_side())
    with pytest.raises(OptionError, match=r"\.html, \.json, \.npz, \.png"):
        save(example, tmp_path / "x.pickle")
    with pytest.raises(OptionError, match=r"\.npz, \.json"):
        load(tmp_path / "x.png")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(OptionError, match="folder"):
        save(example, tmp_path / "folder.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npz"]


@pytest.mark.parametrize("suffix", [".npz", ".json", ".png", ".html"])
def test_failure_leaves_the_old_file_and_nothing_else(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OptionError, match="no space"):
        save(pair(image_side(), text_side()), path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="object"):
        save(pair(image_side(), text_side(), bad=object()), tmp_path / "sub" / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    saved = save(pair(image_side(), text_side()), tmp_path / "x.npz")
    assert saved.stat().st_mode == plain.stat().st_mode


def test_files_hold_the_small_form(tmp_path: Path) -> None:
    """The map of a photograph of 6 million pixels takes a few hundred bytes beside its pixels."""
    _, attribution = seen_in_part((0, 500, 2000, 2500), 2000, 3000)
    raw = RawImage(np.zeros((2000, 3000, 3), np.uint8), "photo.jpg")
    example = pair((raw, attribution), text_side())
    sizes = {suffix: save(example, tmp_path / f"x{suffix}") for suffix in (".npz", ".json")}
    for path in sizes.values():
        assert path.stat().st_size < 100_000  # an empty picture of this size is a PNG of 18 kB
        back = load(path)
        assert same_bits(back["image"].scores_at((40, 60)), attribution.scores_at((40, 60)))
        assert back.inputs["image"].pixels.shape == (2000, 3000, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_caption_without_words_or_tokens_survives(suffix: str, tmp_path: Path) -> None:
    empty = (RawText(""), from_map("text", np.zeros(0), "bits"))
    example = pair(image_side(), empty)
    assert_same(example, load(save(example, tmp_path / f"x{suffix}")))
    assert repr(example["text"]) == "Attribution(text 0 words, 0 bits, layer 0, 0 tokens)"


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_weighted_cells_samples_and_indices_survive(suffix: str, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).random((30, 3)).astype(np.float32)
    axis = Axis("time", "s", np.geomspace(0.1, 9, 30).astype(np.float32))
    order = np.array([2, 0, 1], np.int32)
    placement = PlanePlacement((axis,), (WeightedCells(weights),), order)
    content = np.array([True, True, False])
    side = Attribution("imu", "cosine", np.arange(3, dtype=np.float32), content, placement, -1)
    values = RawArray(np.zeros((6, 30), np.float32), "imu", "it", 50.0)
    example = replace(pair((values, side), text_side()), sample="no. 7", index=3)
    back = load(save(example, tmp_path / f"x{suffix}"))
    assert (back.sample, back.index) == ("no. 7", 3)
    assert same_bits(back["imu"].scores, side.scores)
    assert same_bits(back["imu"].axes[0].values, axis.values)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize(
    ("samples", "bytes_each"),
    [
        (np.arange(-2500, 2500, dtype=np.float32) / 32768, 2),
        (np.arange(-2500, 2500, dtype=np.float32) / 2**23, 4),
        (np.random.default_rng(0).standard_normal(5000).astype(np.float32), 4),
        (np.array([0.0, -0.0, 0.5, -1.0] * 2000, np.float32), 4),
        (np.array([np.nan, np.inf, -np.inf, 1e-45] * 2000, np.float32), 4),
    ],
)
def test_recordings_survive_bit_for_bit(
    samples: np.ndarray, bytes_each: int, suffix: str, tmp_path: Path
) -> None:
    raw, attribution = audio_side()
    assert isinstance(raw, RawAudio)
    path = save(
        pair((replace(raw, samples=samples), attribution), text_side()), tmp_path / f"x{suffix}"
    )
    back = load(path).inputs["audio"]
    assert isinstance(back, RawAudio)
    assert same_bits(back.samples, samples)
    if suffix == ".json":
        stored = json.loads(path.read_text())["inputs"]["audio"]["samples"]
        assert np.dtype(stored["dtype"]).itemsize == bytes_each


def test_silence_is_written_so_that_it_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What compresses beyond the bound on reading is stored as it is."""
    monkeypatch.setattr(archive, "SMALL", 100_000)
    raw, attribution = audio_side()
    assert isinstance(raw, RawAudio)
    quiet = replace(raw, samples=np.zeros(2_000_000, np.float32) + np.float32(0.1))
    path = save(pair((quiet, attribution), text_side()), tmp_path / "x.npz")
    assert len(load(path).inputs["audio"].samples) == 2_000_000  # type: ignore[union-attr]


def test_a_link_stays_a_link_and_home_is_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link.npz").symlink_to(tmp_path / "deep" / "real.npz")
    save(pair(image_side(), text_side()), "~/link.npz")
    assert (tmp_path / "link.npz").is_symlink()
    assert (tmp_path / "deep" / "real.npz").is_file()
    assert_same(load("~/link.npz"), pair(image_side(), text_side()))


def test_render_imports_neither_torch_nor_pyplot() -> None:
    code = (
        "import sys, mmattrib.render\n"
        "print([m for m in ('torch', 'matplotlib', 'soundfile') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
