"""How long the program takes to start, and to explain one pair on ``tiny``, process by process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from mmattrib.errors import MmattribError
from mmattrib.types import JSONValue

LISTINGS: Final = ("--help", "methods", "metrics", "backbones", "datasets")
RUNS: Final = 3


def measure() -> list[dict[str, JSONValue]]:
    """CPU seconds and seconds of commands, the median of three runs, each a process of its own.

    ``import torch`` is among them, which an explanation cannot do without.

    Raises:
        MmattribError: a command ended with an error.
    """
    program = [sys.executable, "-m", "mmattrib"]
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder, "scenes")
        _run([*program, "scenes", "--n", "1", "--out", str(scene)])
        made = next(path for path in scene.iterdir() if path.is_dir())
        explain = [*program, "attribute", "--image", str(made / "image.png")]
        explain += ["--text-file", str(made / "caption.txt")]
        commands = {
            "python": [sys.executable, "-c", "pass"],
            **{f"mmattrib {name}": [*program, name] for name in LISTINGS},
            "import torch": [sys.executable, "-c", "import torch"],
            "mmattrib attribute, on tiny": explain,
            "the same with --out pair.html": [*explain, "--out", str(Path(folder, "pair.html"))],
            "the same with --out pair.png": [*explain, "--out", str(Path(folder, "pair.png"))],
        }
        found: list[dict[str, JSONValue]] = []
        for label, command in commands.items():
            runs = [_run(command) for _ in range(RUNS)]
            cpu, seconds = (median(column) for column in zip(*runs, strict=True))
            found.append({"label": label, "cpu_seconds": cpu, "seconds": seconds})
    return found


def _run(command: list[str]) -> tuple[float, float]:
    """CPU seconds, of the process and its threads, and seconds by the clock."""
    # As for an installed package: with its modules' bytecode on the disk.
    own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    own["OMP_NUM_THREADS"] = "1"  # threads that wait for each other would count as work
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own)
    seconds, after = time.perf_counter() - start, os.times()
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise MmattribError(f"{' '.join(command[1:4])} ended with an error, saying: {said:.500}")
    cpu = after.children_user - before.children_user
    return cpu + after.children_system - before.children_system, seconds
