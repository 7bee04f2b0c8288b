"""Worker processes: one thread each, ended with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from itertools import islice
from multiprocessing.synchronize import Event
from typing import Any, Generic, TypeAlias, TypeVar

import torch

from mmattrib.errors import OptionError, TrustWarning, WorkerError, check_whole
from mmattrib.plugins.contained import is_hushing, set_hushing

MOST_JOBS = 1024
"""Workers: more than any cluster that is known to run this."""

RETRIES = 2
"""How often an item is tried again whose worker ended by itself."""

_LOOK = 0.2
"""Seconds between two looks at how far the workers are."""

Item = TypeVar("Item")
Found = TypeVar("Found")

Tell: TypeAlias = Callable[[], None]
"""What a worker calls for each part of an item that is done."""


class Readable(Iterator[Item]):
    """Items up to where their iterator fails, so that those before are not lost with it."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._error: Exception | None = None

    def __next__(self) -> Item:
        if self._error is None:
            try:
                return next(self._items)
            except StopIteration:
                raise
            except Exception as error:  # of the caller's own code, of any kind
                self._error = error
        raise StopIteration

    def check(self) -> None:
        """Raise what the iterator raised, as it is; called once the items before are done."""
        if self._error is not None:
            raise self._error


class Workers(Generic[Item, Found]):
    """Several processes on this machine, one thread each; each has its own copy of what is given.

    Where a process ends by itself, the items that were being worked on are tried again one by one,
    in new processes, so that the one that costs its process its life costs no other item.
    """

    def __init__(self, jobs: int, work: Callable[[Any, Item, Tell], Found], given: Any) -> None:
        """Prepare; processes start with :meth:`run`.

        Args:
            jobs: processes.
            work: what is done with each item; a function of a module.
            given: its first argument, sent to each process once.
        """
        self.jobs = check_whole(jobs, "jobs", 1, MOST_JOBS)
        self._work, self._given = work, given

    def run(
        self,
        items: Iterable[Item],
        told: Callable[[Item, int], None] = lambda _item, _count: None,
        *,
        in_order: bool = False,
    ) -> Iterator[tuple[Item, Found | WorkerError]]:
        """Every item with what came of it; items are taken as they are needed.

        No more of them are held than twice the workers, or four times in order. Closing the
        iterator ends all work.

        Args:
            items: to work on.
            told: called with an item and how many parts of it were done since the last call.
            in_order: give them back in their order, not as they come.

        Raises:
            OptionError: what is given cannot be sent to another process.
            WorkerError: processes cannot be started.
            Whatever ``work`` raised, and whatever the items' own iterator raised, once the items
            before are done.
        """
        source = Readable(items)
        waiting = enumerate(source)
        pool: _Pool[Item, Found] = _Pool(self.jobs, self._work, self._given, told)
        kept: dict[int, tuple[Item, Found | WorkerError]] = {}
        following = 0
        try:
            while True:
                held = len(pool.pending) + len(kept)
                for number, item in islice(
                    waiting, max(0, min(2 * self.jobs - len(pool.pending), 4 * self.jobs - held))
                ):
                    pool.submit(number, item)
                if not pool.pending:
                    source.check()
                    return
                for number, item, found in self._ended(pool):
                    if not in_order:
                        yield item, found
                        continue
                    kept[number] = item, found
                    while following in kept:
                        yield kept.pop(following)
                        following += 1
        finally:
            pool.close()

    def _ended(self, pool: _Pool[Item, Found]) -> Iterator[tuple[int, Item, Found | WorkerError]]:
        broken: list[tuple[int, Item]] = []
        for when in (FIRST_COMPLETED, ALL_COMPLETED):
            for number, item, found in pool.done(when):
                if isinstance(found, BrokenProcessPool):
                    broken.append((number, item))
                else:
                    yield number, item, found
            if not broken:
                return
        pool.start_again()
        for number, item in broken:
            yield number, item, self._alone(pool, number, item)

    def _alone(self, pool: _Pool[Item, Found], number: int, item: Item) -> Found | WorkerError:
        """An item while the processes do nothing else, tried again a few times."""
        for _ in range(RETRIES):
            pool.submit(number, item)
            ((_, _, found),) = pool.done(ALL_COMPLETED)
            if not isinstance(found, BrokenProcessPool):
                return found
            pool.start_again()
        return died(RETRIES + 1)


def died(times: int) -> WorkerError:
    """What is said of an item whose worker ended by itself every time."""
    return WorkerError(
        f"the worker ended by itself {times} times while it worked on this (killed, or out of "
        "memory)"
    )


