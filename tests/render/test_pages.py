from __future__ import annotations

import base64
import io
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import matplotlib
import numpy as np
import pytest
import soundfile
from PIL import Image
from render_examples import Side, audio_side, image_side, pair, seen_in_part, text_side, with_scores

from mmattrib.errors import OptionError
from mmattrib.render import figure, index_html, notebook_html, report_html, thumbnail
from mmattrib.render.figures import png_bytes
from mmattrib.types import Explanation, RawAudio

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Parses a page, checks that its tags nest, and keeps what it contains."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"style", "script"}:
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def embedded(uri: str | None) -> bytes:
    assert uri is not None
    return base64.b64decode(uri.partition(",")[2], validate=True)


def test_report_is_well_formed_and_says_what_it_shows(explanation: Explanation) -> None:
    page = Page(report_html(explanation))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert len(page.all("main")) == 1
    assert "0.30" in page.text
    assert page.text.count("was let through, in bits") == 2
    assert re.search("bits per (token|word)", page.text)
    assert "ca-m2ib" in page.text
    assert "tiny" in page.text
    assert all(image["alt"] for image in page.all("img"))
    assert all(audio["aria-label"] for audio in page.all("audio"))


def test_pages_ask_for_nothing_from_elsewhere(explanation: Explanation) -> None:
    index = index_html([("a", "b", "c/d.html", thumbnail(explanation))])
    for text in (report_html(explanation), notebook_html(explanation), index):
        assert not re.search(r"https?://|@import|url\(", text)
        for _, attrs in Page(text).tags:
            assert attrs.get("src", "data:").startswith("data:")  # type: ignore[union-attr]
            assert "srcset" not in attrs
        assert not Page(text).all("link")
    assert "default-src 'none'" in report_html(explanation)


def test_policy_admits_the_pages_own_script_and_no_other() -> None:
    import hashlib

    text = report_html(pair(image_side(), audio_side()))
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def evil_sides() -> list[Side]:
    image, audio = image_side(name=EVIL), audio_side(name=EVIL)
    raw, attribution = text_side(EVIL + " bell", name=EVIL)
    warned = replace(
        attribution, unit=EVIL, diagnostics={"warnings": [EVIL], EVIL: [EVIL, {EVIL: EVIL}]}
    )
    return [image, audio, (raw, warned)]


@pytest.mark.parametrize("sides", [(0, 2), (1, 2)])
def test_strangers_text_is_escaped_everywhere(sides: tuple[int, int]) -> None:
    evil = evil_sides()
    facts = {EVIL: EVIL, "method": EVIL, "backbone": {"name": EVIL}, "deep": {EVIL: [EVIL]}}
    example = pair(*(evil[i] for i in sides), **facts)
    clean = pair(*([image_side, audio_side, text_side][i]() for i in sides))
    index = index_html([(EVIL, EVIL, EVIL, b"")], title=EVIL, intro=EVIL)
    for text, scripts in ((report_html(example, title=EVIL), 1), (notebook_html(example), 1)):
        page = Page(text)
        assert len(page.all("script")) == scripts
        assert len(page.all("img")) == len(Page(report_html(clean)).all("img"))
        assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
        assert EVIL in page.text
    assert len(Page(index).all("script")) == 1
    assert len(Page(index).all("img")) == 1


def test_what_is_nested_is_shown_as_tables_within_tables() -> None:
    sides = pair(image_side(), text_side())
    deep: Any = "bottom"
    for _ in range(900):
        deep = {"down": deep}
    facts = {
        "calibration": {"similarity": {"n": 40, "quantiles": {"95": 0.25}}, EVIL: {"of": EVIL}},
        "layers": [1, 2], "runs": [{"seed": 3, EVIL: [EVIL]}], "nothing": {}, "deep": deep,
    }  # fmt: skip
    text = report_html(replace(sides, provenance={**sides.provenance, **facts}))
    page = Page(text)
    assert EVIL not in text
    assert "<script>alert" not in text
    for row in ("similarity n 40 quantiles 95 0.25", f"{EVIL} of {EVIL}", "layers 1, 2",
                '"seed": 3', "nothing {}"):  # fmt: skip
        assert " ".join(row.split()) in page.text
    assert max(text[: m.start()].count("<table") - text[: m.start()].count("</table")
               for m in re.finditer("<t[hd]", text)) == 5  # fmt: skip


