"""Tables of why worlds differ: two things, the channel, the noise, and the head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from examples.study.kept import lines, raw
from examples.study.nearest import BEST
from examples.study.protocol import RANKED
from examples.study.two_things import ORDER
from examples.study.why import LAYERS, RATES, SIGMAS, TAUS
from mmattrib.evaluation.sheets import row
from mmattrib.evaluation.statistics import Numbers, bootstrap_interval

GUIDED: Final = ("ca-m2ib", "ca-m2ib without guidance")
BY_RULE: Final = "sigma by the rule"
"""Measured on fewer pairs than the other choices, so that only its differences can be compared."""
RULES: Final = ("keep 0.9", BY_RULE)
"""In place of the constants β = 3 and σ = 1."""
PLACED: Final = ("image|text", "image|audio", "audio|image")
LOCATED: Final = ("iou", "auc", "energy", "pointing")
_TOLD: Final = {"scenes: ": "scenes, tiny-seed1: ", "photographs, tau ": "photographs, τ "}


def two_things() -> str:
    """What guidance earns where a text names two things."""
    results = raw("photographs-two")

    def values(method: str, metric: str) -> Numbers:
        return results.values(method, "image|text", metric)

    near = values(GUIDED[0], "rank") < BEST
    every = np.ones_like(near)
    kinds: Sequence[tuple[str, str, Any]] = (
        ("both", "", every),
        ("both, each among the five nearest", "", near),
        *((f"the {place} alone", f"_{place}", every) for place in ORDER),
    )
    head = ["truth", "n", *RANKED]
    out = [row(head), row(["---"] * len(head))]
    for told, suffix, chosen in kinds:
        cells = []
        for metric in RANKED:
            on, off = (values(method, metric + suffix)[chosen] for method in GUIDED)
            cells.append(f"{_mean(on)}, {_mean(off)}: {_interval(on - off)}")
        out.append(row([told, str(int(chosen.sum())), *cells]))
    return "\n".join(out)


def rules() -> str:
    """What a rule in place of a constant changes, pair by pair."""
    worlds = (
        ("photographs given a category", "worlds-photographs", ("image|text",)),
        ("scenes: pictures and sounds", "worlds-scenes", PLACED),
        ("scenes: words", "worlds-scenes", ("text|image",)),
    )
    head = ["rule", "world", "n", *RANKED]
    out = [row(head), row(["---"] * len(head))]
    for rule in RULES:
        for told, name, directions in worlds:
            results = raw(name)
            if rule not in results.methods:
                continue
            cells, count = [], 0
            for metric in RANKED:
                changed, plain = (
                    np.mean([results.values(m, d, metric) for d in directions], axis=0)
                    for m in (rule, "default")
                )
                lost = changed - plain
                count = max(count, int(np.isfinite(lost).sum()))
                cells.append(_interval(lost))
            if count:
                out.append(row([rule, told, str(count), *cells]))
    return "\n".join(out)


def channel() -> str:
    """How much of the match is there at some rates, and how well slopes at each locate."""

    def cells(rows: Sequence[dict[str, Any]]) -> list[str]:
        fit = np.array([each["fit"] for each in rows]).mean(axis=0)
        shares = (fit[1:-1] - fit[0]) / (fit[-1] - fit[0])
        at = [[_mean(np.array([each["at"][k][m] for each in rows])) for k in range(len(RATES))]
              for m in ("auc", "energy")]  # fmt: skip
        return [", ".join(f"{100 * share:.0f}" for share in shares), *(map(", ".join, at))]

    rates = ", ".join(map(str, RATES))
    return _by_world(
        [f"share of the match at rates {rates}", "slopes there alone: auc", "energy"], cells
    )


def noise() -> str:
    """What the embedding behind noise alone tells of its input, by the noise's width."""

    def cells(rows: Sequence[dict[str, Any]]) -> list[str]:
        return [f"{100 * left:.0f}, {100 * found:.0f}" for left, found in map(*told_apart(rows))]

    return _by_world([f"σ {sigma:g}" for sigma in SIGMAS], cells, at_two=True)


def told_apart(
    rows: Sequence[dict[str, Any]],
) -> tuple[Callable[[int], tuple[float, float]], range]:
    """For a number of σ: the share of what tells inputs apart, and how often the own is nearest."""
    clean = np.array([each["clean"] for each in rows])
    others = ~np.eye(len(rows), dtype=bool)

    def contrast(cosines: Numbers) -> float:
        return float(cosines.diagonal().mean() - cosines[others].mean())

    def at(number: int) -> tuple[float, float]:
        behind = np.array([each["behind"][number] for each in rows])
        cosines = behind @ clean.T
        found = cosines.argmax(axis=1) == np.arange(len(rows))
        return contrast(cosines) / contrast(clean @ clean.T), float(found.mean())

    return at, range(len(SIGMAS))


def head() -> str:
    """The maps of two methods with a sharper and a softer head."""
    names = ", ".join(["nib", "**ca-m2ib**"])
    heads = ["τ", "n", "largest share of a class", "cosine", *(f"{names}: {m}" if m == "iou" else m
             for m in LOCATED), "lead in auc", "in energy"]  # fmt: skip
    out = [row(heads), row(["---"] * len(heads))]
    worlds = _worlds()
    for tau in TAUS:
        rows = worlds[f"photographs, tau {tau:g}"]
        columns = {
            (name, m): np.array([each["methods"][name][m] for each in rows])
            for name in LAYERS
            for m in LOCATED
        }
        cells = [f"{tau:g}", str(len(rows)), _mean(np.array([each["share"] for each in rows]))]
        cells.append(f"{np.mean([each['fit'][-1] for each in rows]):.2f}")
        cells += [f"{_mean(columns['nib', m])}, **{_mean(columns['ca-m2ib', m])}**"
                  for m in LOCATED]  # fmt: skip
        cells += [_interval(columns["ca-m2ib", m] - columns["nib", m]) for m in ("auc", "energy")]
        out.append(row(cells))
    return "\n".join(out)


def _worlds() -> dict[str, list[dict[str, Any]]]:
    """Lines by world, each with its pairs in one order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in lines("why"):
        found.setdefault(each["world"], []).append(each)
    return found


def _by_world(
    heads: Sequence[str],
    cells: Callable[[Sequence[dict[str, Any]]], Sequence[str]],
    *,
    at_two: bool = False,
) -> str:
    """A row for each world; of photographs that with the model's own τ alone, if asked."""
    names = ["", "n", *heads]
    out = [row(names), row(["---"] * len(names))]
    for world, rows in _worlds().items():
        if at_two and "tau" in world and not world.endswith(" 2"):
            continue
        told = world
        for short, long in _TOLD.items():
            told = told.replace(short, long)
        out.append(row([told, str(len(rows)), *cells(rows)]))
    return "\n".join(out)


def _mean(values: Numbers) -> str:
    return f"{100 * float(np.nanmean(values)):.1f}"


def _interval(values: Numbers) -> str:
    mean, low, high = bootstrap_interval(values)
    return f"{100 * mean:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"
