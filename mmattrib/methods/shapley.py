"""Shapley values of a game by weighted least squares, in plain numpy.

Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017: Shapley
values are the solution of a regression over all coalitions under the weights of their theorem 2.
Coalitions are drawn in pairs with their complements (Covert and Lee, "Improving KernelSHAP",
AISTATS 2021, section 4.2), and sizes that the budget covers are taken whole, as the authors'
package ``shap`` does.

Two libraries have the estimator, and neither is a good thing to depend on here. captum's draws with
replacement and without pairs, and fits with scikit-learn, which it does not bring; on random games
of triples of 8 to 49 players its error is 1.3 to 3.2 times this one's where this one is not exact.
shapiq's with pairs is as close as this one, but leaves its scale (errors of 1e10) where coalitions
are too few for the players, as they are for a fine grid; it brings numba, galois, pandas and
scikit-learn. ``python -m examples.shapley_estimators`` measures it.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TypeAlias

from mmattrib.lazy import np, npt

Floats: TypeAlias = "npt.NDArray[np.float64]"
Bools: TypeAlias = "npt.NDArray[np.bool_]"

_TRIES = 8
"""Draws for each coalition that is wanted; what comes up again costs no call of the game."""


def coalitions(players: int, most: int, random: np.random.Generator) -> tuple[Bools, Floats]:
    """Coalitions to ask a game for, with their weights in :func:`shapley_values`.

    The empty coalition and that of all players are not among them.

    Args:
        players: M.
        most: as many coalitions at most; 2^M - 2 or more gives each of them once.
        random: draws those of sizes that are not taken whole.

    Returns:
        ``(R, M)`` bool, distinct; and ``(R,)`` weights that sum to 1.
    """
    # Theorem 2: all coalitions of one size s weigh (M - 1) / (s (M - s)) together.
    mass = {s: 1.0 / (s * (players - s)) for s in range(1, players)}
    found: dict[bytes, Bools] = {}
    weights: dict[bytes, float] = {}
    left, rest = most, dict(mass)
    for size in range(1, players // 2 + 1):
        sizes = {size, players - size}
        count = sum(math.comb(players, s) for s in sizes)
        if count > left * (sum(rest[s] for s in sizes) / sum(rest.values())) * (1 + 1e-9):
            break
        for s in sizes:
            for members in combinations(range(players), s):
                chosen = np.zeros(players, dtype=np.bool_)
                chosen[list(members)] = True
                found[chosen.tobytes()] = chosen
                weights[chosen.tobytes()] = rest[s] / math.comb(players, s)
            del rest[s]
        left -= count
    if rest and left > 0:
        drawn = _drawn(players, left, rest, random)
        share = sum(rest.values()) / sum(times for _, times in drawn.values())
        for key, (chosen, times) in drawn.items():
            found[key], weights[key] = chosen, times * share
    rows = np.array(list(found.values()), dtype=np.bool_).reshape(len(found), players)
    values = np.array(list(weights.values()), dtype=np.float64)
    return rows, values / values.sum() if len(values) else values


def _drawn(
    players: int, most: int, mass: dict[int, float], random: np.random.Generator
) -> dict[bytes, tuple[Bools, int]]:
    """Coalitions of some sizes and their complements, with how often they came up."""
    sizes = np.array(sorted(mass))
    chances = np.array([mass[s] for s in sizes])
    chances /= chances.sum()
    drawn: dict[bytes, tuple[Bools, int]] = {}
    for _ in range(_TRIES * most):
        chosen = np.zeros(players, dtype=np.bool_)
        chosen[random.permutation(players)[: random.choice(sizes, p=chances)]] = True
        for each in (chosen, ~chosen):
            key = each.tobytes()
            if key in drawn or len(drawn) < most:
                drawn[key] = (each, drawn.get(key, (each, 0))[1] + 1)
        if len(drawn) == most:
            break
    return drawn


def shapley_values(
    chosen: Bools, weights: Floats, values: Floats, empty: float, full: float
) -> Floats:
    """The weighted least-squares fit of an additive game whose values sum to ``full - empty``.

    Over all coalitions it gives the Shapley values (theorem 2). Of an additive game it gives them
    as soon as the coalitions tell the players apart. Where they are too few for that, it is the
    solution next to equal values.

    Args:
        chosen: ``(R, M)`` coalitions.
        weights: ``(R,)``, of :func:`coalitions`.
        values: ``(R,)``, the game's.
        empty: its value without any player.
        full: its value with all players.

    Returns:
        ``(M,)``.

    >>> rows, weights = coalitions(3, 6, np.random.default_rng(0))
    >>> worth = rows @ np.array([1.0, 2.0, 3.0]) + rows[:, 0] * rows[:, 1]
    >>> shapley_values(rows, weights, worth, 0.0, 7.0).round(6)
    array([1.5, 2.5, 3. ])
    """
    players = chosen.shape[1]
    if players == 0:
        return np.zeros(0)
    equal = (full - empty) / players
    sizes = chosen.sum(axis=1)
    # With φ = equal + δ and Σ δ = 0: z·φ = |z| equal + (z - |z| / M)·δ, and the fit of least length
    # lies where these rows do, so that Σ δ = 0 holds by itself.
    root = np.sqrt(weights)
    rows = (chosen - (sizes / players)[:, None]) * root[:, None]
    goal = (values - empty - sizes * equal) * root
    found: Floats = equal + np.linalg.lstsq(rows, goal, rcond=None)[0]
    return found