def test_control_characters_and_lone_surrogates_do_not_reach_the_page() -> None:
    example = pair(image_side(name="a\x00b\x1b\udcff"), text_side("bell \ud800 x"))
    text = report_html(example)
    assert text.encode("utf-8").decode("utf-8") == text
    assert "\x00" not in text
    assert "\x1b" not in text


def test_joined_emoji_and_other_scripts_survive() -> None:
    text = "👩‍🚒 雪の日 می‌خواهم"
    assert text in report_html(pair(image_side(name=text), text_side()))


def test_notebook_fragment_is_scoped() -> None:
    text = notebook_html(pair(image_side(), audio_side()))
    assert "<html" not in text
    assert "<body" not in text
    sheet = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert sheet is not None
    selectors = re.findall(r"(?:^|[{}])\s*([^{}@]+)\{", sheet.group(1))
    assert len(selectors) > 30
    for group in selectors:
        assert all(part.strip().startswith(".mma") for part in group.split(",")), group
    assert not re.search(r'\sid="', text)


def test_warnings_stand_before_the_maps() -> None:
    raw, attribution = image_side()
    warned = replace(attribution, diagnostics={"warnings": ["the fit rose alone."]})
    text = report_html(pair((raw, warned), text_side()))
    said = "Do not trust this map (picture): the fit rose alone."
    assert said in text
    assert text.index(said) < text.index("<section")
    assert "Do not trust" not in report_html(pair(image_side(), text_side()))


@pytest.mark.parametrize("make", [image_side, audio_side, text_side])
@pytest.mark.parametrize(
    "value",
    [0.0, np.nan, *(pytest.param(value, marks=pytest.mark.slow) for value in (2.0, np.inf))],
)
def test_maps_without_information_are_drawn_and_said(make: object, value: float) -> None:
    other = text_side if make is not text_side else image_side
    side = with_scores(make(), lambda scores: np.full_like(scores, value))  # type: ignore[operator]
    example = pair(side, other())
    page = Page(report_html(example))
    assert "No information" in page.text
    assert len(page.all("audio")) == (1 if make is audio_side else 0)
    drawn = [text.get_text() for text in figure(example).texts]
    assert any("No information" in text for text in drawn)
    if np.isnan(value):  # a figure of zeros is drawn like any other
        assert png_bytes(example)[:4] == b"\x89PNG"


def test_signed_maps_are_explained_as_signed() -> None:
    side = with_scores(image_side(), lambda scores: scores - 0.5, unit="nats")
    text = Page(report_html(pair(side, text_side()))).text
    assert "Red = counts for the match" in text
    assert "nats" in text
    assert "−0.5" in text


def test_players_hold_the_recording_and_what_its_map_lets_through() -> None:
    def only_high(scores: np.ndarray) -> np.ndarray:
        out = np.zeros_like(scores)
        out[13:] = 1.0  # above 3 kHz; the recording's tone is at 1 kHz
        return out

    side = with_scores(audio_side(), only_high)
    raw = side[0]
    assert isinstance(raw, RawAudio)
    given, attributed = Page(report_html(pair(side, text_side()))).all("audio")
    sound, rate = soundfile.read(io.BytesIO(embedded(given["src"])))
    assert rate == raw.sample_rate
    np.testing.assert_allclose(sound, raw.samples, atol=1e-4)
    weighted, _ = soundfile.read(io.BytesIO(embedded(attributed["src"])))
    assert len(weighted) == len(sound)
    assert 0 < np.std(weighted) < 0.2 * np.std(sound)


def test_long_audio_and_large_pictures_stay_bounded() -> None:
    raw, attribution = audio_side(200.0, rate=1000)
    page = Page(report_html(pair(image_side(2000, 3000), (raw, attribution))))
    for audio in page.all("audio"):
        sound, rate = soundfile.read(io.BytesIO(embedded(audio["src"])))
        assert len(sound) == 60 * rate
    assert "first 60 of 200 seconds" in page.text
    for image in page.all("img"):
        with Image.open(io.BytesIO(embedded(image["src"]))) as picture:
            assert max(picture.size) <= 1024


def test_a_long_caption_is_bounded() -> None:
    page = Page(report_html(pair(image_side(), text_side("word " * 5000))))
    assert "first 1000 of 5000 words" in page.text


