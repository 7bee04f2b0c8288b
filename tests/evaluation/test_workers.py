"""Worker processes: they end with their parent, and one that is killed costs no sample."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from deadly_candidates import Deadly
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.errors import OptionError, WorkerError
from mmattrib.evaluation import Executor, Results, Serial
from mmattrib.evaluation.executors import Done
from mmattrib.evaluation.measure import Context
from mmattrib.evaluation.tasks import Task
from mmattrib.workers import RETRIES, died

PICTURE = np.zeros((8, 8, 3), np.uint8)

PROGRAM = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from mmattrib.workers import end_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(60)
"""


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_end_when_their_parent_is_killed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    script = tmp_path / "pool.py"
    script.write_text(PROGRAM)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert _runs(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _runs(worker)


def measured(folder: Path, deaths: dict[int, int], count: int = 6, **given: object) -> Results:
    """Numbers 0, 1, ... of so many samples, tasks of two, with deaths on the way."""
    samples = [mm.Sample(f"s{n}", {"image": PICTURE, "text": f"word {n}"}) for n in range(count)]
    return mm.evaluate(
        small_tiny(), samples, methods=[Deadly(str(folder), deaths)],
        metrics=["auc"], pairs=[("image", "text")], progress=False, **given,
    )  # fmt: skip


@pytest.mark.usefixtures("chunks_of_two")
def test_a_task_whose_process_was_killed_is_measured_by_another(tmp_path: Path) -> None:
    found = measured(tmp_path, {2: 1}, engine="processes")
    assert found.values("deadly", "image|text", "auc").tolist() == [0, 1, 2, 3, 4, 5]
    assert len(list((tmp_path / "2").iterdir())) == 1
    assert not found.problems


@pytest.mark.slow
@pytest.mark.usefixtures("chunks_of_two")
def test_a_task_that_no_process_survives_is_told_and_tried_again_by_the_next_run(
    tmp_path: Path,
) -> None:
    store, folder = tmp_path / "run.jsonl", tmp_path / "deaths"
    folder.mkdir()
    found = measured(folder, {2: RETRIES + 1}, engine="processes", jobs=2, resume=store)
    assert found.samples["samples"] == {n: f"s{n}" for n in range(6)}
    values = found.values("deadly", "image|text", "auc")
    assert np.isnan(values).tolist() == [False, False, True, True, False, False]
    assert [problem[2] for problem in found.problems] == [str(died(RETRIES + 1))] * 2
    assert "ended by itself" in found.table()
    again = measured(folder, {}, resume=store)
    assert again.values("deadly", "image|text", "auc").tolist() == [0, 1, 2, 3, 4, 5]
    assert not again.problems


@pytest.mark.usefixtures("chunks_of_two")
def test_when_nothing_survives_the_run_ends_and_says_so(tmp_path: Path) -> None:
    class Lost(Executor):
        taken = 0

        def run(self, context: Context, tasks: Iterable[Task]) -> Iterator[Done]:
            for task in tasks:
                self.taken += 1
                yield task, died(3)

    lost = Lost()
    with pytest.raises(WorkerError, match="3 tasks in a row"):
        measured(tmp_path, {}, count=20, engine=lost)
    assert lost.taken == 3


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"engine": "serial", "jobs": 2}, "jobs=2 has no effect on engine 'serial'"),
        ({"engine": Serial(), "jobs": 2}, "jobs=2 has no effect on an executor"),
        ({"engine": "threads"}, "one of serial, processes, ray"),
        ({"engine": "processes", "jobs": 0}, "from 1 to"),
    ],
)
def test_an_engine_that_cannot_be_is_said(
    tmp_path: Path, given: dict[str, object], says: str
) -> None:
    with pytest.raises(OptionError, match=says):
        measured(tmp_path, {}, **given)
