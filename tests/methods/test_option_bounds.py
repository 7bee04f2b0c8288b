"""An absurd value of an option is refused before anything is computed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

import mmattrib as mm
from mmattrib.errors import OptionError
from mmattrib.methods.options import limits_of
from mmattrib.plugins import default_plugins

WHOLE: list[tuple[str, str]] = []
for _entry in default_plugins().registry.usable("method", research=True):
    _options: Any = _entry.factory.__self__.Options  # type: ignore[attr-defined]
    WHOLE += [(_entry.name, each.name) for each in fields(_options) if type(each.default) is int]


@pytest.mark.parametrize(("method", "option"), WHOLE)
def test_every_whole_number_is_bounded_on_both_sides(method: str, option: str) -> None:
    options: Any = default_plugins().registry.get("method", method).factory
    limits = limits_of(options.__self__.Options, option)
    assert limits.least is not None
    assert limits.most is not None
    assert limits.most <= (2**63 if option == "seed" else 100_000)
    for absurd in (10**19, -(10**19), 10**300, 1e308):
        with pytest.raises(OptionError, match=option):
            mm.load_method(method, **{option: absurd})