class _Pool(Generic[Item, Found]):
    """Worker processes that can be started again, and what they are working on."""

    def __init__(
        self,
        jobs: int,
        work: Callable[[Any, Item, Tell], Found],
        given: Any,
        told: Callable[[Item, int], None],
    ) -> None:
        self.jobs, self.told = jobs, told
        self._setup = work, given
        self.others = multiprocessing.active_children()
        self.pending: dict[Future[bytes], tuple[int, Item, int]] = {}
        self._start()

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        with _without_ctrl_c():
            self._stop = spawn.Event()
        # A number for each item that is worked on, without a lock: whoever dies holds none.
        self._counts = spawn.RawArray("q", 2 * self.jobs)
        self._seen = [0] * (2 * self.jobs)
        given = (*self._setup, self._stop, self._counts, is_hushing())
        self._pool = ProcessPoolExecutor(self.jobs, spawn, _start_worker, given)

    def submit(self, number: int, item: Item) -> None:
        """Hand an item to a process."""
        taken = {slot for _, _, slot in self.pending.values()}
        slot = next(n for n in range(2 * self.jobs) if n not in taken)
        self._counts[slot] = self._seen[slot] = 0
        future: Future[bytes] = Future()
        try:
            sent = _packed(item, "an item of the work")
            with _without_ctrl_c():
                future = self._pool.submit(_work_here, sent, slot)
        except (BrokenProcessPool, WorkerError) as error:  # broken since the last look at it
            future.set_exception(error)
        except Exception as error:  # no process was started, for one of many reasons
            raise _not_started(self._setup[1], error) from error
        self.pending[future] = number, item, slot

    def done(
        self, when: str = FIRST_COMPLETED
    ) -> Iterator[tuple[int, Item, Found | WorkerError | BrokenProcessPool]]:
        """Items that have ended, once one has, or once all have.

        Raises:
            Whatever a worker raised.
        """
        while self.pending:
            ended = wait(self.pending, timeout=_LOOK, return_when=when).done
            self._look()
            if len(ended) >= (1 if when == FIRST_COMPLETED else len(self.pending)):
                break
        for future in [each for each in self.pending if each.done()]:
            number, item, _ = self.pending.pop(future)
            try:
                found: Found | WorkerError | BrokenProcessPool
                found = _unpacked(future.result(), "what came of the work")
            except (BrokenProcessPool, WorkerError) as error:
                found = error
            yield number, item, found

    def _look(self) -> None:
        """Tell how far the workers are."""
        for _, item, slot in self.pending.values():
            more = self._counts[slot] - self._seen[slot]
            if more:
                self._seen[slot] += more
                self.told(item, more)

    def start_again(self) -> None:
        """Put new processes in the place of those that are left."""
        self.close()
        self._start()

    def close(self) -> None:
        """End every process."""
        if self.pending:  # the rest is not wanted
            self._stop.set()  # a worker may be minutes into its item
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


_work: Callable[[Any, Any, Tell], Any] | None = None
_given: Any = None
_counts: Any = None


def _start_worker(
    work: Callable[[Any, Any, Tell], Any], given: Any, stop: Event, counts: Any, hush: bool
) -> None:
    """Set up a worker process: what it is given, and one thread, so that workers share no core."""
    global _work, _given, _counts
    set_hushing(hush)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends its workers
    end_with_parent(stop)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", TrustWarning)  # diagnostics keep them
    _work, _given, _counts = work, given, counts


def _work_here(sent: bytes, slot: int) -> bytes:
    if _work is None:
        raise RuntimeError("a worker process was started without its work")

    def tell() -> None:
        _counts[slot] += 1

    item = _unpacked(sent, "an item of the work")
    return _packed(_work(_given, item, tell), "what came of the work")


def _packed(value: object, what: str) -> bytes:
    """A value for another process. Packed here, it costs no other item if that fails.

    Raises:
        WorkerError: it cannot be pickled.
    """
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # of the value's own code, of any kind
        raise WorkerError(_not_sent(what, error)) from error


def _unpacked(sent: bytes, what: str) -> Any:
    try:
        return pickle.loads(sent)
    except Exception as error:  # of the value's own code, of any kind
        raise WorkerError(_not_sent(what, error)) from error


def _not_sent(what: str, error: Exception) -> str:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return (
        f"{what} cannot be sent between processes, for it cannot be pickled ({reason}); use "
        "jobs=1, or leave out what no other process can import, such as a lambda, or a function "
        "or class within a function"
    )


class _Nowhere:
    def write(self, data: Any) -> int:
        return len(data)


def _not_started(given: Any, error: Exception) -> OptionError | WorkerError:
    """Why no process was started: which part of what each is given cannot be pickled, if any."""
    parts = {each.name: getattr(given, each.name) for each in fields(given)} if is_dataclass(
        given) else {"work": given}  # fmt: skip
    for name, part in parts.items():
        try:
            pickle.Pickler(_Nowhere(), pickle.HIGHEST_PROTOCOL).dump(part)
        except Exception as own:  # of the part's own code, of any kind
            told = _not_sent(f"{name!r}, of which each of several jobs has a copy,", own)
            return OptionError(f"{told}. evaluate also takes a NamedModel, loaded by each job")
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return WorkerError(
        f"no worker process could be started ({reason}); use jobs=1, or fewer jobs. A script that "
        "starts workers needs its calls under `if __name__ == '__main__':`"
    )


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
