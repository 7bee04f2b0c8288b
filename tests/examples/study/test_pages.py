"""The pages of the study: every marked table is what the kept numbers give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.study import pages, speed

QUICK = (
    "summary", "nothing shared", "none shared", "kept, all", "kept, shipped",
    "kept, nothing shared", "retraining", *speed.TABLES,
)  # fmt: skip


def marked() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for page in pages.PAGES:
        for table in pages._MARKED.finditer(page.read_text(encoding="utf-8")):
            found.setdefault(table[2], []).append(table[3])
    return found


def test_every_table_stands_on_a_page() -> None:
    assert set(marked()) == set(pages.TABLES)


@pytest.mark.parametrize("name", QUICK)
def test_a_table_is_what_its_numbers_give(name: str) -> None:
    assert marked()[name] == [pages.TABLES[name]()]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(pages.TABLES) - set(QUICK)))
def test_a_long_table_is_what_its_numbers_give(name: str) -> None:
    assert marked()[name] == [pages.TABLES[name]()]


def test_a_table_without_numbers_says_what_measures_it(tmp_path: Path) -> None:
    numbers = tmp_path / "bench.json"
    assert speed.table("machine", numbers) == speed.NOT_YET
    numbers.write_text(json.dumps({"batches": []}), encoding="utf-8")
    assert speed.table("batches", numbers) == speed.NOT_YET
    assert speed.table("memory", numbers) == speed.NOT_YET
    row = {"label": "nib", "pairs": 4, "seconds": 2.0, "cpu_seconds": 3.0}
    numbers.write_text(json.dumps({"batches": [row]}), encoding="utf-8")
    assert speed.table("batches", numbers).splitlines()[-1] == "| nib | 4 | 2 | 3 | 0.75 | 2 |"
