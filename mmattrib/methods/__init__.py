"""Attribution methods, one file each, with its registration. Importing them imports no torch.

A new method subclasses :class:`Method` and writes ``explain`` alone; see ``base``.
"""

from __future__ import annotations

from mmattrib.methods.base import (
    Method,
    MethodOptions,
    SeededOptions,
    Side,
    SideScores,
    guide_of,
    option,
)

__all__ = [
    "Method",
    "MethodOptions",
    "SeededOptions",
    "Side",
    "SideScores",
    "guide_of",
    "option",
]
