"""A benchmark as a whole: ours beside the published code, batches, layers, and how costs grow."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import torch

import mmattrib
from mmattrib.benchmark import memory, startup
from mmattrib.benchmark.entrants import (
    EARLIER,
    OURS,
    PUBLISHED,
    Entrant,
    default_layers,
    device_of,
    measure,
    ours,
    published,
)
from mmattrib.benchmark.floors import floor
from mmattrib.benchmark.machine import describe, product_rate
from mmattrib.benchmark.published import STEPS
from mmattrib.benchmark.subjects import caption, pair
from mmattrib.benchmark.watch import LOOP, FlopCount, Spent, Watch, synchronise, watched
from mmattrib.errors import InputError, OptionError, TrustWarning, check_whole
from mmattrib.explain import explain
from mmattrib.loading import load_method
from mmattrib.models.backbone import Backbone
from mmattrib.preparing import prepare
from mmattrib.types import JSONValue

FORMAT: Final = "mmattrib benchmark 1"
MOST_PAIRS: Final = 1024
Tell = Callable[[str], None]

_ROWS: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "m2ib": ("samples", (5, 10, 20)),
    "ca-m2ib": ("points", (20, 40, 80)),
    "nib": ("steps", (5, 10, 20)),
}
_WORDS: Final = (4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        methods: names of ours.
        batches: pairs that are given together.
        layers: explained for both sides, beside the methods' own; those that a tower lacks are
            left out.
        rounds: how often everything is run in turn.
        steps: how many of the ten equal steps of M2IB as published are run.
        growth: whether to measure how costs grow, memory and start-up too.
    """

    methods: tuple[str, ...] = OURS
    batches: tuple[int, ...] = (1, 4, 16, 64)
    layers: tuple[int, ...] = (1, 5, 9)
    rounds: int = 3
    steps: int = STEPS
    growth: bool = True

    def __post_init__(self) -> None:
        """Hold it to its bounds.

        Raises:
            OptionError: no method, one named twice, or a number out of range.
        """
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise OptionError(f"methods are one name or more, each once, got {self.methods!r}")
        for count in self.batches:
            check_whole(count, "batches", 1, MOST_PAIRS)
        for layer in self.layers:
            check_whole(layer, "layers", 0, 1000)
        check_whole(self.rounds, "rounds", 1, 100)
        check_whole(self.steps, "steps", 1, STEPS)


QUICK: Final = Plan(batches=(), layers=(), rounds=2, steps=1, growth=False)
"""Ratios alone: ends within two minutes on two cores."""


