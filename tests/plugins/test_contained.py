"""Code of other distributions leaves the process as it was, and standard output to the program."""

from __future__ import annotations

import json
import locale
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch

from mmattrib.plugins.contained import contained, stdout_on_stderr

NOISY = """
import os, signal, subprocess, sys, warnings
from mmattrib import hookimpl

print("imported")
sys.__stdout__.write("imported, by way of the original\\n")
os.write(1, b"imported, by way of the descriptor\\n")
subprocess.run([sys.executable, "-c", "print('imported, by a child')"])
os.chdir("/")
warnings.simplefilter("error")
signal.signal(signal.SIGINT, signal.SIG_IGN)

@hookimpl
def register_backbones(register):
    print("hook")
    register("loud", load, summary="two colours: \\x1b[31mred\\u202e", modalities=("image",))

def load():
    print("factory")
    sys.exit(0)
"""


def install(where: Path, source: str, name: str = "mm-noisy\x1b[31m") -> dict[str, str]:
    """A distribution as an installer leaves it; the environment that finds it."""
    (where / "mm_noisy.py").write_text(textwrap.dedent(source), encoding="utf-8")
    info = where / "mm_noisy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mmattrib]\nnoisy = mm_noisy\n")
    path = os.pathsep.join([str(where), *sys.path])
    return {**os.environ, "PYTHONPATH": path}


def program(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmattrib", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=env,
    )


@pytest.mark.parametrize("command", ["backbones", "plugins"])
def test_a_plugin_that_prints_leaves_json_clean(tmp_path: Path, command: str) -> None:
    found = program(command, "--json", env=install(tmp_path, NOISY))
    assert found.returncode == 0, found.stderr
    assert "loud" in found.stdout
    json.loads(found.stdout)
    assert not any(c in found.stdout for c in "\x1b\u202e")
    for said in ("imported", "by way of the original", "the descriptor", "by a child", "hook"):
        assert said in found.stderr


@pytest.mark.parametrize("command", ["backbones", "plugins", "--help"])
def test_no_escape_sequence_of_a_plugin_reaches_the_terminal(tmp_path: Path, command: str) -> None:
    found = program(command, env=install(tmp_path, NOISY))
    assert found.returncode == 0, found.stderr
    assert not any(c in found.stdout for c in "\x1b\u202e")


def test_a_factory_that_exits_is_named_and_ends_nothing(tmp_path: Path) -> None:
    pair = ("--image", str(tmp_path / "a.npy"), "--text", "a dog")
    found = program("attribute", "--backbone", "loud", *pair, env=install(tmp_path, NOISY))
    assert found.returncode == 2
    assert found.stdout == ""


def disturb() -> None:
    os.chdir("/")
    warnings.simplefilter("ignore")
    warnings.showwarning = print  # type: ignore[assignment]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    locale.setlocale(locale.LC_ALL, "C")
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    raise ZeroDivisionError


def shared() -> tuple[object, ...]:
    return (
        Path.cwd(),
        list(warnings.filters),
        warnings.showwarning,
        signal.getsignal(signal.SIGTERM),
        locale.setlocale(locale.LC_ALL),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )


def test_what_the_process_shares_is_put_back() -> None:
    before = shared()
    with pytest.raises(ZeroDivisionError), contained():
        disturb()
    assert shared() == before


def test_standard_output_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with stdout_on_stderr():
        print("inside")
    print("outside")
    assert capsys.readouterr() == ("outside\n", "inside\n")
