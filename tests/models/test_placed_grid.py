"""Tokens placed by weights: views that overlap, leave gaps or repeat, on any number of axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmattrib.errors import EncoderError
from mmattrib.models.grids import Layout, PlaneGrid
from mmattrib.models.grids.placed import AxisPlacement, PlacedGrid
from mmattrib.types import Axis


def axis(name: str, count: int) -> Axis:
    return Axis(name, "px", np.arange(count, dtype=np.float32))


def line(count: int, cells: int) -> AxisPlacement:
    """Cells of equal width over all of a line."""
    return AxisPlacement.of_views([(np.arange(count) + 0.5) * cells / count], cells)


def laid(batch: int, count: int) -> torch.Tensor:
    return torch.ones(batch, count, dtype=torch.bool)


def test_one_view_of_everything_is_a_plane_grid() -> None:
    layout = Layout("w h", "h w", {"h": 3, "w": 4})
    axes = (axis("y", 12), axis("x", 20))
    placed = PlacedGrid(layout, [axes], [(line(12, 3), line(20, 4))], laid(1, 12))
    plane = PlaneGrid(layout, [axes])
    scores = torch.rand(1, 12, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(placed.to_input(scores)[0], plane.to_input(scores)[0], atol=1e-6)
    values = np.random.default_rng(0).random((12, 20)).astype(np.float32)
    torch.testing.assert_close(placed.to_tokens([values]), plane.to_tokens([values]))
    assert placed.content.equal(plane.content)


views = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 25), st.integers(1, 5)), min_size=1, max_size=4
)


@given(views)
def test_weights_are_averages_wherever_something_was_seen(given_views: list) -> None:
    count, positions, bounds, cells = 40, [], [], 0
    for start, length, own in given_views:
        place = (np.arange(count) - start + 0.5) * own / length
        positions.append(np.where((place >= 0) & (place < own), place + cells, np.nan))
        bounds.append((cells, cells + own))
        cells += own
    found = AxisPlacement.of_views(positions, cells, bounds)
    seen = np.isfinite(np.array(positions)).any(axis=0)
    np.testing.assert_allclose(found.weights.sum(1), seen.astype(np.float32), atol=1e-5)
    np.testing.assert_allclose(found.averages.sum(1), found.used.float(), atol=1e-5)
    assert (found.weights >= 0).all()
    # No cell without a place of its own is ever read.
    assert not found.weights[:, ~found.used].any()


def test_overlaps_take_the_mean_and_gaps_are_zero() -> None:
    here = np.arange(10)
    first = np.where(here < 6, (here + 0.5) / 3, np.nan)  # cells 0, 1 on places 0-5
    second = np.where((here >= 3) & (here < 9), (here - 2.5) / 3 + 2, np.nan)  # 2, 3 on 3-8
    place = AxisPlacement.of_views([first, second], 4, [(0, 2), (2, 4)])
    grid = PlacedGrid(
        Layout("v t", "(v t)", {"v": 2, "t": 2}), [(axis("t", 10),)], [(place,)], laid(1, 4)
    )
    found = grid.to_input(torch.tensor([[1.0, 1.0, 3.0, 3.0]]))[0]
    np.testing.assert_allclose(found, [1, 1, 1, 2, 2, 2, 3, 3, 3, 0], atol=1e-6)
    back = grid.to_tokens([np.arange(10, dtype=np.float32)])
    torch.testing.assert_close(back, torch.tensor([[1.0, 4.0, 4.0, 7.0]]))


def test_repetitions_share_their_cells() -> None:
    here = np.arange(4) + 0.5
    place = AxisPlacement.of_views([here / 2, here / 2 + 2], 4)
    grid = PlacedGrid(Layout("t", "t", {"t": 4}), [(axis("t", 4),)], [(place,)], laid(1, 4))
    found = grid.to_input(torch.tensor([[1.0, 1.0, 5.0, 5.0]]))[0]
    np.testing.assert_allclose(found, 3.0)


def test_cells_without_a_place_are_no_content_and_never_read() -> None:
    place = AxisPlacement.of_views([np.arange(5) / 4], 4)  # two of four cells
    grid = PlacedGrid(Layout("t", "t", {"t": 4}), [(axis("t", 5),)], [(place,)], laid(1, 4))
    assert grid.content.tolist() == [[True, True, False, False]]
    assert grid.valid.all()
    found = grid.to_input(torch.tensor([[1.0, 2.0, torch.nan, torch.inf]]))[0]
    assert np.isfinite(found).all()


def test_three_axes() -> None:
    layout = Layout("t w h", "t h w", {"t": 2, "h": 3, "w": 4})
    axes = (axis("time", 4), axis("y", 6), axis("x", 8))
    grid = PlacedGrid(layout, [axes], [(line(4, 2), line(6, 3), line(8, 4))], laid(1, 24))
    scores = torch.zeros(1, 24)
    scores[0, 1 * 12 + 2 * 3 + 1] = 1.0  # second in time, third column, second row
    found = grid.to_input(scores)[0]
    assert found.shape == (4, 6, 8)
    assert np.unravel_index(found.argmax(), found.shape) in {
        (3, 2, 4),
        (3, 3, 5),
        (3, 2, 5),
        (3, 3, 4),
    }
    assert grid.axes(0) == axes


def test_padded_tokens_of_a_batch_are_skipped() -> None:
    place = line(6, 3)
    own = torch.tensor([[False, True, True, True], [False, True, True, True]])
    valid = torch.tensor([[True] * 4, [True, True, True, False]])
    grid = PlacedGrid(Layout("t", "t", {"t": 3}), [(axis("t", 6),)] * 2, [(place,)] * 2, own, valid)
    assert grid.content.tolist() == [[False, True, True, True], [False, True, True, False]]
    scores = torch.tensor([[torch.nan, 1, 1, 1], [torch.nan, 1, 1, torch.nan]])
    whole, short = grid.to_input(scores)
    np.testing.assert_allclose(whole, [1] * 6)
    np.testing.assert_allclose(short, [1, 1, 1, 1, 0, 0])
    assert grid.placement(1).seen(grid.content[1].numpy()).tolist() == [True] * 4 + [False] * 2


def test_placements_that_do_not_fit_are_refused() -> None:
    with pytest.raises(EncoderError, match="do not fit"):
        PlacedGrid(Layout("t", "t", {"t": 3}), [(axis("t", 7),)], [(line(6, 3),)], laid(1, 3))
    with pytest.raises(EncoderError, match="do not fit"):
        PlacedGrid(Layout("t", "t", {"t": 4}), [(axis("t", 6),)], [(line(6, 3),)], laid(1, 4))
