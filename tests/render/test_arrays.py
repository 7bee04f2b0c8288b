"""Arrays are drawn as pictures, and kept exactly in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mmattrib as mm
from mmattrib.errors import InputError
from mmattrib.placement import from_map
from mmattrib.render.panels import PlanePanel, panels
from mmattrib.types import Axis, Explanation, RawArray

RANDOM = np.random.default_rng(0)


def explanation(scores: np.ndarray, raw: RawArray, times: np.ndarray | None = None) -> Explanation:
    scores = scores.astype(np.float32)
    axes = [
        Axis(f"axis{i}", "px", np.arange(n, dtype=np.float32)) for i, n in enumerate(scores.shape)
    ]
    if times is not None:
        axes[0] = Axis("time", "s", times.astype(np.float32))
    side = from_map(raw.modality, scores, "bits", axes)
    return Explanation({raw.modality: side}, {raw.modality: raw}, 0.5, {})


def array(*shape: int, modality: str = "depth", rate: float | None = None) -> RawArray:
    return RawArray(RANDOM.random(shape).astype(np.float32), modality, "it", rate)


def case(name: str) -> Explanation:
    if name == "plane":
        return explanation(RANDOM.random((30, 40)), array(30, 40))
    if name == "line":
        return explanation(RANDOM.random(200), array(6, 200, modality="imu", rate=50.0))
    times = (np.array([0, 5]) + 0.5) / 6
    return explanation(
        RANDOM.random((2, 20, 30)), array(8, 20, 30, 3, modality="video", rate=6.0), times
    )


@pytest.mark.parametrize("name", ["plane", "line", "video"])
def test_arrays_are_drawn_and_kept(name: str, tmp_path: Path) -> None:
    given = case(name)
    (modality,) = given
    for suffix in ("npz", "json"):
        again = mm.load(given.save(tmp_path / f"it.{suffix}"))
        np.testing.assert_array_equal(again[modality].scores, given[modality].scores)
        np.testing.assert_array_equal(again.inputs[modality].values, given.inputs[modality].values)
        assert again.inputs[modality].rate == given.inputs[modality].rate
        assert again.inputs[modality].modality == modality
    for suffix in ("png", "html"):
        assert given.save(tmp_path / f"it.{suffix}").stat().st_size > 5000


def test_the_frames_that_were_seen_stand_in_reading_order() -> None:
    raw = array(12, 20, 30, 3, modality="video", rate=6.0)
    seen = np.array([1, 4, 5, 8, 11])
    scores = np.zeros((5, 20, 30))
    scores[3] = 1.0  # the fourth of three and two frames: first of the second line
    (panel,) = panels(explanation(scores, raw, (seen + 0.5) / 6))
    assert isinstance(panel, PlanePanel)
    height, width = panel.original.shape[:2]
    assert width / height == pytest.approx(3 * 30 / (2 * 20), rel=0.01)
    tiles = [
        (panel.original[rows, columns], panel.mapped[rows, columns])
        for rows in (slice(0, height // 2), slice(height // 2, None))
        for columns in (slice(i * width // 3, (i + 1) * width // 3) for i in range(3))
    ]
    for (tile, _), frame in zip(tiles, raw.values[seen], strict=False):
        assert tile.mean() == pytest.approx(255 * frame.mean(), abs=4)
    gains = [float(mapped.mean()) - float(tile.mean()) for tile, mapped in tiles[:5]]
    assert int(np.argmax(gains)) == 3
    assert tiles[5][0][20:, 20:].max() < 5  # nothing stands there


def test_a_map_lies_where_its_scores_are() -> None:
    scores = np.zeros(200)
    scores[150:] = 1.0
    (panel,) = panels(explanation(scores, array(6, 200, modality="imu")))
    assert isinstance(panel, PlanePanel)
    changed = np.abs(panel.mapped.astype(int) - panel.original).sum(axis=(0, 2))
    quarter = panel.mapped.shape[1] // 4
    bright = panel.mapped[:, 3 * quarter + 8 :].mean() - panel.original[:, 3 * quarter + 8 :].mean()
    dark = panel.mapped[:, : 3 * quarter - 8].mean() - panel.original[:, : 3 * quarter - 8].mean()
    assert changed.any()
    assert bright > dark


def test_what_cannot_be_drawn_says_so() -> None:
    with pytest.raises(InputError, match="no picture of it can be drawn"):
        panels(explanation(RANDOM.random((3, 4)), array(5, 5)))
