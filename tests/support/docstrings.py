"""What of a module has no docstring, and would need one in the package."""

from __future__ import annotations

import inspect
from types import ModuleType


def undocumented(module: ModuleType) -> list[str]:
    """Public functions, classes and methods of a module that say nothing of themselves."""
    found = [] if module.__doc__ else [module.__name__]
    for label, value in vars(module).items():
        if label.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if not (inspect.isfunction(value) or inspect.isclass(value)):
            continue
        if not inspect.getdoc(value):
            found.append(f"{module.__name__}.{label}")
        if inspect.isclass(value):
            found += [f"{module.__name__}.{label}.{part}" for part in _silent_methods(value)]
    return found


def _silent_methods(kind: type) -> list[str]:
    """An overriding method inherits its docstring; one of another library is not ours."""
    here = (kind.__module__, "mmattrib")
    return [
        part
        for part, member in inspect.getmembers(kind, inspect.isfunction)
        if member.__module__.startswith(here)
        and not part.startswith("_")
        and not member.__name__.startswith("_")
        and not inspect.getdoc(getattr(kind, part))
    ]
