"""Where tasks run: in this process, or in several.

An executor takes tasks as they come and gives each back with its rows, in any order. Another kind
of executor (on other machines) is another class with the same method.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.synchronize import Event
from typing import TypeAlias

import torch

from mmattrib.errors import MmattribError, TrustWarning, WorkerError, check_whole
from mmattrib.evaluation.measure import Context, SampleRow
from mmattrib.evaluation.tasks import Task
from mmattrib.plugins.contained import is_hushing, set_hushing

Done: TypeAlias = tuple[Task, "list[SampleRow] | Exception"]
"""A task with its rows, or with what went wrong."""

MOST_JOBS = 1024
"""Processes: more than any one machine that is known to run this."""


class Executor(ABC):
    """Runs tasks."""

    @abstractmethod
    def run(self, context: Context, tasks: Iterable[Task]) -> Iterator[Done]:
        """Every task with what came of it, in any order; tasks are taken as they are needed.

        Closing the iterator ends all work.
        """


def executor_for(jobs: int) -> Executor:
    """The executor for so many processes.

    Raises:
        OptionError: ``jobs`` is no whole number, or below 1.
    """
    check_whole(jobs, "jobs", 1, MOST_JOBS)
    return Serial() if jobs == 1 else Processes(jobs)


class Serial(Executor):
    """One task after another, in this process and on one thread."""

    def run(self, context: Context, tasks: Iterable[Task]) -> Iterator[Done]:
        for task in tasks:
            with _quiet():
                found = _work(context, task)
            yield task, found


class Processes(Executor):
    """Several processes on this machine, one thread each; each has its own copy of the models.

    No number depends on how many there are.
    """

    def __init__(self, jobs: int) -> None:
        """Use so many processes."""
        self.jobs = jobs

    def run(self, context: Context, tasks: Iterable[Task]) -> Iterator[Done]:
        spawn = multiprocessing.get_context("spawn")
        others = multiprocessing.active_children()
        with _without_ctrl_c():
            stop = spawn.Event()
        waiting = iter(tasks)
        pool = ProcessPoolExecutor(self.jobs, spawn, _start_worker, (context, stop, is_hushing()))
        pending: dict[Future[list[SampleRow] | Exception], Task] = {}
        try:
            while True:
                for task in islice(waiting, 2 * self.jobs - len(pending)):
                    with _without_ctrl_c():
                        pending[pool.submit(_work_here, task)] = task
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    yield pending.pop(future), future.result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process ended by itself (killed, or out of memory); what was finished is "
                "kept where a file keeps it: run the same command again, with fewer jobs"
            ) from error
        finally:
            if pending:  # the rest is not wanted
                stop.set()  # a worker may be minutes into its task
                for worker in multiprocessing.active_children():
                    if worker not in others:
                        worker.kill()  # or still at its imports, where it hears nothing
            pool.shutdown(wait=False, cancel_futures=True)


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


def _work(context: Context, task: Task) -> list[SampleRow] | Exception:
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
    return _work(_context, task)


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
