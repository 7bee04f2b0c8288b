"""`mmattrib attribute` on inputs that are fine, through the real model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_program import Result, Run

import mmattrib as mm
from mmattrib.cli.outputs import SUFFIXES
from mmattrib.cli.summary import describe, summarise, top_places
from mmattrib.errors import OptionError, TrustWarning
from mmattrib.placement import from_map
from mmattrib.types import Axis, Explanation, RawAudio, RawText, Word

QUICK = ("--option", "points=6", "--option", "guide_points=2")
QUICK_FIT = ("--option", "steps=6", "--option", "samples=2")
Attribute = Callable[..., Result]


@pytest.fixture
def attribute(run: Run, checkpoint: Path) -> Attribute:
    """Runs the command on `tiny` with random weights and six rates, or steps."""

    def call(*given: Any) -> Result:
        quick = QUICK_FIT if "m2ib" in given else QUICK
        return run(*("attribute", "--backbone-option", f"checkpoint={checkpoint}", *quick, *given))

    return call


def test_json_holds_both_sides_and_what_was_written(
    attribute: Attribute, files: Path, tmp_path: Path
) -> None:
    npz, page = tmp_path / "a.npz", tmp_path / "a.JSON"
    given = ("--image", files / "good.jpg", "--text-file", files / "caption.txt")
    result = attribute(
        *given, "--seed", 3, "--layer", "image=0", "--out", npz, "--out", page, "--json"
    )
    assert result.code == 0, result.err
    found = json.loads(result.out)

    assert list(found["sides"]) == ["image", "text"]
    image, text = found["sides"]["image"], found["sides"]["text"]
    assert (image["name"], image["layer"], image["unit"]) == ("good.jpg", 0, "bits")
    assert image["shape"] == [80, 120]
    assert [word["word"] for word in text["words"]] == ["a", "dog", "near", "the", "ocean", "wave"]
    assert text["words"][1]["start"], text["words"][1]["end"] == (2, 5)
    assert image["diagnostics"]["capacity_bits"] >= 0
    assert found["files"] == [str(npz), str(page)]
    assert found["provenance"]["options"]["points"] == 6
    assert found["provenance"]["options"]["seed"] == 3

    loaded = mm.load(npz)
    assert loaded.similarity == pytest.approx(found["similarity"])
    for place in image["places"]:
        row, column = int(place["y"]), int(place["x"])
        assert loaded["image"].scores[row, column] == pytest.approx(place["score"])
    assert image["places"][0]["score"] == pytest.approx(float(loaded["image"].scores.max()))
    assert [w["score"] for w in text["words"]] == pytest.approx(loaded["text"].scores.tolist())
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "a.JSON"}


def test_the_seed_decides_and_files_do_not(
    attribute: Attribute, files: Path, tmp_path: Path
) -> None:
    pair = ("--image", files / "good.png", "--audio", files / "stereo.flac")
    first = json.loads(attribute(*pair, "--seed", 1, "--json").out)
    again = json.loads(attribute(*pair, "--seed", 1, "--out", tmp_path / "a.json", "--json").out)
    other = json.loads(attribute(*pair, "--seed", 2, "--json").out)
    places = [found["sides"]["image"]["places"] for found in (first, again, other)]
    assert places[0] == places[1] != places[2]


def test_people_get_a_few_lines(attribute: Attribute, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    out.write_text("from an earlier run")
    result = attribute("--audio", files / "good.wav", "--text", "a loud dog", "--out", out)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert "unknown" in lines[0]  # of random weights nobody knows what unrelated pairs look like
    assert lines[1].startswith("cosine of audio and text: ")
    assert lines[1].endswith("(method ca-m2ib, backbone tiny)")
    layer = mm.load(out)["audio"].layer
    assert any(line.startswith(f"audio, layer {layer}: highest, in bits") for line in lines)
    assert any(line.endswith("  dog") for line in lines)
    assert lines[-1] == f"Wrote {out}"
    assert mm.load(out)["text"].words[2].text == "dog"


def test_a_layer_and_an_option_reach_the_method(attribute: Attribute, files: Path) -> None:
    given = ("--image", files / "good.png", "--text", "a dog", "--method", "m2ib")
    result = attribute(*given, "--layer", "2", "--option", "beta=0.5", "--json")
    found = json.loads(result.out)
    assert found["provenance"]["method"] == "m2ib"
    assert found["provenance"]["options"]["beta"] == 0.5
    assert found["provenance"]["layers"] == {"image": 2, "text": 2}


def test_a_trust_warning_is_one_line_on_standard_error(
    attribute: Attribute, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mm.attribute

    def doubtful(*given: Any, **options: Any) -> Explanation:
        warnings.warn("the map\nis doubtful", TrustWarning, stacklevel=2)
        return whole(*given, **options)

    monkeypatch.setattr(mm, "attribute", doubtful)
    result = attribute("--image", files / "good.png", "--text", "a dog", "--json")
    assert result.code == 0
    assert "Warning: the map is doubtful\n" in result.err
    json.loads(result.out)


def test_every_suffix_is_one_that_saving_takes(tmp_path: Path) -> None:
    explanation = made_by_hand()
    for suffix in SUFFIXES:
        explanation.save(tmp_path / f"a{suffix}")
    with pytest.raises(OptionError) as caught:
        explanation.save(tmp_path / "a.bmp")
    assert all(suffix in str(caught.value) for suffix in SUFFIXES)


def made_by_hand() -> Explanation:
    """Two peaks and a NaN in the audio, three words in the text."""
    scores = np.zeros((4, 30), np.float32)
    scores[1, 4:6] = 2.0
    scores[3, 20] = 3.0
    scores[0, 0] = np.nan
    hz = Axis("frequency", "Hz", np.array([100, 200, 400, 800], np.float32))
    seconds = Axis("time", "s", np.arange(30, dtype=np.float32) / 10)
    audio = from_map("audio", scores, "bits", (hz, seconds), layer=1)
    words = (Word("a", 0, 1), Word("loud", 2, 6), Word("dog", 7, 10))
    values = np.array([0.1, np.nan, 0.9], np.float32)
    facts = {"fit": np.float32(0.5)}
    text = from_map("text", values, "bits", words=words, layer=-1, diagnostics=facts)
    sound = RawAudio(np.sin(np.arange(48000, dtype=np.float32)), 16000, "a.wav")
    inputs = {"audio": sound, "text": RawText("a loud dog")}
    provenance = {"method": "hand", "backbone": "none", "loss": float("nan")}
    return Explanation({"audio": audio, "text": text}, inputs, 0.25, provenance)


def test_places_are_peaks_apart_from_each_other() -> None:
    places = top_places(made_by_hand()["audio"])
    assert places == [
        {"frequency": 800.0, "time": 2.0, "score": 3.0},
        {"frequency": 200.0, "time": pytest.approx(0.4), "score": 2.0},
    ]
    assert len(top_places(made_by_hand()["audio"], count=1)) == 1


def test_a_map_without_a_positive_score_has_no_place() -> None:
    flat = np.full((3, 3), -1, np.float32)
    axes = tuple(Axis(n, "px", np.arange(3, dtype=np.float32)) for n in "yx")
    assert top_places(from_map("image", flat, "cosine", axes)) == []


def test_a_summary_is_strict_json() -> None:
    found = summarise(made_by_hand(), [Path("a.png")])
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert found["sides"]["text"]["words"][1]["score"] is None
    assert found["sides"]["text"]["diagnostics"] == {"fit": 0.5}
    assert found["provenance"]["loss"] is None
    verdict, *rest = describe(found).splitlines()
    assert verdict.startswith("Whether they match is unknown: their cosine is 0.25")
    assert rest == [
        "cosine of audio and text: 0.25 (method hand, backbone none)",
        "audio, layer 1: highest, in bits:",
        "         3  frequency 800 Hz, time 2 s",
        "         2  frequency 200 Hz, time 0.4 s",
        "text, layer -1: highest, in bits:",
        "       0.9  dog",
        "       0.1  a",
        "Wrote a.png",
    ]
