"""``python -m examples.fuzz --minutes 60 --out DIR``: tries to break the public API.

Every case is made from the seed and its number, and runs in a process of its own kind: with 2 GB
above what it has when it is ready, and 5 s of processor time. What may come of it is a result or an
error of the package. Anything else is a fault, kept in DIR with what made it. Call it again with
the same DIR to go on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections import Counter
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from examples.fuzz.worker import CRASH, FAULTS, HANG, OK, REFUSED, kind_of, serve
from mmattrib.errors import MmattribError, OptionError
from mmattrib.files import write_atomic

SECONDS = 5.0
"""Of processor time, after which a case counts as hanging."""

CLOCK = 60.0
"""Of the clock: a case that waits for something uses no processor."""

KEPT = 3
"""Reproducers of one fault; more of its kind are only counted."""


class Worker:
    """A process that runs cases, and the case that it is at."""

    def __init__(self, seed: int, corpus: dict[str, bytes], out: Path) -> None:
        """Start it; :attr:`link` becomes readable when it is ready, and after each case."""
        context = multiprocessing.get_context("spawn")
        self.link, other = context.Pipe()
        arguments = (other, seed, corpus, str(out / "libraries.log"))
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        other.close()
        self.number: int | None = None
        self.folder: str | None = None
        self.begun = (0.0, 0.0)

    def give(self, number: int) -> None:
        """Let it run a case."""
        self.number, self.begun = number, (self.used(), time.monotonic())
        self.link.send(number)

    def used(self) -> float:
        """Seconds of processor time so far; 0 where the system does not tell."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def hangs(self) -> bool:
        """Whether its case takes too long."""
        if self.number is None:
            return False
        used, begun = self.begun
        return self.used() - used > SECONDS or time.monotonic() - begun > CLOCK

    def end(self) -> None:
        """End the process, whatever it is at."""
        self.process.kill()
        self.process.join()
        self.link.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class Report:
    """Counts by kind and outcome, and the faults; written to ``report.json`` again and again."""

    def __init__(self, out: Path, seed: int) -> None:
        """Read what an earlier run left.

        Raises:
            OptionError: it had another seed, or the file is broken.
        """
        self.path, self.seed = out / "report.json", seed
        self.next, self.seconds = 0, 0.0
        self.counts: dict[str, dict[str, int]] = {}
        self.faults: dict[str, dict[str, Any]] = {}
        if not self.path.exists():
            return
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            self.next, self.seconds = int(kept["next"]), float(kept["seconds"])
            self.counts, self.faults, other = kept["counts"], kept["faults"], kept["seed"]
        except (ValueError, KeyError, TypeError) as error:
            raise OptionError(
                f"{self.path} cannot be read: {error}; name another folder"
            ) from error
        if other != seed:
            raise OptionError(f"{out} holds cases of seed {other}; give --seed {other}")

    def add(self, number: int, found: dict[str, Any], folder: str | None) -> None:
        """Count a case, and keep what made a fault."""
        kind, outcome = found["kind"], found["outcome"]
        row = self.counts.setdefault(kind, {})
        row[outcome] = row.get(outcome, 0) + 1
        if outcome not in FAULTS:
            return
        name = f"{outcome}, {kind}, {found['error'].partition(':')[0]} {found['where']}".rstrip()
        fault = self.faults.setdefault(name, {"count": 0, "numbers": []})
        fault["count"] += 1
        if len(fault["numbers"]) < KEPT:
            fault["numbers"].append(number)
            self._keep(number, found, folder)

    def _keep(self, number: int, found: dict[str, Any], folder: str | None) -> None:
        place = self.path.parent / "faults" / str(number)
        if folder is not None and Path(folder).is_dir():
            shutil.copytree(folder, place, dirs_exist_ok=True, symlinks=True)
        place.mkdir(parents=True, exist_ok=True)
        told = {"seed": self.seed, "number": number, **found}
        text = json.dumps(told, indent=2)
        write_atomic(place / "case.json", text.encode())

    def write(self) -> None:
        """Keep the state."""
        kept = {"seed": self.seed, "next": self.next, "seconds": round(self.seconds, 1),
                "counts": self.counts, "faults": self.faults}  # fmt: skip
        write_atomic(self.path, json.dumps(kept, indent=1).encode())

    def text(self) -> str:
        """A table of counts, and every fault."""
        heads = ("cases", OK, REFUSED, *FAULTS)
        lines = [f"{'kind':24}" + "".join(f"{head:>9}" for head in heads)]
        total: Counter[str] = Counter()
        for kind, row in self.counts.items():
            counted = Counter({"cases": sum(row.values()), **row})
            total.update(counted)
            lines.append(f"{kind:24}" + "".join(f"{counted[head]:>9}" for head in heads))
        lines.append(f"{'all':24}" + "".join(f"{total[head]:>9}" for head in heads))
        lines.append(f"{self.seconds / 60:.1f} minutes, seed {self.seed}")
        lines += [
            f"FAULT {name}: {fault['count']} times, cases {fault['numbers']}"
            for name, fault in self.faults.items()
        ]
        return "\n".join(lines)


