"""Names of a package that are imported when they are first used, so that start-up stays quick.

``np`` and ``npt`` are numpy and its types, imported when something of them is first asked for:
``from mmattrib.lazy import np, npt`` in every module that listings import. A type alias of theirs
is written as text there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["lazy_names", "np", "npt"]


class _Later(ModuleType):
    """Stands for a module until something of it is asked for, and keeps what was asked."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np, npt = _Later("numpy"), _Later("numpy.typing")


def lazy_names(package: str, home: Mapping[str, str]) -> Callable[[str], Any]:
    """What a package takes as its ``__getattr__``, which Python asks for names that it lacks.

    Args:
        package: the package's ``__name__``.
        home: name -> the module below the package that holds it.

    Returns:
        A function of a name that imports its module and keeps what it found in the package; it
        raises AttributeError for a name without a home.
    """

    def find(name: str) -> Any:
        try:
            module = home[name]
        except KeyError:
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None
        value = getattr(import_module(f"{package}.{module}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
