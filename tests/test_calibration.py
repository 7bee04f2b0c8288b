"""Whether two inputs match is said by the cosines of unrelated pairs, or said to be unknown."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from render_examples import image_side, pair, text_side

import mmattrib as mm
from mmattrib.calibration import LEVELS, Calibration, Distribution, ScoreEntry, setting_of
from mmattrib.errors import InputError, OptionError

RISING = Distribution(300, 0.0, 0.1, (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.12, 0.2))
SETTING = setting_of("ca-m2ib", {"beta": 3.0}, 2)
ENTRY = ScoreEntry("image-text", "image", "ca-m2ib", SETTING, "bits", RISING, RISING, RISING)
MADE = Calibration("tiny", "ab" * 32, "by hand", {"image-text": RISING}, (ENTRY,))


def explained(cosine: float, **provenance: Any) -> mm.Explanation:
    return replace(pair(image_side(), text_side(), **provenance), similarity=cosine)


def given(cosine: float) -> mm.Explanation:
    sides = {"image": "image", "text": "text"}
    entry = MADE.entry(sides, "ca-m2ib", {"image": SETTING})
    return explained(cosine, calibration=entry)


@pytest.mark.parametrize(
    ("cosine", "level"),
    [
        (-1.0, "no match"),
        (0.12, "no match"),
        (np.nextafter(0.12, 1), "weak"),
        (0.2, "weak"),
        (np.nextafter(0.2, 1), "match"),
        (1.0, "match"),
        (float("nan"), "unknown"),
    ],
)
def test_the_borders_are_the_95_and_99_percent_quantiles(cosine: float, level: str) -> None:
    assert given(cosine).verdict.level == level


def test_a_verdict_names_its_numbers() -> None:
    assert given(0.31).verdict.sentence == (
        "They match: cosine 0.31; 95 % of 300 unrelated pictures and captions stay at or below "
        "0.12, 99 % at or below 0.20."
    )
    said = given(-0.067).verdict.sentence
    assert said.startswith("These two do not match: cosine −0.07; 95 % of 300 unrelated")
    assert "cosine 0.121; 95 % of 300 unrelated pictures and captions stay at or below 0.120" in (
        given(0.121).verdict.sentence
    )


def test_without_a_calibration_a_match_is_unknown() -> None:
    found = explained(0.9).verdict
    assert (found.level, found.unrelated) == ("unknown", None)
    assert "has not been measured" in found.sentence
    assert "mmattrib calibrate" in found.sentence


@pytest.mark.parametrize(
    "broken",
    [
        3,
        [],
        {"similarity": None},
        {"similarity": {"n": 0}},
        {"similarity": {**RISING.to_json(), "mean": 10**400}},
        {"similarity": {**RISING.to_json(), "quantiles": dict.fromkeys(map(str, LEVELS), "x")}},
        {"similarity": RISING.to_json(), "scores": {"image": {"kind": 1}}},
    ],
)
def test_a_broken_calibration_in_a_strangers_file_breaks_no_page(broken: Any) -> None:
    example = explained(0.9, calibration=broken)
    assert example.verdict.level in {"unknown", "match"}
    assert example.verdict.maps == {}


def test_a_calibration_of_other_weights_is_refused() -> None:
    with pytest.raises(OptionError, match="calibration is of 'tiny'"):
        mm.verdict(explained(0.5, weights_sha256="cd" * 32), MADE)
    same = explained(0.5, weights_sha256="ab" * 32)
    assert mm.verdict(same, MADE).level == "match"


def test_a_backbone_takes_the_calibration_of_its_own_weights_alone(
    untrained: mm.Backbone,
) -> None:
    assert untrained.calibration is None
    with pytest.raises(OptionError, match="mmattrib calibrate"):
        untrained.calibration = MADE
    own = replace(MADE, weights_sha256=untrained.weights_hash())
    untrained.calibration = own
    assert untrained.calibration == own


def test_a_calibration_survives_its_file_and_a_pickle(tmp_path: Path) -> None:
    path = MADE.save(tmp_path / "made.json")
    assert mm.load_calibration(path) == MADE
    assert pickle.loads(pickle.dumps(MADE)) == MADE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b"[" + b"1," * 3_000_000 + b"1]",
        b" " * (9 * 1024**2),
        json.dumps({**MADE.to_json(), "version": 2}).encode(),
        json.dumps({**MADE.to_json(), "similarities": {"image-text": {"n": 1}}}).encode(),
        json.dumps({**MADE.to_json(), "scores": [{}]}).encode(),
        json.dumps({**MADE.to_json(), "weights_sha256": None}).encode(),
    ],
)
def test_files_of_strangers_are_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="mmattrib calibrate"):
        mm.load_calibration(path)


def test_a_distribution_is_of_finite_numbers() -> None:
    found = Distribution.of(list(range(101)))
    assert found.quantiles == tuple(map(float, LEVELS))
    assert (found.n, found.mean) == (101, 50.0)
    for wrong in ([], [float("nan")]):
        with pytest.raises(OptionError, match="finite"):
            Distribution.of(wrong)


def test_what_only_bounds_memory_is_no_other_setting() -> None:
    for method, name in (("ca-m2ib", "max_rows"), ("rise", "batch")):
        options = {"kept": 1.0, name: 20}
        assert setting_of(method, options, 2) == setting_of(method, {**options, name: 64}, 2)
        assert setting_of(method, options, 2) != setting_of(method, {**options, "kept": 2.0}, 2)
    assert setting_of("unheard of", {"batch": 1}, 2) != setting_of("unheard of", {"batch": 2}, 2)


def test_the_seed_is_no_part_of_a_setting_and_all_else_is() -> None:
    one = setting_of("m", {"beta": 1.0, "seed": 0}, 2)
    assert one == setting_of("m", {"seed": 5, "beta": 1.0}, 2)
    others = [
        setting_of("n", {"beta": 1.0}, 2),
        setting_of("m", {"beta": 2.0}, 2),
        setting_of("m", {"beta": 1.0}, 3),
    ]
    assert one not in others


def test_a_map_stands_beside_those_of_unrelated_pairs() -> None:
    said = given(0.5).verdict.maps
    assert list(said) == ["image"]
    assert "95 % of 300 maps of unrelated pairs hold 0.12 or less" in said["image"]


@pytest.mark.slow
def test_the_same_calibration_comes_of_the_same_data(untrained: mm.Backbone) -> None:
    scenes = mm.load_dataset("scenes", n=20, seed=5)
    made = mm.calibrate(untrained, scenes, limit=20, maps=0)
    assert made == mm.calibrate(untrained, scenes, limit=20, maps=0)
    assert set(made.similarities) == {
        "audio-audio", "audio-image", "audio-text", "image-image", "image-text", "text-text",
    }  # fmt: skip
    assert made.scores == ()
    assert made.weights_sha256 == untrained.weights_hash()


def test_too_few_unrelated_pairs_are_refused(untrained: mm.Backbone) -> None:
    scenes = mm.load_dataset("scenes", n=24, seed=5)
    with pytest.raises(OptionError, match="at least 20 of one kind"):
        mm.calibrate(untrained, scenes, limit=3, maps=0)
    with pytest.raises(OptionError, match="maps must be 0 or at least 20"):
        mm.calibrate(untrained, scenes, maps=5)


@pytest.mark.slow
def test_maps_are_measured_for_the_method_that_was_asked_for(untrained: mm.Backbone) -> None:
    two = [replace(each.pair("image", "text")) for each in mm.load_dataset("scenes", n=20, seed=5)]
    made = mm.calibrate(untrained, two, maps=20, method="gradient-x-input")
    sides = {(each.modality, each.unit, each.method) for each in made.scores}
    assert sides == {(side, "cosine", "gradient-x-input") for side in ("image", "text")}
    untrained.calibration = made
    found = mm.attribute(untrained, **two[0].inputs, method="gradient-x-input")
    assert set(found.verdict.maps) == {"image", "text"}
    assert (
        set(mm.attribute(untrained, **two[0].inputs, method="nib", steps=2).verdict.maps) == set()
    )
