"""Choosing layer, price, noise and guidance of a method for each kind of input.

A grid of variants is measured like any other evaluation, all of it or by successive halving
(Jamieson and Talwalkar, AISTATS 2016: a share of the variants is left behind after each round, and
the others are measured on more samples). What is chosen is a plan, which `--config` takes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from mmattrib.datasets import Dataset
from mmattrib.errors import OptionError, check_switch, check_whole
from mmattrib.evaluation.candidates import Variant
from mmattrib.evaluation.executors import executor_for
from mmattrib.evaluation.plans import parse_plan
from mmattrib.evaluation.progress import Outcome
from mmattrib.evaluation.results import Results
from mmattrib.evaluation.run import make_plan, run
from mmattrib.evaluation.store import Store
from mmattrib.evaluation.tables import higher_is_better, in_percent
from mmattrib.evaluation.tasks import CHUNK
from mmattrib.models.backbone import Backbone
from mmattrib.render.surface import Surface
from mmattrib.types import SECOND

CONFIDENCE: Final = ("confidence_drop", "confidence_increase")
"""What M2IB and CA-M2IB publish where no truth is known, and by which both are tuned here."""


@dataclass(frozen=True)
class Trial:
    """A variant as it was measured for one modality.

    Attributes:
        variant: with its layer and options.
        means: metric -> mean over samples and directions that explain the modality.
        rank: mean over metrics of its place among all, 0 the best.
    """

    variant: Variant
    means: Mapping[str, float]
    rank: float


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        trials: modality -> the variants that were measured to the end, best first.
        metrics: that ranked them.
        samples: how many the last round had.
        failures: label of a variant -> why it was given up.
        grid: all variants.
        rounds: how many variants each round measured, on how many samples.
    """

    trials: Mapping[str, Sequence[Trial]]
    metrics: Sequence[str]
    samples: int
    failures: Mapping[str, str] = field(default_factory=dict)
    grid: Sequence[Variant] = ()
    rounds: Sequence[tuple[int, int]] = ()

    def chosen(self) -> Variant:
        """One variant with the best layer and options of each modality."""
        best = {modality: trials[0].variant for modality, trials in self.trials.items()}
        first = next(iter(best.values()))
        layer = {
            modality: found
            for modality, variant in best.items()
            if (found := layer_of(variant, modality)) is not None
        }
        shared = {
            key: value
            for key, value in first.options.items()
            if all(each.options.get(key) == value for each in best.values())
        }
        sides = {
            modality: {k: v for k, v in each.options.items() if k not in shared}
            for modality, each in best.items()
        }
        sides = {modality: options for modality, options in sides.items() if options}
        return Variant(f"{first.method} tuned", first.method, shared, layer or None, sides)

    def surfaces(self) -> list[Surface]:
        """The first metric over two settings, for each modality."""
        return [_surface(self, modality) for modality in self.trials]


def grid(method: str, layer: Any = None, options: Mapping[str, Any] | None = None) -> list[Variant]:
    """Every choice out of lists of layers and options.

    Args:
        method: as registered.
        layer: a whole number, a list of them, or modality -> either.
        options: name -> value, or a list of values.

    Raises:
        OptionError: a layer or option that the method does not take, or too many variants.
        UnknownNameError: no such method.
    """
    table = {"method": method, "options": dict(options or {})}
    if layer is not None:
        table["layer"] = layer
    return parse_plan({"grid": {method: table}}, "the grid")


def layer_of(variant: Variant, modality: str) -> int | None:
    """The layer at which a variant explains a modality; None for the encoder's own."""
    layer = variant.layer
    found = layer.get(modality) if isinstance(layer, Mapping) else layer
    return None if found is None else int(found)


