"""docs/metrics.md has every registered metric, with what it needs and which way is better."""

from __future__ import annotations

import re
from pathlib import Path

from mmattrib.plugins import default_plugins
from mmattrib.plugins.registry import OWN_DISTRIBUTION

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BETTER = {True: "higher", False: "lower", None: "neither"}


def test_the_table_is_that_of_the_registry() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("| name | the question") : text.index("Most are shown in percent")]
    shown = {}
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells:
            assert len(cells) == 6, line
            shown[cells[0].strip("`")] = (cells[3], cells[4])
    registry = default_plugins().registry
    known = {}
    for name in registry.names("metric"):
        if registry.get("metric", name).distribution == OWN_DISTRIBUTION:
            metric = registry.create("metric", name)
            needs = ", ".join(sorted(metric.needs)) or "nothing"
            known[name] = (needs, BETTER[metric.higher_is_better])
    assert shown == known


def test_what_is_not_in_percent_is_named() -> None:
    text = PAGE.read_text(encoding="utf-8")
    told = text[text.index("As they are:") : text.index("## Conventions")]
    registry = default_plugins().registry
    own = [n for n in registry.names("metric")
           if registry.get("metric", n).distribution == OWN_DISTRIBUTION]  # fmt: skip
    plain = {name for name in own if not registry.create("metric", name).percent}
    assert set(re.findall(r"`(\w+)`", told)) == plain
