"""Where tasks run: in this process, or in several.

An executor takes tasks as they come and gives each back with its rows, in any order. Another kind
of executor is another class with the same method; that on other machines is
:class:`mmattrib.evaluation.on_ray.OnRay`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeAlias

import torch

from mmattrib.errors import MmattribError, OptionError, TrustWarning, brief, check_whole, is_one_of
from mmattrib.evaluation.measure import Context, SampleRow, telling
from mmattrib.evaluation.models import ModelSource
from mmattrib.evaluation.tasks import Task
from mmattrib.workers import MOST_JOBS, Tell, Workers

Done: TypeAlias = tuple[Task, "list[SampleRow] | Exception"]
"""A task with its rows, or with what went wrong."""

Engine: TypeAlias = Literal["serial", "processes", "ray"]
ENGINES: tuple[Engine, ...] = ("serial", "processes", "ray")


class Executor(ABC):
    """Runs tasks."""

    def told(self, task: Task, count: int) -> None:  # noqa: B027
        """Take note that so many more samples of a task are done; a run puts its own in place."""

    def place(self, source: ModelSource) -> str:
        """The device that a model computes on here; entries of a run's file tell it."""
        return source.device

    @abstractmethod
    def run(self, context: Context, tasks: Iterable[Task]) -> Iterator[Done]:
        """Every task with what came of it, in any order; tasks are taken as they are needed.

        No more of them are held than twice the workers. A task whose worker ended by itself every
        time comes back with a :class:`mmattrib.errors.WorkerError`. Closing the iterator ends all
        work.
        """


def executor_for(
    jobs: int, engine: Engine | Executor | None = None, device: str | None = None
) -> Executor:
    """The executor of a name, with so many workers.

    Args:
        jobs: workers.
        engine: ``"serial"``, ``"processes"`` or ``"ray"``, or an executor as it is. If None,
            processes where ``jobs`` is above 1.
        device: where the workers of ``"ray"`` compute; see
            :class:`mmattrib.evaluation.on_ray.OnRay`.

    Raises:
        OptionError: ``jobs`` is no whole number or below 1, or does not go with the engine; no
            such engine; a device for another engine than ``"ray"``.
        MissingExtraError: Ray is not installed.
    """
    check_whole(jobs, "jobs", 1, MOST_JOBS)
    if engine is None:
        engine = "serial" if jobs == 1 else "processes"
    if isinstance(engine, Executor):
        _refuse_jobs(jobs, "an executor that is made already")
        return engine
    if not is_one_of(engine, ENGINES):
        raise OptionError(f"engine must be one of {', '.join(ENGINES)}, got {brief(engine)}")
    if engine == "ray":
        from mmattrib.evaluation.on_ray import OnRay

        return OnRay(jobs, device)
    if device is not None:
        raise OptionError(f"engine {engine!r} takes no device; load the model on it")
    if engine == "serial":
        _refuse_jobs(jobs, "engine 'serial', which is this process alone")
        return Serial()
    return Processes(jobs)


def _refuse_jobs(jobs: int, what: str) -> None:
    if jobs != 1:
        raise OptionError(f"jobs={jobs} has no effect on {what}; leave it out")


class Serial(Executor):
    """One task after another, in this process and on one thread."""

    def run(self, context: Context, tasks: Iterable[Task]) -> Iterator[Done]:
        for task in tasks:
            with _quiet():
                found = work_on(context, task, partial(self.told, task, 1))
            yield task, found


class Processes(Executor):
    """Several processes on this machine, one thread each; each has its own copy of the models.

    No number depends on how many there are. Where a process ends by itself, the tasks that were
    being worked on are tried again one by one, in new processes, so that the one that costs its
    process its life costs no other task.
    """

    def __init__(self, jobs: int) -> None:
        """Use so many processes."""
        self.jobs = check_whole(jobs, "jobs", 1, MOST_JOBS)

    def run(self, context: Context, tasks: Iterable[Task]) -> Iterator[Done]:
        workers: Workers[Task, list[SampleRow] | Exception]
        workers = Workers(self.jobs, work_on, context)
        return workers.run(tasks, self.told)


def work_on(context: Context, task: Task, tell: Tell = lambda: None) -> list[SampleRow] | Exception:
    """Rows of a task. What goes wrong is given back, so that other tasks run on.

    Args:
        context: what the task's labels stand for.
        task: to measure.
        tell: called for each of its samples that is done.
    """
    try:
        with telling(tell):
            return context.measure(task)
    except MmattribError as error:
        return error


@contextmanager
def _quiet() -> Iterator[None]:
    """One thread and no trust warnings, in this process and for a while."""
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        try:
            torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(threads)
