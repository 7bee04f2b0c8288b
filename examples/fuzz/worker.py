"""The process that runs cases: with a limit of memory, and answers only with what came of each."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

ROOM = 2 * 1024**3
"""Bytes above what the process has when it is ready."""

OK, REFUSED, UNTYPED, HANG, MEMORY, CRASH = "ok", "refused", "untyped", "hang", "memory", "crash"
FAULTS = (UNTYPED, HANG, MEMORY, CRASH)
_TIGHT = (
    "MemoryError",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "Cannot allocate",
)


def serve(link: Connection, seed: int, corpus: Mapping[str, bytes], log: str) -> None:
    """Run the cases whose numbers arrive, until None does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _log_to(log)
    import torch

    from examples.fuzz.targets import Bench

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="mmattrib-fuzz-") as folder:
        bench = Bench(corpus, Path(folder))
        os.chdir(folder)
        run_case(bench, seed, 0)  # so that what is imported late counts as the baseline
        base = _peak(reset=True)
        _limit_memory()
        link.send(folder)
        while (number := link.recv()) is not None:
            found = run_case(bench, seed, number)
            if _peak(reset=True) - base > ROOM:
                found = {**found, "outcome": MEMORY}
            link.send(found)


def run_case(bench: Any, seed: int, number: int) -> dict[str, Any]:
    """Outcome, what was given, and the error of one case."""
    from examples.fuzz.targets import TARGETS
    from mmattrib.errors import MmattribError

    kind = kind_of(number)
    _empty(bench.folder)
    bench.told.clear()
    found: dict[str, Any] = {"kind": kind, "outcome": OK, "error": "", "where": "", "trace": ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TARGETS[kind](bench, np.random.default_rng([seed, number]))
    except MmattribError as error:
        found |= {"outcome": REFUSED, "error": type(error).__name__}
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"[:1000]
        tight = any(word in text for word in _TIGHT)
        found |= {
            "outcome": MEMORY if tight else UNTYPED,
            "error": text,
            "where": _where(error),
            "trace": "".join(traceback.format_exception(error))[-6000:],
        }
    return {**found, "given": list(bench.told)}


def kind_of(number: int) -> str:
    """The kind of a case."""
    from examples.fuzz.targets import TARGETS

    return list(TARGETS)[number % len(TARGETS)]


def _where(error: BaseException) -> str:
    """The innermost line of the package that the error passed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/mmattrib/" in f.filename or "/study/" in f.filename] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _log_to(path: str) -> None:
    """Send what libraries print to a file."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _peak(*, reset: bool) -> int:
    """Most resident bytes since the last reset; 0 where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return 0
    found = _status("VmHWM")
    if reset:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return _status("VmRSS")
    return found


def _limit_memory() -> None:
    if sys.platform.startswith("linux"):
        import resource

        most = _status("VmSize") + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
