"""The sweep: every variant of a plan on every checkpoint, pair and chunk of scenes, resumable."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from tqdm.auto import tqdm

import mmattrib
from examples.study.measure import Row, Variant, measure_chunk
from examples.study.oracle import reference_rows
from examples.study.protocol import SEARCH_SCENES, Kind, Split, check_set, protocol_scenes
from examples.study.results import REFERENCE, Journal, digest
from mmattrib.errors import OptionError, TrustWarning, WeightsError
from mmattrib.evaluation.benchmark import CHUNK, PAIRS, end_with_parent
from mmattrib.explain import load_backbone
from mmattrib.models.backbone import Backbone
from mmattrib.types import JSONValue

SHIPPED: Final = "shipped"
"""Label of a backbone's own weights."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights to measure on.

    Attributes:
        label: what tables call it.
        backbone: as registered.
        file: a checkpoint of that backbone; None for its own weights.
        weights: SHA-256, as :meth:`mmattrib.models.backbone.Backbone.weights_hash` gives it.
    """

    label: str
    backbone: str
    file: str | None
    weights: str

    @staticmethod
    def of(file: str | Path | None = None, backbone: str = "tiny") -> Checkpoint:
        """Load the weights once, to know what they are.

        Raises:
            WeightsError: the file cannot be loaded.
            UnknownNameError: no such backbone.
        """
        path = None if file is None else str(Path(file).resolve())
        label = SHIPPED if file is None else Path(file).stem
        return Checkpoint(label, backbone, path, _load(backbone, path).weights_hash())


@dataclass(frozen=True)
class Scope:
    """What every variant of a sweep is measured on.

    Attributes:
        n: how many scenes.
        start: number of the first.
        split: of the protocol.
        kind: of scenes.
        pairs: of modalities.
        probes: for so many scenes, from the first on, measure ``tsens`` and ``stability`` too.
    """

    n: int = SEARCH_SCENES
    start: int = 0
    split: Split = "search"
    kind: Kind = "one"
    pairs: Sequence[tuple[str, str]] = PAIRS
    probes: int = 0

    def __post_init__(self) -> None:
        check_set(self.split, self.kind)
        if self.n < 1 or self.start < 0 or self.probes < 0:
            raise OptionError(
                f"n={self.n}, start={self.start}, probes={self.probes}: accepted are at least one "
                "scene, and numbers of 0 or more"
            )


@dataclass(frozen=True)
class Task:
    """One chunk of scenes for one variant, or for the reference rows where it is None."""

    variant: Variant | None
    checkpoint: Checkpoint
    pair: tuple[str, str]
    split: Split
    kind: Kind
    start: int
    size: int
    probes: int

    @property
    def name(self) -> str:
        """What messages call it."""
        label = REFERENCE if self.variant is None else self.variant.name
        return f"{label}, {self.checkpoint.label}, {'-'.join(self.pair)}, scene {self.start}"

    def describe(self) -> dict[str, JSONValue]:
        """What is measured; its digest is the task's id."""
        return {
            "variant": REFERENCE if self.variant is None else definition_id(self.variant),
            "backbone": self.checkpoint.backbone,
            "weights": self.checkpoint.weights,
            "split": self.split,
            "kind": self.kind,
            "pair": list(self.pair),
            "start": self.start,
            "size": self.size,
            "version": mmattrib.__version__,
        }

    def stamp(self) -> dict[str, JSONValue]:
        """How it is measured."""
        return {
            "checkpoint": self.checkpoint.label,
            "probes": self.probes,
            "source": source_digest(),
            "options": {} if self.variant is None else self.variant.make().describe(),
        }


