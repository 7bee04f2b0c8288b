"""All methods against known truth and against the model, and which metrics order methods alike.

Truth is measured by ``python -m examples.study sweep`` with plans/final.toml and plans/others.toml;
what the model is asked, by ``python -m examples.study ask``, on the first of the same scenes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch

import mmattrib as mm
from examples.study.agreement import Agreement
from examples.study.kept import RAW
from examples.study.protocol import (
    DIRECTIONS,
    FIRST_FINAL,
    GROUPS,
    PAIRS,
    RANKED,
    label,
    protocol_scenes,
)
from mmattrib.evaluation import NamedModel, Results, Variant, View, compare, evaluate
from mmattrib.evaluation.plans import read_plan
from mmattrib.evaluation.presets import beside_published
from mmattrib.evaluation.sheets import row
from mmattrib.evaluation.statistics import Numbers, bootstrap_interval, mean_and_error
from mmattrib.evaluation.tables import arrow, everything
from mmattrib.files import write_atomic
from mmattrib.metrics import Metric
from mmattrib.metrics.curves import Deletion, Insertion
from mmattrib.metrics.subsets import FaithfulnessCorrelation, Infidelity
from mmattrib.plugins import default_plugins

SCENES: Final = 200
"""On so many of the final scenes methods are compared."""
LABEL: Final = label("final", "one")
PLANS: Final = tuple(
    Path(__file__).parent / "plans" / f"{name}.toml" for name in ("final", "others")
)
NAMED: Final = ("confidence_drop", "confidence_increase", "confidence_drop_nib", "joint_drop", "ad")
KINDS: Final[Mapping[str, Sequence[str]]] = dict(
    zip(("pictures and sounds", "words"), GROUPS.values(), strict=True)
)


def variants() -> list[Variant]:
    """Every method that is registered, each once, at the layer where it stands in the plans."""
    found: dict[str, Variant] = {}
    for plan in PLANS:
        for each in read_plan(plan):
            if each.label == each.method:
                found[each.label] = each
    wanted = [entry.name for entry in default_plugins().registry.usable("method")]
    return [found[name] for name in wanted if name in found]


def asking() -> list[Metric]:
    """Metrics that ask the model, at few enough steps for every method."""
    registry = default_plugins().registry
    named: list[Metric] = [registry.create("metric", name) for name in NAMED]
    return [
        *named, Insertion(steps=16), Deletion(steps=16), FaithfulnessCorrelation(subsets=32),
        Infidelity(subsets=32),
    ]  # fmt: skip


def ask(file: Path, scenes: int, jobs: int, device: str = "cpu") -> Results:
    """Ask `tiny` about every method's maps, and keep the answers in a file that goes on.

    Args:
        file: of answers.
        scenes: how many, from the first of the comparison on.
        jobs: processes, one thread each.
        device: where they compute.
    """
    return evaluate(
        {"shipped": NamedModel.of("tiny", device=device)},
        {LABEL: protocol_scenes("final", "one", scenes, FIRST_FINAL)},
        methods=variants(),
        metrics=asking(),
        resume=file,
        jobs=jobs,
    )


def measure_costs(file: Path, scenes: int) -> dict[str, list[float]]:
    """CPU seconds of both maps of a pair on one thread, method by method in turn, kept in a file.

    Args:
        file: of JSON: method -> one number for each scene and pair.
        scenes: how many, from the first of the comparison on.
    """
    torch.set_num_threads(1)
    model = mm.load_backbone("tiny")
    data = protocol_scenes("final", "one", scenes + 1, FIRST_FINAL)
    found: dict[str, list[float]] = {each.label: [] for each in variants()}
    for number, sample in enumerate(data):
        for pair in PAIRS:
            given = {side: sample.inputs[side] for side in pair}
            for each in variants():
                start = time.process_time()
                mm.attribute(model, inputs=given, method=each.make(0), layer=each.layers_for(pair))
                if number:  # the first is what a process does once
                    found[each.label].append(round(time.process_time() - start, 4))
    write_atomic(file, json.dumps(found).encode())
    return found


def _first(results: Results, count: int = SCENES) -> Results:
    """The numbers of the compared scenes alone, of the shipped weights."""
    samples = results.samples[LABEL]
    places = [i for i, n in enumerate(samples) if FIRST_FINAL <= n < FIRST_FINAL + count]
    numbers = list(samples)
    return replace(
        results,
        samples={LABEL: {numbers[place]: samples[numbers[place]] for place in places}},
        columns={
            column: values[places]
            for column, values in results.columns.items()
            if column.dataset == LABEL and column.backbone == "shipped"
        },
    )


def _over(
    results: Results, method: str, metric: str, directions: Sequence[str], seed: int | None = None
) -> Numbers:
    """``(samples,)`` numbers, averaged over the directions to which the metric applies."""
    return averaged(np.stack([results.values(method, d, metric, seed=seed) for d in directions]))


def averaged(columns: Numbers) -> Numbers:
    """The mean over directions, the first axis, of numbers that are there; NaN where none is."""
    known = np.isfinite(columns)
    summed = np.where(known, columns, 0.0).sum(axis=0)
    found: Numbers = np.where(known.any(axis=0), summed / np.maximum(known.sum(axis=0), 1), np.nan)
    return found


def costs() -> str:
    """Methods by CPU seconds of both maps of a pair, pair by pair of modalities."""
    found = json.loads((RAW / "costs.json").read_text(encoding="utf-8"))
    lines = [f"| | {' | '.join('-'.join(pair) for pair in PAIRS)} |", row(["---"] * 4)]
    for method, seconds in found.items():
        by_pair = np.reshape(seconds, (-1, len(PAIRS)))
        lines.append(row([method, *(f"{value:.2f}" for value in np.median(by_pair, axis=0))]))
    return "\n".join(lines)


def _methods(results: Results) -> list[str]:
    return [each.label for each in variants() if each.label in results.methods]


def means(results: Results, metrics: Sequence[str], kind: str) -> str:
    """Methods by metrics: 100 times the mean over samples and directions, and its 95 % interval's
    half; an arrow says which way is better.
    """
    results = _first(results)
    heads = " | ".join(f"{metric} {arrow(metric)}".strip() for metric in metrics)
    lines = [f"| | {heads} | scenes |", row(["---"] * (len(metrics) + 2))]
    for method in _methods(results):
        cells, count = [], 0
        for metric in metrics:
            values = _over(results, method, metric, KINDS[kind])
            count = max(count, int(np.isfinite(values).sum()))
            if not np.isfinite(values).any():
                cells.append("")
                continue
            mean, low, high = bootstrap_interval(values)
            cells.append(f"{100 * mean:.1f} ± {50 * (high - low):.1f}")
        lines.append(row([method, *cells, str(count)]))
    return "\n".join(lines)


def by_seed(results: Results) -> str:
    """Methods that draw noise: the mean over scenes and directions ± its standard error over seeds.

    On the scenes that were measured under every seed.
    """
    results = _first(results)
    heads = [f"{kind}: {metric}" for kind in KINDS for metric in RANKED]
    lines = [f"| | {' | '.join(heads)} | seeds | scenes |", row(["---"] * (len(heads) + 3))]
    for method in _methods(results):
        seeds = sorted(
            {c.seed for c in results.columns if c.method == method and c.seed is not None}
        )
        if len(seeds) < 2:
            continue
        cells, scenes = [], 0
        for directions in KINDS.values():
            for metric in RANKED:
                columns = np.stack([_over(results, method, metric, directions, s) for s in seeds])
                there = np.isfinite(columns).all(axis=0)
                scenes = max(scenes, int(there.sum()))
                mean, error = mean_and_error(columns[:, there].mean(axis=1))
                cells.append(f"{100 * mean:.1f} ± {100 * error:.1f}")
        lines.append(row([method, *cells, str(len(seeds)), str(scenes)]))
    return "\n".join(lines)


def by_direction(results: Results, metric: str) -> str:
    """Methods by the six directions, one metric: mean ± its standard error."""
    results = _first(results)
    heads = [direction.replace("|", "\\|") for direction in DIRECTIONS]
    lines = [f"| {metric} | {' | '.join(heads)} |", row(["---"] * (len(heads) + 1))]
    for method in _methods(results):
        cells = []
        for direction in DIRECTIONS:
            mean, error = mean_and_error(results.values(method, direction, metric))
            cells.append("" if np.isnan(mean) else f"{100 * mean:.1f} ± {100 * error:.1f}")
        lines.append(row([method, *cells]))
    return "\n".join(lines)


def significance(results: Results, variant: str = "ca-m2ib") -> str:
    """How far a method leads each other one, with intervals corrected for all that are shown."""
    others = [name for name in _methods(results) if name not in (variant, "random")]
    tests = len(others) * len(RANKED) * len(KINDS)
    heads = [f"{kind}: {metric}" for kind in KINDS for metric in RANKED]
    lines = [f"| {variant} less | {' | '.join(heads)} |", row(["---"] * (len(heads) + 1))]
    for other in others:
        cells = []
        for directions in KINDS.values():
            for metric in RANKED:
                gains = averaged(
                    np.stack(
                        [
                            results.values(variant, d, metric) - results.values(other, d, metric)
                            for d in directions
                        ]
                    )
                )
                if not np.isfinite(gains).any():
                    cells.append("")
                    continue
                found = compare(gains, np.zeros_like(gains), comparisons=tests, draws=40_000)
                text = f"{100 * found.mean:+.1f}"
                cells.append(f"**{text}**" if found.clear else text)
        lines.append(row([other, *cells]))
    return "\n".join(lines)


def of_compared(known: Results, asked: Results) -> tuple[dict[str, Results], list[str]]:
    """Metric -> where its numbers are, and the methods; of the scenes that were asked about."""
    asked = _first(asked)
    known = _first(known, len(asked.samples[LABEL]))
    sources = {**dict.fromkeys(RANKED, known), **dict.fromkeys(asked_metrics(asked), asked)}
    return sources, [name for name in _methods(known) if name in asked.methods]


def asked_metrics(asked: Results) -> list[str]:
    """What the model was asked, without the seconds."""
    return [metric for metric in asked.metrics if metric != "seconds"]


def tables(raw: Callable[..., Results]) -> dict[str, Callable[[], str]]:
    """The tables of docs/benchmark.md, by name.

    Args:
        raw: gives the kept numbers of one sweep, or of several together, by their names.
    """

    def known() -> Results:
        return raw("final", "others")

    def asked() -> Results:
        return raw("asked")

    def leads() -> str:
        return significance(_first(known()))

    def each(metric: str) -> str:
        return by_direction(known(), metric)

    def truth(kind: str) -> str:
        return means(known(), RANKED, kind)

    def answers(kind: str) -> str:
        return means(asked(), asked_metrics(asked()), kind)

    def alike(kind: str) -> str:
        return Agreement(*of_compared(known(), asked()), KINDS[kind]).table()

    def with_truth(kind: str) -> str:
        return Agreement(*of_compared(known(), asked()), KINDS[kind]).with_truth()

    def seeds() -> str:
        return by_seed(raw("final", "others", "seeds"))

    def reproduced() -> str:
        report = beside_published(raw("reproduced"), [], View(errors="seeds"))
        return report.text(".md").rstrip("\n")

    def defaults() -> str:
        return everything(raw("defaults"), View(), "paper").text(".md").rstrip("\n")

    def leads_of_defaults() -> str:
        return significance(raw("defaults"))

    found: dict[str, Callable[[], str]] = {
        "benchmark, leads": leads, "benchmark, costs": costs, "benchmark, seeds": seeds,
        "benchmark, defaults": defaults, "benchmark, leads of defaults": leads_of_defaults,
        "reproduced": reproduced,
    }  # fmt: skip
    found |= {f"benchmark, {metric}": partial(each, metric) for metric in RANKED}
    for kind in KINDS:
        found |= {
            f"benchmark, {kind}": partial(truth, kind),
            f"benchmark, asked, {kind}": partial(answers, kind),
            f"benchmark, agreement, {kind}": partial(alike, kind),
            f"benchmark, agreement with the truth, {kind}": partial(with_truth, kind),
        }
    return found
