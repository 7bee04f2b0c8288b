"""Where tasks run: workers of Ray, on this machine or on many.

Ray starts the workers, finds them processors and GPUs, and carries tasks and rows; here stands only
what a worker does, and what happens when one dies.
"""

from __future__ import annotations

import math
import os
import socket
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import torch

from mmattrib.errors import (
    MissingExtraError,
    OptionError,
    TrustWarning,
    WorkerError,
    brief,
    check_whole,
)
from mmattrib.evaluation.executors import Done, Executor, work_on
from mmattrib.evaluation.measure import Context, SampleRow
from mmattrib.evaluation.models import ModelSource
from mmattrib.evaluation.tasks import Task
from mmattrib.plugins.contained import is_hushing, set_hushing
from mmattrib.workers import MOST_JOBS, RETRIES, died

DEVICES: Final = ("cpu", "cuda")

PATIENCE: Final = 60
"""Seconds without a single worker before that is told."""


class OnRay(Executor):
    """Workers of Ray, one thread each; each holds a copy of the models, on the device it gets.

    Uses the cluster that this process is connected to or that ``RAY_ADDRESS`` names (``auto``: the
    one that this machine belongs to); without one, Ray is started on this machine for as long as
    the run takes.
    A task goes to a worker only once that one is there, so that workers for which a cluster has no
    place yet hold nothing up. Where a worker dies, its task goes to another, and a new worker takes
    its place. No number depends on how many there are.
    """

    def __init__(self, jobs: int = 1, device: str | None = None) -> None:
        """Use so many workers.

        Args:
            jobs: workers.
            device: ``"cpu"``, or ``"cuda"`` for a GPU each; where the cluster has fewer GPUs than
                workers, each has a share of one. That of the models if None.

        Raises:
            OptionError: either is out of range.
            MissingExtraError: Ray is not installed.
        """
        self.jobs = check_whole(jobs, "jobs", 1, MOST_JOBS)
        if device not in (None, *DEVICES):
            raise OptionError(
                f"device must be one of {', '.join(DEVICES)} on Ray, which itself chooses which "
                f"GPU a worker gets, got {brief(device)}"
            )
        self.device = device
        self._ray = _library()

    def place(self, source: ModelSource) -> str:
        return self.device or super().place(source)

    def run(self, context: Context, tasks: Iterable[Task]) -> Iterator[Done]:
        waiting = iter(tasks)
        ahead = deque((task, 0) for task in islice(waiting, 1))
        if not ahead:
            return  # and Ray need not be started
        ours = not self._ray.is_initialized()
        crew: _Crew | None = None
        try:
            if ours:
                self._connect()
            crew = _Crew(self._ray, self.jobs, context, self.device)
            while True:
                if not ahead:
                    ahead.extend((task, 0) for task in islice(waiting, 1))
                if ahead and crew.idle:
                    crew.give(*ahead.popleft())
                    continue
                if not ahead and not crew.busy:
                    return
                for task, died_before, found in crew.ended():
                    if not isinstance(found, self._ray.exceptions.RayError):
                        yield task, found
                    elif died_before < RETRIES:
                        ahead.appendleft((task, died_before + 1))
                    else:
                        yield task, died(RETRIES + 1)
        finally:
            if crew is not None:
                crew.dismiss()
            if ours:
                self._ray.shutdown()

    def _connect(self) -> None:
        """Join the cluster that is named, or start Ray here, with a place for every worker.

        Raises:
            WorkerError: the cluster does not answer, or lets nobody in.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tell nobody
        quiet = {"log_to_driver": False, "logging_level": "error"}
        if address := os.environ.get("RAY_ADDRESS"):
            try:
                _check_answers(address)
                self._ray.init(address, **quiet)
            except Exception as error:  # Ray and its libraries each raise their own
                reason = " ".join(str(error).split()) or type(error).__name__
                raise WorkerError(
                    f"the Ray cluster at RAY_ADDRESS={address} cannot be joined ({reason:.200}); "
                    "start it, set RAY_AUTH_MODE and RAY_AUTH_TOKEN as it has them, or unset "
                    "RAY_ADDRESS to have Ray started on this machine"
                ) from error
            return
        # Not "auto", which also joins what another run has started for itself.
        places = max(self.jobs, os.cpu_count() or 1)
        self._ray.init(
            "local", num_cpus=places, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet
        )


def _check_answers(address: str) -> None:
    """Try a cluster's port: Ray itself would try for minutes.

    Raises:
        OSError: nobody is there.
    """
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


class _Crew:
    """The workers: those that are idle, those at work, and those that are still to come."""

    def __init__(self, ray: Any, jobs: int, context: Context, device: str | None) -> None:
        self._ray = ray
        kind = device or _device_of(context)
        self._wanted = {"num_cpus": 1, "num_gpus": _share(ray, jobs) if kind == "cuda" else 0}
        self._made = ray.remote(_Worker).options(**self._wanted)
        self._given = (ray.put(context), device, is_hushing())
        self._coming: dict[Any, Any] = {}
        self.idle: list[Any] = []
        self.busy: dict[Any, tuple[Any, Task, int]] = {}
        self._failed = 0
        for _ in range(jobs):
            self._hire()

    def _hire(self) -> None:
        worker = self._made.remote(*self._given)
        self._coming[worker.ready.remote()] = worker

    def give(self, task: Task, died_before: int) -> None:
        """Hand a task to an idle worker."""
        worker = self.idle.pop()
        self.busy[worker.work.remote(task)] = worker, task, died_before

    def ended(self) -> Iterator[tuple[Task, int, Any]]:
        """Tasks with how often they were tried before, and what came of them.

        That is rows, an error, or Ray's own error where the worker died. Waits until a task has
        ended or a worker has come.

        Raises:
            WorkerError: workers die before they take a task, one after another.
        """
        for each in self._wait():
            if each in self._coming:
                self._welcome(each, self._coming.pop(each))
                continue
            worker, task, died_before = self.busy.pop(each)
            try:
                found: Any = self._ray.get(each)
            except self._ray.exceptions.RayTaskError:
                raise  # an error in the code, as it would be raised here
            except self._ray.exceptions.RayError as error:
                self._end(worker)
                self._hire()
                found = error
            else:
                self.idle.append(worker)
            yield task, died_before, found

    def _wait(self) -> list[Any]:
        wanted = [*self.busy, *self._coming]
        found, _ = self._ray.wait(wanted, timeout=None if self.busy or self.idle else PATIENCE)
        if not found:
            told = {name: there for name, there in self._ray.cluster_resources().items()
                    if name in ("CPU", "GPU")}  # fmt: skip
            warnings.warn(
                f"no worker has found a place for {PATIENCE} seconds: each asks for "
                f"{self._wanted}, and the cluster has {told or 'nothing'} in all; waiting goes on",
                stacklevel=2,
            )
            found, _ = self._ray.wait(wanted)
        return list(found)

    def _welcome(self, ready: Any, worker: Any) -> None:
        try:
            self._ray.get(ready)
        except self._ray.exceptions.RayError as error:
            self._failed += 1
            if self._failed > RETRIES:
                raise WorkerError(
                    f"workers die before they take a task ({str(error)[-300:]}); every machine of "
                    "the cluster needs the same Python, mmattrib and plugins, and memory for the "
                    "models"
                ) from error
            self._end(worker)
            self._hire()
        else:
            self._failed = 0
            self.idle.append(worker)

    def _end(self, worker: Any) -> None:
        with suppress(Exception):  # it is gone already, or Ray is
            self._ray.kill(worker)

    def dismiss(self) -> None:
        """End every worker."""
        at_work = [worker for worker, _, _ in self.busy.values()]
        for worker in [*self.idle, *at_work, *self._coming.values()]:
            self._end(worker)


class _Worker:
    """What runs in a worker's process: the models, and the tasks that it is given."""

    def __init__(self, context: Context, device: str | None, hush: bool) -> None:
        set_hushing(hush)
        torch.set_num_threads(1)
        warnings.simplefilter("ignore", TrustWarning)  # diagnostics keep them
        self.context = context if device is None else context.settled(device)

    def ready(self) -> None:
        """Come back once the models are there."""

    def work(self, task: Task) -> list[SampleRow] | Exception:
        """The rows of a task, or what went wrong."""
        return work_on(self.context, task)


def _share(ray: Any, jobs: int) -> float:
    """Of a GPU, for each worker: as many workers to a GPU as all of them need."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    return 1.0 if gpus == 0 else 1.0 / math.ceil(jobs / gpus)


def _device_of(context: Context) -> str:
    """The kind of device that the models are on.

    Raises:
        OptionError: one is on a GPU that a worker would not see.
    """
    kinds = dict.fromkeys(source.device for source in context.backbones.values())
    kind = next((kind for kind in kinds if kind != "cpu"), "cpu")
    if kind.startswith("cuda") and kind not in ("cuda", "cuda:0"):
        raise OptionError(
            f"a model is on {kind}, and a worker of Ray sees no GPU but its own; load it on cpu or "
            "cuda, and name the device of the workers: OnRay(jobs, device='cuda')"
        )
    return kind.partition(":")[0]


def _library() -> Any:
    try:
        import ray
        from ray import is_initialized  # noqa: F401 - a folder of that name can be imported too
    except ImportError as error:
        raise MissingExtraError(
            "engine 'ray' needs Ray: pip install 'mmattrib[ray]', on every machine of the cluster"
        ) from error
    return ray
