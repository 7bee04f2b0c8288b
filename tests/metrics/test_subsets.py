"""Faithfulness correlation, sensitivity-n, infidelity: exact where a model adds up its parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import LinearCase, worth

from mmattrib.errors import OptionError
from mmattrib.metrics import Case, correlation, infidelity
from mmattrib.metrics.subsets import (
    FaithfulnessCorrelation,
    Infidelity,
    SensitivityN,
    parts_of,
    random_subsets,
    sizes_of,
)

SIDES = pytest.mark.parametrize("side", ["image", "audio", "text"])


@SIDES
def test_the_exact_map_of_a_linear_model_is_perfect(side: str) -> None:
    case = LinearCase(side, worth(side))
    assert FaithfulnessCorrelation(subsets=10)(case) == pytest.approx(1)
    assert SensitivityN(subsets=10, sizes=3)(case) == pytest.approx(1)
    for scaled in (True, False):
        assert Infidelity(subsets=10, scaled=scaled)(case) == pytest.approx(0, abs=1e-6)


@SIDES
def test_another_unit_changes_correlations_and_scaled_infidelity_not_at_all(side: str) -> None:
    case = LinearCase(side, worth(side), 7 * worth(side))
    assert FaithfulnessCorrelation(subsets=10)(case) == pytest.approx(1)
    assert Infidelity(subsets=10)(case) == pytest.approx(0, abs=1e-6)
    assert Infidelity(subsets=10, scaled=False)(case) > 1


@SIDES
def test_the_opposite_map_is_the_worst(side: str) -> None:
    case = LinearCase(side, worth(side), -worth(side))
    assert FaithfulnessCorrelation(subsets=10)(case) == pytest.approx(-1)
    assert SensitivityN(subsets=10, sizes=3)(case) == pytest.approx(-1)
    nothing = LinearCase(side, worth(side), np.zeros_like(worth(side)))
    wrong, silent = Infidelity(subsets=10)(case), Infidelity(subsets=10)(nothing)
    assert wrong == pytest.approx(silent), "a map that points the other way explains nothing"


@given(st.integers(0, 100))
def test_scaled_infidelity_is_least_over_all_factors(seed: int) -> None:
    random = np.random.default_rng(seed)
    sums, drops = random.normal(size=20), random.normal(size=20)
    best = infidelity(sums, drops)
    for factor in (0.0, 0.1, 0.5, 1.0, 3.0):
        assert best <= infidelity(factor * sums, drops, scaled=False) + 1e-12
    assert infidelity(np.zeros(20), drops) == pytest.approx((drops**2).mean())


@given(st.integers(2, 40), st.integers(0, 40), st.integers(0, 9))
def test_subsets_have_their_size_and_differ(parts: int, size: int, seed: int) -> None:
    size = min(size, parts)
    drawn = random_subsets(parts, size, 30, np.random.default_rng(seed))
    assert (drawn.sum(axis=1) == size).all()
    again = random_subsets(parts, size, 30, np.random.default_rng(seed))
    assert (drawn == again).all()
    assert len(np.unique(drawn, axis=0)) > 1 or size in (0, parts)


@given(st.integers(3, 10_000), st.integers(1, 30))
def test_sizes_run_from_one_part_to_four_fifths(parts: int, count: int) -> None:
    sizes = sizes_of(parts, count)
    assert sizes == sorted(set(sizes))
    assert 1 <= sizes[0] <= sizes[-1] <= max(1, round(0.8 * parts)) < parts
    assert len(sizes) <= count


def test_correlation_is_pearsons() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=30), random.normal(size=30)
    assert correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert np.isnan([correlation(a, np.ones(30)), correlation([], [])]).all()


@pytest.mark.parametrize("direction", ["image|text", "audio|text", "text|image"])
def test_parts_are_the_cells_that_the_map_tells_apart(
    cases: dict[str, Case], direction: str
) -> None:
    case = cases[direction]
    labels, values = parts_of(case.attribution)
    assert labels.shape == case.attribution.shape
    assert set(np.unique(labels)) - {-1} == set(range(len(values)))
    assert ((labels >= 0) == case.attribution.seen).all()
    own = case.content_scores()
    if direction != "text|image":
        assert sorted(values) == pytest.approx(sorted(own)), "a part for each content token"
    else:
        assert values == pytest.approx(case.attribution.scores), "a part for each word"


def test_too_few_parts_and_constant_maps_are_nan() -> None:
    flat = LinearCase("text", worth("text"), np.zeros_like(worth("text")))
    assert np.isnan([FaithfulnessCorrelation(subsets=5)(flat), SensitivityN(subsets=5)(flat)]).all()


def test_a_share_takes_at_least_one_part_and_never_all(cases: dict[str, Case]) -> None:
    case = cases["text|image"]
    assert np.isfinite(FaithfulnessCorrelation(subsets=6, share=0.01)(case))
    assert np.isfinite(FaithfulnessCorrelation(subsets=6, share=0.99)(case))


def test_options_are_checked_and_described() -> None:
    assert SensitivityN(4, 2, 9).describe() == {"subsets": 4, "sizes": 2, "seed": 9}
    assert FaithfulnessCorrelation().describe() == {"subsets": 100, "share": 0.25, "seed": 0}
    assert Infidelity(scaled=False).describe() == {"subsets": 100, "scaled": False, "seed": 0}
    case = LinearCase("image", worth("image"), worth("image", 1))
    one, two = (FaithfulnessCorrelation(subsets=10, seed=seed)(case) for seed in (0, 1))
    assert one != two
    for kind, wrong in (
        (FaithfulnessCorrelation, {"share": 1.0}),
        (FaithfulnessCorrelation, {"share": True}),
        (FaithfulnessCorrelation, {"subsets": 1}),
        (SensitivityN, {"sizes": 0}),
        (Infidelity, {"scaled": 1}),
        (Infidelity, {"seed": -1}),
    ):
        with pytest.raises(OptionError):
            kind(**wrong)
