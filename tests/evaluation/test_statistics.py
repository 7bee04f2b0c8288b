"""Paired differences: what the interval must be where it is known."""

from __future__ import annotations

import numpy as np
import pytest

from mmattrib.errors import OptionError
from mmattrib.evaluation import bootstrap_interval, compare


def test_a_constant_difference_is_its_own_interval() -> None:
    base = np.random.default_rng(0).normal(size=40)
    found = compare(base + 0.25, base, comparisons=7, draws=500)
    bounds = (found.mean, found.low, found.high, found.corrected_low, found.corrected_high)
    assert bounds == pytest.approx([0.25] * 5)
    assert found.clear
    assert found.samples == 40


def test_swapping_the_sides_turns_the_sign() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 30))
    there, back = compare(a, b, draws=800), compare(b, a, draws=800)
    assert (there.mean, there.low, there.high) == pytest.approx(
        (-back.mean, -back.high, -back.low), abs=1e-9
    )


def test_the_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(2).normal(size=400)
    mean, low, high = bootstrap_interval(values)
    error = values.std() / 20
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.1 * error)


def test_more_comparisons_widen_the_corrected_interval_alone() -> None:
    a, b = np.random.default_rng(3).normal(size=(2, 60))
    one, many = compare(a, b), compare(a, b, comparisons=20)
    assert (one.corrected_low, one.corrected_high) == (one.low, one.high)
    assert (many.low, many.high) == (one.low, one.high)
    assert many.corrected_low < one.low < one.high < many.corrected_high


def test_backbones_are_averaged_before_samples_are_resampled() -> None:
    a, b = np.random.default_rng(4).normal(size=(2, 3, 50))
    together, averaged = compare(a, b, draws=500), compare(a.mean(0), b.mean(0), draws=500)
    assert (together.low, together.high) == pytest.approx((averaged.low, averaged.high))
    assert together.per_backbone == pytest.approx(tuple((a - b).mean(1)))
    doubled = compare(np.concatenate([a, a]), np.concatenate([b, b]), draws=500)
    assert doubled.high - doubled.low == pytest.approx(together.high - together.low)


def test_samples_that_lack_a_number_are_left_out() -> None:
    a, b = np.random.default_rng(5).normal(size=(2, 2, 12))
    kept = compare(a[:, 3:], b[:, 3:], draws=300)
    a[0, 0], b[1, 1], a[:, 2] = np.nan, np.nan, np.nan
    assert compare(a, b, draws=300) == kept
    nothing = compare(np.full(4, np.nan), np.zeros(4))
    assert nothing.samples == 0
    assert np.isnan(nothing.mean)
    assert not nothing.clear


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(OptionError, match="shapes"):
        compare(np.zeros(3), np.zeros(4))
    with pytest.raises(OptionError, match="at least 1"):
        compare(np.zeros(3), np.zeros(3), comparisons=0)
