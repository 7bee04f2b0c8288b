"""Methods against scenes whose truth is known: `evaluate`, its table, and paired differences."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from tqdm.auto import tqdm

from mmattrib.datasets.scenes.generator import Scene, part_names
from mmattrib.errors import InputError, OptionError, TrustWarning
from mmattrib.explain import Layers, attribute_many, load_method
from mmattrib.methods import Method
from mmattrib.metrics import Metric, Truth
from mmattrib.models.backbone import Backbone
from mmattrib.plugins import default_plugins
from mmattrib.types import Attribution, Explanation, JSONValue

Names: TypeAlias = Sequence[str] | Literal["all"]
Floats: TypeAlias = npt.NDArray[np.float64]

PAIRS: Final = (("image", "text"), ("audio", "text"), ("image", "audio"))
CHUNK: Final = 16
"""Scenes per batch, and between two lines of a resume file."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What every map of every method scored.

    Attributes:
        values: (direction, method, metric) -> ``(scenes,)`` float64 in scene order, NaN where the
            metric does not apply. A direction is ``"image|text"``: the image explained, the text
            its guide.
        provenance: backbone, weights' hash, methods' options, layers, seed, scenes.
    """

    values: Mapping[tuple[str, str, str], Floats]
    provenance: Mapping[str, JSONValue]

    @property
    def directions(self) -> tuple[str, ...]:
        """Directions, in the order they were evaluated."""
        return tuple(dict.fromkeys(key[0] for key in self.values))

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods, in the order they were asked for."""
        return tuple(dict.fromkeys(key[1] for key in self.values))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics, and ``"seconds"`` per pair (both maps)."""
        return tuple(dict.fromkeys(key[2] for key in self.values))

    def mean(self, direction: str, method: str, metric: str) -> tuple[float, float]:
        """Mean and standard error over the scenes to which the metric applies."""
        values = self.values[direction, method, metric]
        values = values[~np.isnan(values)]
        if values.size == 0:
            return float("nan"), float("nan")
        error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else float("nan")
        return float(values.mean()), float(error)

    def difference(
        self,
        direction: str,
        method: str,
        other: str,
        metric: str,
        *,
        level: float = 0.95,
        draws: int = 10_000,
        seed: int = 0,
    ) -> tuple[float, float, float]:
        """Paired difference ``method - other`` over scenes, with a bootstrap interval.

        Args:
            direction: e.g. ``"image|text"``.
            method: the minuend.
            other: the subtrahend, scored on the same scenes.
            metric: which metric.
            level: coverage of the percentile interval. For m comparisons at 95 % together, ask for
                ``1 - 0.05 / m`` (Bonferroni).
            draws: bootstrap resamples.
            seed: of the resampling.

        Returns:
            Mean difference, lower bound, upper bound.
        """
        paired = self.values[direction, method, metric] - self.values[direction, other, metric]
        return bootstrap_interval(paired, level=level, draws=draws, seed=seed)

    def table(self) -> str:
        """A Markdown table per direction: mean ± standard error in percent, seconds per pair."""
        parts = []
        for direction in self.directions:
            metrics = [metric for metric in self.metrics if metric != "seconds"]
            head = ["method", *metrics, "s/pair"]
            lines = [f"**{direction}**", "", _row(head), _row(["---"] * len(head))]
            for method in self.methods:
                cells = [method]
                for metric in metrics:
                    mean, error = self.mean(direction, method, metric)
                    cells.append(f"{100 * mean:.1f} ± {100 * error:.1f}")
                cells.append(f"{self.mean(direction, method, 'seconds')[0]:.2f}")
                lines.append(_row(cells))
            parts.append("\n".join(lines))
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> str:
        """Everything, values per scene included."""
        values = [
            {"direction": d, "method": m, "metric": k, "values": [_number(v) for v in row]}
            for (d, m, k), row in self.values.items()
        ]
        return json.dumps({"provenance": dict(self.provenance), "values": values}, indent=1)


def bootstrap_interval(
    values: Floats, *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of some values with a percentile bootstrap interval.

    Args:
        values: ``(n,)``, one per resampled unit; NaN is left out.
        level: coverage of the interval.
        draws: resamples.
        seed: of the resampling.

    Returns:
        Mean, lower bound, upper bound; NaN where no value is left.
    """
    values = values[~np.isnan(values)]
    if values.size == 0:
        return float("nan"), float("nan"), float("nan")
    means = _resamples(values.size, draws, seed) @ values / values.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)


