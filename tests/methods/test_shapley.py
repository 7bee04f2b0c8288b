"""Shapley values by weighted least squares, against their definition and other packages."""

from __future__ import annotations

import doctest
import warnings
from itertools import combinations
from math import comb

import numpy as np
import pytest
from known_encoders import by_permutations

from examples.shapley_estimators import Estimator, game_of, of_captum, of_shapiq, ours
from mmattrib.methods import shapley
from mmattrib.methods.shapley import coalitions, shapley_values


def test_the_example_in_the_docs_runs() -> None:
    assert doctest.testmod(shapley).failed == 0


@pytest.mark.parametrize("players", [1, 2, 5])
def test_over_all_coalitions_it_is_the_definition(players: int) -> None:
    random = np.random.default_rng(players)
    worth = {
        frozenset(members): float(random.normal())
        for size in range(players + 1)
        for members in combinations(range(players), size)
    }
    rows, weights = coalitions(players, 2**players - 2, random)
    assert len({row.tobytes() for row in rows}) == len(rows) == 2**players - 2
    values = np.array([worth[frozenset(np.flatnonzero(row).tolist())] for row in rows])
    empty, full = worth[frozenset()], worth[frozenset(range(players))]
    found = shapley_values(rows, weights, values, empty, full)
    np.testing.assert_allclose(found, by_permutations(worth, players), atol=1e-12)


def test_all_coalitions_have_the_weights_of_theorem_2() -> None:
    rows, weights = coalitions(6, 62, np.random.default_rng(0))
    sizes = rows.sum(axis=1)
    expected = np.array([5 / (comb(6, s) * s * (6 - s)) for s in sizes])
    np.testing.assert_allclose(weights, expected / expected.sum())


@pytest.mark.parametrize(("players", "most"), [(7, 40), (7, 41), (20, 9), (40, 200)])
def test_coalitions_are_distinct_paired_and_as_many_as_asked_for(players: int, most: int) -> None:
    rows, weights = coalitions(players, most, np.random.default_rng(1))
    known = {row.tobytes() for row in rows}
    assert len(known) == len(rows) == most
    assert sum((~row).tobytes() not in known for row in rows) == most % 2
    assert rows.any(axis=1).all()
    assert not rows.all(axis=1).any()
    assert weights.min() > 0
    assert weights.sum() == pytest.approx(1.0)


def test_an_additive_game_is_solved_by_any_coalitions_that_tell_the_players_apart() -> None:
    worth = np.random.default_rng(2).normal(size=30)
    rows, weights = coalitions(30, 80, np.random.default_rng(3))
    found = shapley_values(rows, weights, rows @ worth + 5.0, 5.0, 5.0 + worth.sum())
    np.testing.assert_allclose(found, worth, atol=1e-10)


def test_too_few_coalitions_still_share_out_the_whole() -> None:
    game, _ = game_of(40, 20, seed=1)
    rows, weights = coalitions(40, 10, np.random.default_rng(0))
    found = shapley_values(rows, weights, game(rows), 0.0, 3.0)
    assert found.sum() == pytest.approx(3.0)
    assert np.abs(found).max() < 100


@pytest.mark.parametrize("make", [lambda: of_shapiq(True), of_captum], ids=["shapiq", "captum"])
def test_other_packages_agree(make: type[Estimator]) -> None:
    """shapiq over all coalitions; captum draws, so that it comes near."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            estimate = make()
        except ImportError as error:
            pytest.skip(str(error))
        game, exact = game_of(6, 8, seed=4)
        captum = make is of_captum
        found = estimate(game, 6, 4000 if captum else 64, 0)
    np.testing.assert_allclose(ours(game, 6, 64, 0), exact, atol=1e-12)
    np.testing.assert_allclose(found, exact, atol=0.1 if captum else 1e-5)
