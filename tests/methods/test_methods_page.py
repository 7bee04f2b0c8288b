"""docs/methods.md has every registered method that listings show."""

from __future__ import annotations

import re
from pathlib import Path

from mmattrib.plugins import default_plugins
from mmattrib.plugins.registry import OWN_DISTRIBUTION

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_table_is_that_of_the_registry() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    entries = default_plugins().registry.entries("method")
    own = {e.name for e in entries if e.distribution == OWN_DISTRIBUTION and not e.research}
    assert set(re.findall(r"^\| `([^`]+)` \|", table, re.M)) == own
