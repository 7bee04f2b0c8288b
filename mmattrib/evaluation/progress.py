"""A run on its way: which tasks are still to do, and what becomes of those that are done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmattrib.errors import WorkerError
from mmattrib.evaluation.measure import Context, SampleRow
from mmattrib.evaluation.results import Collector, Results
from mmattrib.evaluation.store import Store, plain_row
from mmattrib.evaluation.tasks import Task, describe, task_id
from mmattrib.provenance import versions

if TYPE_CHECKING:
    from mmattrib.types import JSONValue

MOST_LOST = 3
"""Tasks in a row that no worker survived before a run ends."""


@dataclass
class Outcome:
    """What a run measured, what it found finished, and what failed.

    Attributes:
        results: every number of the plan, those of earlier runs included.
        done: tasks measured now.
        kept: tasks that an earlier run had measured.
        outdated: how many of those with another source of the methods.
        failures: task -> what went wrong; a candidate is given up on a model at its first failure,
            unless that was the end of the workers.
    """

    results: Results
    done: int = 0
    kept: int = 0
    outdated: int = 0
    failures: dict[str, str] = field(default_factory=dict)


@dataclass
class Progress:
    """A run on its way: what it measures, and what it has so far.

    Attributes:
        places: label of a backbone -> the device that it computes on.
    """

    context: Context
    store: Store | None
    source: str | None
    bar: Any
    places: Mapping[str, str]
    outcome: Outcome = field(default_factory=lambda: Outcome(Results({}, {})))
    collector: Collector = field(default_factory=Collector)
    given_up: set[tuple[str, str]] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    lost_in_a_row: int = 0
    begun: dict[str, int] = field(default_factory=dict)

    def told(self, task: Task, count: int) -> None:
        """Move the bar by samples of a task that is being measured."""
        before = self.begun.get(task.name, 0)
        self.begun[task.name] = min(before + count, len(task.samples))  # it may be tried again
        self.bar.update(self.begun[task.name] - before)

    def ended(self, task: Task) -> None:
        """Move the bar by what is left of a task that has ended."""
        self.bar.update(len(task.samples) - self.begun.pop(task.name, 0))

    def unfinished(self, tasks: Iterable[Task], fresh: bool) -> Iterator[Task]:
        """Tasks to measure; those that the store answers are counted and collected on the way."""
        planned: set[str] = set()
        prints = self.context.fingerprints.values()
        apart = len(set(prints)) == len(prints)  # one stands for one data set alone
        at: tuple[str, int] | None = None
        for task in tasks:
            if apart and at != (task.dataset, task.start):
                planned.clear()  # tasks of one meaning stand together, and the run may be long
                at = task.dataset, task.start
            identity = task_id(describe(task, self.context))
            gone = (task.candidate, task.backbone) in self.given_up
            if identity in planned or gone:  # one meaning, two labels
                self._pass(len(task.samples))
                continue
            planned.add(identity)
            entries = _answering(self.store, task, self.context, identity)
            current = any(entry["stamp"].get("source") == self.source for entry in entries)
            if not entries or (fresh and not current):
                yield task
                continue
            self.outcome.kept += 1
            self.outcome.outdated += not current
            for entry in entries:
                self.collector.add(entry)
            self._pass(len(task.samples))

    def _pass(self, pairs: int) -> None:
        """Count pairs that are not measured now: the rate, and so the time left, is without them.

        tqdm's rate is over ``n - initial``; a bar that is not shown has no ``initial``.
        """
        if not self.bar.disable:
            self.bar.n += pairs
            self.bar.initial += pairs

    def keep(self, task: Task, rows: Sequence[SampleRow]) -> None:
        """Take what a task measured."""
        self.collector.add(self._kept(self.store, task, rows))
        self.outcome.done += 1
        self.lost_in_a_row = 0

    def lose(self, task: Task, error: WorkerError) -> None:
        """Tell of a task that no worker survived; a later run tries it again.

        Raises:
            WorkerError: it is the third in a row, so that the samples are hardly to blame.
        """
        self.lost_in_a_row += 1
        if self.lost_in_a_row == MOST_LOST:
            raise WorkerError(
                f"{MOST_LOST} tasks in a row lost every worker that took them ({error}). What was "
                "finished is kept where a file keeps it: run the same command again, with fewer "
                "jobs or more memory. A script that starts workers needs its calls under `if "
                "__name__ == '__main__':`"
            ) from error
        rows = [SampleRow(sample.id, {}, str(error)) for sample in task.samples]
        self.collector.add(self._kept(None, task, rows))
        self.outcome.failures[task.name] = f"{type(error).__name__}: {error}"

    def _kept(self, store: Store | None, task: Task, rows: Sequence[SampleRow]) -> dict[str, Any]:
        told, stamp = describe(task, self.context), self._stamp(task)
        if store is not None:
            return store.put(task_id(told), told, stamp, rows)
        return {"task": told, "stamp": stamp, "rows": [plain_row(row) for row in rows]}

    def _stamp(self, task: Task) -> dict[str, JSONValue]:
        """How a task is measured: what does not change its identity."""
        candidate = self.context.candidates[task.candidate]
        return {
            "method": task.candidate,
            "backbone": task.backbone,
            "dataset": task.dataset,
            "metrics": dict(task.metrics),
            "options": candidate.describe(task.seed).get("options", {}),
            "source": self.source,
            "device": self.places[task.backbone],
            "versions": versions(),
        }

    def give_up(self, task: Task, error: Exception) -> None:
        """Note a failure; the candidate's other tasks on this model are passed over."""
        self.given_up.add((task.candidate, task.backbone))
        self.outcome.failures[task.name] = f"{type(error).__name__}: {error}"
        self.left_out.setdefault(f"{task.candidate} on {task.backbone}", str(error))


def _answering(
    store: Store | None, task: Task, context: Context, identity: str
) -> list[dict[str, Any]]:
    """Finished entries that answer a task: every metric on enough samples, by the same options.

    Options that a method has gained since are passed over: whoever adds one gives it a default
    that changes nothing, or measures afresh.
    """
    if store is None:
        return []
    options = context.candidates[task.candidate].describe(task.seed).get("options", {})
    found = []
    for entry in store.find(identity):
        stored = entry["stamp"].get("options", {})
        same = all(options.get(name, value) == value for name, value in stored.items())
        measured = entry["stamp"].get("metrics", {})
        enough = all(measured.get(name, 0) >= count for name, count in task.metrics.items())
        if same and enough:
            stamp = {**entry["stamp"], "method": task.candidate, "dataset": task.dataset,
                     "backbone": task.backbone}  # fmt: skip
            found.append({**entry, "stamp": stamp})
    return found
