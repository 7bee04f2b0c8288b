"""A real evaluation that is killed, or meets a full disk, ends in the table of one that is not."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

COMMAND = (
    sys.executable, "-m", "mmattrib", "evaluate", "--limit", "80", "--pair", "image,text",
    "--method", "gradient-x-input", "--method", "random", "--metric", "auc", "--metric", "iou",
    "--seed", "0", "--seed", "1",
)  # fmt: skip


def run(folder: Path, store: str, **given: Any) -> subprocess.CompletedProcess[str]:
    out = ("--resume", str(folder / store), "--out", str(folder / f"{store}.json"))
    return subprocess.run([*COMMAND, *out], capture_output=True, text=True, check=False, **given)


def numbers(folder: Path, store: str) -> list[Any]:
    """Every number but the seconds, which no two runs share."""
    columns = json.loads((folder / f"{store}.json").read_text())["columns"]
    return [column for column in columns if column["metric"] != "seconds"]


def tasks(path: Path) -> list[str]:
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
    whole = run(tmp_path, "whole")
    assert whole.returncode == 0, whole.stderr
    store, chance, killed = tmp_path / "cut", random.Random(0), 0
    goals = [1, 4, 7, 11]
    while goals:
        with subprocess.Popen(
            [*COMMAND, "--resume", str(store)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            while child.poll() is None and len(tasks(store)) < goals[0]:
                time.sleep(0.002)
            time.sleep(0.05 * chance.random())
            child.send_signal(signal.SIGKILL)
            child.communicate()
            killed += child.returncode == -signal.SIGKILL
        goals.pop(0)
    assert killed >= 3, "it was killed before it ended"
    done = run(tmp_path, "cut")
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path, "cut") == numbers(tmp_path, "whole")
    found = tasks(store)
    assert sorted(found) == sorted(tasks(tmp_path / "whole"))
    assert len(set(found)) == len(found) == 15  # 5 chunks, of 1 + 2 seeds


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit of file sizes")
def test_a_disk_that_fills_up_is_said_and_the_same_command_goes_on(tmp_path: Path) -> None:
    whole = run(tmp_path, "whole")
    assert whole.returncode == 0, whole.stderr
    size = (tmp_path / "whole").stat().st_size

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    full = run(tmp_path, "cut", preexec_fn=little_room)
    assert full.returncode == 2
    assert "cannot be written" in full.stderr
    assert "run the same command again" in full.stderr
    assert "Traceback" not in full.stderr
    assert 0 < len(tasks(tmp_path / "cut")) < 15
    done = run(tmp_path, "cut")
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path, "cut") == numbers(tmp_path, "whole")
    assert sorted(tasks(tmp_path / "cut")) == sorted(tasks(tmp_path / "whole"))
