"""Killed or out of disk at any moment, and run again: the same numbers, none lost, none twice."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deadly_candidates import Deadly

import mmattrib as mm
from mmattrib.datasets.scenes import ScenesDataset
from mmattrib.errors import OptionError
from mmattrib.evaluation import Plan, Processes, Results, Store, make_plan, run
from mmattrib.evaluation.measure import Context

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
EXPECTED = [0.0, 1.0, 2.0, 3.0, 4.0]

pytestmark = pytest.mark.usefixtures("chunks_of_two")


def plan_of(folder: Path, count: int = 5) -> Plan:
    picture = np.zeros((8, 8, 3), np.uint8)
    samples = [mm.Sample(f"s{n}", {"image": picture, "text": f"word {n}"}) for n in range(count)]
    methods = [Deadly(str(folder)), Deadly(str(folder), label="again")]
    return make_plan(mm.load_backbone("tiny"), samples, methods=methods, metrics=["auc"],
                     pairs=[("image", "text")])  # fmt: skip


def resumed(plan: Plan, path: Path) -> Results:
    return run(plan, Store(path, plan.head()), progress=False).results


def assert_whole(found: Results, path: Path) -> None:
    for label in ("deadly", "again"):  # one meaning, so that it is measured once
        assert found.values(label, "image|text", "auc").tolist() == EXPECTED
    assert found.samples["samples"] == {n: f"s{n}" for n in range(5)}
    lines = [json.loads(line) for line in path.read_bytes().splitlines() if line.endswith(b"]}")]
    tasks = [line["id"] for line in lines]
    assert len(tasks) == len(set(tasks)) == 3


def test_a_store_that_ends_anywhere_is_gone_on_with(tmp_path: Path) -> None:
    path, plan = tmp_path / "run.jsonl", plan_of(tmp_path)
    resumed(plan, path)
    whole = path.read_bytes()
    head = whole.index(b"\n") + 1
    for end in [0, *range(head, len(whole), 23), len(whole) - 1, len(whole)]:
        path.write_bytes(whole[:end])
        assert_whole(resumed(plan, path), path)


def test_a_disk_that_is_full_at_any_write_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, real, writes = plan_of(tmp_path), os.fsync, 0

    def full_at(number: int) -> None:
        def fsync(descriptor: int) -> None:
            nonlocal writes
            writes += 1
            if writes == number:  # half of it is there
                os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - 40))
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    for number in range(1, 6):  # the head, the labels, three tasks
        path, writes = tmp_path / f"{number}.jsonl", 0
        full_at(number)
        with pytest.raises(OptionError, match="No space left on device"):
            resumed(plan, path)
        assert path.exists() == (number > 1), "a head is written whole or not at all"
        monkeypatch.setattr(os, "fsync", real)
        assert_whole(resumed(plan, path), path)


def test_stores_of_pieces_one_behind_the_other_are_a_store_of_the_whole(
    untrained: mm.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"methods": ["random"], "metrics": ["auc"], "pairs": [("image", "text")],
             "progress": False}  # fmt: skip
    for first in (2, 0):
        piece = ScenesDataset(2, seed=21, first=first)
        mm.evaluate(untrained, piece, resume=tmp_path / f"{first}.jsonl", **given)
    whole = tmp_path / "whole.jsonl"
    whole.write_bytes(b"".join((tmp_path / f"{n}.jsonl").read_bytes() for n in (0, 2)))
    expected = mm.evaluate(untrained, ScenesDataset(4, seed=21), **given)
    monkeypatch.setattr(Context, "measure", None)  # nothing is left to measure
    found = mm.evaluate(untrained, ScenesDataset(4, seed=21), resume=whole, **given)
    one, two = (each.values("random", "image|text", "auc") for each in (found, expected))
    np.testing.assert_allclose(one, two, atol=1e-6)


PROGRAM = """
import sys, time
from pathlib import Path
import test_kill

class Slow(test_kill.Deadly):
    def measure(self, context, task):
        time.sleep(0.3)
        return super().measure(context, task)

