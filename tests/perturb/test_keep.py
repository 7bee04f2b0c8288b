"""What keep promises for every kind of input, and for pictures, captions and arrays."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from render_examples import audio_side, image_side, text_side

from mmattrib.errors import InputError, OptionError
from mmattrib.perturb import FILLS, PLACEHOLDER, keep, keep_many
from mmattrib.types import Axis, RawArray, RawAudio, RawImage, RawInput, RawText, Word

RANDOM = np.random.default_rng(5)
ARRAY = RawArray(RANDOM.normal(size=(6, 40)).astype(np.float32), "imu", rate=10.0)
CASES = [(kind, name) for kind, table in FILLS.items() for name in table]


def case(kind: str) -> tuple[RawInput, dict[str, Any], tuple[int, ...]]:
    """An input, its options, and the shape of its weights."""
    if kind == "array":
        return ARRAY, {}, ARRAY.values.shape
    raw, attribution = {"image": image_side, "audio": audio_side, "text": text_side}[kind]()
    options = {"axes": attribution.axes, "words": attribution.words}
    return raw, options, attribution.scores.shape


def content(raw: RawInput) -> Any:
    if isinstance(raw, RawText):
        return raw.text
    if isinstance(raw, RawImage):
        return raw.pixels
    return raw.samples if isinstance(raw, RawAudio) else raw.values


@pytest.mark.parametrize(("kind", "fill"), CASES)
def test_weights_of_one_give_the_input_back(kind: str, fill: str) -> None:
    raw, options, shape = case(kind)
    for dtype in (bool, np.float32, np.float64, int):
        kept = keep(raw, np.ones(shape, dtype), fill=fill, **options)
        assert type(kept) is type(raw)
        assert kept.name == raw.name
        if kind == "audio":
            np.testing.assert_allclose(content(kept), content(raw), atol=1e-4)
            assert content(kept).dtype == content(raw).dtype
        elif kind == "text":
            assert content(kept) == content(raw)
        else:
            np.testing.assert_array_equal(content(kept), content(raw))
            assert content(kept).dtype == content(raw).dtype


@pytest.mark.parametrize(("kind", "fill"), CASES)
def test_many_weights_give_what_each_gives_alone(kind: str, fill: str) -> None:
    raw, options, shape = case(kind)
    rows = np.random.default_rng(0).random((3, *shape))
    if not FILLS[kind][fill].soft:
        rows = rows > 0.5
    many = list(keep_many(raw, rows, fill=fill, seed=4, **options))
    assert len(many) == 3
    for row, found in zip(rows, many, strict=True):
        alone = keep(raw, row, fill=fill, seed=4, **options)
        np.testing.assert_array_equal(content(found), content(alone))


@pytest.mark.parametrize("kind", list(FILLS))
def test_rows_of_an_iterator_are_taken_and_checked_as_they_are_asked_for(kind: str) -> None:
    raw, options, shape = case(kind)
    rows = np.random.default_rng(1).random((3, *shape)) > 0.5
    taken = []

    def each() -> Iterator[Any]:
        for number, row in enumerate([*rows, np.full(shape, 1.5)]):
            taken.append(number)
            yield row

    many = keep_many(raw, each(), seed=4, **options)
    for number, expected in enumerate(keep_many(raw, rows, seed=4, **options)):
        assert taken == list(range(number))
        np.testing.assert_array_equal(content(next(many)), content(expected))
    with pytest.raises(OptionError, match=r"\[0, 1\]"):
        next(many)


@pytest.mark.parametrize(("kind", "fill"), CASES)
def test_the_input_itself_is_not_changed(kind: str, fill: str) -> None:
    raw, options, shape = case(kind)
    before = np.array(content(raw))
    keep(raw, np.zeros(shape), fill=fill, **options)
    np.testing.assert_array_equal(content(raw), before)


@pytest.mark.parametrize("kind", list(FILLS))
def test_the_first_fill_is_the_default_and_each_is_documented(kind: str) -> None:
    raw, options, shape = case(kind)
    hard = np.zeros(shape)
    first = keep(raw, hard, fill=next(iter(FILLS[kind])), **options)
    np.testing.assert_array_equal(content(keep(raw, hard, **options)), content(first))
    assert all(fill.summary and fill.source for fill in FILLS[kind].values())


@pytest.mark.parametrize("kind", list(FILLS))
def test_weights_must_fit_and_be_fractions(kind: str) -> None:
    raw, options, shape = case(kind)
    for wrong in (-0.1, 1.1, np.nan, np.inf):
        with pytest.raises(OptionError, match=r"\[0, 1\]"):
            keep(raw, np.full(shape, wrong), **options)
    with pytest.raises(OptionError, match=r"shape"):
        keep(raw, np.ones((*shape, 2)), **options)
    with pytest.raises(OptionError, match=r"type"):
        keep(raw, np.full(shape, "a"), **options)
    with pytest.raises(OptionError, match=f"accepted: {', '.join(FILLS[kind])}"):
        keep(raw, np.ones(shape), fill="sepia", **options)
    with pytest.raises(OptionError, match="rows"):
        keep_many(raw, np.float32(1.0), **options)


def test_what_is_no_raw_input_is_refused() -> None:
    with pytest.raises(InputError, match="ndarray"):
        keep(np.ones((3, 3)), np.ones((3, 3)))  # type: ignore[type-var]


@pytest.mark.parametrize("name", ["", ".keeping", ".weights"])
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    failed, tried = doctest.testmod(import_module(f"mmattrib.perturb{name}"), extraglobs={"np": np})
    assert tried > 0
    assert failed == 0


def test_importing_perturb_imports_no_torch() -> None:
    code = "import sys, mmattrib.perturb; print({'torch', 'PIL', 'scipy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def picture(height: int = 30, width: int = 20) -> RawImage:
    pixels = np.random.default_rng(2).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return RawImage(pixels)


def test_weights_of_zero_give_the_fill_of_a_picture_alone() -> None:
    raw, nothing = picture(), np.zeros((30, 20))
    assert not keep(raw, nothing, fill="black").pixels.any()
    mean = np.rint(raw.pixels.mean(axis=(0, 1), dtype=np.float64))
    assert (keep(raw, nothing, fill="mean").pixels == mean).all()
    noise = keep(raw, nothing, fill="noise").pixels.astype(float)
    assert np.abs(noise.mean((0, 1)) - raw.pixels.mean((0, 1))).max() < 20
    assert 40 < noise.std() < 90
    blurred = keep(raw, nothing, fill="blur").pixels.astype(float)
    assert blurred.std() < 0.5 * raw.pixels.std()


def test_the_blur_is_a_gaussian_of_ten_224ths_of_the_shorter_side() -> None:
    side, sigma = 448, 20.0
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[:, side // 2 :] = 255
    edge = keep(RawImage(pixels), np.zeros((side, side)), fill="blur").pixels[side // 2, :, 0]
    slope = np.diff(edge.astype(float))
    places = np.arange(len(slope)) + 1.0
    centre = (slope * places).sum() / slope.sum()
    spread = np.sqrt((slope * (places - centre) ** 2).sum() / slope.sum())
    assert spread == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("fill", [name for name, fill in FILLS["image"].items() if fill.soft])
def test_soft_weights_mix_picture_and_fill_linearly(fill: str) -> None:
    raw = picture()
    weights = np.random.default_rng(0).random((30, 20))
    other = keep(raw, np.zeros((30, 20)), fill=fill).pixels.astype(float)
    mixed = raw.pixels * weights[..., None] + other * (1 - weights[..., None])
    found = keep(raw, weights, fill=fill).pixels
    assert np.abs(found - mixed).max() <= 1.01, "rounding of the fill and of the mix"


@pytest.mark.parametrize("fill", list(FILLS["image"]))
def test_hard_weights_leave_the_kept_pixels_as_they_are(fill: str) -> None:
    raw, kept = picture(), np.random.default_rng(1).random((30, 20)) > 0.5
    found = keep(raw, kept, fill=fill).pixels
    assert (found[kept] == raw.pixels[kept]).all()
    assert (found[~kept] != raw.pixels[~kept]).any(-1).mean() > 0.9


def test_a_seed_decides_the_noise() -> None:
    raw, nothing = picture(), np.zeros((30, 20))
    first, again, other = (keep(raw, nothing, fill="noise", seed=s).pixels for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def cells(count: int, size: int, name: str) -> Axis:
    values = (np.arange(count, dtype=np.float32) + 0.5) * size / count
    return Axis(name, "px", values)


def test_a_smaller_map_of_a_picture_is_interpolated_between_its_cells_centres() -> None:
    raw = RawImage(np.full((40, 60, 3), 200, np.uint8))
    axes = (cells(2, 40, "y"), cells(3, 60, "x"))
    found = keep(raw, [[0, 0.5, 1], [0, 0.5, 1]], axes=axes, fill="black").pixels[..., 0]
    across = np.interp(np.arange(60) + 0.5, [10, 30, 50], [0, 100, 200])
    np.testing.assert_allclose(found, np.broadcast_to(across, found.shape), atol=0.51)


def test_a_map_of_another_size_needs_axes() -> None:
    with pytest.raises(OptionError, match=r"\(2, 3\).*\(30, 20\)"):
        keep(picture(), np.ones((2, 3)))
    with pytest.raises(OptionError, match="Hz"):
        keep(picture(), np.ones((2, 3)), axes=(Axis("y", "Hz", np.arange(2)), cells(3, 20, "x")))


def words_of(text: str) -> tuple[Word, ...]:
    return text_side(text)[1].words


@given(st.lists(st.booleans(), min_size=7, max_size=7))
def test_words_that_stay_keep_their_text_and_order(kept: list[bool]) -> None:
    text = "  a red dog,  an old-style bell "
    words = words_of(text)[:7]
    for fill in FILLS["text"]:
        found = keep(RawText(text), kept, words=words, fill=fill).text
        pieces = words_of(found)
        stay = [w.text for w, keeps in zip(words, kept, strict=True) if keeps]
        rest = [w.text for w in words_of(text)[7:]]
        left = [w.text for w in pieces if w.text != PLACEHOLDER]
        assert left == stay + rest
        if fill == "blank":
            assert found.count(PLACEHOLDER) == kept.count(False)


@pytest.mark.parametrize(
    ("text", "gone", "left"),
    [
        ("a red dog", {1}, "a dog"),
        ("a red dog", {0}, "red dog"),
        ("a red dog", {2}, "a red"),
        ("a red dog", {0, 1, 2}, ""),
        ("a red dog", {1, 2}, "a"),
        ("a dog, a cat", {2}, "a dog a cat"),
        ("a dog, a cat", {1, 2}, "a a cat"),
        ("two  dogs\nbark", {1}, "two  bark"),
        ("dog+cat", {1}, "dog cat"),
        ("(dog)", {1}, "()"),
    ],
)
def test_a_deleted_word_takes_the_space_around_it_along(
    text: str, gone: set[int], left: str
) -> None:
    words = words_of(text) if text != "(dog)" else (Word("(", 0, 1), Word("dog", 1, 4))
    words = words if text != "dog+cat" else (Word("dog", 0, 3), Word("+", 3, 4), Word("cat", 4, 7))
    kept = [number not in gone for number in range(len(words))]
    assert keep(RawText(text), kept, words=words, fill="delete").text == left


def test_captions_take_hard_weights_and_their_own_words() -> None:
    raw, words = RawText("a red dog"), words_of("a red dog")
    with pytest.raises(OptionError, match=r"top_weights.*embedding"):
        keep(raw, [0.5, 1, 1], words=words)
    with pytest.raises(OptionError, match="words="):
        keep(raw, [1, 1, 1])
    with pytest.raises(OptionError, match=r"mmattrib\.perturb\.tokens"):
        keep(raw, [1, 1, 1], words=words, fill="pad")
    for wrong in (words[::-1], words_of("a fat dog"), (*words[:2], Word("g", 9, 9))):
        with pytest.raises(OptionError, match="in order"):
            keep(raw, [1, 1, 1], words=wrong)


def test_arrays_take_weights_over_their_first_or_last_axes() -> None:
    values = np.random.default_rng(0).normal(size=(4, 6, 8, 3)).astype(np.float32)
    video = RawArray(values, "video", rate=2.0)
    kept = np.random.default_rng(1).random((4, 6, 8)) > 0.5
    found = keep(video, kept, fill="mean")
    assert (found.values[kept] == values[kept]).all()
    np.testing.assert_allclose(
        found.values[~kept], np.broadcast_to(values.mean((0, 1, 2)), (int((~kept).sum()), 3)),
        atol=1e-6,
    )  # fmt: skip
    assert (found.modality, found.rate) == ("video", 2.0)
    time = np.random.default_rng(1).random(40) > 0.5
    readings = keep(ARRAY, time, fill="zero").values
    assert (readings[:, time] == ARRAY.values[:, time]).all()
    assert not readings[:, ~time].any()
    own = keep(ARRAY, np.zeros(40), fill="mean").values
    means = np.broadcast_to(ARRAY.values.mean(1, keepdims=True), own.shape)
    np.testing.assert_allclose(own, means, atol=1e-6)


def test_soft_weights_mix_an_array_and_its_fill_linearly() -> None:
    weights = np.random.default_rng(0).random(ARRAY.values.shape)
    found = keep(ARRAY, weights, fill="mean").values
    wanted = ARRAY.values * weights + ARRAY.values.mean() * (1 - weights)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_weights_that_fit_two_ways_are_refused() -> None:
    square = replace(ARRAY, values=np.zeros((5, 5), np.float32))
    with pytest.raises(OptionError, match="first and the last"):
        keep(square, np.ones(5))
    assert keep(square, np.ones((5, 5))).values.shape == (5, 5)
