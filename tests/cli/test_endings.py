"""Signals, closed pipes and full disks end the program with the right code and leave nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmattrib.cli.endings import Ended, exit_code, signals_as_exceptions
from mmattrib.cli.speech import clean, dump

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as in POSIX")
SECONDS = 3.0
"""Within which the program ends after Ctrl-C."""


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mmattrib", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell that runs the tests in the background makes its children ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def group(leader: int) -> list[int]:
    """The processes of a session, by way of /proc; those that have ended and wait are left out."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if state != "Z" and int(fields[2]) == leader:
            found.append(int(entry.parent.name))
    return found


def computing(leader: int) -> list[int]:
    """Those of them that have loaded torch."""
    found = []
    for pid in group(leader):
        with contextlib.suppress(OSError):  # it has ended
            if "libtorch" in Path(f"/proc/{pid}/maps").read_text():
                found.append(pid)
    return found


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),  # the same way
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_program_and_leaves_nothing(
    number: int, code: int, tmp_path: Path
) -> None:
    with start("scenes", "--out", tmp_path / "s", "--n", 100000) as program:
        try:
            wait_for(
                lambda: any(tmp_path.glob(".s.*/scene-*/truth.json")) or program.poll() is not None
            )
            program.send_signal(number)
            out, err = program.communicate(timeout=60)
        finally:
            program.kill()
    assert program.returncode == code
    assert (out, err.strip()) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_being_written_is_taken_away(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from mmattrib.cli.endings import signals_as_exceptions, exit_code\n"
        "from mmattrib.files import write_atomic\n"
        "def slow(_):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "os.fsync = slow\n"
        "with signals_as_exceptions():\n"
        "    try:\n"
        "        write_atomic(sys.argv[1], b'x')\n"
        "    except KeyboardInterrupt as error:\n"
        "        sys.exit(exit_code(error))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.json")], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        assert any(tmp_path.glob(".mmattrib-*.tmp"))
        program.terminate()
        assert program.wait(60) == 143
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("stage", ["importing", "working"])
def test_ctrl_c_ends_an_evaluation_of_several_processes_at_once(stage: str, tmp_path: Path) -> None:
    store = tmp_path / "kept.jsonl"
    given = ("--limit", 40, "--jobs", 2, "--resume", store, "--metric", "auc")
    with start("evaluate", *given, "--method", "m2ib:steps=4000") as program:
        try:
            if stage == "importing":  # the leader, the tracker of resources, two workers
                wait_for(lambda: len(group(program.pid)) >= 4 or program.poll() is not None)
            else:
                wait_for(lambda: len(computing(program.pid)) >= 3 or program.poll() is not None)
                time.sleep(1)
            assert program.poll() is None, program.stderr and program.stderr.read()
            begun = time.monotonic()
            os.killpg(program.pid, signal.SIGINT)  # as a terminal does
            out, err = program.communicate(timeout=60)
            took = time.monotonic() - begun
            left = group(program.pid)
        finally:
            program.kill()
    assert program.returncode == 130
    assert took < SECONDS * (1 + os.getloadavg()[0] / (os.cpu_count() or 1))
    wait_for(lambda: not group(program.pid), 3)
    assert out == ""
    assert "Traceback" not in err, err
    assert len(left) <= 1  # the tracker of resources may take a moment


def test_a_reader_that_leaves_is_no_error() -> None:
    line = f"{sys.executable} -m mmattrib methods ca-m2ib --json | head -c 10"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert len(done.stdout) == 10
    assert done.stderr == ""
    with start("methods") as program:
        assert program.stdout is not None
        program.stdout.close()
        assert program.wait(60) == 1
        assert program.stderr is not None
        assert program.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mmattrib", "methods"], stdout=full, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "Error: No space left on device\n"


def test_the_code_is_that_of_the_signal_however_it_was_wrapped() -> None:
    assert exit_code(KeyboardInterrupt()) == 130
    assert exit_code(Ended(signal.SIGTERM)) == 143
    wrapped = RuntimeError()
    wrapped.__cause__ = Ended(signal.SIGHUP)
    assert exit_code(wrapped) == 129


def test_handlers_are_put_back_and_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    usual = signal.getsignal(signal.SIGTERM)
    try:
        with signals_as_exceptions():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != usual or usual != signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == usual
    finally:
        signal.signal(signal.SIGHUP, before)


EVIL = "a\x1b[31m\x07\x9b2J\u202edog\ud800\x00\r\u2066\u2028z"


def test_what_is_printed_commands_no_terminal() -> None:
    cleaned = clean(f"{EVIL}\n\tnext: é 👩‍👩‍👧 ไทย")
    assert cleaned == (
        "a\\x1b[31m\\x07\\x9b2J\\u202edog\\ud800\\x00\\r\\u2066\\u2028z\n\tnext: é 👩‍👩‍👧 ไทย"
    )


def test_json_loses_nothing_and_is_valid_in_utf_8() -> None:
    text = dump({"name": EVIL})
    assert json.loads(text) == {"name": EVIL}
    assert text.encode("utf-8").decode("utf-8") == text
    assert clean(text) == text