if __name__ == "__main__":
    test_kill.Deadly = Slow
    import mmattrib.evaluation.tasks
    mmattrib.evaluation.tasks.CHUNK = 2
    folder, path = map(Path, sys.argv[1:])
    plan = test_kill.plan_of(folder)
    test_kill.run(plan, test_kill.Store(path, plan.head()), test_kill.Processes(2), progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lines", [0, 3, 4])
def test_a_run_in_processes_that_is_killed_goes_on(tmp_path: Path, lines: int) -> None:
    script, path = tmp_path / "program.py", tmp_path / "run.jsonl"
    script.write_text(PROGRAM)
    folders = [str(ROOT), str(SUPPORT), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    running = subprocess.Popen([sys.executable, script, tmp_path, path], env=environment)
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert path.read_bytes().count(b"\n") <= 4, "it was killed before it was done"
    assert_whole(resumed(plan_of(tmp_path), path), path)


@pytest.mark.slow
def test_processes_take_no_more_tasks_than_they_need(tmp_path: Path) -> None:
    plan, taken = plan_of(tmp_path, 40), 0

    def tasks():  # type: ignore[no-untyped-def]
        nonlocal taken
        for task in plan.tasks():
            taken += 1
            yield task

    done = 0
    for _ in Processes(2).run(plan.context, tasks()):
        done += 1
        assert taken <= done + 4
    assert done == 40


@pytest.mark.slow
def test_the_array_of_slurm_measures_in_pieces_what_one_run_measures(tmp_path: Path) -> None:
    program = tmp_path / "mmattrib"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mmattrib "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "MMATTRIB": str(program),
        "RUNS": str(tmp_path / "runs"), "PIECES": "2", "PIECE": "16",
    }  # fmt: skip
    script = ROOT / "examples" / "cluster" / "slurm_array.sh"
    for number in (0, 1):
        given = {**environment, "SLURM_ARRAY_TASK_ID": str(number)}
        subprocess.run(["bash", script], env=given, check=True, cwd=tmp_path)
    before = {path: path.stat().st_size for path in (tmp_path / "runs").glob("piece-*.jsonl")}
    subprocess.run(["bash", script, "table"], env=environment, check=True, cwd=tmp_path)
    assert len(before) == 2
    assert (tmp_path / "runs" / "whole.jsonl").stat().st_size == sum(before.values())
    assert "32 samples" in (tmp_path / "runs" / "table.md").read_text()


# ---------------------------------------------------------------------- the command line's own runs

COMMAND = (
    sys.executable, "-m", "mmattrib", "evaluate", "--limit", "80", "--pair", "image,text",
    "--method", "gradient-x-input", "--method", "random", "--metric", "auc", "--metric", "iou",
    "--seed", "0", "--seed", "1",
)  # fmt: skip


def commanded(folder: Path, store: str, **given: Any) -> subprocess.CompletedProcess[str]:
    out = ("--resume", str(folder / store), "--out", str(folder / f"{store}.json"))
    return subprocess.run([*COMMAND, *out], capture_output=True, text=True, check=False, **given)


def numbers(folder: Path, store: str) -> list[Any]:
    """Every number but the seconds, which no two runs share."""
    columns = json.loads((folder / f"{store}.json").read_text())["columns"]
    return [column for column in columns if column["metric"] != "seconds"]


def ids(path: Path) -> list[str]:
    """The ids of the finished tasks in a store, whole lines alone."""
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line).get("id"))
        except ValueError:
            continue
    return [each for each in found if each is not None]


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_no_pair_and_counts_none_twice(tmp_path: Path) -> None:
    whole = commanded(tmp_path, "whole")
    assert whole.returncode == 0, whole.stderr
    store, chance, killed = tmp_path / "cut", random.Random(0), 0
    goals = [1, 4, 7, 11]
    while goals:
        with subprocess.Popen(
            [*COMMAND, "--resume", str(store)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            while child.poll() is None and len(ids(store)) < goals[0]:
                time.sleep(0.002)
            time.sleep(0.05 * chance.random())
            child.send_signal(signal.SIGKILL)
            child.communicate()
            killed += child.returncode == -signal.SIGKILL
        goals.pop(0)
    assert killed >= 3, "it was killed before it ended"
    done = commanded(tmp_path, "cut")
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path, "cut") == numbers(tmp_path, "whole")
    found = ids(store)
    assert sorted(found) == sorted(ids(tmp_path / "whole"))
    assert len(set(found)) == len(found) == 15  # 5 chunks, of 1 + 2 seeds


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit of file sizes")
def test_a_disk_that_fills_up_is_said_and_the_same_command_goes_on(tmp_path: Path) -> None:
    whole = commanded(tmp_path, "whole")
    assert whole.returncode == 0, whole.stderr
    size = (tmp_path / "whole").stat().st_size

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    full = commanded(tmp_path, "cut", preexec_fn=little_room)
    assert full.returncode == 2
    assert "cannot be written" in full.stderr
    assert "run the same command again" in full.stderr
    assert "Traceback" not in full.stderr
    assert 0 < len(ids(tmp_path / "cut")) < 15
    done = commanded(tmp_path, "cut")
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path, "cut") == numbers(tmp_path, "whole")
    assert sorted(ids(tmp_path / "cut")) == sorted(ids(tmp_path / "whole"))
