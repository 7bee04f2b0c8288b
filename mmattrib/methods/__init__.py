"""Attribution methods, one file each. Importing this package imports no torch.

A new method subclasses :class:`Method` and writes ``explain`` alone; see ``base``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmattrib.methods.base import Method, MethodOptions, Side, SideScores

__all__ = ["Method", "MethodOptions", "Side", "SideScores"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("mmattrib.methods.base"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