@lru_cache(maxsize=4)
def _resamples(size: int, draws: int, seed: int) -> Floats:
    """How often each of ``size`` values is in each resample: ``(draws, size)``.

    Kept, since a table compares many columns of the same length.
    """
    rng = np.random.default_rng(seed)
    rows = [
        np.bincount(rng.integers(0, size, size), minlength=size).astype(np.float64)
        for _ in range(draws)
    ]
    return np.stack(rows)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def evaluate(
    backbone: Backbone,
    scenes: Sequence[Scene],
    *,
    methods: Names | Sequence[str | Method] = "all",
    metrics: Names = "all",
    pairs: Sequence[tuple[str, str]] = PAIRS,
    layer: Layers = None,
    seed: int = 0,
    resume: str | Path | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> Evaluation:
    """Score methods on scenes whose truth is known, in both directions of every pair.

    Args:
        backbone: embeds the modalities of ``pairs``.
        scenes: from :func:`mmattrib.scenes`.
        methods: names or live methods; ``"all"`` for every registered one.
        metrics: names; ``"all"`` for every registered one.
        pairs: pairs of modalities; each gives two directions.
        layer: as for :func:`mmattrib.attribute`.
        seed: of the methods' noise.
        resume: a JSON-lines file. Finished work is appended to it as it is done, and a later call
            with the same arguments goes on where this one stopped.
        jobs: processes to share the work; each has its own copy of the backbone and one thread.
            With 1, everything runs in this process. No number depends on it but the seconds.
        progress: show a progress bar on standard error.

    Raises:
        OptionError: no scenes, no methods, or a resume file that belongs to other arguments.
        UnknownNameError: no such method or metric.
        InputError: a modality that the backbone lacks.
    """
    if jobs < 1:
        raise OptionError(f"jobs must be at least 1, got {jobs}")
    if not scenes:
        raise OptionError("evaluate needs at least one scene, got none; try mm.scenes(n=50)")
    made = [load_method(m, seed if isinstance(m, str) else 0) for m in _names("method", methods)]
    scored: list[Metric] = [
        default_plugins().registry.create("metric", str(m)) for m in _names("metric", metrics)
    ]
    for modality in dict.fromkeys(m for pair in pairs for m in pair):
        backbone[modality]
    provenance: dict[str, JSONValue] = {
        "backbone": backbone.name,
        "weights_sha256": backbone.weights_hash(),
        "methods": {method.name: method.describe() for method in made},
        "metrics": [metric.name for metric in scored],
        "layer": dict(layer) if isinstance(layer, Mapping) else layer,
        "seed": seed,
        "scenes": len(scenes),
        "scenes_sha256": _scenes_hash(scenes),
    }
    journal = _Journal(resume, provenance)
    values: dict[tuple[str, str, str], Floats] = {}
    tasks = [
        _Task(method, pair, start, tuple(scenes[start : start + CHUNK]), tuple(scored), layer)
        for pair in pairs
        for method in made
        for start in range(0, len(scenes), CHUNK)
    ]
    with tqdm(total=sum(len(t.scenes) for t in tasks), unit="pair", disable=not progress) as bar:
        for task, rows in _run(backbone, tasks, journal, jobs):
            for offset, row in enumerate(rows):
                for (direction, metric), value in row.items():
                    key = (direction, task.method.name, metric)
                    column = values.setdefault(key, np.full(len(scenes), np.nan))
                    column[task.start + offset] = np.nan if value is None else value
            bar.update(len(task.scenes))
    order = _order(pairs, made, [*(metric.name for metric in scored), "seconds"])
    return Evaluation({key: values[key] for key in order}, provenance)


_Scores: TypeAlias = dict[tuple[str, str], float | None]


@dataclass(frozen=True)
class _Task:
    """A chunk of scenes for one method and one pair of modalities."""

    method: Method
    pair: tuple[str, str]
    start: int
    scenes: tuple[Scene, ...]
    metrics: tuple[Metric, ...]
    layer: Layers

    @property
    def tag(self) -> str:
        return f"{self.method.name}/{'-'.join(self.pair)}/{self.start}"


def _run(
    backbone: Backbone, tasks: Sequence[_Task], journal: _Journal, jobs: int
) -> Iterator[tuple[_Task, list[_Scores]]]:
    """Every task with its rows: those of the journal first, the others as they are done."""
    todo = []
    for task in tasks:
        rows = journal.get(task.tag)
        if rows is None:
            todo.append(task)
        else:
            yield task, rows
    if jobs == 1:
        for task in todo:
            rows = _score(backbone, task)
            journal.put(task.tag, rows)
            yield task, rows
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start_worker, (backbone,)) as pool:
        futures = {pool.submit(_score_in_worker, task): task for task in todo}
        try:
            for future in as_completed(futures):
                rows = future.result()
                journal.put(futures[future].tag, rows)
                yield futures[future], rows
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_worker_backbone: Backbone | None = None


