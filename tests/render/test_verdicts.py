"""A page says first whether its two inputs match, and of the shares what its numbers say."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from render_examples import audio_side, image_side, pair, text_side, with_scores

import mmattrib as mm
from mmattrib.calibration import Distribution, ScoreEntry
from mmattrib.cli.summary import describe, summarise
from mmattrib.methods.ca_m2ib import kept_share
from mmattrib.plugins import default_plugins
from mmattrib.render import figure, notebook_html, report_html
from mmattrib.render.figures import png_bytes
from mmattrib.render.panels import panels
from mmattrib.render.wording import default_title, kept, scale_note, warnings

UNRELATED = Distribution(300, 0.0, 0.1, (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.12, 0.2))
CALIBRATION = {"kind": "image-text", "similarity": UNRELATED.to_json(), "scores": {}}


def example(cosine: float, scores: float = 1.0, **provenance: Any) -> mm.Explanation:
    image = with_scores(image_side(), lambda own: scores * own)
    text = with_scores(text_side(), lambda own: scores * own)
    return replace(pair(image, text, **provenance), similarity=cosine)


def judged(cosine: float, scores: float = 1.0) -> mm.Explanation:
    return example(cosine, scores, calibration=CALIBRATION)


def test_only_a_match_is_asked_what_made_it() -> None:
    assert default_title(judged(0.5)) == "What made this picture and this caption match?"
    assert default_title(judged(0.15)) == "What made this picture and this caption match weakly?"
    assert default_title(judged(-0.07)) == "This picture and this caption do not match"
    assert (
        default_title(example(0.5)) == "What in this picture and this caption speaks for a match?"
    )


def test_the_verdict_stands_before_everything_else_on_a_page() -> None:
    for made in (report_html(judged(-0.07)), notebook_html(judged(-0.07))):
        said = judged(-0.07).verdict.sentence
        assert said in made
        assert (
            made.index("do not match</h1>") < made.index(said) < made.index("A model that places")
        )
        assert "What made this" not in made
        assert "what matched the" not in made
    assert report_html(judged(0.5)).count("what matched the") == 2
    titled = report_html(judged(-0.07), title="My own title")
    assert "These two do not match: cosine −0.07" in titled


def test_the_verdict_stands_in_the_figure_and_in_its_file() -> None:
    fig = figure(judged(-0.07))
    said = " ".join(" ".join(text.get_text() for text in fig.texts).split())
    assert said.startswith("This picture and this caption do not match")
    assert "These two do not match: cosine −0.07" in said
    with Image.open(io.BytesIO(png_bytes(judged(-0.07)))) as picture:
        assert picture.info["Description"] == judged(-0.07).verdict.sentence
        assert picture.info["Title"] == "This picture and this caption do not match"


def test_the_verdict_stands_first_in_the_summary() -> None:
    found = summarise(judged(-0.07))
    assert found["verdict"]["level"] == "no match"
    assert describe(found).splitlines()[0] == judged(-0.07).verdict.sentence


@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_a_verdict_survives_the_file_of_its_explanation(suffix: str, tmp_path: Path) -> None:
    for made in (judged(-0.07), judged(0.5), example(0.5)):
        again = mm.load(made.save(tmp_path / f"it.{suffix}"))
        assert again.verdict == made.verdict


def test_next_to_nothing_looks_empty_and_is_called_so() -> None:
    drawn = panels(judged(-0.07, scores=0.005))
    for panel in drawn:
        assert panel.heat.values.max() < 0.05
        assert "Empty map" in " ".join(panel.heat.notes)
    (_, words) = drawn
    assert not any(piece.coloured for piece in words.pieces if piece.score is not None)  # type: ignore[union-attr]
    page = report_html(judged(-0.07, scores=0.005))
    assert page.count("Empty map") == 2
    assert 'style="background:' not in page.partition('<p class="words"')[2].partition("</p>")[0]


def test_the_scale_is_an_option_of_every_writer_and_is_said() -> None:
    made = judged(0.5, scores=0.5)
    registry = default_plugins().registry
    for name in ("png", "html", "notebook"):
        drawn = {
            scale: registry.create("writer", name, scale=scale)(made)
            for scale in ("map", "page", "absolute")
        }
        assert len(set(drawn.values())) == 3
    notes = {
        scale: scale_note(made, {panel.side: panel.heat for panel in panels(made, scale=scale)})  # type: ignore[arg-type]
        for scale in ("map", "page", "absolute")
    }
    assert "from its own least to its own largest" in notes["map"]
    assert "the largest score on this page" in notes["page"]
    assert "On an absolute scale, full colour stands for " in notes["absolute"]
    assert " bits in the picture and " in notes["absolute"]
    assert " bits in the caption: next to nothing stays dark." in notes["absolute"]
    assert "compared between maps" in notes["page"]
    assert "compared between maps" not in notes["absolute"]
    assert notes["absolute"] in report_html(made)
    assert notes["map"] in report_html(made, scale="map")


def entry(unit: str, full: float) -> ScoreEntry:
    same = Distribution(40, full, 0.0, (full,) * 8)
    return ScoreEntry("image-text", "image", "ca-m2ib", "00", unit, same, same, same)


def with_diagnostics(**numbers: Any) -> mm.Attribution:
    return replace(image_side()[1], diagnostics=numbers)


def test_the_shares_are_those_of_the_diagnostics() -> None:
    said = kept(with_diagnostics(clean_cosine=0.2, cosine_end=0.15, cosine_start=0.02))
    assert said == (
        "The cosine is 0.2 with the whole picture, 0.15 with as much of it as the map lets through "
        "(75 % of 0.2) and 0.02 with noise alone in its place (10 % of 0.2). Of what the whole "
        "picture has above noise, the map keeps 72 %."
    )
    below = kept(with_diagnostics(clean_cosine=0.2, cosine_end=0.25, cosine_start=-0.07))
    assert "(125 % of 0.2)" in below
    assert "−0.07 with noise alone in its place." in below
    assert below.endswith("the map keeps 119 %.")


def test_every_share_says_what_it_is_of() -> None:
    """Of the cosine, or of the match above noise: `keep` of the method is the latter."""
    numbers = {"clean_cosine": 0.4, "cosine_end": 0.3, "cosine_start": 0.2}
    said = kept(with_diagnostics(**numbers))
    assert said.count("% of 0.4)") == 2
    assert said.count("%") == 3
    assert round(100 * (kept_share(numbers) or 0)) == 50
    assert "above noise, the map keeps 50 %" in said


def test_where_there_is_no_match_no_share_of_it_is_stated() -> None:
    said = kept(with_diagnostics(clean_cosine=-0.07, cosine_end=-0.08, cosine_start=-0.09))
    assert said.startswith("The cosine is −0.07 with the whole picture, −0.08 with as much")
    assert "−0.09 with noise alone" in said
    assert said.endswith("there is nothing of it for a map to keep.")
    assert "%" not in said


def test_the_start_of_a_descent_is_not_called_noise() -> None:
    said = kept(
        with_diagnostics(clean_cosine=0.2, cosine_end=0.15, cosine_start=0.19, losses=[1.0])
    )
    assert "(75 % of 0.2)" in said
    assert "noise" not in said


@pytest.mark.parametrize(
    "numbers",
    [{}, {"clean_cosine": 0.2}, {"clean_cosine": "x", "cosine_end": 0.1},
     {"clean_cosine": 0.2, "cosine_end": float("nan")}],
)  # fmt: skip
def test_shares_that_were_not_measured_are_not_stated(numbers: dict[str, Any]) -> None:
    assert kept(with_diagnostics(**numbers)) == ""


def test_no_page_claims_what_the_solved_mask_does_not_do() -> None:
    page = report_html(pair(image_side(), audio_side()))
    assert "as far as it can" not in page
    assert "puts noise in the place of the rest" in page


def test_a_full_score_from_a_calibration_is_used_for_its_own_unit_alone() -> None:
    known = {**CALIBRATION, "scores": {"image": entry("bits", 40.0).to_json()}}
    drawn = panels(example(0.5, calibration=known))
    assert [panel.heat.high for panel in drawn] == [40.0, 3.0], "the picture's alone"
    other = {**CALIBRATION, "scores": {"image": entry("nats", 40.0).to_json()}}
    assert max(panel.heat.high for panel in panels(example(0.5, calibration=other))) == 3.0
    np.testing.assert_allclose(drawn[0].heat.values.max(), 1 / 40, rtol=0.1)


@pytest.mark.parametrize("given", [7, 2.5, True, {"a": "b"}, "once", ["once", 3], None])
def test_warnings_of_a_file_may_be_anything(given: object) -> None:
    """What a saved file calls its warnings is shown, whatever JSON value it is."""
    raw, attribution = image_side()
    told = {**attribution.diagnostics, "warnings": given}
    found = pair((raw, replace(attribution, diagnostics=told)), audio_side())
    lines = warnings(found)
    assert all(line.startswith("Do not trust this map") for line in lines)
    assert len(lines) == (0 if given is None else 2 if isinstance(given, list) else 1)
