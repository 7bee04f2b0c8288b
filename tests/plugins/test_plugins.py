"""Plugins: found through real metadata, each loaded by itself, none able to break another."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import pluggy
import pytest

from mmattrib import hookimpl
from mmattrib.errors import PluginError, UnknownNameError
from mmattrib.plugins import (
    Plugins,
    builtin_modules,
    default_plugins,
    hookspecs,
    load_plugins,
    using_plugins,
)
from mmattrib.plugins.registry import HOOKS

HEAD = "from mmattrib import hookimpl\n"
GOOD = """
@hookimpl
def register_methods(register):
    register("good", dict, summary="a good one")
"""


class Inline:
    """A plugin as a plain object."""

    @hookimpl
    def register_backbones(self, register: hookspecs.Register) -> None:
        register("inline", dict, summary="an object", modalities=("image", "text"))


def distribution(
    where: Path, name: str, source: str, entry: str = "", version: str = "1.2"
) -> None:
    """A distribution as an installer leaves it: a module, and metadata with an entry point."""
    module = name.replace("-", "_")
    (where / f"{module}.py").write_text(textwrap.dedent(source))
    info = where / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[mmattrib]\n{module} = {entry or module}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for module in tmp_path.glob("*.py"):
        sys.modules.pop(module.stem, None)


def test_built_ins_load_without_a_problem() -> None:
    plugins = load_plugins(entry_points=())
    assert plugins.problems == []
    assert {info.name for info in plugins.infos} <= set(builtin_modules())
    assert "tiny" in plugins.registry.names("backbone")
    assert {"ca-m2ib", "m2ib", "nib", "random"} <= set(plugins.registry.names("method"))
    assert plugins.registry.names("metric")
    for kind in ("backbone", "method", "metric"):
        for entry in plugins.registry.entries(kind):
            assert entry.distribution == "mmattrib"
            assert entry.summary, f"{kind} {entry.name} has no summary"


def test_every_hook_of_the_specification_has_a_kind() -> None:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    specified = {name for name in vars(manager.hook) if not name.startswith("_")}
    assert specified == set(HOOKS.values())


def test_an_inline_plugin() -> None:
    plugins = Plugins()
    assert plugins.add(Inline(), name="inline", distribution="test", version="0")
    entry = plugins.registry.get("backbone", "inline")
    assert (entry.distribution, entry.version, entry.plugin) == ("test", "0", "inline")
    assert plugins.infos[0].hooks == ("register_backbones",)
    assert plugins.registry.create("backbone", "inline", a=1) == {"a": 1}


def test_managers_are_independent() -> None:
    first, second = Plugins(), Plugins()
    first.add(Inline(), name="inline", distribution="test")
    assert second.registry.names("backbone") == []


def test_the_default_is_cached_and_can_be_replaced() -> None:
    before = default_plugins()
    assert default_plugins() is before
    other = Plugins()
    with using_plugins(other) as inside:
        assert default_plugins() is inside is other
    assert default_plugins() is before
    with pytest.raises(ZeroDivisionError), using_plugins(other):
        raise ZeroDivisionError
    assert default_plugins() is before


def test_an_entry_point_is_found_and_attributed(site: Path) -> None:
    distribution(site, "mm-good", HEAD + GOOD)
    plugins = load_plugins()
    assert plugins.problems == []
    entry = plugins.registry.get("method", "good")
    assert (entry.distribution, entry.version) == ("mm-good", "1.2")
    assert entry.plugin == "mm-good:mm_good"
    assert "ca-m2ib" in plugins.registry.names("method")


def test_an_entry_point_may_name_an_object(site: Path) -> None:
    source = """
    from mmattrib import hookimpl

    class Plugin:
        @hookimpl
        def register_metrics(self, register):
            register("counted", dict)

    plugin = Plugin()
    """
    distribution(site, "mm-object", source, "mm_object:plugin")
    plugins = load_plugins()
    assert plugins.problems == []
    assert plugins.registry.get("metric", "counted").distribution == "mm-object"


BROKEN = {
    "no module": ("import nowhere_at_all", "", "import", "nowhere_at_all"),
    "syntax": ("def register_methods(:", "", "import", "SyntaxError"),
    "exits": ("raise SystemExit(3)", "", "import", "SystemExit: 3"),
    "raises no exception": (
        "class Odd(BaseException): ...\nraise Odd('out')",
        "",
        "import",
        "Odd: out",
    ),
    "mute": (
        "class Mute(Exception):\n    def __str__(self): raise KeyError\nraise Mute",
        "",
        "import",
        "Mute",
    ),
    "raises no exception in the hook": (
        HEAD + "@hookimpl\ndef register_methods(register): raise GeneratorExit",
        "",
        "register_methods",
        "GeneratorExit",
    ),
    "no attribute": (HEAD + GOOD, "mm_broken:absent", "import", "absent"),
    "wrong argument": (
        HEAD + "@hookimpl\ndef register_methods(registry): ...",
        "",
        "check",
        "registry",
    ),
    "misspelled": (
        HEAD + "@hookimpl\ndef register_method(register): ...",
        "",
        "check",
        "register_method",
    ),
    "unmarked": ("def register_methods(register): ...", "", "check", "@mmattrib.hookimpl"),
    "no hook": ("x = 1", "", "check", "implements no hook"),
    "class": (
        HEAD + "class P:\n    @hookimpl\n    def register_methods(self, register): ...",
        "mm_broken:P",
        "check",
        "the class P",
    ),
    "raises": (
        HEAD + "@hookimpl\ndef register_methods(register): raise KeyError('gone')",
        "",
        "register_methods",
        "KeyError: 'gone'",
    ),
    "exits in the hook": (
        HEAD + "@hookimpl\ndef register_methods(register): raise SystemExit",
        "",
        "register_methods",
        "SystemExit",
    ),
    "bad name": (
        HEAD + "@hookimpl\ndef register_methods(register): register('a b', dict)",
        "",
        "register_methods",
        "'a b' cannot name a method",
    ),
    "bad call": (
        HEAD + "@hookimpl\ndef register_methods(register): register('a', dict, colour='red')",
        "",
        "register_methods",
        "colour",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_reported_and_breaks_nothing_else(site: Path, case: str) -> None:
    source, entry, stage, said = BROKEN[case]
    distribution(site, "mm-broken", source, entry)
    distribution(site, "mm-good", HEAD + GOOD)
    plugins = load_plugins()

    assert len(plugins.problems) == 1
    problem = plugins.problems[0]
    assert (problem.distribution, problem.stage) == ("mm-broken", stage)
    assert said in problem.message
    assert "\n" not in problem.message
    assert plugins.registry.create("method", "good", x=1) == {"x": 1}
    assert "tiny" in plugins.registry.names("backbone")
    with pytest.raises(UnknownNameError, match="mm-broken"):
        plugins.registry.get("method", "lost")


def test_a_plugin_that_fails_in_one_hook_keeps_the_others(site: Path) -> None:
    distribution(
        site,
        "mm-half",
        HEAD
        + "@hookimpl\ndef register_metrics(register): raise OSError('disk')\n"
        + "@hookimpl\ndef register_methods(register): register('half', dict)\n",
    )
    plugins = load_plugins()
    assert [(p.stage, p.message) for p in plugins.problems] == [
        ("register_metrics", "OSError: disk")
    ]
    assert plugins.registry.get("method", "half").distribution == "mm-half"


def test_a_refused_plugin_leaves_nothing_behind() -> None:
    def register_methods(register: Any) -> None:
        register("never", dict)

    def register_metrics(wrong: Any) -> None: ...

    plugin = ModuleType("refused")
    vars(plugin).update(
        register_methods=hookimpl(register_methods), register_metrics=hookimpl(register_metrics)
    )
    plugins = Plugins()
    assert not plugins.add(plugin, name="p", distribution="d")
    assert plugins.registry.names("method") == []
    assert plugins.manager.get_plugins() == set()
    assert plugins.infos == []


def test_two_distributions_that_claim_one_name(site: Path) -> None:
    distribution(site, "mm-one", HEAD + GOOD, version="1.0")
    distribution(site, "mm-two", HEAD + GOOD, version="2.0")
    plugins = load_plugins()
    assert plugins.problems == []
    with pytest.raises(PluginError, match=r"mm-(one|two).*mm-(one|two)") as caught:
        plugins.registry.create("method", "good")
    assert "mm-one 1.0" in str(caught.value)
    assert "mm-two 2.0" in str(caught.value)
    assert plugins.registry.get("method", "ca-m2ib").distribution == "mmattrib"


def test_a_plugin_cannot_take_over_a_built_in_name(site: Path) -> None:
    distribution(site, "mm-thief", HEAD + GOOD.replace('"good"', '"ca-m2ib"'))
    registry = load_plugins().registry
    with pytest.raises(PluginError, match="pip uninstall mm-thief"):
        registry.create("method", "ca-m2ib")
    assert registry.get("method", "m2ib").distribution == "mmattrib"


def test_a_plugin_registered_twice_is_reported() -> None:
    plugin, plugins = Inline(), Plugins()
    assert plugins.add(plugin, name="a", distribution="d")
    assert not plugins.add(plugin, name="b", distribution="d")
    assert not plugins.add(Inline(), name="a", distribution="d")
    assert [problem.stage for problem in plugins.problems] == ["check", "check"]
    assert len(plugins.registry.entries("backbone")) == 1


def test_an_object_whose_attributes_fail_is_reported() -> None:
    class Hostile:
        @property
        def register_methods(self) -> None:
            raise ZeroDivisionError("surprise")

    plugins = Plugins()
    assert not plugins.add(Hostile(), name="h", distribution="d")
    assert "surprise" in plugins.problems[0].message or "no hook" in plugins.problems[0].message


def test_an_object_that_cannot_be_hashed_is_refused_before_it_can_harm() -> None:
    def register_methods(register: Any) -> None: ...

    plugins = Plugins()
    plugins.add(Inline(), name="inline", distribution="test")
    unhashable = SimpleNamespace(register_methods=hookimpl(register_methods))
    assert not plugins.add(unhashable, name="u", distribution="d")
    assert "hashable" in plugins.problems[0].message
    assert plugins.manager.get_plugins()


def test_a_built_in_that_cannot_be_imported_is_reported() -> None:
    plugins = load_plugins(builtins=("mmattrib.nowhere", *builtin_modules()), entry_points=())
    assert [(p.distribution, p.stage) for p in plugins.problems] == [("mmattrib", "import")]
    assert "mmattrib.nowhere" in plugins.problems[0].message
    assert "tiny" in plugins.registry.names("backbone")


def test_damaged_metadata_of_the_environment_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(**_: Any) -> None:
        raise ValueError("bad metadata")

    monkeypatch.setattr("mmattrib.plugins.loading.metadata.entry_points", damaged)
    plugins = load_plugins()
    assert plugins.problems[0].message == "ValueError: bad metadata"
    assert "tiny" in plugins.registry.names("backbone")


def commands_plugin(*names: str, error: Exception | None = None) -> object:
    def register_commands(cli: click.Group) -> None:
        for name in names:
            cli.command(name)(lambda: click.echo("ran"))
        if error is not None:
            raise error

    plugin = ModuleType("commands")
    plugin.register_commands = hookimpl(register_commands)  # type: ignore[attr-defined]
    return plugin


def test_commands_are_collected_once_and_by_plugin() -> None:
    plugins = Plugins()
    plugins.add(commands_plugin("hello"), name="a", distribution="a")
    assert list(plugins.commands()) == ["hello"]
    assert list(plugins.commands()) == ["hello"]
    plugins.add(commands_plugin("bye"), name="b", distribution="b")
    assert list(plugins.commands()) == ["bye", "hello"]
    assert plugins.problems == []


def test_commands_that_collide_or_fail_are_left_out() -> None:
    plugins = Plugins()
    plugins.add(commands_plugin("same", "mine"), name="a", distribution="a")
    plugins.add(commands_plugin("same", "demo"), name="b", distribution="b")
    plugins.add(commands_plugin("kept", error=ValueError("late")), name="c", distribution="c")
    assert list(plugins.commands(own=["demo"])) == ["kept", "mine"]
    assert [(p.distribution, p.stage) for p in plugins.problems] == [
        ("b", "register_commands"),
        ("c", "register_commands"),
    ]
    with pytest.raises(PluginError, match="by a and by b"):
        plugins.registry.get("command", "same")
