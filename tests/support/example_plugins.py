"""The example plugins, loaded as plugins are."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from mmattrib.plugins import Plugins, load_plugins

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "plugins"
LINES = {"encoder": 40, "method": 15, "metric": 10, "dataset": 20}
"""The examples, and of how many lines each may be, blank ones aside."""


def module_of(name: str) -> ModuleType:
    """An example as a module that can be imported, so that what it defines can be pickled."""
    label = f"example_{name}"
    if label not in sys.modules:
        spec = importlib.util.spec_from_file_location(label, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[label] = module
        spec.loader.exec_module(module)
    return sys.modules[label]


def with_examples() -> Plugins:
    """The built-in plugins and every example."""
    plugins = load_plugins(entry_points=())
    for name in LINES:
        plugins.add(module_of(name), name=f"example:{name}", distribution="examples")
    return plugins
