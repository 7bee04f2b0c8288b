"""Laying tokens on an input: against torch's interpolation, at any size, and what was seen."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from render_examples import image_side, seen_in_part, text_side
from torch.nn import functional as nnf

from mmattrib.errors import InputError
from mmattrib.placement import (
    EvenCells,
    PlanePlacement,
    WeightedCells,
    WordPlacement,
    from_map,
    which_part,
    with_unseen_warning,
)
from mmattrib.types import Attribution, Axis, Word


def axis(count: int, name: str = "x") -> Axis:
    return Axis(name, "px", np.arange(count, dtype=np.float32) + 0.5)


def by_torch(plane: np.ndarray, real: np.ndarray, box: tuple[int, ...], shape: tuple[int, ...]):
    """Interpolated over the box, cropped to the input; slow and independent of what is tested."""
    top, left, bottom, right = box
    size = (bottom - top, right - left)
    filled = plane.copy()
    for row in range(plane.shape[0]):
        last = np.float32(0)
        for column in range(plane.shape[1]):
            last = plane[row, column] if real[row, column] else last
            filled[row, column] = last
    whole = nnf.interpolate(torch.from_numpy(filled)[None, None], size, mode="bilinear")[0, 0]
    shown = torch.from_numpy(real.astype(np.float32))[None, None]
    shown = nnf.interpolate(shown, size, mode="nearest-exact")[0, 0] > 0
    out, seen = np.zeros(shape, np.float32), np.zeros(shape, bool)
    for y in range(max(0, top), min(shape[0], bottom)):
        for x in range(max(0, left), min(shape[1], right)):
            if shown[y - top, x - left]:
                out[y, x], seen[y, x] = whole[y - top, x - left], True
    return out, seen


sides = st.integers(1, 30)


@settings(max_examples=150, deadline=None)
@given(
    cells=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    shape=st.tuples(sides, sides),
    corner=st.tuples(st.integers(-15, 25), st.integers(-15, 25)),
    size=st.tuples(sides, sides),
    padding=st.integers(0, 6),
    seed=st.integers(0, 99),
)
def test_even_cells_are_laid_as_torch_interpolates(
    cells: tuple[int, int],
    shape: tuple[int, int],
    corner: tuple[int, int],
    size: tuple[int, int],
    padding: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal(cells[0] * cells[1]).astype(np.float32)
    order = rng.permutation(len(scores)).astype(np.int32).reshape(cells)
    content = np.ones(len(scores), bool)
    content[order[:, cells[1] - min(padding, cells[1] - 1) :]] = False
    scores[~content] = np.nan
    box = (*corner, corner[0] + size[0], corner[1] + size[1])
    placement = PlanePlacement(
        (axis(shape[0], "y"), axis(shape[1])),
        (
            EvenCells(cells[0], shape[0], box[0], box[2]),
            EvenCells(cells[1], shape[1], box[1], box[3]),
        ),
        order,
    )
    expected, seen = by_torch(scores[order], content[order], box, shape)
    found = placement.lay(scores, content)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)
    np.testing.assert_array_equal(placement.seen(content), seen)
    assert placement.seen_share(content) == pytest.approx(seen.mean())


@pytest.mark.parametrize("size", [(48, 64), (24, 32), (7, 5), (96, 200), (1, 1)])
def test_a_smaller_map_is_the_large_one_averaged(size: tuple[int, int]) -> None:
    """The mean of a map does not depend on the size it is laid at, and constants stay so."""
    _, attribution = image_side(48, 64)
    small = attribution.scores_at(size)
    assert small.shape == size
    assert small.mean() == pytest.approx(attribution.scores.mean(), rel=0.12)
    flat = replace(attribution, token_scores=np.full(48 * 64, 2.5, np.float32))
    assert (flat.scores_at(size) == 2.5).all()
    exact = attribution.scores.reshape(24, 2, 32, 2).mean(axis=(1, 3))
    half = attribution.scores_at((24, 32))
    assert np.corrcoef(half.ravel(), exact.ravel())[0, 1] > 0.95


def test_coarse_tokens_look_the_same_at_any_size() -> None:
    _, attribution = seen_in_part((0, 0, 400, 1200), 400, 1200)
    half = attribution.scores.reshape(200, 2, 600, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(attribution.scores_at((200, 600)), half, atol=0.01)
    twice = attribution.scores_at((800, 2400)).reshape(400, 2, 1200, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(twice, attribution.scores, atol=0.01)


def test_axes_and_what_was_seen_follow_the_size() -> None:
    _, attribution = seen_in_part((0, 40, 40, 80))
    assert attribution.seen.sum() == 40 * 40
    assert attribution.seen[:, 40:80].all()
    assert (attribution.scores[~attribution.seen] == 0).all()
    coarse = attribution.seen_at((4, 12))
    assert coarse[:, 4:8].all()
    assert coarse.sum() == 16
    y, x = attribution.axes_at((4, 12))
    assert y.values.tolist() == [5, 15, 25, 35]
    assert (x.values[0], x.values[-1], x.unit) == (5, 115, "px")
    assert attribution.seen_share == pytest.approx(1 / 3)


def test_weighted_cells_give_each_place_its_share() -> None:
    weights = np.array([[1, 0], [0.5, 0.5], [0, 1], [0, 0]], np.float32)
    line = PlanePlacement((axis(4),), (WeightedCells(weights),), np.array([1, 0], np.int32))
    scores, content = np.array([3.0, 1.0], np.float32), np.ones(2, bool)
    assert line.lay(scores, content).tolist() == [1, 2, 3, 0]
    assert line.seen(content).tolist() == [True, True, True, False]
    assert line.seen_share(content) == 0.75
    # half the places: each takes the mean of two, the last of the one that was seen
    np.testing.assert_allclose(line.lay(scores, content, (2,)), [1.5, 3.0], atol=0.3)
    assert line.lay(scores, content, (8,)).shape == (8,)
    assert not line.seen(content, (8,))[-1]


def test_a_word_without_a_token_was_not_seen() -> None:
    words = (Word("a", 0, 1), Word("dog", 2, 5), Word("ran", 6, 9))
    placement = WordPlacement(words, np.array([-1, 0, 1, 1, 2], np.int32))
    scores = np.array([np.nan, 1, 2, 3, 9], np.float32)
    content = np.array([False, True, True, True, False])
    text = Attribution("text", "bits", scores, content, placement, 0)
    assert text.scores.tolist() == [1, 5, 0]
    assert text.seen.tolist() == [True, True, False]
    assert text.seen_share == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="no other size"):
        text.scores_at((2,))


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((0, 40, 40, 80), "its middle part (33 %)"),
        ((0, 0, 40, 40), "its left part (33 %)"),
        ((20, 0, 40, 120), "its lower part (50 %)"),
        ((10, 40, 30, 80), "17 % of it"),
        ((0, 0, 40, 120), ""),
        ((-10, -5, 50, 130), ""),
        ((90, 0, 120, 120), "0 % of it"),
    ],
)
def test_what_was_seen_is_said(box: tuple[int, int, int, int], said: str) -> None:
    _, attribution = seen_in_part(box)
    assert which_part(attribution) == said
    found = with_unseen_warning(attribution).diagnostics.get("warnings", ())
    assert bool(found) == (said != "")
    assert all(said in message for message in found)


def test_a_small_unseen_margin_is_no_warning() -> None:
    _, attribution = seen_in_part((0, 20, 40, 100))
    assert with_unseen_warning(attribution) is attribution


def test_what_does_not_fit_is_refused() -> None:
    plane = (axis(4, "y"), axis(6))
    cells = (EvenCells(2, 4, 0, 4), EvenCells(3, 6, 0, 6))
    order = np.arange(6, dtype=np.int32).reshape(2, 3)
    placement = PlanePlacement(plane, cells, order)
    scores = np.zeros(6, np.float32)
    for size in ((4,), (4, 0), (4, 6, 1)):
        with pytest.raises(InputError, match="size"):
            placement.lay(scores, scores == 0, size)
    with pytest.raises(InputError, match="do not fit"):
        PlanePlacement(plane, cells, order.T)
    with pytest.raises(InputError, match="do not fit"):
        PlanePlacement(plane[:1], cells, order)
    with pytest.raises(InputError, match="names tokens 0 to 5, there are 5"):
        Attribution("image", "bits", scores[:5], scores[:5] == 0, placement, 0)
    with pytest.raises(InputError, match="tokens"):
        Attribution("image", "bits", scores, scores[:5] == 0, placement, 0)
    with pytest.raises(InputError, match="start"):
        EvenCells(2, 4, 3, 3)
    with pytest.raises(InputError, match="words"):
        from_map("text", np.zeros(3), "bits", words=text_side("a b")[1].words)


def test_a_map_costs_what_its_size_costs() -> None:
    """A thousand million pixels, shown at 200 x 300: nothing large is ever held."""
    code = (
        "import numpy as np, resource\n"
        "from mmattrib.placement import *\n"
        "from mmattrib.types import *\n"
        "n = 32000\n"
        "axes = tuple(Axis(k, 'px', np.arange(n, dtype=np.float32)) for k in 'yx')\n"
        "cells = (EvenCells(14, n, 0, n), EvenCells(14, n, -5, n - 9000))\n"
        "place = PlanePlacement(axes, cells, np.arange(196, dtype=np.int32).reshape(14, 14))\n"
        "made = Attribution('image', 'bits', np.ones(196), np.ones(196, bool), place, 0)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert made.scores_at((200, 300)).shape == (200, 300)\n"
        "assert 0.7 < made.seen_share < 0.75, made.seen_share\n"
        "print(repr(made), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout.split()[-1]) < 20  # MB