def end_with_parent() -> None:
    """End this worker process when the one that started it is gone.

    A process that is killed cannot stop its workers, and they would wait for work for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start_worker(backbone: Backbone) -> None:
    """What a worker process needs; one thread each, or they would fight for the cores."""
    global _worker_backbone
    end_with_parent()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", TrustWarning)  # diagnostics keep them
    _worker_backbone = backbone


def _score_in_worker(task: _Task) -> list[_Scores]:
    if _worker_backbone is None:
        raise RuntimeError("a worker process was started without its backbone")
    return _score(_worker_backbone, task)


def _score(backbone: Backbone, task: _Task) -> list[_Scores]:
    """One row of numbers per scene."""
    pair = task.pair
    raws = [{modality: raw_input(scene, modality) for modality in pair} for scene in task.scenes]
    found = attribute_many(backbone, raws, method=task.method, layer=task.layer, progress=False)
    rows = []
    for scene, explanation in zip(task.scenes, found, strict=True):
        row: _Scores = {}
        for side, other in (pair, pair[::-1]):
            attribution = explanation[side]
            truth = scene_truth(scene, attribution)
            for metric in task.metrics:
                row[f"{side}|{other}", metric.name] = _number(metric(attribution.scores, truth))
            row[f"{side}|{other}", "seconds"] = _seconds(explanation)
        rows.append(row)
    return rows


def _order(
    pairs: Sequence[tuple[str, str]], methods: Sequence[Method], metrics: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """Keys in the order that was asked for, whichever task was done first."""
    for first, second in pairs:
        for direction in (f"{first}|{second}", f"{second}|{first}"):
            for method in methods:
                for metric in metrics:
                    yield direction, method.name, metric


def _seconds(explanation: Explanation) -> float:
    return float(explanation.provenance["seconds"])


def _names(kind: Any, names: Any) -> Sequence[Any]:
    if names == "all":
        return [entry.name for entry in default_plugins().registry.usable(kind)]
    if isinstance(names, str):
        raise OptionError(f"{kind}s must be 'all' or a sequence of names, got {names!r}")
    if not names:
        raise OptionError(f"evaluate needs at least one {kind}, got none")
    return list(names)


def raw_input(scene: Scene, modality: str) -> Any:
    """What :func:`mmattrib.attribute` takes for one modality of a scene.

    Raises:
        InputError: scenes have no such modality.
    """
    if modality == "image":
        return scene.image
    if modality == "audio":
        return (scene.audio, scene.sample_rate)
    if modality == "text":
        return scene.caption
    raise InputError(f"scenes hold image, audio and text, not {modality!r}")


def scene_truth(scene: Scene, attribution: Attribution) -> Truth:
    """The truth of a scene in the shape of an attribution of one of its modalities.

    Raises:
        InputError: scenes have no such modality.
    """
    modality, words = attribution.modality, attribution.words
    names = part_names(scene, modality)
    if modality == "image":
        masks = [part.mask for part in scene.objects]
    elif modality == "audio":
        masks = [part.mask for part in scene.events]
    else:
        masks = [
            np.array([w.start < part.span[1] and part.span[0] < w.end for w in words])
            for part in scene.mentions
        ]
    shared = tuple(name in scene.shared for name in names)
    mask = np.zeros(attribution.scores.shape, dtype=bool)
    for part, yes in zip(masks, shared, strict=True):
        if yes:
            mask |= part
    return Truth(mask, tuple(masks), shared)


def _scenes_hash(scenes: Sequence[Scene]) -> str:
    digest = hashlib.sha256()
    for scene in scenes:
        digest.update(scene.image.tobytes() + scene.audio.tobytes() + scene.caption.encode())
    return digest.hexdigest()


class _Journal:
    """Finished chunks on disk, one JSON line each, behind a line that says what they belong to."""

    def __init__(self, path: str | Path | None, provenance: Mapping[str, JSONValue]) -> None:
        self._path = None if path is None else Path(path)
        self._done: dict[str, list[_Scores]] = {}
        head = json.dumps({"evaluation": provenance}, sort_keys=True)
        if self._path is None:
            return
        if not self._path.exists():
            self._path.write_text(head + "\n", encoding="utf-8")
            return
        text = self._path.read_text(encoding="utf-8")
        lines = text.splitlines()
        if not lines or lines[0] != head:
            raise OptionError(
                f"{self._path} belongs to an evaluation with other arguments, weights or scenes; "
                "name another file, or delete it"
            )
        for line in lines[1:]:
            self._read(line)
        if not text.endswith("\n"):  # cut off in the middle of a line: begin a new one
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            rows = [{(d, m): v for d, m, v in row} for row in entry["rows"]]
        except (ValueError, KeyError, TypeError):
            return  # the last line of a run that was cut off: that chunk is done again
        self._done[entry["tag"]] = rows

    def get(self, tag: str) -> list[_Scores] | None:
        return self._done.get(tag)

    def put(self, tag: str, rows: list[_Scores]) -> None:
        if self._path is None:
            return
        entry = {"tag": tag, "rows": [[[d, m, v] for (d, m), v in row.items()] for row in rows]}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
