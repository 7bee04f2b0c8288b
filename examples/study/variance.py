"""Whether the rows of ca-m2ib can be spent better: estimates of one map from the same drawn slopes.

``python -m examples.study variance`` draws the slope of every token at each rate of the channel
under many draws of noise. From these it makes the estimates that a method could make from few
rows, again and again, and compares each with the mean over all draws.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

import mmattrib as mm
from examples.study.kept import RAW
from examples.study.protocol import PAIRS, protocol_scenes
from mmattrib.engine.noise import PairNoise
from mmattrib.engine.objective import cosine_gradient
from mmattrib.engine.rate import channel_rates
from mmattrib.evaluation.sheets import row
from mmattrib.files import write_atomic
from mmattrib.methods import Side, SideScores
from mmattrib.methods.ca_m2ib import CAM2IB, attended_target, prior_of
from mmattrib.metrics.sensitivity import rank_correlation

RATES: Final = 48
DRAWS: Final = 32
"""Draws of noise at each rate, each with both signs."""
ROWS: Final = (80, 48, 32)
TRIES: Final = 20
PATHS: Final = 8
FIRST: Final = 104
"""Number of the first search scene: those of plans/rows.toml."""

Slopes: TypeAlias = npt.NDArray[np.float32]
"""``(RATES, 2, DRAWS, N)``: the slopes of content tokens, sign by sign."""
Chosen: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]
"""Rate, sign, draw and weight of each row."""


class Drawn(CAM2IB):
    """`ca-m2ib` that keeps the slopes which it could have drawn."""

    name = "ca-m2ib-drawn"
    kept: list[tuple[str, Slopes]]

    def explain(self, side: Side) -> SideScores:
        self.kept.append((side.encoder.modality, drawn_slopes(side, self)))
        return super().explain(side)


def drawn_slopes(side: Side, method: CAM2IB) -> Slopes:
    """Slopes of one side towards its attended target, under :data:`DRAWS` draws at each rate."""
    options, tokens = method.options, side.tokens()
    goal = attended_target(side, options)
    prior = prior_of(side, options)
    one = torch.ones(1, 1, dtype=torch.bool, device="cpu")
    noise = PairNoise(side.keys, one, tokens.shape[-1], 2 * DRAWS, antithetic=True, purpose="bank")
    noisy = prior.per_draw().restore(options.sigma * noise.draw()).to(tokens.device)
    signal, found = tokens.detach().float()[:, None], []
    rows = torch.zeros(2 * DRAWS, dtype=torch.long, device="cpu")
    for rate in channel_rates(RATES, central=True).tolist():
        channel = rate * signal + (1 - rate) * noisy
        gradient = cosine_gradient(
            channel.flatten(0, 1), side.suffix, rows, goal.expand(2 * DRAWS, -1)
        )
        found.append((gradient.view(channel.shape) * (signal - prior.mean)).sum(-1)[0])
    content = side.grid().content[0]
    shape = (RATES, 2, DRAWS, int(content.sum()))
    every: Slopes = torch.stack(found)[..., content].reshape(shape).numpy()
    return every


def _spread(slopes: Slopes, rows: int, rng: np.random.Generator) -> Chosen:
    """As ca-m2ib does it: rates evenly over the channel's density, one draw for two neighbours."""
    return _placed(np.ones(RATES), rows, rng)


def _where_it_varies(slopes: Slopes, rows: int, rng: np.random.Generator) -> Chosen:
    """Rows in proportion to how much the slopes vary at a rate, as if that were known, each
    weighted by what it stands for.
    """
    spread = np.linalg.norm(slopes.mean(axis=1).std(axis=1), axis=-1)
    return _placed(spread + 0.05 * spread.max(), rows, rng)


def _paths(slopes: Slopes, rows: int, rng: np.random.Generator) -> Chosen:
    """The same few draws all along the channel, in turn."""
    rate, sign, _, weight = _placed(np.ones(RATES), rows, rng)
    few = rng.integers(0, DRAWS, PATHS)
    return rate, sign, few[np.arange(rows) // 2 % PATHS], weight


def _placed(density: npt.NDArray[Any], rows: int, rng: np.random.Generator) -> Chosen:
    """Rows at the quantiles of a density over the rates, neighbours with one draw's two signs."""
    edges = np.concatenate([[0.0], np.cumsum(density / density.sum())])
    cuts = np.interp(np.arange(rows + 1) / rows, edges, np.arange(RATES + 1))
    rate = np.minimum(((cuts[1:] + cuts[:-1]) / 2).astype(int), RATES - 1)
    draws = rng.integers(0, DRAWS, (rows + 1) // 2)
    place = np.arange(rows)
    return rate, place % 2, draws[place // 2], np.diff(cuts) / RATES


SCHEMES: Final[Mapping[str, Callable[[Slopes, int, np.random.Generator], Chosen]]] = {
    "spread evenly, as it is": _spread,
    "where slopes vary most": _where_it_varies,
    f"{PATHS} draws, each all along the channel": _paths,
}


def measure_variance(file: Path, scenes: int) -> dict[str, dict[str, list[float]]]:
    """Estimates by every scheme, compared with the mean over all draws, kept in a file.

    Args:
        file: of JSON: scheme and rows -> "pictures and sounds" or "words" -> the mean rank
            correlation with the mean map, and the squared error as a share of its square.
        scenes: how many of the search scenes from number :data:`FIRST` on.
    """
    torch.set_num_threads(1)
    model = mm.load_backbone("tiny")
    method = Drawn()
    method.kept = []
    for sample in protocol_scenes("search", "one", scenes, FIRST):
        for pair in PAIRS:
            mm.attribute(model, inputs={side: sample.inputs[side] for side in pair}, method=method)
    found: dict[str, dict[str, list[float]]] = {}
    for name, scheme in SCHEMES.items():
        for rows in ROWS:
            by_kind: dict[str, list[tuple[float, float]]] = {}
            for modality, slopes in method.kept:
                kind = "words" if modality == "text" else "pictures and sounds"
                by_kind.setdefault(kind, []).append(_judged(slopes, scheme, rows))
            found[f"{rows} rows, {name}"] = {
                kind: np.mean(values, axis=0).round(5).tolist() for kind, values in by_kind.items()
            }
    write_atomic(file, json.dumps(found, indent=1).encode())
    return found


def _judged(slopes: Slopes, scheme: Callable[..., Chosen], rows: int) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    mean = slopes.mean(axis=(0, 1, 2))
    scores = []
    for _ in range(TRIES):
        rate, sign, draw, weight = scheme(slopes, rows, rng)
        estimate = (weight[:, None] * slopes[rate, sign, draw]).sum(axis=0)
        error = ((estimate - mean) ** 2).sum() / (mean**2).sum()
        scores.append((rank_correlation(estimate, mean), float(error)))
    order, error = np.nanmean(scores, axis=0)
    return float(order), float(error)


def table() -> str:
    """Schemes by rank correlation with the mean map and by error, of the kept numbers."""
    found = json.loads((RAW / "variance.json").read_text(encoding="utf-8"))
    kinds = list(next(iter(found.values())))
    heads = [f"{kind}: {what}" for kind in kinds for what in ("same order", "error")]
    lines = [f"| | {' | '.join(heads)} |", row(["---"] * (len(heads) + 1))]
    for name, by_kind in found.items():
        cells = [f"{100 * value:.1f}" for kind in kinds for value in by_kind[kind]]
        lines.append(row([name, *cells]))
    return "\n".join(lines)
