"""What the program does whatever the command: help, version, faults, Ctrl-C."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType

import click
import pytest
from cli_program import Run

import mmattrib
from mmattrib import hookimpl
from mmattrib.cli import main
from mmattrib.cli.program import COMMANDS, warnings_as_lines
from mmattrib.cli.reference import reference
from mmattrib.errors import MmattribError, TrustWarning
from mmattrib.plugins import Plugins, using_plugins

ROOT = Path(__file__).parents[2]


def test_version(run: Run) -> None:
    assert run("--version").out == f"mmattrib, version {mmattrib.__version__}\n"


def test_no_command_shows_the_help(run: Run) -> None:
    result = run()
    assert result.code == 0
    assert result.out == run("--help").out == run("-h").out
    for name in COMMANDS:
        assert f"  {name} " in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, run: Run) -> None:
    result = run(name, "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: mmattrib {name}")
    command = main.get_command(click.Context(main), name)
    assert command is not None
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.name} has no help"


def test_the_reference_in_the_docs_is_the_help_of_the_commands() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == reference(), "run: python -m mmattrib.cli.reference docs/cli.md"


def raising(error: BaseException) -> Plugins:
    """Plugins with one command, `fail`, that raises."""

    def register_commands(cli: click.Group) -> None:
        @cli.command()
        def fail() -> None:
            raise error

    plugin = ModuleType("failing")
    vars(plugin)["register_commands"] = hookimpl(register_commands)
    plugins = Plugins()
    assert plugins.add(plugin, name="failing", distribution="failing")
    return plugins


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MmattribError("two\nlines"), 2, "Error: two lines\n"),
        (FileNotFoundError(2, "No such file", "a.png"), 2, "Error: a.png: No such file\n"),
        (OSError("disk full"), 2, "Error: disk full\n"),
        (click.UsageError("wrong flag"), 2, "Error: wrong flag; see `mmattrib fail --help`\n"),
        (click.ClickException("no"), 1, "Error: no\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            ZeroDivisionError("by zero"),
            1,
            "Error: unexpected ZeroDivisionError: by zero; this is a fault of the program. Run "
            "again with `mmattrib --debug ...` to see where.\n",
        ),
    ],
)
def test_each_error_has_its_code_and_one_line(
    error: BaseException, code: int, said: str, run: Run
) -> None:
    with using_plugins(raising(error)):
        result = run("fail")
    assert (result.code, result.out, result.err.lstrip("\n")) == (code, "", said)


def test_only_trust_warnings_are_reworded(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        with warnings_as_lines():
            warnings.warn("look\nout", TrustWarning, stacklevel=1)
            warnings.warn("look\nout", TrustWarning, stacklevel=1)
        warnings.warn("after", TrustWarning, stacklevel=1)
    assert capsys.readouterr().err == "Warning: look out\n" * 2
    assert [str(w.message) for w in others] == ["after"]