def run_benchmark(
    backbone: Backbone,
    plan: Plan,
    tell: Tell = lambda line: None,
    source: Mapping[str, Any] | None = None,
) -> dict[str, JSONValue]:
    """Measure a model's explanations, beside what the published code would take.

    Args:
        backbone: embeds two of image, text and audio.
        plan: what to measure.
        tell: takes a line of progress.
        source: how a process of its own loads the model again, to see its memory: ``"name"``, as
            registered, or None for :func:`random_clip`, and ``"options"``. Without it, memory is
            not measured.

    Returns:
        Numbers, JSON values: ``machine``, ``model``, ``plan``, ``peak`` (of products of matrices,
        GFLOP per second and per CPU second), ``single``, ``ratios``, and unless quick ``layers``,
        ``batches``, ``growth``, ``exponents``, ``memory`` and ``startup``.

    Raises:
        OptionError: fewer than two modalities that it can make inputs of, or no such method.
    """
    start, device = time.perf_counter(), device_of(backbone)
    given, rates = pair(backbone), [product_rate(device)]
    found: dict[str, JSONValue] = {
        "format": FORMAT,
        "machine": describe(device),
        "model": _described(backbone, given),
        "plan": asdict(plan),
    }

    def between() -> None:
        rates.append(product_rate(device, 1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)  # random weights say nothing
        entrants = _entrants(backbone, given, plan, device)
        found["single"] = measure(entrants, plan.rounds, tell, between)
        found["layers"] = _layers(backbone, given, plan, device, tell)
        found["batches"] = _batches(backbone, plan, device, tell)
        if plan.growth:
            found["growth"] = _growth(backbone, given, plan, device, tell)
            found["exponents"] = exponents(found)
    if plan.growth:
        if source is not None:
            tell("memory, in a process of its own")
            found["memory"] = memory.measure(source, plan.methods)
        tell("start-up, in processes of their own")
        found["startup"] = startup.measure()
    found["peak"] = {key: max(rate[key] for rate in rates) for key in rates[0]}
    for rows in (found["single"], found["layers"]):
        _relate(rows, found["peak"])
        _add_floors(backbone, given, rows)
    found["ratios"] = ratios(found["single"])
    found["took_seconds"] = time.perf_counter() - start
    return found


def _described(backbone: Backbone, given: Mapping[str, Any]) -> dict[str, JSONValue]:
    inputs = prepare(backbone, given).inputs
    return {
        "name": backbone.name,
        "provenance": dict(backbone.provenance),
        "towers": {
            side: {
                "blocks": backbone[side].num_layers,
                "tokens": int(
                    backbone[side].grid(inputs[side], backbone[side].default_layer).valid.sum()
                ),
                "parameters": sum(p.numel() for p in backbone[side].module.parameters()),
            }
            for side in given
        },
    }


def _entrants(
    backbone: Backbone, given: Mapping[str, Any], plan: Plan, device: torch.device
) -> list[Entrant]:
    """Ours, each published one before the first of ours that is compared with it."""
    found: list[Entrant] = []
    for method in plan.methods:
        layers = default_layers(backbone, given, method)
        rival = PUBLISHED.get(method)
        if rival is not None and rival not in [each.label for each in found]:
            at = layers
            if rival == EARLIER:
                at = {side: max(0, layer - 1) for side, layer in layers.items()}
            theirs = published(backbone, given, rival, at, device, plan.steps)
            if theirs is not None:
                found.append(theirs)
                if at != layers:
                    same = ours(backbone, given, method, at, device)
                    found.append(replace(same, label=f"{method} at the same layer"))
        found.append(ours(backbone, given, method, layers, device))
    return found


def _add_floors(
    backbone: Backbone, given: Mapping[str, Any], rows: Sequence[dict[str, JSONValue]]
) -> None:
    """Add to each of ours the fewest GFLOP that it can be had for."""
    inputs = prepare(backbone, given).inputs
    encoders = {side: backbone[side] for side in given}
    for row in rows:
        if row["method"]:
            row["floor_gflop"] = floor(encoders, inputs, row["layers"], row["method"])


def _relate(rows: Sequence[dict[str, JSONValue]], peak: Mapping[str, float]) -> None:
    """Add to each its share of the rate at which the machine multiplies matrices."""
    for row in rows:
        cpu = row["cpu_seconds"]
        row["of_peak"] = row["gflop"] / cpu / peak["per_cpu_second"] if cpu > 0 else None


def ratios(rows: Sequence[Mapping[str, JSONValue]]) -> list[dict[str, JSONValue]]:
    """What the published code takes, divided by what ours takes, in each unit."""
    known = {str(row["label"]): row for row in rows}
    found: list[dict[str, JSONValue]] = []
    for label, row in known.items():
        rival = known.get(PUBLISHED.get(str(row["method"]), ""))
        if rival is not None:
            units = ("cpu_seconds", "seconds", "gflop")
            shares = {u: rival[u] / row[u] if row[u] > 0 else None for u in units}
            found.append({"label": label, "against": rival["label"], **shares})
    return found


def _layers(
    backbone: Backbone, given: Mapping[str, Any], plan: Plan, device: torch.device, tell: Tell
) -> list[dict[str, JSONValue]]:
    found: list[dict[str, JSONValue]] = []
    least = min(backbone[side].num_layers for side in given)
    for layer in plan.layers:
        if layer > least - 2:
            continue
        tell(f"layer {layer}")
        at, entrants = dict.fromkeys(given, layer), list[Entrant]()
        for name in dict.fromkeys(PUBLISHED[m] for m in plan.methods if m in PUBLISHED):
            theirs = published(backbone, given, name, at, device, 1)
            entrants += [] if theirs is None else [theirs]
        entrants += [ours(backbone, given, method, at, device) for method in plan.methods]
        found += measure(entrants, 1, lambda line: None, lambda: None)
    return found


def _batches(
    backbone: Backbone, plan: Plan, device: torch.device, tell: Tell
) -> list[dict[str, JSONValue]]:
    found: list[dict[str, JSONValue]] = []
    backbone.weights_hash()
    for count in plan.batches:
        pairs = [pair(backbone, number) for number in range(count)]
        for method in plan.methods:
            synchronise(device)
            start, spent = time.perf_counter(), time.process_time()
            many = mmattrib.attribute_many(
                backbone, pairs, method=method, batch_size=count, progress=False
            )
            for _ in many:
                pass
            synchronise(device)
            seconds, cpu = time.perf_counter() - start, time.process_time() - spent
            tell(f"{count} pairs at once: {method}, {seconds:.1f} s")
            found.append({"label": method, "pairs": count, "seconds": seconds, "cpu_seconds": cpu})
    return found


def _growth(
    backbone: Backbone, given: Mapping[str, Any], plan: Plan, device: torch.device, tell: Tell
) -> dict[str, list[dict[str, JSONValue]]]:
    """The loop's costs at other numbers of rows, of tokens, and of blocks behind the layer."""
    rows: list[dict[str, JSONValue]] = []
    tokens: list[dict[str, JSONValue]] = []
    for method in plan.methods:
        if method in _ROWS:
            option, values = _ROWS[method]
            for value in values:
                tell(f"{method}, {option} {value}")
                spent = _loop(backbone, given, method, device, {option: value})
                rows.append({"label": method, "of": option, "number": value, **spent})
        for words in _WORDS if "text" in given else ():
            other = {**given, "text": caption(words)}
            try:
                count = int(backbone["text"].grid(prepare(backbone, other).inputs["text"], 0)
                            .valid.sum())  # fmt: skip
            except InputError:  # longer than the model reads
                break
            tell(f"{method}, {count} tokens")
            spent = _loop(backbone, other, method, device, {}, ("text",))
            tokens.append({"label": method, "of": "tokens", "number": count, **spent})
    return {"rows": rows, "tokens": tokens}


def _loop(
    backbone: Backbone,
    given: Mapping[str, Any],
    method: str,
    device: torch.device,
    options: Mapping[str, int],
    sides: Sequence[str] | None = None,
) -> dict[str, float]:
    """CPU seconds and GFLOP of the loop alone."""
    made = load_method(method, **options)
    layers = default_layers(backbone, given, method)

    def once(watch: Watch) -> Spent:
        model = watched(backbone, watch)
        with watch.phase(LOOP):
            explain(model, [prepare(model, given)], made, layers, sides)
        return watch.spent[LOOP]

    with FlopCount() as counter:
        flop = once(Watch(device, counter)).flop
    return {"cpu_seconds": once(Watch(device)).cpu, "gflop": flop / 1e9}


def exponents(found: Mapping[str, JSONValue]) -> list[dict[str, JSONValue]]:
    """With which power of pairs, rows, tokens and blocks behind the layer costs grow.

    Args:
        found: ``batches``, ``growth``, ``layers`` and ``model`` of a benchmark.

    Returns:
        One entry for each method and what grew: ``label``, ``of``, and the exponents of
        ``cpu_seconds`` and ``gflop`` (None where they were not measured at two numbers or more).
    """
    depth = min(tower["blocks"] for tower in found["model"]["towers"].values())
    points = [{"of": "pairs", "number": row["pairs"], **row} for row in found["batches"]]
    points += [*found["growth"]["rows"], *found["growth"]["tokens"]]
    points += [
        {
            "label": row["label"],
            "of": "blocks behind the layer",
            "number": depth - 1 - max(row["layers"].values()),
            **row["phases"][LOOP],
        }
        for row in found["layers"]
    ]
    made: list[dict[str, JSONValue]] = []
    for label, of in dict.fromkeys((point["label"], point["of"]) for point in points):
        own = [point for point in points if (point["label"], point["of"]) == (label, of)]
        units = {
            unit: exponent([(p["number"], p[unit]) for p in own if p.get(unit, 0) > 0])
            for unit in ("cpu_seconds", "gflop")
        }
        if any(value is not None for value in units.values()):
            made.append({"label": label, "of": of, **units})
    return made


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """p of the power law y = c xᵖ that fits best in logarithms; None of fewer than two x.

    >>> round(exponent([(1, 3.0), (2, 12.0), (4, 48.0)]), 6)
    2.0
    """
    logs = [(math.log(x), math.log(y)) for x, y in points]
    if len({x for x, _ in logs}) < 2:
        return None
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    above = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    return above / sum((x - mean_x) ** 2 for x, _ in logs)