def test_truth_is_outlined_and_explained() -> None:
    example = pair(image_side(), text_side())
    mask = np.zeros((48, 64), bool)
    mask[10:30, 10:30] = True
    words = np.array([word.text == "bell" for word in example["text"].words])
    plain, told = report_html(example), report_html(example, truth={"image": mask, "text": words})
    assert "truly share" not in plain
    assert told.count("truly share") == 2
    shaded = [attrs for attrs in Page(told).all("span") if attrs.get("class") == "word true"]
    assert len(shaded) == 1
    maps = [Page(text).all("img")[1]["src"] for text in (plain, told)]
    assert maps[0] != maps[1]
    originals = [Page(text).all("img")[0]["src"] for text in (plain, told)]
    assert originals[0] == originals[1]


def test_index_links_only_beside_itself() -> None:
    page = Page(index_html([("A & b", "text", "a b/ö?.html", b"png")], title="T", intro="I"))
    assert page.all("a")[0]["href"] == "a%20b/%C3%B6%3F.html"
    assert page.all("img")[0]["src"] == "data:image/png;base64,cG5n"
    for href in ("https://example.org", "javascript:alert(1)", "//example.org", "/etc/passwd"):
        with pytest.raises(OptionError, match="relative"):
            index_html([("a", "b", href, b"")])


one_pair = pytest.mark.parametrize(
    "explanation",
    [
        "image-audio",
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("image-text", "audio-text")),
    ],
    indirect=True,
)


@one_pair
def test_figure_leaves_matplotlib_as_it_was(explanation: Explanation) -> None:
    from matplotlib import pyplot
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    backend = matplotlib.get_backend()
    with matplotlib.rc_context({"font.size": 33.0, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        fig = figure(explanation)
        png_bytes(explanation)
        thumbnail(explanation)
        assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
    assert matplotlib.get_backend() == backend
    assert isinstance(fig.canvas, FigureCanvasAgg)


def test_figure_shows_both_sides_with_units_similarity_and_warnings() -> None:
    raw, attribution = audio_side()
    warned = replace(attribution, diagnostics={"warnings": ["it collapsed."]})
    fig = figure(pair(image_side(name="$x_1$ & co"), (raw, warned)))
    said = " ".join(text.get_text() for text in fig.texts)
    assert "similarity 0.3" in said
    assert "Do not trust this map (recording): it collapsed." in said
    assert "$x_1$ & co" in said
    inner = " ".join(t.get_text() for axes in fig.axes for t in axes.texts)
    assert inner.count("bits per token") == 2
    assert {axes.get_xlabel() for axes in fig.axes} == {"", "time (s)"}


def test_no_text_runs_out_of_the_figure(explanation: Explanation) -> None:
    truth = {side: np.ones(explanation[side].scores.shape, bool) for side in explanation}
    fig = figure(explanation, truth)
    renderer = fig.canvas.get_renderer()  # type: ignore[attr-defined]
    for text in (*fig.texts, *(t for axes in fig.axes for t in axes.texts)):
        extent = text.get_window_extent(renderer)
        assert extent.x0 >= 0
        assert extent.x1 <= fig.bbox.width


def test_a_colour_bars_unit_keeps_clear_of_its_numbers(explanation: Explanation) -> None:
    fig = figure(explanation)
    fig.canvas.draw()
    bars = [axes for axes in fig.axes if axes.texts and axes.texts[0].get_text().startswith("bits")]
    assert len(bars) == 2
    for axes in bars:
        unit = axes.texts[0].get_window_extent()
        labels = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert not any(unit.overlaps(label) for label in labels)


def test_figure_is_the_same_under_any_style_of_the_users() -> None:
    example = pair(image_side(), text_side())
    plain = png_bytes(example)
    with matplotlib.rc_context({"font.size": 33.0, "axes.facecolor": "red", "axes.grid": True}):
        assert png_bytes(example) == plain


def test_scripts_without_a_font_are_drawn_without_a_warning() -> None:
    example = pair(image_side(), text_side("雪 𒀀 ☃ bell"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert png_bytes(example)[:4] == b"\x89PNG"


@one_pair
def test_thumbnail_is_a_small_picture(explanation: Explanation) -> None:
    with Image.open(io.BytesIO(thumbnail(explanation))) as picture:
        assert picture.size == (600, 225)


def test_what_the_model_never_saw_is_said() -> None:
    example = pair(seen_in_part((0, 40, 40, 80)), text_side())
    said = "Of this picture the model saw only its middle part (33 %): the hatched rest had no"
    assert said in Page(report_html(example)).text
    assert any(said in text.get_text() for text in figure(example).texts)
    assert "hatched" not in report_html(pair(image_side(), text_side()))
