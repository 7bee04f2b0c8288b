"""`mmattrib backbones | methods | metrics | plugins`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from types import ModuleType

import click
import pytest
from cli_program import Run

from mmattrib import hookimpl
from mmattrib.cli.listing import table
from mmattrib.plugins import Plugins, default_plugins
from mmattrib.plugins.hookspecs import Register
from mmattrib.plugins.registry import KINDS, Kind, PluginProblem

LISTINGS = ("backbones", "methods", "metrics", "plugins")


@pytest.mark.parametrize("command", LISTINGS)
def test_listing_imports_no_model_library(command: str) -> None:
    code = (
        "import sys\n"
        "from mmattrib.cli import main\n"
        f"main(['{command}', '--json'], standalone_mode=False)\n"
        "found = [m for m in ('torch', 'torchaudio', 'matplotlib', 'PIL') if m in sys.modules]\n"
        "print(found, file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr.strip() == "[]"
    json.loads(found.stdout)


@pytest.mark.skipif(os.name != "posix", reason="measures processor time as POSIX gives it")
def test_listing_is_quick() -> None:
    import resource

    def seconds(command: list[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True, env=kept)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)

    # Python keeps what it compiled unless it is told not to: the first start alone compiles.
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    # Processor time, the least of some, and against a start of numpy and click on this machine as
    # it is now: other work slows both.
    listing = [sys.executable, "-m", "mmattrib", "backbones"]
    bare = [sys.executable, "-c", "import numpy, click, importlib.metadata"]
    found = [(seconds(listing), seconds(bare)) for _ in range(3)]
    least, start = (min(column) for column in zip(*found, strict=True))
    assert least < 0.25 or least < 2.5 * start, found


def test_backbones(run: Run, plugins: Plugins) -> None:
    result = run("backbones")
    assert (result.code, result.err) == (0, "")
    head, *rows = result.out.splitlines()
    assert head.split() == ["NAME", "MODALITIES", "STATE", "FROM", "SUMMARY"]
    small = next(row for row in rows if row.startswith("small "))
    assert "image, text" in small
    assert "ready" in small
    assert "mm-small 0.1" in small
    assert small.endswith("random weights")
    absent = next(row for row in rows if row.startswith("absent "))
    assert "pip install 'mm-x[absent]'" in absent
    assert any(row.startswith("tiny ") and "image, audio, text" in row for row in rows)


def test_backbones_json(run: Run, plugins: Plugins) -> None:
    found = {entry["name"]: entry for entry in json.loads(run("backbones", "--json").out)}
    assert found["small"] == {
        "name": "small",
        "state": "ready",
        "todo": None,
        "missing": [],
        "summary": "random weights",
        "distribution": "mm-small",
        "version": "0.1",
        "modalities": ["image", "text"],
    }
    assert found["absent"]["state"] == "missing"
    assert found["absent"]["missing"] == ["nowhere_at_all"]
    assert found["absent"]["todo"] == "pip install 'mm-x[absent]'"


def test_methods_and_metrics(run: Run, plugins: Plugins) -> None:
    methods = [entry["name"] for entry in json.loads(run("methods", "--json").out)]
    assert {"ca-m2ib", "ca-m2ib-literal", "m2ib", "nib", "random"} <= set(methods)
    metrics = json.loads(run("metrics", "--json").out)
    assert metrics
    for command in ("methods", "metrics"):
        listed = run(command).out
        for entry in json.loads(run(command, "--json").out):
            assert f"\n{entry['name']} " in listed
            assert entry["summary"] in listed


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "command"])
def test_every_listing_is_plain_words(run: Run, kind: Kind) -> None:
    """No type of Python's that is none, and no markup of docstrings."""
    names = default_plugins().registry.names(kind)
    assert names
    for arguments in (["--all"], ["--help"], *([name] for name in names)):
        told = run(f"{kind}s", *arguments).out
        assert not re.findall(r"NoneType|``|:\w+:`|<class", told), (arguments, told)
    for name in names:
        for option in json.loads(run(f"{kind}s", name, "--json").out)["options"]:
            assert option["summary"], (name, option["name"])


class Rival:
    """Claims a name of another plugin."""

    @hookimpl
    def register_backbones(self, register: Register) -> None:
        register("small", dict)


def test_plugins_shows_what_each_gives_and_what_is_wrong(run: Run, plugins: Plugins) -> None:
    plugins.add(Rival(), name="rival", distribution="mm-rival", version="9")
    plugins.problems.append(PluginProblem("mm-broken", "import", "ImportError: gone"))
    plugins.add(ModuleType("empty"), name="empty", distribution="mm-empty")
    result = run("plugins")
    assert result.code == 0
    assert "inline  (mm-small 0.1)\n  backbones: absent, small\n" in result.out
    assert "Problem: mm-broken, import: ImportError: gone\n" in result.out
    assert "Problem: mm-empty, check: it implements no hook" in result.out
    assert "Problem: backbone 'small' is claimed by mm-small 0.1 and by mm-rival 9" in result.out

    found = json.loads(run("plugins", "--json").out)
    assert {"mm-broken", "mm-empty"} == {p["distribution"] for p in found["problems"]}
    assert found["conflicts"][0]["distributions"] == ["mm-small", "mm-rival"]
    inline = next(p for p in found["plugins"] if p["name"] == "inline")
    assert inline["gives"] == {"backbones": ["absent", "small"]}
    assert inline["hooks"] == ["register_backbones"]

    listed = run("backbones")
    assert listed.code == 0
    assert "tiny" in listed.out
    assert listed.err.startswith("Warning: some plugins have problems")
    taken = run("attribute", "--backbone", "small", "--text", "a", "--image", "a.png")
    assert taken.code == 2
    assert "mm-small 0.1 and by mm-rival 9" in taken.err


def hello_plugin() -> ModuleType:
    def register_commands(cli: click.Group) -> None:
        @cli.command()
        @click.option("--name", default="you")
        def hello(name: str) -> int:
            """Greet."""
            click.echo(f"hello {name}")
            return 7

        @cli.command("demo")
        def another() -> None: ...

    plugin = ModuleType("hello")
    vars(plugin)["register_commands"] = hookimpl(register_commands)
    return plugin


def test_a_plugin_adds_a_command_and_cannot_replace_one(run: Run, plugins: Plugins) -> None:
    plugins.add(hello_plugin(), name="hello", distribution="mm-hello", version="1")
    result = run("hello", "--name", "there")
    assert (result.code, result.out) == (0, "hello there\n")
    listed = run("--help").out
    assert "  hello      Greet.\n" in listed
    assert "see the demo" not in run("demo", "--help").out
    assert "Their truth is known" in run("demo", "--help").out
    problems = json.loads(run("plugins", "--json").out)["problems"]
    assert [(p["distribution"], p["stage"]) for p in problems] == [
        ("mm-hello", "register_commands")
    ]
    assert "'demo' is a command of mmattrib's own" in problems[0]["message"]


def test_a_table_lines_up() -> None:
    assert table(["A", "LONG"], [["xyz", "1"], ["", "22"]]) == "A    LONG\nxyz  1\n     22"


def test_a_dataset_holds_what_a_backbone_embeds(run: Run) -> None:
    assert "holds image, audio, text" in run("datasets", "pairs").out
    assert "embeds image, audio, text" in run("backbones", "tiny").out


def test_a_mistyped_method_is_answered_without_the_research_methods(run: Run) -> None:
    result = run("methods", "m2ibb")
    assert result.code != 0
    assert "ca-m2ib" in result.err
    assert "descent" not in result.err
