"""Token grids: round trips, boxes, layouts, padding, and words out of subwords."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattrib.errors import EncoderError
from mmattrib.models.grids import (
    Box,
    ImageGrid,
    Layout,
    PlaneGrid,
    SpectrogramGrid,
    TextGrid,
    TokenGrid,
    content_mask,
)
from mmattrib.types import Axis


def plane(height: int, width: int) -> tuple[Axis, Axis]:
    return (
        Axis("y", "px", np.arange(height, dtype=np.float32)),
        Axis("x", "px", np.arange(width, dtype=np.float32)),
    )


def one_hot(grid: TokenGrid, token: int) -> torch.Tensor:
    scores = torch.zeros(grid.valid.shape)
    scores[:, token] = 1.0
    return scores


def peak(grid: TokenGrid, token: int) -> tuple[int, ...]:
    values = grid.to_input(one_hot(grid, token))[0]
    at_top = np.argwhere(values == values.max())
    return tuple(int(place) for place in at_top[len(at_top) // 2])


def test_content_mask_counts_from_both_ends() -> None:
    mask = content_mask(2, 3, prefix=1, suffix=2)
    assert mask.tolist() == [[False, True, True, True, False, False]] * 2


# ---------------------------------------------------------------------------------- planes


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("suffix", [0, 2])
def test_each_patch_lies_on_its_own_pixels(prefix: int, suffix: int) -> None:
    layout = Layout("h w", "h w", {"h": 3, "w": 4})
    grid = ImageGrid(layout, [(30, 80)], prefix=prefix, suffix=suffix)
    assert grid.valid.all()
    assert grid.content.sum() == 12
    for row in range(3):
        for column in range(4):
            down, across = peak(grid, prefix + 4 * row + column)
            assert row * 10 <= down < row * 10 + 10
            assert column * 20 <= across < column * 20 + 20
    y, x = grid.axes(0)
    assert (y.name, y.unit, x.name, x.unit) == ("y", "px", "x", "px")
    assert y.values[0] == 0.5
    assert x.values[-1] == 79.5


def test_prefix_and_suffix_scores_are_never_read() -> None:
    layout = Layout("h w", "h w", {"h": 2, "w": 2})
    grid = ImageGrid(layout, [(8, 8)], prefix=1, suffix=1)
    scores = torch.full((1, 6), torch.nan)
    scores[:, 1:5] = torch.arange(4.0)
    values = grid.to_input(scores)[0]
    assert np.isfinite(values).all()
    assert (values[0, 0], values[0, 7], values[7, 0], values[7, 7]) == (0, 1, 2, 3)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    down=st.integers(2, 5),
    across=st.integers(2, 5),
    prefix=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_round_trips(
    rows: int, columns: int, down: int, across: int, prefix: int, seed: int
) -> None:
    """A map that is constant over each cell comes back exactly; so does a constant score."""
    layout = Layout("h w", "h w", {"h": rows, "w": columns})
    grid = ImageGrid(layout, [(rows * down, columns * across)], prefix=prefix)
    tokens = torch.rand(1, prefix + rows * columns, generator=torch.Generator().manual_seed(seed))
    tokens[:, :prefix] = 0
    cells = tokens[0, prefix:].view(rows, columns).numpy()
    pixels = cells.repeat(down, axis=0).repeat(across, axis=1)
    torch.testing.assert_close(grid.to_tokens([pixels]), tokens)
    constant = grid.to_input(torch.full_like(tokens, 3.0))[0]
    np.testing.assert_allclose(constant, 3.0, rtol=1e-6)
    # interpolation stays within the scores, and is linear in them
    values = grid.to_input(tokens)[0]
    assert cells.min() - 1e-6 <= values.min()
    assert values.max() <= cells.max() + 1e-6
    np.testing.assert_allclose(grid.to_input(2 * tokens + 1)[0], 2 * values + 1, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    top=st.integers(-20, 40),
    left=st.integers(-20, 40),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_any_box_is_laid_where_it_says(top: int, left: int, height: int, width: int) -> None:
    layout = Layout("h w", "h w", {"h": 2, "w": 3})
    grid = ImageGrid(layout, [(30, 25)], [Box(top, left, top + height, left + width)])
    values = grid.to_input(torch.ones(1, 6))[0]
    inside = np.zeros((30, 25), dtype=bool)
    inside[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)] = True
    np.testing.assert_allclose(values, inside.astype(np.float32), atol=1e-6)
    np.testing.assert_array_equal(grid.placement(0).seen(grid.content[0].numpy()), inside)
    back = grid.to_tokens([np.ones((30, 25), dtype=np.float32)])
    assert back.shape == (1, 6)
    assert back.min() >= 0
    assert back.max() <= 1 + 1e-6
    whole = top >= 0 and top + height <= 30 and left >= 0 and left + width <= 25
    if whole:
        torch.testing.assert_close(back, torch.ones(1, 6))


def test_what_the_model_did_not_see_is_zero() -> None:
    layout = Layout("h w", "h w", {"h": 2, "w": 2})
    boxes = [Box(0, 10, 20, 30), Box(5, 0, 25, 20)]
    grid = ImageGrid(layout, [(20, 40), (30, 20)], boxes)
    first, second = grid.to_input(torch.ones(2, 4))
    assert first.shape == (20, 40)
    assert second.shape == (30, 20)
    assert first[:, 10:30].all()
    assert first.sum() == 400
    assert second[5:25].all()
    assert second.sum() == 400


@pytest.mark.parametrize("box", [Box(0, 5, 4, 5), Box(3, 0, 1, 12)])
def test_a_box_of_nothing_is_refused(box: Box) -> None:
    with pytest.raises(EncoderError, match="at least one row"):
        ImageGrid(Layout("h w", "h w", {"h": 1, "w": 2}), [(4, 12)], [box])


def test_a_placement_is_of_its_own_input_and_needs_no_torch() -> None:
    layout = Layout("w h", "h w", {"h": 2, "w": 3})
    grid = ImageGrid(layout, [(20, 40), (30, 21)], prefix=1, suffix=1)
    scores = torch.rand(2, 8, generator=torch.Generator().manual_seed(0))
    for index, laid in enumerate(grid.to_input(scores)):
        sent = pickle.loads(pickle.dumps(grid.placement(index)))
        found = sent.lay(scores[index].numpy(), grid.content[index].numpy())
        np.testing.assert_array_equal(found, laid)
        assert sent.shape == laid.shape
        assert sent.order.tolist() == [[1, 3, 5], [2, 4, 6]]


def test_values_outside_the_box_do_not_count() -> None:
    grid = ImageGrid(Layout("h w", "h w", {"h": 1, "w": 2}), [(4, 12)], [Box(0, 4, 4, 12)])
    values = np.zeros((4, 12), dtype=np.float32)
    values[:, :4] = 100
    values[:, 4:8] = 1
    assert grid.to_tokens([values]).tolist() == [[1.0, 0.0]]


# --------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("tokens", "place"),
    [
        ("chunk f t", lambda chunk, f, t: chunk * 15 + f * 5 + t),
        ("f chunk t", lambda chunk, f, t: f * 10 + chunk * 5 + t),
        ("chunk t f", lambda chunk, f, t: chunk * 15 + t * 3 + f),
        ("t f chunk", lambda chunk, f, t: t * 6 + f * 2 + chunk),
        ("(chunk f) t", lambda chunk, f, t: chunk * 15 + f * 5 + t),
    ],
)
def test_folded_chunks_unfold_in_time(tokens: str, place: object) -> None:
    sizes = {"chunk": 2, "f": 3, "t": 5}
    grid = PlaneGrid(Layout(tokens, "f (chunk t)", sizes), [plane(3, 10)])
    for chunk in range(2):
        for f in range(3):
            for t in range(5):
                number = place(chunk, f, t)  # type: ignore[operator]
                assert peak(grid, number) == (f, chunk * 5 + t)


@settings(max_examples=30, deadline=None)
@given(st.permutations(["a", "b", "c"]), st.permutations(["a", "b", "c"]), st.integers(0, 2))
def test_fold_undoes_unfold(tokens: list[str], axes: list[str], split: int) -> None:
    sizes = {"a": 2, "b": 3, "c": 4}
    pattern = f"({' '.join(axes[:split])}) ({' '.join(axes[split:])})"
    layout = Layout(" ".join(tokens), pattern, sizes)
    assert layout.count == 24
    scores = torch.arange(48.0).view(2, 24)
    torch.testing.assert_close(layout.fold(layout.unfold(scores)), scores)


@pytest.mark.parametrize(
    ("tokens", "axes", "sizes"),
    [
        ("h w", "h", {"h": 2, "w": 2}),
        ("h w", "h w", {"h": 2}),
        ("h w", "h w", {"h": 2, "w": 2, "t": 3}),
        ("h h", "h w", {"h": 2, "w": 2}),
        ("h w", "h w", {"h": 0, "w": 2}),
        ("", "", {}),
    ],
)
def test_a_layout_that_cannot_be(tokens: str, axes: str, sizes: dict[str, int]) -> None:
    with pytest.raises(EncoderError, match="layout"):
        Layout(tokens, axes, sizes)


def test_frequency_and_time_axes() -> None:
    layout = Layout("f t", "f t", {"f": 2, "t": 3})
    hertz = np.linspace(100, 800, 8).astype(np.float32)
    seconds = [np.linspace(0, 1, 12).astype(np.float32), np.linspace(0, 0.5, 6).astype(np.float32)]
    boxes = [Box(0, 0, 8, 12)] * 2
    grid = SpectrogramGrid(layout, hertz, seconds, boxes, prefix=1)
    long, short = grid.to_input(one_hot(grid, 1 + 3 + 1))
    assert long.shape == (8, 12)
    assert short.shape == (8, 6)
    np.testing.assert_allclose(short, long[:, :6])
    frequency, time = grid.axes(1)
    assert (frequency.unit, time.unit) == ("Hz", "s")
    assert time.values[-1] == 0.5
    assert long[4:, 4:8].min() > long[:4].max() - 1e-6


# --------------------------------------------------------------------------------- padding


def clips(valid_clips: int, **options: object) -> SpectrogramGrid:
    """Three clips of a CLS and 2 x 2 patches; 4 x 4 cells a clip."""
    laid = torch.tensor([[False, True, True, True, True] * 3])
    valid = (torch.arange(15) < 5 * valid_clips)[None]
    return SpectrogramGrid(
        Layout("clip f t", "f (clip t)", {"clip": 3, "f": 2, "t": 2}),
        np.arange(4, dtype=np.float32),
        [np.arange(12, dtype=np.float32)],
        laid=laid,
        valid=valid,
        **options,  # type: ignore[arg-type]
    )


def test_a_cls_in_every_clip_is_skipped() -> None:
    grid = clips(3)
    assert grid.content.sum() == 12
    assert peak(grid, 1)[1] < 2
    assert 4 <= peak(grid, 6)[1] < 6
    assert 10 <= peak(grid, 12)[1] < 12


@pytest.mark.parametrize("padding", [0.0, 50.0, float("nan")])
def test_padding_does_not_bleed_into_the_recording(padding: float) -> None:
    grid = clips(2)
    assert not (grid.content & ~grid.valid).any()
    scores = torch.full((1, 15), padding)
    scores[:, :10] = torch.arange(10.0)
    values = grid.to_input(scores)[0]
    assert np.isfinite(values).all()
    assert (values[:, 8:] == 0).all()
    seen = grid.placement(0).seen(grid.content[0].numpy())
    assert seen[:, :8].all()
    assert not seen[:, 8:].any()
    # up to its end the recording's map is that of the recording alone
    laid = torch.tensor([[False, True, True, True, True] * 2])
    alone = SpectrogramGrid(
        Layout("clip f t", "f (clip t)", {"clip": 2, "f": 2, "t": 2}),
        np.arange(4, dtype=np.float32),
        [np.arange(8, dtype=np.float32)],
        laid=laid,
    )
    np.testing.assert_allclose(values[:, :8], alone.to_input(scores[:, :10])[0], rtol=1e-6)
    back = grid.to_tokens([np.ones((4, 12), dtype=np.float32)])
    torch.testing.assert_close(back, grid.content.float())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"laid": torch.ones(1, 5, dtype=torch.bool)}, "mark the 4 tokens"),
        ({"laid": torch.ones(2, 4, dtype=torch.bool)}, "1 inputs"),
        ({"valid": torch.ones(1, 9, dtype=torch.bool)}, "valid"),
        ({"boxes": []}, "0 boxes"),
    ],
)
def test_a_grid_that_contradicts_itself(options: dict[str, object], message: str) -> None:
    layout = Layout("h w", "h w", {"h": 2, "w": 2})
    with pytest.raises(EncoderError, match=message):
        PlaneGrid(layout, [plane(4, 4)], **options)  # type: ignore[arg-type]


def test_scores_of_another_shape() -> None:
    grid = ImageGrid(Layout("h w", "h w", {"h": 2, "w": 2}), [(4, 4)], prefix=1)
    with pytest.raises(EncoderError, match=r"\(1, 4\).*\(1, 5\)"):
        grid.to_input(torch.zeros(1, 4))


# ------------------------------------------------------------------------------------ text


def text_grid(text: str, pieces: list[str | None]) -> TextGrid:
    """The grid of tokens that follow each other in the text; None is a special token."""
    spans: list[tuple[int, int] | None] = []
    at = 0
    for piece in pieces:
        if piece is None:
            spans.append(None)
            continue
        start = text.index(piece, at)
        spans.append((start, start + len(piece)))
        at = start + len(piece)
    return TextGrid.from_spans([text], [spans], torch.ones(1, len(pieces), dtype=torch.bool))


@pytest.mark.parametrize(
    ("text", "pieces", "words"),
    [
        ("a dog", [None, "a", "dog", None], ["a", "dog"]),
        ("elephants run", ["ele", "ph", "ants", "run"], ["elephants", "run"]),
        ("dogs, cats!", ["dog", "s", ",", "cats", "!"], ["dogs", ",", "cats", "!"]),
        ("the dog's bone", ["the", "dog", "'s", "bone"], ["the", "dog's", "bone"]),
        ("well-known", ["well", "-", "known"], ["well-known"]),
        ("a dog", ["a", " dog"], ["a", "dog"]),
        ("a dog", ["a", " ", "dog"], ["a", "dog"]),
        ("no. 5", ["no", ".", "5"], ["no", ".", "5"]),
        ("nai\u0308ve art", ["nai", "\u0308", "ve", "art"], ["nai\u0308ve", "art"]),
        ("हिन्दी", ["हि", "न्दी"], ["हिन्दी"]),
    ],
)
def test_words_out_of_tokens(text: str, pieces: list[str | None], words: list[str]) -> None:
    grid = text_grid(text, pieces)
    assert [word.text for word in grid.words(0)] == words
    assert all(text[word.start : word.end] == word.text for word in grid.words(0))
    assert len(grid.axes(0)[0].values) == len(words)


def test_bytes_of_one_character_are_one_word() -> None:
    text = "a 🐶 b"
    spans = [(0, 1), (2, 3), (2, 3), (2, 3), (4, 5)]
    grid = TextGrid.from_spans([text], [spans], torch.ones(1, 5, dtype=torch.bool))
    assert [word.text for word in grid.words(0)] == ["a", "🐶", "b"]
    assert grid.to_input(torch.ones(1, 5))[0].tolist() == [1, 3, 1]


def test_a_word_is_the_sum_of_its_tokens() -> None:
    grid = text_grid("two elephants", [None, "two", "ele", "ph", "ants", None])
    scores = torch.tensor([[100.0, 1, 2, 3, 4, float("nan")]])
    assert grid.to_input(scores)[0].tolist() == [1, 9]
    assert grid.content.tolist() == [[False, True, True, True, True, False]]
    assert grid.to_tokens([np.array([5.0, 7.0])]).tolist() == [[0, 5, 7, 7, 7, 0]]


def test_captions_of_different_lengths() -> None:
    valid = torch.tensor([[True, True, True], [True, False, False]])
    spans = [[(0, 1), (2, 5), None], [(0, 4)]]
    grid = TextGrid.from_spans(["a dog", "rain"], spans, valid)
    first, second = grid.to_input(torch.ones(2, 3))
    assert first.tolist() == [1, 1]
    assert second.tolist() == [1]
    assert grid.content.tolist() == [[True, True, False], [True, False, False]]
    with pytest.raises(EncoderError, match="4 spans for 3 tokens"):
        TextGrid.from_spans(["a dog", "rain"], [spans[0], [(0, 1)] * 4], valid)
    with pytest.raises(EncoderError, match="outside of 'rain'"):
        TextGrid.from_spans(["a dog", "rain"], [spans[0], [(2, 9)]], valid)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab'-,. \t🐶é", min_size=1, max_size=24), st.data())
def test_any_cutting_of_any_text(text: str, data: st.DataObject) -> None:
    """Words are disjoint, in order, free of spaces at their ends, and keep every token's score."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)) | {0, len(text)})
    spans = list(pairwise(cuts))
    grid = TextGrid.from_spans([text], [spans], torch.ones(1, len(spans), dtype=torch.bool))
    words = grid.words(0)
    assert all(word.text == text[word.start : word.end] for word in words)
    assert all(word.text == word.text.strip() != "" for word in words)
    assert all(a.end <= b.start for a, b in pairwise(words))
    assert sum(len(word.text) for word in words) <= len(text)
    scores = torch.rand(grid.valid.shape, generator=torch.Generator().manual_seed(0))
    total = float(scores[grid.content].sum())
    assert float(grid.to_input(scores)[0].sum()) == pytest.approx(total, rel=1e-5)