def fuzz(
    out: Path, seed: int = 0, jobs: int = 1, seconds: float = 60.0, cases: int | None = None
) -> Report:
    """Run cases until the time is up or so many are done; goes on where the folder ends.

    Args:
        out: folder of the report and the reproducers; made if missing.
        seed: of every case.
        jobs: processes.
        seconds: how long.
        cases: at most so many.

    Raises:
        OptionError: the folder belongs to another seed, or cannot be written.
    """
    from examples.fuzz.corpus import build

    out.mkdir(parents=True, exist_ok=True)
    report, corpus = Report(out, seed), build()
    start, before, kept_at = time.monotonic(), report.seconds, time.monotonic()
    last = None if cases is None else report.next + cases
    workers = [Worker(seed, corpus, out) for _ in range(jobs)]

    def more() -> bool:
        return time.monotonic() - start < seconds and (last is None or report.next < last)

    try:
        while any(worker.number is not None for worker in workers) or more():
            ready = wait([worker.link for worker in workers], timeout=0.2)
            for place, worker in enumerate(workers):
                if not _advance(worker, worker.link in ready, report):
                    worker.end()
                    workers[place] = Worker(seed, corpus, out)
                elif worker.folder is not None and worker.number is None and more():
                    worker.give(report.next)
                    report.next += 1
            if time.monotonic() - kept_at > 5:
                report.seconds, kept_at = before + time.monotonic() - start, time.monotonic()
                report.write()
    finally:
        for worker in workers:
            worker.end()
        report.seconds = before + time.monotonic() - start
        report.write()
    return report


def _advance(worker: Worker, ready: bool, report: Report) -> bool:
    """Take what a worker has to say; False if it must be replaced."""
    if ready:
        try:
            said = worker.link.recv()
        except (EOFError, OSError):  # it died
            if worker.number is None:
                raise OptionError(
                    "a worker died before its first case; see libraries.log"
                ) from None
            report.add(worker.number, _lost(worker, CRASH), worker.folder)
            return False
        if worker.folder is None:
            worker.folder = said
        elif worker.number is not None:
            report.add(worker.number, said, worker.folder)
            worker.number = None
        return True
    if worker.hangs() and worker.number is not None:
        report.add(worker.number, _lost(worker, HANG), worker.folder)
        return False
    return True


def _lost(worker: Worker, outcome: str) -> dict[str, Any]:
    kind = kind_of(worker.number or 0)
    return {"kind": kind, "outcome": outcome, "error": "", "where": "", "trace": "", "given": []}


def replay(number: int, seed: int) -> None:
    """Run one case in this process, so that its traceback or a debugger can be seen."""
    import tempfile

    import numpy as np

    from examples.fuzz.corpus import build
    from examples.fuzz.targets import TARGETS, Bench

    with tempfile.TemporaryDirectory() as folder:
        bench, corpus = None, build()
        bench = Bench(corpus, Path(folder))
        os.chdir(folder)
        try:
            TARGETS[kind_of(number)](bench, np.random.default_rng([seed, number]))
        finally:
            print(kind_of(number), bench.told, file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 without a fault, 1 with one, 2 for a wrong argument."""
    parser = argparse.ArgumentParser(prog="examples.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long")
    parser.add_argument("--cases", type=int, help="at most so many")
    parser.add_argument("--seed", type=int, default=0, help="of every case")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=Path("fuzz-results"), help="folder")
    parser.add_argument("--replay", type=int, metavar="NUMBER", help="run one case, here")
    given = parser.parse_args(arguments)
    if given.jobs < 1 or given.seed < 0 or not 0 <= given.minutes < 1e6:
        parser.error("--jobs is 1 or more, --seed and --minutes are 0 or more")
    if given.replay is not None:
        replay(given.replay, given.seed)
        return 0
    try:
        report = fuzz(given.out, given.seed, given.jobs, given.minutes * 60, given.cases)
    except (MmattribError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(report.text())
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
