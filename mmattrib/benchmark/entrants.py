"""What a benchmark measures side by side: the published methods and ours, one pair at a time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any, Final

import torch

import mmattrib
from mmattrib.benchmark.published import (
    SAMPLES,
    STEPS,
    can_compare,
    m2ib_as_published,
    nib_as_published,
    token_shapes,
)
from mmattrib.benchmark.watch import (
    EXPLAINING,
    LAYING_ON,
    LOOP,
    PAGE,
    PHASES,
    PICTURE,
    FlopCount,
    Spent,
    Watch,
    synchronise,
    watched,
)
from mmattrib.loading import load_method
from mmattrib.models.backbone import Backbone
from mmattrib.preparing import prepare, side_encoder
from mmattrib.types import JSONValue

OURS: Final = ("m2ib", "ca-m2ib", "nib")
PUBLISHED: Final[Mapping[str, str]] = {
    "m2ib": "M2IB as published",
    "ca-m2ib": "M2IB as published",
    "nib": "NIB as published",
}
"""Ours -> what it is compared with, if it is."""

EARLIER: Final = "NIB as published"
"""Its code counts the blocks in front of its layer, and M2IB's names the block: with the same
number it explains what comes out one block earlier."""


@dataclass(frozen=True)
class Entrant:
    """One of what is measured in turn.

    Attributes:
        label: what tables call it.
        layers: side -> explained layer.
        method: the registered name; empty for a published one.
        run: runs it once; what each phase took.
        times: what was measured stands for so many times as much.
        count: runs it once; the GFLOP of each phase.
    """

    label: str
    layers: Mapping[str, int]
    method: str
    run: Callable[[], Mapping[str, Spent]]
    count: Callable[[], Mapping[str, float]]
    times: float = 1.0


def default_layers(backbone: Backbone, pair: Mapping[str, Any], method: str) -> dict[str, int]:
    """Where a method explains a pair by itself; behind block 0 at least, where M2IB can."""
    made, found = load_method(method), {}
    for side in pair:
        encoder = side_encoder(backbone, side)
        found[side] = max(0, min(made.default_layer(encoder), encoder.num_layers - 2))
    return found


def ours(
    backbone: Backbone,
    pair: Mapping[str, Any],
    method: str,
    layers: Mapping[str, int],
    device: torch.device,
    **options: Any,
) -> Entrant:
    """One of this package's methods on a pair, with drawing.

    Args:
        backbone: any.
        pair: side -> input.
        method: a registered name.
        layers: side -> layer.
        device: where the model is.
        **options: of the method.
    """

    def once(watch: Watch, drawing: bool = True) -> None:
        made = watched(backbone, watch)
        with watch.phase(LOOP):
            found = mmattrib.attribute(
                made, inputs=dict(pair), method=method, layer=layers, **options
            )
        if not drawing:
            return
        with watch.phase(LAYING_ON):
            for side in pair:
                found[side].scores  # noqa: B018 - laid on when it is read
        with tempfile.TemporaryDirectory() as folder:
            for phase, name in ((PAGE, "pair.html"), (PICTURE, "pair.png")):
                with watch.phase(phase):
                    found.save(Path(folder, name))

    def run() -> Mapping[str, Spent]:
        watch = Watch(device)
        once(watch)
        return watch.spent

    def count() -> Mapping[str, float]:
        with FlopCount() as counter:
            watch = Watch(device, counter)
            once(watch, drawing=False)
        return {phase: spent.flop / 1e9 for phase, spent in watch.spent.items() if spent.flop}

    return Entrant(method, layers, method, run, count)


def published(
    backbone: Backbone,
    pair: Mapping[str, Any],
    name: str,
    layers: Mapping[str, int],
    device: torch.device,
    steps: int = STEPS,
) -> Entrant | None:
    """A published method on a pair, the plain way; None where the towers show no blocks.

    Args:
        backbone, pair, layers, device: as for :func:`ours`.
        name: ``"M2IB as published"`` or ``"NIB as published"``.
        steps: of M2IB, how many of its ten equal steps are measured; they stand for all.
    """
    encoders = {side: backbone[side] for side in pair}
    if not can_compare(encoders.values()):
        return None
    inputs = prepare(backbone, pair).inputs
    shapes = token_shapes(encoders, inputs, layers)  # else a pass that stands for more than one

    def call(samples: int = SAMPLES, taken: int = steps) -> None:
        if name == PUBLISHED["nib"]:
            nib_as_published(encoders, inputs, layers)
        else:
            m2ib_as_published(encoders, inputs, layers, steps=taken, samples=samples, shapes=shapes)

    def run() -> Mapping[str, Spent]:
        watch = Watch(device)
        with watch.phase(LOOP):
            call()
        return watch.spent

    def count() -> Mapping[str, float]:
        with FlopCount() as counter:
            call(1, 1)
        whole = 1 if name == PUBLISHED["nib"] else SAMPLES * STEPS  # every row costs the same
        return {LOOP: whole * counter.total / 1e9}

    times = 1.0 if name == PUBLISHED["nib"] else STEPS / steps
    return Entrant(name, layers, "", run, count, times)


def measure(
    entrants: list[Entrant], rounds: int, tell: Callable[[str], None], between: Callable[[], None]
) -> list[dict[str, JSONValue]]:
    """Each in turn, so many rounds: the median of each phase, of two the lower.

    Args:
        entrants: what is measured.
        rounds: how often.
        tell: takes a line of progress.
        between: called after each round.

    Returns:
        For each its ``label``, ``layers``, ``seconds``, ``cpu_seconds`` and ``gflop`` of explaining
        a pair, ``measured`` (the share of it that was run), and the same of each of its ``phases``.
    """
    counts = [entrant.count() for entrant in entrants]  # warms everything up, too
    found: list[list[Mapping[str, Spent]]] = [[] for _ in entrants]
    for number in range(rounds):
        for entrant, runs in zip(entrants, found, strict=True):
            start = time.perf_counter()
            runs.append(entrant.run())
            took = time.perf_counter() - start
            tell(f"round {number + 1} of {rounds}: {entrant.label}, {took:.1f} s")
        between()
    return [_row(*each) for each in zip(entrants, found, counts, strict=True)]


def _row(
    entrant: Entrant, runs: list[Mapping[str, Spent]], counted: Mapping[str, float]
) -> dict[str, JSONValue]:
    phases: dict[str, JSONValue] = {}
    for phase in PHASES:
        if phase not in runs[0]:
            continue
        phases[phase] = {
            "seconds": entrant.times * median_low(run[phase].seconds for run in runs),
            "cpu_seconds": entrant.times * median_low(run[phase].cpu for run in runs),
            "gflop": counted.get(phase, 0.0),
        }
    total = {
        unit: sum(phases[phase][unit] for phase in EXPLAINING if phase in phases)
        for unit in ("seconds", "cpu_seconds", "gflop")
    }
    return {
        "label": entrant.label,
        "method": entrant.method,
        "layers": dict(entrant.layers),
        "measured": 1 / entrant.times,
        **total,
        "phases": phases,
    }


def device_of(backbone: Backbone) -> torch.device:
    """Where the first tower is."""
    device = next(iter(backbone.values())).device
    synchronise(device)
    return device
