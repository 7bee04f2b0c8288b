"""The tables of a benchmark, as Markdown, from its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mmattrib.benchmark.watch import PHASES
from mmattrib.types import JSONValue

Numbers = Mapping[str, JSONValue]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: JSONValue) -> str:
    """Three digits that matter; a dash for what was not measured."""
    if value is None:
        return "–"
    number = float(value)
    if number == 0 or abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def _percent(value: JSONValue) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _layer(row: Numbers) -> str:
    layers = row["layers"]
    same = len(set(layers.values())) == 1
    return str(next(iter(layers.values()))) if same else ", ".join(
        f"{side} {layer}" for side, layer in layers.items()
    )  # fmt: skip


def machine(found: Numbers) -> str:
    """The machine and the model, in a sentence."""
    where, model, peak = found["machine"], found["model"], found["peak"]
    towers = "; ".join(
        f"{side} with {tower['blocks']} blocks, {tower['tokens']} tokens, "
        f"{tower['parameters'] / 1e6:,.1f} million parameters"
        for side, tower in model["towers"].items()
    )
    card = f", on {where['card']}" if "card" in where else ""
    return (
        f"{model['name']} ({towers}){card}. {where['processor']}, {where['threads']} of "
        f"{where['cores']} cores, torch {where['torch']}, Python {where['python']}. Products of "
        f"matrices run at {_number(peak['per_second'])} GFLOP per second, "
        f"{_number(peak['per_cpu_second'])} per CPU second."
    )


def ratios(found: Numbers) -> str:
    """What the published code takes, divided by what ours takes."""
    heads = ["", "divided by", "CPU time", "time", "GFLOP"]
    rows = [
        [r["against"], r["label"], *(_number(r[u]) for u in ("cpu_seconds", "seconds", "gflop"))]
        for r in found["ratios"]
    ]
    return _table(heads, rows) if rows else "Nothing published to compare with."


def single(found: Numbers) -> str:
    """One pair, each of what was measured in turn."""
    return _measured(found["single"])


def layers(found: Numbers) -> str:
    """The same at other layers."""
    return _measured(found["layers"])


def _measured(rows: Sequence[Numbers]) -> str:
    heads = ["", "layer", "seconds", "CPU seconds", "GFLOP", "floor", "of the peak", "share run"]
    units = ("seconds", "cpu_seconds", "gflop", "floor_gflop")
    return _table(heads, [
        [row["label"], _layer(row), *(_number(row.get(unit)) for unit in units),
         _percent(row.get("of_peak")), _percent(row["measured"])]
        for row in rows
    ])  # fmt: skip


def phases(found: Numbers) -> str:
    """CPU seconds and GFLOP of each phase of ours."""
    rows = [row for row in found["single"] if len(row["phases"]) > 1]
    known = [phase for phase in PHASES if any(phase in row["phases"] for row in rows)]
    cells = []
    for row in rows:
        own = [row["phases"].get(phase) for phase in known]
        cells.append([str(row["label"]), "CPU seconds",
                      *("–" if p is None else _number(p["cpu_seconds"]) for p in own)])  # fmt: skip
        cells.append(["", "GFLOP", *("–" if p is None else _number(p["gflop"]) for p in own)])
    return _table(["", "", *known], cells)


def batches(found: Numbers) -> str:
    """Pairs that are given together."""
    heads = ["", "pairs at once", "seconds", "CPU seconds", "CPU seconds a pair", "pairs a second"]
    return _table(heads, [
        [row["label"], str(row["pairs"]), _number(row["seconds"]), _number(row["cpu_seconds"]),
         _number(row["cpu_seconds"] / row["pairs"]), _number(row["pairs"] / row["seconds"])]
        for row in found["batches"]
    ])  # fmt: skip


def exponents(found: Numbers) -> str:
    """With which power costs grow."""
    heads = ["", "with", "CPU time", "GFLOP"]
    return _table(heads, [
        [row["label"], row["of"], *(
            "–" if row[unit] is None else f"{row[unit]:.2f}" for unit in ("cpu_seconds", "gflop")
        )]
        for row in found["exponents"]
    ])  # fmt: skip


def memory(found: Numbers) -> str:
    """Peak of a pair above the loaded model."""
    return _table(["", "loaded, MB", "a pair, MB more"], [
        [row["label"], f"{row['loaded_mb']:,.0f}", f"{row['pair_mb']:,.0f}"]
        for row in found["memory"]
    ])  # fmt: skip


def startup(found: Numbers) -> str:
    """Commands from their start to their end."""
    return _table(["", "CPU seconds", "seconds"], [
        [f"`{row['label']}`", f"{row['cpu_seconds']:.2f}", f"{row['seconds']:.2f}"]
        for row in found["startup"]
    ])  # fmt: skip


TABLES: Final[Mapping[str, tuple[str, Callable[[Numbers], str]]]] = {
    "ratios": ("How many times as much the published code takes", ratios),
    "single": ("One pair, both maps", single),
    "phases": ("Where it goes", phases),
    "layers": ("Other layers", layers),
    "batches": ("Pairs together", batches),
    "exponents": ("With which power the loop's cost grows", exponents),
    "memory": ("Peak memory of a pair", memory),
    "startup": ("Start-up", startup),
}
"""Name -> heading and function of each table; a benchmark need not have the numbers of all."""


def needs(name: str) -> str:
    """Which part of the numbers a table is drawn from."""
    return "single" if name == "phases" else name


def report(found: Numbers) -> str:
    """Every table for which there are numbers, with headings."""
    parts = [machine(found)]
    for name, (heading, draw) in TABLES.items():
        if found.get(needs(name)):
            parts.append(f"## {heading}\n\n{draw(found)}")
    return "\n\n".join(parts)


def profile(found: Mapping[str, Mapping[str, Sequence[Numbers]]]) -> str:
    """The operations of each phase, from :func:`mmattrib.benchmark.profiling.run_profile`."""
    parts = []
    for method, phases in found.items():
        for phase, rows in phases.items():
            cells = [
                [f"`{row['operation']}`", str(row["calls"]), _number(row["seconds"]),
                 _percent(row["share"])]
                for row in rows
            ]  # fmt: skip
            head = ["operation", "calls", "seconds", "of the phase"]
            parts.append(f"## {method}: {phase}\n\n{_table(head, cells)}")
    return "\n\n".join(parts)