def tune(
    backbone: Backbone,
    data: Dataset,
    variants: Sequence[Variant],
    metrics: Sequence[str],
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    seed: int | Sequence[int] = 0,
    limit: int = 64,
    eta: int | None = 2,
    resume: str | Path | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> Tuned:
    """Measure variants, and rank them for each modality that is explained.

    With several metrics, variants are ordered by the mean of their places by each, which asks
    nothing of the metrics' units. Layer and options of a modality are chosen by the directions
    that explain it, whatever is chosen for the other.

    Args:
        backbone: a model.
        data: to tune on; final figures belong to other samples.
        variants: from :func:`grid` or a plan.
        metrics: names; of each it must be known whether more is better.
        pairs: as for :func:`mmattrib.evaluate`.
        seed: as for :func:`mmattrib.evaluate`.
        limit: how many samples the last round has.
        eta: one in ``eta`` variants is kept after each round, and the next has ``eta`` times the
            samples; None measures all variants on all samples.
        resume: a file that keeps finished work.
        jobs: processes to share the work.
        progress: show progress bars on standard error.

    Raises:
        OptionError: no variant, none that could be measured, or a metric without a better side.
    """
    check_switch(progress, "progress")
    if not variants:
        raise OptionError("tuning needs at least one variant, got none")
    for name in metrics:
        if higher_is_better(name) is None:
            raise OptionError(f"metric {name!r} says not whether more is better; take another")
    check_whole(2 if eta is None else eta, "eta", 2, 16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tuning.jsonl" if resume is None else Path(resume)
        given: dict[str, Any] = {"metrics": list(metrics), "pairs": pairs, "seed": seed}
        head = make_plan(backbone, data, methods=variants, limit=limit, **given).head()
        left, failures, rounds = list(variants), dict[str, str](), list[tuple[int, int]]()
        for count in _rounds(len(variants), limit, eta):
            rounds.append((len(left), count))
            plan = make_plan(backbone, data, methods=left, limit=count, **given)
            store = Store(path, head)
            outcome = run(plan, store, executor_for(jobs), keep_going=True, progress=progress)
            failures.update(_given_up(outcome, left))
            left = [variant for variant in left if variant.label not in failures]
            trials = rank(outcome.results, left, metrics)
            if not trials:
                told = next(iter(failures.values()), "the metrics apply to none of these samples")
                raise OptionError(f"no variant could be measured: {told}")
            left = _kept(trials, left, eta)
    return Tuned(trials, tuple(metrics), count, failures, tuple(variants), tuple(rounds))


def _given_up(outcome: Outcome, variants: Sequence[Variant]) -> dict[str, str]:
    """Label -> why a variant was given up."""
    return {
        variant.label: told
        for task, told in outcome.failures.items()
        for variant in variants
        if task.startswith(f"{variant.label}, ")
    }


def _rounds(variants: int, limit: int, eta: int | None) -> list[int]:
    """On how many samples each round measures: whole tasks, so that what is finished counts."""
    counts = [check_whole(limit, "limit", 1)]
    while eta is not None and counts[0] > CHUNK and variants > 1:
        fewer = max(CHUNK, counts[0] // eta // CHUNK * CHUNK)
        counts.insert(0, fewer)
        variants = -(-variants // eta)
    return counts


def rank(
    results: Results, variants: Sequence[Variant], metrics: Sequence[str]
) -> dict[str, list[Trial]]:
    """Modality -> variants that have every metric there, best first."""
    found: dict[str, list[Trial]] = {}
    explained = dict.fromkeys(d.split("|")[0].removesuffix(SECOND) for d in results.directions)
    for modality in explained:
        means = {}
        for variant in variants:
            numbers = {name: _mean(results, variant.label, modality, name) for name in metrics}
            if not any(np.isnan(number) for number in numbers.values()):
                means[variant.label] = numbers
        places = np.zeros(len(means))
        for name in metrics:
            sign = -1.0 if higher_is_better(name) else 1.0
            values = sign * np.array([numbers[name] for numbers in means.values()])
            below = (values[None] < values[:, None]).sum(1)
            alike = (values[None] == values[:, None]).sum(1) - 1
            places += below + alike / 2
        named = {variant.label: variant for variant in variants}
        trials = [
            Trial(named[label], numbers, float(place) / len(metrics))
            for (label, numbers), place in zip(means.items(), places, strict=True)
        ]
        if trials:
            found[modality] = sorted(trials, key=lambda trial: trial.rank)
    return found


def _mean(results: Results, label: str, modality: str, metric: str) -> float:
    if label not in results.methods or metric not in results.metrics:
        return float("nan")
    means = [
        results.mean(label, direction, metric)[0]
        for direction in results.directions
        if direction.split("|")[0].removesuffix(SECOND) == modality
        and results.measured(label, direction)
    ]
    return float(np.mean(means)) if means else float("nan")


def _kept(
    trials: Mapping[str, Sequence[Trial]], variants: Sequence[Variant], eta: int | None
) -> list[Variant]:
    """The best of each modality, one in ``eta``."""
    if eta is None:
        return list(variants)
    best = {
        trial.variant.label for found in trials.values() for trial in found[: -(-len(found) // eta)]
    }
    return [variant for variant in variants if variant.label in best]


def settings(variant: Variant) -> dict[str, Any]:
    """Layers and options of a variant, by the names that a grid gives them."""
    layer = variant.layer
    layers = (
        {f"layer.{side}": number for side, number in layer.items()}
        if isinstance(layer, Mapping)
        else {}
        if layer is None
        else {"layer": layer}
    )
    return {**layers, **variant.options}


def _surface(tuned: Tuned, modality: str) -> Surface:
    trials = tuned.trials[modality]
    metric, best = tuned.metrics[0], settings(trials[0].variant)
    every = [settings(variant) for variant in tuned.grid]
    values = {name: _distinct([each.get(name) for each in every]) for name in best}
    own = [name for name, given in values.items() if len(given) > 1]
    own.sort(key=lambda name: (name not in ("layer", f"layer.{modality}"), _foreign(name)))
    y, x = ([*own, "", ""])[:2] if len(own) > 1 else ("", own[0] if own else "")
    rows = values.get(y, [None])
    columns = values.get(x, [None])
    plane = np.full((len(rows), len(columns)), np.nan)
    for trial in trials:
        found = settings(trial.variant)
        if all(found.get(name) == best[name] for name in own if name not in (x, y)):
            value = trial.means[metric] * (100 if in_percent(metric) else 1)
            plane[rows.index(found.get(y)), columns.index(found.get(x))] = value
    others = [f"{name} {best[name]}" for name in own if name not in (x, y)]
    title = f"{modality} explained" + (f", {', '.join(others)}" if others else "")
    told = f"{metric}{', percent' if in_percent(metric) else ''}, {tuned.samples} samples"
    at = (rows.index(best.get(y)), columns.index(best.get(x)))
    texts = ([str(v) for v in columns] if x else [""], [str(v) for v in rows] if y else [""])
    return Surface(title, told, x, texts[0], y, texts[1], plane.astype(np.float32), at)


def _foreign(name: str) -> bool:
    """Whether a setting is the layer of another modality; of the own one it is sorted before."""
    return name.startswith("layer.")


def _distinct(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
