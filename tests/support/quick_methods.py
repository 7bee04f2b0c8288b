"""Every registered method, research included, and a small budget for each."""

from __future__ import annotations

from dataclasses import fields

import mmattrib as mm
from mmattrib.plugins import default_plugins

NAMES = default_plugins().registry.names("method")

_SMALL = {"points": 4, "guide_points": 2, "draws_behind": 2, "steps": 3, "samples": 2}

_OWN = {
    "rise": {"samples": 8, "cells": 3},
    "kernel-shap": {"samples": 12, "cells": 3},
    "leave-one-out": {"cells": 3},
}
"""Methods that need another, by name."""


def quick(name: str) -> dict[str, int]:
    """A small budget, of whatever options the method has."""
    given = {each.name for each in fields(mm.load_method(name).options)}
    own = {option: value for option, value in _SMALL.items() if option in given}
    return {**own, **_OWN.get(name, {})}
