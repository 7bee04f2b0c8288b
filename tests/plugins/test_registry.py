"""The registry: names, claims, nearest names, missing requirements, options."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattrib.errors import (
    InputError,
    MissingExtraError,
    OptionError,
    PluginError,
    UnknownNameError,
)
from mmattrib.plugins.registry import (
    KINDS,
    PUBLISHED,
    Entry,
    PluginProblem,
    Registry,
    is_installed,
    nearest,
    one_line,
)


def made(**options: Any) -> dict[str, Any]:
    return options


class Odd(BaseException):
    """Neither an exception of the usual kind nor Ctrl-C."""


def never(**options: Any) -> None:
    raise AssertionError("listing must not call a factory")


def test_importing_needs_no_torch() -> None:
    code = (
        "import sys, mmattrib, mmattrib.plugins.registry, mmattrib.plugins, mmattrib.cli;"
        "print([m for m in ('torch', 'matplotlib', 'transformers') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_listing_calls_no_factory() -> None:
    registry = Registry()
    registry.register("backbone", "b", never, modalities=("image",), summary="second")
    registry.register("backbone", "a", never)
    registry.register("method", "a", never)
    assert registry.names("backbone") == ["a", "b"]
    assert [entry.name for entry in registry.entries("backbone")] == ["a", "b"]
    assert registry.get("backbone", "b").modalities == ("image",)
    assert [entry.kind for entry in registry.usable("method")] == ["method"]


def test_create_passes_the_options_on() -> None:
    registry = Registry()
    registry.register("method", "m", made)
    assert registry.create("method", "m", name="x", kind=3) == {"name": "x", "kind": 3}


@pytest.mark.parametrize("name", ["a", "ca-m2ib", "ViT-B.32", "1st", "x_y"])
def test_good_names(name: str) -> None:
    assert Registry().register("metric", name, made).name == name


@pytest.mark.parametrize(
    "name", ["", " a", "a b", "-a", "_a", "a/b", "ä", "a\n", "all", "All", "x" * 101, 3]
)
def test_bad_names(name: Any) -> None:
    with pytest.raises(PluginError, match="cannot name a metric"):
        Registry().register("metric", name, made)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "model"}, "kind must be one of backbone, method, metric, dataset, writer"),
        ({"factory": "module:f"}, "must be callable, got str"),
        ({"summary": "two\nlines"}, "one line"),
        ({"summary": None}, "one line"),
        ({"modalities": "image"}, "sequence of names such as"),
        ({"requires": "torch"}, "sequence of names such as"),
        ({"requires": [""]}, "sequence of names such as"),
        ({"requires": ["a.b"]}, "top-level import names"),
        ({"requires": ["open-clip"]}, "top-level import names"),
        ({"extra": 3}, "must be text"),
    ],
)
def test_bad_registrations(arguments: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"kind": "backbone", "name": "b", "factory": made, **arguments}
    registry = Registry()
    with pytest.raises(PluginError, match=said):
        registry.register(given.pop("kind"), given.pop("name"), given.pop("factory"), **given)
    assert registry.names("backbone") == []


def test_a_name_taken_twice_names_both_and_breaks_no_other() -> None:
    registry = Registry()
    registry.register("method", "saliency", never, distribution="first", version="1.0")
    registry.register("method", "saliency", never, distribution="second", version="2.0")
    registry.register("method", "fine", made, distribution="second")
    registry.register("metric", "saliency", made, distribution="third")

    with pytest.raises(PluginError, match=r"first 1\.0 and by second 2\.0.*pip uninstall second"):
        registry.get("method", "saliency")
    with pytest.raises(PluginError, match=r"first 1\.0"):
        registry.create("method", "saliency")
    assert registry.create("method", "fine") == {}
    assert registry.create("metric", "saliency") == {}
    assert [entry.name for entry in registry.usable("method")] == ["fine"]
    assert [[e.distribution for e in claims] for claims in registry.conflicts()] == [
        ["first", "second"]
    ]


def test_a_claim_to_a_built_in_name_suggests_to_uninstall_the_other() -> None:
    registry = Registry()
    registry.register("backbone", "tiny", never, distribution="intruder")
    registry.register("backbone", "tiny", never)
    with pytest.raises(PluginError, match="pip uninstall intruder"):
        registry.get("backbone", "tiny")


def test_one_distribution_that_registers_a_name_twice_is_to_blame() -> None:
    registry = Registry()
    registry.register("metric", "m", never, distribution="hasty", version="1")
    registry.register("metric", "m", never, distribution="hasty", version="1")
    with pytest.raises(PluginError, match="registered 2 times by hasty 1"):
        registry.get("metric", "m")


def test_an_unknown_name_gives_the_nearest_and_all() -> None:
    registry = Registry()
    for name in ("ca-m2ib", "m2ib", "random"):
        registry.register("method", name, never)
    with pytest.raises(UnknownNameError) as caught:
        registry.get("method", "CA_M2IB")
    said = str(caught.value)
    assert "no method is named 'CA_M2IB'. Did you mean 'ca-m2ib'" in said
    assert "Registered: ca-m2ib, m2ib, random." in said
    assert "pip install" in said
    assert "\n" not in said


def test_an_unknown_name_far_from_all_suggests_none() -> None:
    registry = Registry()
    registry.register("method", "random", never)
    with pytest.raises(UnknownNameError) as caught:
        registry.get("method", "zzz")
    assert "Did you mean" not in str(caught.value)


def test_a_name_of_another_kind_is_unknown() -> None:
    registry = Registry()
    registry.register("method", "m", never)
    with pytest.raises(UnknownNameError, match="Registered: none"):
        registry.get("backbone", "m")


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_mentions_the_broken_plugins_that_might_have_given_it(kind: Any) -> None:
    registry = Registry()
    registry.problems += [
        PluginProblem("lost", "import", "ImportError: no"),
        PluginProblem("half", "register_methods", "ValueError: no"),
    ]
    with pytest.raises(UnknownNameError) as caught:
        registry.get(kind, "wanted")
    assert "lost (import: ImportError: no)" in str(caught.value)
    assert ("half" in str(caught.value)) == (kind == "method")
    assert "`mmattrib plugins`" in str(caught.value)


def test_a_missing_requirement_names_the_extra() -> None:
    registry = Registry()
    registry.register(
        "backbone", "clip", never, requires=("sys", "nowhere_at_all"), extra="mmattrib[clip]"
    )
    assert registry.get("backbone", "clip").missing() == ("nowhere_at_all",)
    with pytest.raises(MissingExtraError) as caught:
        registry.create("backbone", "clip")
    assert str(caught.value) == (
        "backbone 'clip' needs nowhere_at_all, which is not installed; install it with: "
        "pip install 'mmattrib[clip]'"
    )
    assert registry.usable("backbone") == []


def test_a_missing_requirement_without_an_extra_is_named() -> None:
    registry = Registry()
    registry.register("metric", "m", never, requires=("nowhere_a", "nowhere_b"))
    with pytest.raises(MissingExtraError, match="nowhere_a, nowhere_b, which are not installed"):
        registry.require("metric", "m")


def test_is_installed_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_installed("antigravity")  # importing it would open a browser
    assert "antigravity" not in sys.modules
    assert not is_installed("nowhere_at_all")
    monkeypatch.setitem(sys.modules, "antigravity", None)  # how an import is forbidden
    assert not is_installed("antigravity")


def typed(steps: int, *, rate: float = 0.1) -> tuple[int, float]:
    return steps, rate


def test_options_are_held_against_the_signature() -> None:
    registry = Registry()
    registry.register("method", "m", typed)
    assert registry.create("method", "m", steps=3) == (3, 0.1)
    with pytest.raises(OptionError, match=r"no option 'stepz'. Did you mean 'steps'\? Accepted"):
        registry.create("method", "m", stepz=3)
    with pytest.raises(OptionError, match="needs the option 'steps'"):
        registry.create("method", "m", rate=1.0)


def test_an_option_that_a_lazy_factory_passes_on_is_held_against_what_it_calls() -> None:
    registry = Registry()
    registry.register("method", "m", lambda **options: typed(1, **options))
    with pytest.raises(OptionError, match="takes no option 'rat'"):
        registry.create("method", "m", rat=1.0)


def failing(error: Exception) -> Any:
    def factory() -> None:
        raise error

    return factory


@pytest.mark.parametrize("error", [InputError("no such checkpoint"), OSError("disk")])
def test_errors_that_speak_to_the_user_pass_through(error: Exception) -> None:
    registry = Registry()
    registry.register("backbone", "b", failing(error), distribution="other")
    with pytest.raises(type(error)) as caught:
        registry.create("backbone", "b")
    assert caught.value is error


def test_a_fault_of_another_distribution_names_it() -> None:
    registry = Registry()
    cause = ZeroDivisionError("by\nzero")
    registry.register("backbone", "b", failing(cause), distribution="other", version="3")
    with pytest.raises(PluginError, match="from other 3 failed with ZeroDivisionError: by zero"):
        registry.create("backbone", "b")
    registry.register("backbone", "own", failing(cause))
    with pytest.raises(ZeroDivisionError):
        registry.create("backbone", "own")


def test_entries_hold_what_was_registered() -> None:
    entry = Registry().register(
        "backbone", "b", made, summary="s", modalities=["image"], requires=["json"], extra="d[x]",
        distribution="d", version="1", plugin="d:p",
    )  # fmt: skip
    assert entry == Entry(
        "b", "backbone", made, "s", ("image",), ("json",), "d[x]", False, "d", "1", "d:p"
    )
    assert entry.missing() == ()
    assert entry.source == "d 1"


@settings(max_examples=25)
@given(
    st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True), min_size=1, unique=True),
    st.data(),
)
def test_the_name_in_other_letters_is_the_nearest(names: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(names))
    assert nearest(name.upper(), names)[0] == name
    assert set(nearest(name, names)) <= set(names)


def test_an_error_becomes_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "ValueError: a b"
    assert one_line(ValueError()) == "ValueError"
    assert one_line(PluginError("a\nb")) == "a b"
    assert len(one_line(ValueError("x" * 1000))) < 400


def test_an_error_that_cannot_say_what_it_is_becomes_one_line_too() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert one_line(MuteError()) == "MuteError"


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit(), ZeroDivisionError("x"), Odd()])
def test_a_factory_of_others_that_ends_the_program_is_an_error_of_its_plugin(
    error: BaseException,
) -> None:
    def factory() -> None:
        raise error

    registry = Registry()
    registry.register("method", "m", factory, distribution="mm-other", version="2")
    with pytest.raises(PluginError, match=r"mm-other 2 failed with .*report it there") as caught:
        registry.create("method", "m")
    assert caught.value.__cause__ is error


def test_ctrl_c_in_a_factory_stays_ctrl_c() -> None:
    def factory() -> None:
        raise KeyboardInterrupt

    registry = Registry()
    registry.register("method", "m", factory, distribution="mm-other")
    with pytest.raises(KeyboardInterrupt):
        registry.create("method", "m")


def backbones_of(project: Path) -> list[str]:
    """The names that the modules of a distribution's entry points register."""
    found: list[str] = []
    told = tomllib.loads(project.read_text(encoding="utf-8"))
    for label in told["project"]["entry-points"]["mmattrib"].values():
        (path,) = project.parent.glob(f"**/{label}/__init__.py")
        spec = importlib.util.spec_from_file_location(f"registering_{label}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if hook := getattr(module, "register_backbones", None):
            hook(lambda name, *_, **__: found.append(name))
    return found


def test_every_backbone_of_the_folder_of_plugins_is_known_by_name() -> None:
    projects = (Path(__file__).parents[2] / "plugins").glob("*/pyproject.toml")
    found = {name: each.parent.name for each in projects for name in backbones_of(each)}
    assert found == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_backbone_of_a_plugin_that_is_not_installed_says_which(name: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"pip install \./plugins/{PUBLISHED[name]}\."):
        Registry().get("backbone", name)
