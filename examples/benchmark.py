"""All methods, six directions and the metrics on scenes, and which metrics order methods alike.

``python -m examples.benchmark DIR --scenes 200 --seeds 3 --jobs 2`` measures what is not measured
yet (it can be stopped, and more scenes be asked for later), and prints tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np

import mmattrib as mm
from mmattrib.evaluation import Results, Variant, bootstrap_interval
from mmattrib.evaluation.plans import read_plan
from mmattrib.evaluation.statistics import Numbers, mean_and_error
from mmattrib.evaluation.tables import higher_is_better
from mmattrib.metrics import Metric
from mmattrib.metrics.curves import Deletion, Insertion
from mmattrib.metrics.sensitivity import rank_correlation
from mmattrib.metrics.subsets import FaithfulnessCorrelation, Infidelity
from mmattrib.plugins import default_plugins

SEED: Final = 11_001
"""Of the scenes: neither those of the search nor those of the final tables."""

TRUTH: Final = ("object_top1", "iou", "auc", "energy", "pointing")
NAMED: Final = ("confidence_drop", "confidence_increase", "confidence_drop_nib", "joint_drop", "ad")
PLAN: Final = Path(__file__).parent / "study" / "plans" / "final.toml"
"""Where the rivals of docs/method.md locate best; other methods choose layers themselves."""

OPTIONS: Final[Mapping[str, Mapping[str, int]]] = {
    "rise": {"samples": 256},
    "kernel-shap": {"samples": 256},
}
"""Half of their defaults, which are the dearest of all."""


def metrics() -> list[Metric]:
    """Truth, and what asks the model, at few enough steps for every method."""
    registry = default_plugins().registry
    named: list[Metric] = [registry.create("metric", name) for name in (*TRUTH, *NAMED)]
    return [
        *named, Insertion(steps=16), Deletion(steps=16), FaithfulnessCorrelation(subsets=32),
        Infidelity(subsets=32),
    ]  # fmt: skip


def measure(folder: Path, scenes: int, seeds: int, jobs: int) -> Results:
    """Measure what is not measured yet."""
    names = [e.name for e in default_plugins().registry.usable("method")]
    layers = {variant.label: variant.layer for variant in read_plan(PLAN)}
    methods = [Variant(name, name, OPTIONS.get(name, {}), layers.get(name)) for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    return mm.evaluate(
        mm.evaluation.NamedModel.of("tiny"),
        mm.load_dataset("scenes", n=scenes, seed=SEED),
        methods=methods,
        metrics=metrics(),
        seed=range(seeds),
        resume=folder / "results.jsonl",
        jobs=jobs,
    )


def _over(results: Results, method: str, metric: str, directions: Sequence[str]) -> Numbers:
    """``(samples,)`` numbers, averaged over directions."""
    with np.errstate(invalid="ignore"):
        found: Numbers = np.nanmean([results.values(method, d, metric) for d in directions], axis=0)
    return found


def means(results: Results, directions: Sequence[str], metrics: Sequence[str]) -> str:
    """Methods by metrics: the mean over samples and directions, and its 95 % interval's half."""
    lines = ["| | " + " | ".join(metrics) + " | s a pair |", "| --- " * (len(metrics) + 2) + "|"]
    for method in results.methods:
        cells = []
        for metric in metrics:
            mean, low, high = bootstrap_interval(_over(results, method, metric, directions))
            cells.append(f"{100 * mean:.1f} ± {50 * (high - low):.1f}")
        seconds = np.nanmean(_over(results, method, "seconds", directions))
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {seconds:.2f} |")
    return "\n".join(lines)


def agreement(results: Results, directions: Sequence[str], one: str, two: str) -> float:
    """Rank correlation of two metrics over methods, of their means, averaged over directions.

    Random maps count as a method. Metrics for which less is better are turned round.
    """
    found = []
    for direction in directions:
        columns = [
            np.array([np.nanmean(results.values(m, direction, name)) for m in results.methods])
            * (-1 if higher_is_better(name) is False else 1)
            for name in (one, two)
        ]
        known = np.isfinite(columns).all(axis=0)
        if known.sum() > 2:
            found.append(rank_correlation(columns[0][known], columns[1][known]))
    return mean_and_error(np.array(found, dtype=np.float64))[0]


def agreements(results: Results, directions: Sequence[str], metrics: Sequence[str]) -> str:
    """Which metrics order the methods alike."""
    table = dict.fromkeys(combinations(metrics, 2), 0.0)
    for one, two in table:
        table[one, two] = agreement(results, directions, one, two)
    lines = ["| | " + " | ".join(metrics) + " |", "| --- " * (len(metrics) + 1) + "|"]
    for row in metrics:
        cells = [
            "" if row == column else f"{table.get((row, column), table.get((column, row), 0)):.2f}"
            for column in metrics
        ]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(results: Results) -> str:
    """Every table."""
    words = [d for d in results.directions if d.startswith("text|")]
    others = [d for d in results.directions if d not in words]
    asked = [m for m in results.metrics if m not in (*TRUTH, "seconds")]
    count = len(next(iter(results.samples.values())))
    parts = [f"{count} scenes."]
    for title, directions in (("Pictures and sounds", others), ("Words", words)):
        parts += [f"### {title}: known truth", means(results, directions, TRUTH)]
        parts += [f"### {title}: asking the model", means(results, directions, asked)]
        parts += [
            f"### {title}: which metrics agree",
            agreements(results, directions, [*TRUTH, *asked]),
        ]
    return "\n\n".join(parts)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    print(page(measure(given.folder, given.scenes, given.seeds, given.jobs)))


if __name__ == "__main__":
    main()
