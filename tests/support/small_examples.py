"""What makes a small example of a registered thing: a function in a test module of its room.

``small_NAME`` (``-`` is written ``_``) in any ``tests/ROOM/test_*.py``, found by its name, so that
a new backbone, data set, method or metric is its own file and its own test file, and nothing else.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
ROOMS = {kind: TESTS / f"{kind}s" for kind in ("backbone", "dataset", "method", "metric")}


def function_of(name: str) -> str:
    """What the function is called that makes a small example of a name."""
    return "small_" + re.sub(r"\W", "_", name)


@cache
def makers(room: Path) -> Mapping[str, Path]:
    """The functions that the test modules of a room hold, and where each stands."""
    found: dict[str, Path] = {}
    for path in sorted(room.glob("test_*.py")):
        for name in re.findall(r"^def (small_\w+)\(", path.read_text(encoding="utf-8"), re.M):
            if name in found:
                pytest.fail(f"{name} stands in {found[name].name} and in {path.name}: keep one")
            found[name] = path
    return found


def maker(kind: str, name: str) -> Callable[..., Any] | None:
    """The function that makes a small example of a registered thing, if a test module has one."""
    path = makers(ROOMS[kind]).get(function_of(name))
    return None if path is None else getattr(_module(path), function_of(name))


def needed(kind: str, name: str, gives: str) -> Callable[..., Any]:
    """The same, where there is no doing without; fails with what to write."""
    made = maker(kind, name)
    if made is None:
        pytest.fail(
            f"there is no small example of the {kind} {name!r}: write def {function_of(name)}"
            f"(folder: Path), which gives {gives}, in tests/{ROOMS[kind].name}/"
            f"test_{function_of(name).removeprefix('small_')}.py"
        )
    return made


def _module(path: Path) -> ModuleType:
    """A test module: as pytest collected it, or loaded beside it."""
    label = ".".join(path.relative_to(TESTS.parent).with_suffix("").parts)
    for known in (label, f"small_examples_of.{label}"):
        if known in sys.modules:
            return sys.modules[known]
    spec = importlib.util.spec_from_file_location(f"small_examples_of.{label}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
