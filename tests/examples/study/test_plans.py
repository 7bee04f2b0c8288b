"""The plans behind the published tables can still be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.study.plan import read_plan

PLANS = sorted((Path(__file__).parents[3] / "examples" / "study" / "plans").glob("*.toml"))


@pytest.mark.parametrize("path", PLANS, ids=[path.stem for path in PLANS])
def test_every_variant_of_a_plan_is_made_as_it_says(path: Path) -> None:
    for variant in read_plan(path):
        described = variant.make().describe()
        assert {name: described[name] for name in variant.options} == variant.options
