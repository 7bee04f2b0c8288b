"""Linear imputation: the solution of ROAD's system of equations, found otherwise here."""

from __future__ import annotations

import numpy as np
import pytest

from mmattrib.errors import OptionError
from mmattrib.perturb import keep, keep_many
from mmattrib.perturb.imputation import MOST_PIXELS, NOISE, imputed
from mmattrib.types import RawImage


def holes(height: int, width: int, share: float = 0.5, seed: int = 0) -> np.ndarray:
    """Which pixels are there, in blocks of 4 x 4 and some single ones."""
    random = np.random.default_rng(seed)
    blocks = random.random((-(-height // 4), -(-width // 4))) > share
    known = np.kron(blocks, np.ones((4, 4), bool))[:height, :width].astype(bool)
    known |= random.random((height, width)) > 0.98
    known[0, 0] = True
    return known


def picture(height: int, width: int, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (255 * random.random((height, width, 3))).astype(np.float32)


def solved(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """ROAD's system, row by row: each missing pixel is the weighted mean of its neighbours."""
    height, width = known.shape
    place = {(int(y), int(x)): n for n, (y, x) in enumerate(np.argwhere(~known))}
    system, right = np.zeros((len(place), len(place))), np.zeros((len(place), 3))
    for (y, x), row in place.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                inside = 0 <= y + dy < height and 0 <= x + dx < width
                if not inside or (dy, dx) == (0, 0):
                    continue
                weight = 1 / 6 if 0 in (dy, dx) else 1 / 12
                system[row, row] += weight
                if known[y + dy, x + dx]:
                    right[row] += weight * values[y + dy, x + dx]
                else:
                    system[row, place[y + dy, x + dx]] -= weight
    out = values.copy()
    out[~known] = np.linalg.solve(system, right)
    return out


@pytest.mark.parametrize(("height", "width"), [(16, 20), (19, 13), (5, 30)])
def test_it_solves_roads_system(height: int, width: int) -> None:
    values, known = picture(height, width), holes(height, width)
    found = imputed(values, known, accuracy=1e-4)
    np.testing.assert_allclose(found, solved(values, known), atol=0.02)
    assert (found[known] == values[known]).all()


def test_at_the_default_accuracy_it_is_off_by_some_levels_of_255_at_most() -> None:
    values, known = picture(40, 40), holes(40, 40, 0.8)
    assert np.abs(imputed(values, known) - solved(values, known)).max() < 3


def test_mended_pixels_lie_between_the_others() -> None:
    values, known = picture(33, 50), holes(33, 50, 0.7)
    found = imputed(values, known)
    low, high = values[known].min(axis=0), values[known].max(axis=0)
    assert (found >= low - 1).all()
    assert (found <= high + 1).all()
    flat = np.full((33, 50, 3), 40.0, dtype=np.float32)
    np.testing.assert_allclose(imputed(flat, known), flat, atol=0.01)


def test_with_nothing_known_it_is_the_mean_and_with_everything_the_picture() -> None:
    values = picture(8, 9)
    everything = np.ones((8, 9), bool)
    assert imputed(values, everything) is values
    np.testing.assert_allclose(imputed(values, ~everything)[3, 3], values.mean(axis=(0, 1)))


def test_large_pictures_are_mended_at_half_their_size() -> None:
    side = int(MOST_PIXELS**0.5) + 40
    slope = np.broadcast_to(np.linspace(0, 255, side)[:, None, None], (side, side, 3))
    values = slope.astype(np.float32).copy()
    known = np.ones((side, side), bool)
    known[100:140, 80:180] = False
    found = imputed(values, known)
    assert np.abs(found - values).max() < 4, "a slope goes on through a hole"
    assert (found[known] == values[known]).all()


def test_the_fill_is_local_hard_and_follows_the_seed() -> None:
    raw = RawImage(np.rint(picture(24, 24)).astype(np.uint8))
    masks = np.stack([holes(24, 24), holes(24, 24, seed=5)])
    first, second = keep_many(raw, masks, fill="linear", seed=3)
    assert (first.pixels == keep(raw, masks[0], fill="linear", seed=3).pixels).all()
    assert (first.pixels[masks[0]] == raw.pixels[masks[0]]).all()
    assert (first.pixels[~masks[0] & ~masks[1]] != second.pixels[~masks[0] & ~masks[1]]).any()
    other = keep(raw, masks[0], fill="linear", seed=4).pixels
    assert 0 < np.abs(other.astype(int) - first.pixels).max() <= 2 + 8 * NOISE
    with pytest.raises(OptionError, match="0 or 1 alone"):
        keep(raw, np.full((24, 24), 0.5), fill="linear")
