"""The shipped bank of drawings and sounds: complete, decodable, licensed, free of easy leaks."""

from __future__ import annotations

from importlib import resources
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from mmattrib.datasets.scenes.bank import SAMPLE_RATE, SPLITS, Bank, Sound, Split, Sprite
from mmattrib.errors import OptionError

LICENCES = {"Apache-2.0", "MIT", "CC0-1.0", "public domain"}
BANK = Bank.shipped()


def _everything() -> list[Sprite | Sound]:
    return [*BANK.catalog.sprites, *BANK.catalog.sounds]


def _active_rms(samples: npt.NDArray[np.float32]) -> float:
    frames = np.pad(samples.astype(np.float64), (0, (-len(samples)) % 320)).reshape(-1, 320)
    levels = np.sqrt((frames**2).mean(1))
    return float(np.sqrt((levels[levels > 0.1 * levels.max()] ** 2).mean()))


def _spectrum(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Mean log power in 32 bands, over the frames within 26 dB of the loudest."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 512)[::160] * np.hanning(512)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.unique(np.geomspace(2, 240, 33).astype(int))
    bands = np.log(np.add.reduceat(power, edges, axis=1)[:, :-1] + 1e-6)
    total = bands.mean(1)
    return np.asarray(bands[total > total.max() - 6].mean(0), dtype=np.float64)


def test_at_least_forty_classes_and_at_most_12_mb() -> None:
    assert len(set(BANK.class_names)) == len(BANK.class_names) >= 40
    extra = ("catalog.json", "NOTICE")
    size = sum(len(BANK.read_bytes(a.file)) for a in _everything())
    size += sum(len(BANK.read_bytes(name)) for name in extra)
    assert size <= 12e6


def test_the_folder_holds_the_catalogued_files_and_nothing_else() -> None:
    root = resources.files("mmattrib").joinpath("datasets", "scenes", "assets")
    found = {
        f"{kind}/{folder.name}/{file.name}"
        for kind in ("sprites", "sounds")
        for folder in root.joinpath(kind).iterdir()
        for file in folder.iterdir()
    }
    assert found == {a.file for a in _everything()}


@pytest.mark.parametrize("split", SPLITS)
def test_every_class_and_the_distractors_have_sprites_and_sounds(split: Split) -> None:
    for name in (*BANK.class_names, None):
        assert BANK.sprites(name, split)
        assert len(BANK.sounds(name, split)) >= 4
        assert all(a.class_name == name for a in BANK.sprites(name, split))


def test_a_class_with_several_sprites_holds_exactly_one_out() -> None:
    for name in BANK.class_names:
        rows = [s for s in BANK.catalog.sprites if s.class_name == name]
        splits = sorted(s.split for s in rows)
        assert splits == ["both"] or (splits.count("heldout") == 1 and "train" in splits)


def test_sprites_decode_cropped_with_straight_alpha() -> None:
    for sprite in BANK.catalog.sprites:
        pixels = BANK.load_sprite(sprite)
        assert pixels.dtype == np.uint8, sprite.file
        assert pixels.shape[2] == 4, sprite.file
        assert max(pixels.shape[:2]) == 64, sprite.file
        alpha = pixels[..., 3]
        assert (alpha > 127).mean() > 0.05, sprite.file
        for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]):
            assert edge.max() > 0, sprite.file
        # Premultiplied colours could not exceed alpha anywhere; straight ones do at soft edges.
        soft = (alpha > 0) & (alpha < 255)
        if soft.sum() > 30 and pixels[alpha == 255][:, :3].max() > 200:
            assert (pixels[soft][:, :3].max(1) > pixels[soft][:, 3]).any(), sprite.file


def test_sounds_decode_at_one_level_without_clipping() -> None:
    for sound in BANK.catalog.sounds:
        samples = BANK.load_sound(sound)
        assert samples.ndim == 1, sound.file
        assert np.isfinite(samples).all(), sound.file
        assert 0.39 <= len(samples) / SAMPLE_RATE <= 1.41, sound.file
        assert abs(len(samples) / SAMPLE_RATE - sound.seconds) < 0.01, sound.file
        assert np.abs(samples).max() < 0.999, sound.file
        assert _active_rms(samples) == pytest.approx(0.1, rel=0.1), sound.file


def test_neither_level_nor_length_tells_the_class() -> None:
    for name in BANK.class_names:
        clips = [BANK.load_sound(s) for split in SPLITS for s in BANK.sounds(name, split)]
        assert np.mean([_active_rms(c) for c in clips]) == pytest.approx(0.1, rel=0.04), name
        assert 0.65 <= np.mean([len(c) / 16_000 for c in clips]) <= 1.15, name


def test_held_out_files_differ_from_training_files() -> None:
    by_split: dict[str, set[bytes]] = {"train": set(), "heldout": set(), "both": set()}
    for asset in _everything():
        by_split[asset.split].add(BANK.read_bytes(asset.file))
    assert not by_split["heldout"] & (by_split["train"] | by_split["both"])


def test_held_out_sounds_use_other_keys_rates_and_velocities() -> None:
    def draws(sound: Sound) -> set[tuple[str, int, int | None] | tuple[str, float | None]]:
        if sound.keys:
            return {(sound.source_file, key, sound.velocity) for key in sound.keys}
        return {(part, sound.rate) for part in sound.source_file.split()}

    for name in (*BANK.class_names, None):
        train = set().union(*(draws(s) for s in BANK.sounds(name, "train")))
        heldout = set().union(*(draws(s) for s in BANK.sounds(name, "heldout")))
        assert not train & heldout, name


def test_held_out_sounds_resemble_their_own_class() -> None:
    """Nearest training clip by mean spectrum: far above chance (1 / 41) for every class."""
    names = BANK.class_names
    rows = [
        (k, _spectrum(BANK.load_sound(s)))
        for k, n in enumerate(names)
        for s in BANK.sounds(n, "train")
    ]
    labels, bank = np.array([k for k, _ in rows]), np.stack([f for _, f in rows])
    scale = bank.std(0)
    hits = []
    for k, name in enumerate(names):
        own = [_spectrum(BANK.load_sound(s)) for s in BANK.sounds(name, "heldout")]
        near = [labels[int((((bank - f) / scale) ** 2).sum(1).argmin())] for f in own]
        hits.append(float(np.mean([label == k for label in near])))
        assert hits[-1] >= 0.3, name
    assert np.mean(hits) >= 0.8


def test_licences_are_permissive_and_notice_names_every_file() -> None:
    notice = BANK.read_bytes("NOTICE").decode("utf-8")
    named = {line.split(" | ")[0] for line in notice.splitlines() if " | " in line}
    for asset in _everything():
        assert asset.licence in LICENCES, asset.file
        assert asset.author, asset.file
        assert asset.source_file, asset.file
        assert asset.file in named, asset.file
    for holder in ("Copyright (c) Microsoft Corporation", "Frank Wen", "Google Inc."):
        assert holder in notice
    assert notice.count("Permission is hereby granted, free of charge") == 2


def test_unknown_names_are_refused_with_what_is_accepted() -> None:
    with pytest.raises(OptionError, match="piano"):
        BANK.sprites("theremin", "train")
    with pytest.raises(OptionError, match="heldout"):
        BANK.sounds("piano", cast(Split, "test"))