@dataclass
class Outcome:
    """What came of a sweep.

    Attributes:
        done: chunks measured now.
        kept: chunks that an earlier run had measured.
        outdated: how many of those with another source of the methods.
        failures: task -> what went wrong; a variant is given up at its first failure.
    """

    done: int = 0
    kept: int = 0
    outdated: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def definition_id(variant: Variant) -> str:
    """A variant's definition as a hash: method, given options as parsed, layers; not its name.

    Options that are not given stand for whatever the default is, so that a method which gains an
    option keeps its results; see :func:`_same`.
    """
    parsed = variant.make().describe()
    given = {name: parsed.get(name, value) for name, value in variant.options.items()}
    layer = dict(variant.layer) if isinstance(variant.layer, Mapping) else variant.layer
    return digest({"method": variant.method, "options": given, "layer": layer})


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Hash of the source files of the engine and the methods."""
    root = Path(mmattrib.__file__).parent
    found = hashlib.sha256()
    for folder in ("engine", "methods"):
        for path in sorted((root / folder).rglob("*.py")):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def sweep(
    variants: Sequence[Variant],
    checkpoints: Sequence[Checkpoint],
    scope: Scope,
    folder: str | Path,
    *,
    jobs: int = 1,
    oracle: bool = False,
    fresh: bool = False,
    progress: bool = True,
) -> Outcome:
    """Measure what is not measured yet, and append it to the folder's results.

    Args:
        variants: from a plan; may be empty where only the oracle is wanted.
        checkpoints: to measure each on.
        scope: scenes and pairs.
        folder: of the results file; made if it does not exist.
        jobs: processes to share the work, one thread each. With 1, everything runs in this
            process, on one thread. No number depends on it but the seconds.
        oracle: measure the reference rows, chance and oracle, too.
        fresh: measure again what was measured with another source of engine or methods.
        progress: show a progress bar on standard error.

    Raises:
        OptionError: ``jobs`` is below 1.
        InputError: a backbone lacks a modality of the pairs.
    """
    if jobs < 1:
        raise OptionError(f"jobs must be at least 1, got {jobs}")
    journal = Journal(folder)
    distinct = list({checkpoint.weights: checkpoint for checkpoint in checkpoints}.values())
    tasks = list(_tasks([*([None] if oracle else []), *variants], distinct, scope))
    todo, outcome = _unfinished(tasks, journal, fresh)
    if variants:
        journal.append({"names": {v.name: definition_id(v) for v in variants}})
    with tqdm(total=sum(t.size for t in tasks), unit="pair", disable=not progress) as bar:
        bar.update(sum(t.size for t in tasks) - sum(t.size for t in todo))
        for task, found in _run(todo, jobs):
            if isinstance(found, str):
                outcome.failures[task.name] = found
            else:
                rows = [_plain(row) for row in found]
                what = task.describe()
                entry = {"id": digest(what), "task": what, "stamp": task.stamp(), "rows": rows}
                journal.append(entry)
                outcome.done += 1
            bar.update(task.size)
    return outcome


def _tasks(
    variants: Sequence[Variant | None], checkpoints: Sequence[Checkpoint], scope: Scope
) -> Iterator[Task]:
    """Variants innermost: whenever a run is stopped, they have been measured on the same scenes."""
    end = scope.start + scope.n
    for start in range(scope.start, end, CHUNK):
        size = min(CHUNK, end - start)
        probes = max(0, min(size, scope.start + scope.probes - start))
        for checkpoint in checkpoints:
            for pair in scope.pairs:
                for variant in variants:
                    wanted = 0 if variant is None else probes
                    yield Task(
                        variant, checkpoint, pair, scope.split, scope.kind, start, size, wanted
                    )


def _unfinished(tasks: Sequence[Task], journal: Journal, fresh: bool) -> tuple[list[Task], Outcome]:
    finished: dict[str, list[Mapping[str, Any]]] = {}
    for entry in journal.entries():
        if "id" in entry:
            finished.setdefault(entry["id"], []).append(entry["stamp"])
    todo, outcome = [], Outcome()
    planned: set[str] = set()
    for task in tasks:
        now, identity = task.stamp(), digest(task.describe())
        if identity in planned:  # two names for one definition
            continue
        planned.add(identity)
        stamps = [s for s in finished.get(identity, ()) if _same(s, now)]
        current = any(s["source"] == now["source"] for s in stamps)
        if not stamps or (fresh and not current and task.variant is not None):
            todo.append(task)
        else:
            outcome.kept += 1
            outcome.outdated += not current and task.variant is not None
    return todo, outcome


def _same(stored: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether finished work answers a task: enough probes, and no option that means another value.

    Options that a method has gained since are passed over: whoever adds one gives it a default
    that changes nothing, or measures with ``fresh``.
    """
    options = now["options"]
    kept = all(options.get(name, value) == value for name, value in stored["options"].items())
    return kept and bool(stored["probes"] >= now["probes"])


def _run(todo: Sequence[Task], jobs: int) -> Iterator[tuple[Task, list[Row] | str]]:
    """Every task with its rows, or with what went wrong."""
    given_up: set[str] = set()
    if jobs == 1:
        with _quiet():
            for task in todo:
                if _owner(task) not in given_up:
                    found = _work(task)
                    if isinstance(found, str):
                        given_up.add(_owner(task))
                    yield task, found
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start_worker) as pool:
        futures: dict[Future[list[Row] | str], Task] = {pool.submit(_work, t): t for t in todo}
        try:
            for future in as_completed(futures):
                task = futures[future]
                if future.cancelled():
                    continue
                found = future.result()
                if isinstance(found, str):
                    for other, its in futures.items():
                        if _owner(its) == _owner(task):
                            other.cancel()
                yield task, found
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _owner(task: Task) -> str:
    return REFERENCE if task.variant is None else task.variant.name


def _work(task: Task) -> list[Row] | str:
    """Rows of a task. Whatever goes wrong is told, and leaves the other variants to run on."""
    try:
        backbone = _load(task.checkpoint.backbone, task.checkpoint.file)
        if backbone.weights_hash() != task.checkpoint.weights:
            raise WeightsError(f"{task.checkpoint.file} has changed since the sweep began")
        if task.variant is None:
            scenes = protocol_scenes(task.split, task.kind, task.size, task.start)
            return reference_rows(backbone, task.pair, scenes)
        return measure_chunk(
            backbone, task.variant, task.pair, task.split, task.kind, task.start, task.size,
            task.probes,
        )  # fmt: skip
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@lru_cache(maxsize=4)
def _load(backbone: str, file: str | None) -> Backbone:
    """Kept by each process: tasks come back to the same few checkpoints."""
    return load_backbone(backbone, **({} if file is None else {"checkpoint": file}))


def _start_worker() -> None:
    """What a worker process needs."""
    end_with_parent()
    _settle()


def _settle() -> None:
    """One thread each, or processes would fight for the cores."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", TrustWarning)  # diagnostics keep them


@contextmanager
def _quiet() -> Iterator[None]:
    """What :func:`_settle` sets, in this process and for a while."""
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        try:
            _settle()
            yield
        finally:
            torch.set_num_threads(threads)


def _plain(row: Row) -> dict[str, dict[str, float | None]]:
    return {
        direction: {k: None if math.isnan(v) else round(v, 6) for k, v in numbers.items()}
        for direction, numbers in row.items()
    }
