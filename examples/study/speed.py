"""The tables of docs/performance.md, from what ``mmattrib bench --out`` wrote into ``raw/``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from mmattrib.benchmark import tables

NUMBERS: Final = Path(__file__).parent / "raw" / "bench.json"
NOT_YET: Final = "Not among the kept numbers: `mmattrib bench` without `--quick` measures it."


def table(name: str, numbers: Path = NUMBERS) -> str:
    """One of :data:`mmattrib.benchmark.tables.TABLES`, or ``"machine"``."""
    found: dict[str, Any] = {}
    if numbers.is_file():
        found = json.loads(numbers.read_text(encoding="utf-8"))
    if name == "machine":
        return tables.machine(found) if found else NOT_YET
    return tables.TABLES[name][1](found) if found.get(tables.needs(name)) else NOT_YET


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    f"bench, {name}": partial(table, name) for name in ("machine", *tables.TABLES)
}
