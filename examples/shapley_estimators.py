"""How close Shapley values come at equal budget: our estimator beside captum's and shapiq's.

``pip install shapiq captum scikit-learn && python -m examples.shapley_estimators`` prints the error
of each on random games of pairs, v(z) = w·z + Σ a_ij z_i z_j, and triples, + Σ b_ijk z_i z_j z_k.
Their Shapley values are known: w_i + ½ Σ a_ij + ⅓ Σ b_ijk. What is not installed is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mmattrib.methods.shapley import coalitions, shapley_values

Floats = npt.NDArray[np.float64]
Game = Callable[[npt.NDArray[Any]], Floats]
Estimator = Callable[[Game, int, int, int], Floats]

GAMES, PLAYERS, BUDGETS = 10, (8, 16, 49), (32, 128, 512)


def game_of(players: int, triples: int, seed: int) -> tuple[Game, Floats]:
    """A game of weights and interactions of like size, and its Shapley values."""
    random = np.random.default_rng(seed)
    single = random.normal(size=players)
    pairs = np.triu(random.normal(size=(players, players)), 1) / np.sqrt(players)
    threes = np.array([random.permutation(players)[:3] for _ in range(triples)], dtype=np.intp)
    worth = random.normal(size=triples)

    def value(rows: npt.NDArray[Any]) -> Floats:
        z = np.asarray(rows, dtype=np.float64)
        found: Floats = z @ single + ((z @ pairs) * z).sum(axis=1)
        found += z[:, threes.reshape(-1, 3)].prod(axis=2) @ worth
        return found

    exact: Floats = single + (pairs + pairs.T).sum(axis=1) / 2
    np.add.at(exact, threes.reshape(-1, 3), worth[:, None] / 3)
    return value, exact


def ours(game: Game, players: int, budget: int, seed: int) -> Floats:
    rows, weights = coalitions(players, budget - 2, np.random.default_rng(seed))
    empty, full = game(np.array([np.zeros(players), np.ones(players)]))
    return shapley_values(rows, weights, game(rows), empty, full)


def of_shapiq(paired: bool) -> Estimator:
    from shapiq.approximator import KernelSHAP

    def estimate(game: Game, players: int, budget: int, seed: int) -> Floats:
        made = KernelSHAP(players, pairing_trick=paired, random_state=seed)
        found = made.approximate(budget, game)
        return np.array([found[(player,)] for player in range(players)])

    return estimate


def of_captum() -> Estimator:
    import sklearn  # noqa: F401  captum's KernelShap fits with it, and does not bring it
    import torch
    from captum.attr import KernelShap

    def estimate(game: Game, players: int, budget: int, seed: int) -> Floats:
        def forward(rows: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(game(rows.numpy())).float()

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            whole = torch.ones(1, players, dtype=torch.float32, device="cpu")
            found = KernelShap(forward).attribute(
                whole, n_samples=budget, perturbations_per_eval=32
            )
        array: Floats = found[0].double().numpy()
        return array

    return estimate


def error(estimate: Estimator, players: int, triples: int, budget: int) -> float:
    """Root mean square error, relative to the values' own root mean square."""
    squares = []
    for seed in range(GAMES):
        game, exact = game_of(players, triples, seed)
        found = estimate(game, players, budget, seed)
        squares.append(((found - exact) ** 2).sum() / (exact**2).sum())
    return float(np.sqrt(np.mean(squares)))


def main() -> None:
    makers: dict[str, Callable[[], Estimator]] = {
        "mmattrib": lambda: ours,
        "shapiq, paired": lambda: of_shapiq(True),
        "shapiq": lambda: of_shapiq(False),
        "captum": of_captum,
    }
    made: dict[str, Estimator] = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except ImportError as missing:
            print(f"without {name}: {missing}")
    print(f"relative error of Shapley values over {GAMES} games\n")
    print("| game | players | budget | " + " | ".join(made) + " |")
    print("| --- | ---: | ---: |" + " ---: |" * len(made))
    for kind, per_player in (("pairs", 0), ("triples", 2)):
        for players in PLAYERS:
            for budget in BUDGETS:
                cells = [
                    f"{error(each, players, per_player * players, budget):.2g}"
                    for each in made.values()
                ]
                print(f"| {kind} | {players} | {budget} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
