"""Where tasks run: in this process, or in several.

An executor takes tasks as they come and gives each back with its rows, in any order. Another kind
of executor is another class with the same method; that on other machines is
:class:`mmattrib.evaluation.on_ray.OnRay`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.synchronize import Event
from typing import Literal, TypeAlias

import torch

from mmattrib.errors import (
    MmattribError,
    OptionError,
    TrustWarning,
    WorkerError,
    brief,
    check_whole,
    is_one_of,
)
from mmattrib.evaluation.measure import Context, SampleRow
from mmattrib.evaluation.tasks import Task
from mmattrib.plugins.contained import is_hushing, set_hushing

Done: TypeAlias = tuple[Task, "list[SampleRow] | Exception"]
"""A task with its rows, or with what went wrong."""

Engine: TypeAlias = Literal["serial", "processes", "ray"]
ENGINES: tuple[Engine, ...] = ("serial", "processes", "ray")

MOST_JOBS = 1024
"""Workers: more than any cluster that is known to run this."""

RETRIES = 2
"""How often a task is tried again whose worker ended by itself."""


class Executor(ABC):
    """Runs tasks."""

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
                found = work_on(context, task)
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
        waiting = iter(tasks)
        pool = _Pool(self.jobs, context)
        try:
            while True:
                for task in islice(waiting, 2 * self.jobs - len(pool.pending)):
                    pool.submit(task)
                if not pool.pending:
                    return
                broken: list[Task] = []
                for task, found in pool.done():
                    if isinstance(found, BrokenProcessPool):
                        broken.append(task)
                    else:
                        yield task, found
                if broken:
                    for task, found in pool.done(ALL_COMPLETED):
                        if isinstance(found, BrokenProcessPool):
                            broken.append(task)
                        else:
                            yield task, found
                    pool.start_again()
                for task in broken:
                    yield task, self._alone(pool, task)
        finally:
            pool.close()

    def _alone(self, pool: _Pool, task: Task) -> list[SampleRow] | Exception:
        """A task while the processes do nothing else, tried again a few times."""
        for _ in range(RETRIES):
            pool.submit(task)
            ((_, found),) = pool.done(ALL_COMPLETED)
            if not isinstance(found, BrokenProcessPool):
                return found
            pool.start_again()
        return died(RETRIES + 1)


def died(times: int) -> WorkerError:
    """What is said of a task whose worker ended by itself every time."""
    return WorkerError(
        f"the worker ended by itself {times} times while it measured this (killed, or out of "
        "memory)"
    )


class _Pool:
    """Worker processes that can be started again, and what they are working on."""

    def __init__(self, jobs: int, context: Context) -> None:
        self.jobs, self.context = jobs, context
        self.others = multiprocessing.active_children()
        self.pending: dict[Future[list[SampleRow] | Exception], Task] = {}
        self._start()

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        with _without_ctrl_c():
            self._stop = spawn.Event()
        given = (self.context, self._stop, is_hushing())
        self._pool = ProcessPoolExecutor(self.jobs, spawn, _start_worker, given)

    def submit(self, task: Task) -> None:
        """Hand a task to a process."""
        try:
            with _without_ctrl_c():
                future = self._pool.submit(_work_here, task)
        except BrokenProcessPool as error:  # since the last look at it
            future = Future()
            future.set_exception(error)
        self.pending[future] = task

    def done(self, when: str = FIRST_COMPLETED) -> Iterator[Done]:
        """Tasks that have ended, once one has, or once all have.

        Raises:
            Whatever a worker raised that is no error of this package.
        """
        for future in wait(self.pending, return_when=when).done:
            task = self.pending.pop(future)
            try:
                found: list[SampleRow] | Exception = future.result()
            except BrokenProcessPool as error:
                found = error
            yield task, found

    def start_again(self) -> None:
        """Put new processes in the place of those that are left."""
        self.close()
        self._start()

    def close(self) -> None:
        """End every process."""
        if self.pending:  # the rest is not wanted
            self._stop.set()  # a worker may be minutes into its task
            for worker in multiprocessing.active_children():
                if worker not in self.others:
                    worker.kill()  # or still at its imports, where it hears nothing
        self._pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, without being interrupted halfway.

    The terminal sends it to every process; the parent is told, and ends its workers. Here it waits
    until the block is left.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is None or os.name != "posix":
        yield
        return
    came: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # children inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, usual)
        if came:  # another thread let it through
            signal.raise_signal(signal.SIGINT)


def work_on(context: Context, task: Task) -> list[SampleRow] | Exception:
    """Rows of a task. What goes wrong is given back, so that other tasks run on."""
    try:
        return context.measure(task)
    except MmattribError as error:
        return error


_context: Context | None = None


def _start_worker(context: Context, stop: Event, hush: bool) -> None:
    """Set up a worker process: its backbone, and one thread, so that workers do not share cores."""
    global _context
    set_hushing(hush)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends its workers
    end_with_parent(stop)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", TrustWarning)  # diagnostics keep them
    _context = context


def _work_here(task: Task) -> list[SampleRow] | Exception:
    if _context is None:
        raise RuntimeError("a worker process was started without its context")
    return work_on(_context, task)


def end_with_parent(stop: Event | None = None) -> None:
    """End this worker process when the one that started it is gone, or has set ``stop``.

    A process that is killed cannot stop its workers; without this they would wait for work
    indefinitely.
    """
    parent = multiprocessing.parent_process()

    def watch_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    def watch_stop() -> None:
        if stop is not None:
            stop.wait()
            os._exit(1)

    for watch in (watch_parent, watch_stop):
        threading.Thread(target=watch, daemon=True).start()


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
