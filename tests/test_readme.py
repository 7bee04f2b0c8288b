"""What the README shows is what runs."""

from __future__ import annotations

import re
import runpy
import shlex
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmattrib.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _block(language: str, contains: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    (found,) = [block for block in blocks if contains in block]
    return str(found)


def test_the_python_example_is_the_file_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = ROOT / "examples" / "first_steps.py"
    assert _block("python", "import mmattrib") == example.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example))
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert "similarity" in capsys.readouterr().out


def test_every_command_shown_exists() -> None:
    lines = _block("sh", "mmattrib attribute").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    assert len(commands) >= 4
    for command in commands:
        assert command[0] == "mmattrib"
        shown = CliRunner().invoke(main, [command[1], "--help"]).output
        for word in command[2:]:
            if word.startswith("--"):
                assert word in shown, f"{command[1]} {word}"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_both_commands_make_their_own_environment() -> None:
    for mark, does in (("demo", "mmattrib demo"), ("test", "pytest")):
        (command,) = re.findall(rf"<!-- {mark} -->\n```sh\n(.*)\n```", README)
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -e ")
        assert command.endswith(does)


def test_torch_is_bounded_to_what_torchaudio_works_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {d.split(">=")[0]: d for d in project["dependencies"]}
    assert "<2.15" in bounds["torch"]
