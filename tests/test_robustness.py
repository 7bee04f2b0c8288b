"""The page of promises names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_the_page_names_exists_and_every_promise_names_one() -> None:
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    assert named
    for name in named:
        assert "def test_" in (ROOT / name).read_text(encoding="utf-8"), name
    promises, _, _ = page.partition("## Not promised")
    for section in promises.split("\n## ")[1:]:
        assert "Tested by" in section, section.splitlines()[0]
