"""Every registered method, research included, and a small budget for each."""

from __future__ import annotations

from dataclasses import fields

from small_examples import maker

import mmattrib as mm
from mmattrib.plugins import default_plugins

NAMES = default_plugins().registry.names("method")

_SMALL = {"points": 4, "guide_points": 2, "draws_behind": 2, "steps": 3, "samples": 2}


def quick(name: str) -> dict[str, int]:
    """A small budget, of whatever options the method has.

    ``small_NAME()`` in a test module of tests/methods says what a method needs beside or instead.
    """
    given = {each.name for each in fields(mm.load_method(name).options)}
    own = {option: value for option, value in _SMALL.items() if option in given}
    more = maker("method", name)
    return {**own, **(more() if more else {})}
