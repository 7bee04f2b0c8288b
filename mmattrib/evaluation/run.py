"""`evaluate`: candidates on models and data sets, scored by metrics, resumable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tqdm.auto import tqdm

from mmattrib import __version__
from mmattrib.datasets.base import Dataset, as_dataset
from mmattrib.errors import (
    InputError,
    OptionError,
    WorkerError,
    brief,
    check_seed,
    check_switch,
    check_whole,
    doubled,
)
from mmattrib.evaluation.candidates import Methods, candidates, listed
from mmattrib.evaluation.executors import Done, Engine, Executor, executor_for
from mmattrib.evaluation.measure import SECONDS, Context
from mmattrib.evaluation.models import ModelSource, model_sources
from mmattrib.evaluation.progress import Outcome, Progress
from mmattrib.evaluation.results import Results
from mmattrib.evaluation.store import Store
from mmattrib.evaluation.tasks import Task, count_tasks, make_tasks
from mmattrib.explain import Layers
from mmattrib.methods.pace import Pace
from mmattrib.metrics.base import TRUTH, Metric, check_metric
from mmattrib.models.backbone import Backbone
from mmattrib.plugins import default_plugins
from mmattrib.samples import Sample
from mmattrib.types import SECOND, JSONValue

Metrics: TypeAlias = Literal["all"] | Sequence[str | Metric] | Mapping[str, int | None] | None
Data: TypeAlias = Dataset | Iterable[Sample] | Mapping[str, Dataset]


def evaluate(
    backbones: Backbone | ModelSource | Mapping[str, Backbone | ModelSource],
    data: Data,
    *,
    methods: Methods = "all",
    metrics: Metrics = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    layer: Layers = None,
    seed: int | Sequence[int] = 0,
    limit: int | None = None,
    resume: str | Path | None = None,
    jobs: int = 1,
    engine: Engine | Executor | None = None,
    deterministic: bool | None = None,
    precision: str = "auto",
    progress: bool = True,
    keep_going: bool | None = None,
) -> Results:
    """Score methods on samples, in both directions of every pair of inputs.

    Args:
        backbones: a model, or label -> model.
        data: a data set, samples, or label -> data set.
        methods: names, live methods, or :class:`mmattrib.evaluation.Variant` objects; label ->
            name or method; ``"all"``. Live ones of one name are told apart by their options.
        metrics: names or :class:`mmattrib.metrics.Metric` objects; name -> on how many samples
            it is wanted (None for all); ``"all"``. By default those that need a truth alone.
        pairs: of sides, each in two directions; all that the first sample has by default.
        layer: as for :func:`mmattrib.attribute`.
        seed: of the noise, also of live methods; several to average over.
        limit: how many samples of each data set, from the first on; all if None.
        resume: a file that finished work is appended to; the same call goes on where this one
            stopped. Samples, methods and seeds may be added.
        jobs: workers, each with a copy of the model and one thread. No number depends on it.
        engine: ``"serial"``, ``"processes"``, ``"ray"`` or an executor; by ``jobs`` alone if None.
        deterministic, precision: as for :func:`mmattrib.attribute_many`, of at most 16 pairs.
        progress: show a progress bar on standard error.
        keep_going: name a method that fits no model in ``left_out`` and go on; None: for ``"all"``.

    Returns:
        Every number, a ``table()`` of means, and in ``problems`` why a pair has none.

    Raises:
        OptionError: nothing to evaluate, two methods under one label, a layer or option that does
            not fit, or a resume file that belongs to other arguments.
        WorkerError: three tasks in a row lost every worker that took them.
        UnknownNameError: no such method or metric.
        InputError: the samples have no pair that the model embeds.

    Example:
        >>> import mmattrib as mm
        >>> tiny = mm.load_backbone("tiny")
        >>> data = mm.load_dataset("scenes", n=2)
        >>> mm.evaluate(tiny, data, methods=["nib", "random"], progress=False)
        Results(2 methods x 6 directions x 6 metrics on 2 samples)
    """
    given: dict[str, Any] = {"methods": methods, "metrics": metrics, "pairs": pairs, "layer": layer}
    given["pace"] = Pace(deterministic, precision)
    plan = make_plan(backbones, data, seed=seed, limit=limit, **given)
    going = keep_going or (keep_going is None and methods == "all")
    check_switch(progress, "progress")
    return _measured(plan, _store(resume, plan), executor_for(jobs, engine), going, progress)


def _measured(
    plan: Plan, store: Store | None, executor: Executor, keep_going: bool, progress: bool
) -> Results:
    outcome = run(plan, store, executor, keep_going=keep_going, progress=progress)
    left_out = outcome.results.left_out
    if left_out and not outcome.results.columns:
        raise OptionError(f"no method could be measured: {next(iter(left_out.values()))}")
    return outcome.results


@dataclass(frozen=True)
class Plan:
    """What an evaluation will measure; made by :func:`make_plan`.

    Attributes:
        context: what labels stand for.
        pairs: of sides.
        seeds: of the noise.
        wanted: metric -> on how many samples of a data set, None for all.
    """

    context: Context
    pairs: Sequence[tuple[str, str]]
    seeds: Sequence[int]
    wanted: Mapping[str, int | None]

    def tasks(self) -> Iterator[Task]:
        """Every task, made as it is needed."""
        return make_tasks(self.context, self.pairs, self.seeds, self.wanted)

    def size(self) -> int | None:
        """How many pairs of inputs will be measured, or None where nobody can tell."""
        return count_tasks(self.context, self.context.datasets, len(self.pairs), self.seeds)

    def head(self) -> dict[str, JSONValue]:
        """What a store of it belongs to.

        A data set may grow, and its finished samples count; methods and seeds may be added, since
        every task names its own.
        """
        told = self.describe()
        del told["seeds"]
        for dataset in told["datasets"].values():
            del dataset["size"]
        return told

    def describe(self) -> dict[str, JSONValue]:
        """What the numbers depend on, JSON values, for provenance."""
        context = self.context
        # Candidates that draw nothing are measured under no seed, and none is told of them.
        acting = {s for each in context.candidates.values() for s in each.seeds(self.seeds)}
        return {
            "version": __version__,
            "backbones": {
                label: {"name": source.name, "weights_sha256": source.weights}
                for label, source in context.backbones.items()
            },
            "datasets": {
                label: {
                    "name": dataset.name,
                    "fingerprint": context.fingerprints[label],
                    "first": dataset.first,
                    "size": dataset.size(),
                }
                for label, dataset in context.datasets.items()
            },
            "methods": {
                label: candidate.describe(candidate.seeds(self.seeds)[0])
                for label, candidate in context.candidates.items()
            },
            "metrics": {
                name: {**context.metrics[name].describe(), "samples": most}
                for name, most in self.wanted.items()
            },
            "pairs": [list(pair) for pair in self.pairs],
            "seeds": [seed for seed in self.seeds if seed in acting],
            **context.pace.asked(),
        }


def make_plan(
    backbones: Backbone | ModelSource | Mapping[str, Backbone | ModelSource],
    data: Data,
    *,
    methods: Methods = "all",
    metrics: Metrics = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    layer: Layers = None,
    seed: int | Sequence[int] = 0,
    limit: int | None = None,
    pace: Pace | None = None,
) -> Plan:
    """Check the arguments of :func:`evaluate` and put them together.

    Raises:
        As :func:`evaluate`.
    """
    sources = model_sources(backbones)
    datasets = _datasets(data, limit)
    seeds = (seed,) if isinstance(seed, int) else tuple(listed(seed, "seed"))
    if not seeds or any(isinstance(s, bool) or not isinstance(s, int) for s in seeds):
        raise OptionError(f"seed must be a whole number or several, got {brief(seed)}")
    for each in seeds:
        check_seed(each)
    compared = candidates(methods, layer)
    known, wanted = _metrics(metrics)
    first = _first_sample(datasets)
    chosen = _pairs(pairs, first, sources)
    _check_layers(layer, chosen)
    fingerprints = {label: dataset.fingerprint() for label, dataset in datasets.items()}
    named = {candidate.label: candidate for candidate in compared}
    context = Context(sources, datasets, fingerprints, named, known, pace or Pace())
    return Plan(context, chosen, seeds, wanted)


def _store(resume: str | Path | None, plan: Plan) -> Store | None:
    if not isinstance(resume, str | Path | None):
        raise OptionError(f"resume must be the path of a file, got {type(resume).__name__}")
    return None if resume is None else Store(resume, plan.head())


def _datasets(data: Data, limit: int | None) -> dict[str, Dataset]:
    given = data if isinstance(data, Mapping) else None
    found = given or {getattr(d := as_dataset(data), "label", d.name): d}  # type: ignore[arg-type]
    checked = {label: as_dataset(dataset) for label, dataset in found.items()}
    if limit is None:
        return checked
    return {label: dataset.head(limit) for label, dataset in checked.items()}


def _first_sample(datasets: Mapping[str, Dataset]) -> Sample:
    for label, dataset in datasets.items():
        for sample in dataset:
            return sample
        raise OptionError(
            f"data set {label!r} holds no sample; mm.load_dataset('scenes', n=50) makes some"
        )
    raise OptionError("an evaluation needs a data set, got none")


def _pairs(
    pairs: Sequence[tuple[str, str]] | None, first: Sample, sources: Mapping[str, ModelSource]
) -> tuple[tuple[str, str], ...]:
    if pairs is not None:
        try:
            found = tuple((a, b) for a, b in pairs)
        except (TypeError, ValueError):
            found = ()
        if not found or not all(isinstance(side, str) for pair in found for side in pair):
            raise OptionError(
                f"pairs must be a sequence of two sides each, such as [('image', 'text')], got "
                f"{brief(pairs)}"
            )
        for pair in found:
            first.pair(*pair)
    else:
        sides = [side for side in first.inputs if all(_embeds(s, side) for s in sources.values())]
        found = tuple((a, b) for at, a in enumerate(sides) for b in sides[at + 1 :])
    if not found:
        raise InputError(
            f"the samples hold {', '.join(first.inputs)}, of which {', '.join(sources)} embeds no "
            "pair"
        )
    for label, source in sources.items():
        for side in dict.fromkeys(side for pair in found for side in pair):
            if not _embeds(source, side):
                raise InputError(
                    f"backbone {label!r} does not embed {side}; it embeds "
                    f"{', '.join(source.modalities)}"
                )
    return found


def _embeds(source: ModelSource, side: str) -> bool:
    return side in source.modalities or side.removesuffix(SECOND) in source.modalities


def _check_layers(layer: Layers, pairs: Sequence[tuple[str, str]]) -> None:
    if not isinstance(layer, Mapping):
        return
    sides = {name for pair in pairs for side in pair for name in (side, side.removesuffix(SECOND))}
    for name in layer:
        if name not in sides:
            raise OptionError(
                f"layer= names {brief(name)}, which is in no pair; accepted: "
                f"{', '.join(sorted(sides))}"
            )


def _metrics(given: Metrics) -> tuple[dict[str, Metric], dict[str, int | None]]:
    """Metrics by name, and on how many samples each is wanted."""
    registry = default_plugins().registry
    if isinstance(given, str) and given != "all":
        raise OptionError(f"metrics must be 'all' or a sequence of names, got {brief(given)}")
    if given is None or isinstance(given, str):
        made = [check_metric(registry.create("metric", e.name)) for e in registry.usable("metric")]
        chosen = [m for m in made if given == "all" or m.needs <= {TRUTH}]
        chosen = [m for m in chosen if given == "all" or (m.needs and m.by_default)]
        limits: Mapping[str, int | None] = {}
    else:
        limits = given if isinstance(given, Mapping) else {}
        chosen = [
            check_metric(registry.create("metric", m) if isinstance(m, str) else m)
            for m in listed(given, "metrics")
        ]
    if not chosen:
        raise OptionError("an evaluation needs at least one metric, got none")
    names = [metric.name for metric in chosen]
    twice = doubled(names)
    for name in names:
        if name in twice or name == SECONDS:
            why = "is reserved" if name == SECONDS else "is given twice"
            raise OptionError(f"metric {name!r} {why}; every metric needs a name of its own")
    for name, most in limits.items():
        if most is not None:
            check_whole(most, f"the number of samples for metric {name!r}")
    return {m.name: m for m in chosen}, {m.name: limits.get(m.name) for m in chosen}


def run(
    plan: Plan,
    store: Store | None = None,
    executor: Executor | None = None,
    *,
    source: str | None = None,
    fresh: bool = False,
    keep_going: bool = False,
    progress: bool = True,
) -> Outcome:
    """Measure what is not measured yet.

    Args:
        plan: what to measure.
        store: where finished tasks are kept, and found again; None keeps nothing.
        executor: where tasks run; in this process if None.
        source: of the methods' code, as a hash: kept with the numbers, and what other code
            measured is counted as outdated.
        fresh: measure again what other code measured.
        keep_going: a candidate that fails on a model is given up there, and the others go on.
        progress: show a progress bar on standard error.

    Raises:
        OptionError: the store belongs to another plan or writer; without ``keep_going``, a layer
            or option that does not fit.
    """
    context = plan.context
    labels = {label: candidate.id for label, candidate in context.candidates.items()}
    with store or nullcontext(), tqdm(
        total=plan.size(), unit="pair", disable=not progress
    ) as bar:  # fmt: skip
        if store is not None:
            store.name(labels)
        crew = executor or executor_for(1)
        places = {label: crew.place(each) for label, each in context.backbones.items()}
        state = Progress(plan.context, store, source, bar, places)
        tasks = state.unfinished(plan.tasks(), fresh)
        for task, found in _telling(crew, context, tasks, state):
            state.ended(task)
            if not isinstance(found, Exception):
                state.keep(task, found)
            elif isinstance(found, WorkerError):
                state.lose(task, found)
            elif keep_going:
                state.give_up(task, found)
            else:
                raise found
    results = state.collector.results(labels, plan.describe())
    state.outcome.results = replace(results, left_out=state.left_out)
    return state.outcome


def _telling(
    executor: Executor, context: Context, tasks: Iterable[Task], state: Progress
) -> Iterator[Done]:
    """Every task that has ended; meanwhile the executor tells how far the others are."""
    executor.told = state.told  # type: ignore[method-assign]
    try:
        yield from executor.run(context, tasks)
    finally:
        del executor.told
