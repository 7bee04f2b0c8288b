"""Weights out of scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mmattrib.errors import OptionError
from mmattrib.perturb import top_weights, unit_weights

SCORES = arrays(
    np.float32,
    array_shapes(max_dims=2, max_side=6),
    elements=st.floats(-1e6, 1e6, width=32) | st.just(float("nan")),
)


@given(SCORES)
def test_unit_weights_reach_both_ends_and_keep_the_order(scores: np.ndarray) -> None:
    weights = unit_weights(scores)
    known = scores[np.isfinite(scores)]
    if known.size == 0 or known.min() == known.max():
        assert weights is None
        return
    assert weights is not None
    assert weights.shape == scores.shape
    assert (weights.min(), weights.max()) == (0.0, 1.0)
    order = np.argsort(known, kind="stable")
    assert (np.diff(weights[np.isfinite(scores)][order]) >= 0).all()
    assert not weights[~np.isfinite(scores)].any(), "what is missing weighs nothing"


@given(SCORES, st.floats(0, 1))
def test_top_weights_mark_as_many_as_asked_for_and_none_below_another(
    scores: np.ndarray, share: float
) -> None:
    marked = top_weights(scores, share)
    known = np.isfinite(scores)
    assert marked.dtype == np.bool_
    assert marked.sum() == np.floor(share * known.sum() + 0.5)
    assert not marked[~known].any()
    if marked.any() and (known & ~marked).any():
        assert scores[marked].min() >= scores[known & ~marked].max()


def test_of_cells_that_tie_the_first_are_marked() -> None:
    assert top_weights(np.zeros((2, 2)), 0.5).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_a_fraction(share: float) -> None:
    with pytest.raises(OptionError, match="share"):
        top_weights(np.zeros(3), share)
