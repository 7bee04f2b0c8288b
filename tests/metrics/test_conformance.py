"""Every registered metric keeps the contract of a metric."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from small_examples import maker
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.metrics import MODEL, REEXPLAIN, Case
from mmattrib.plugins import default_plugins
from mmattrib.testing import check_metric
from mmattrib.testing.metrics import cases_of

NAMES = default_plugins().registry.names("metric")

SMALL: dict[str, Any] = {
    "percentiles": [50], "sizes": 2, "stages": 1, "steps": 3, "subsets": 3,
}  # fmt: skip
"""Less work than the defaults, which are those of the papers, of whatever metric has the option."""


def quick(name: str) -> dict[str, Any]:
    """A small budget; ``small_NAME()`` in a test module of this folder says another."""
    factory = default_plugins().registry.get("metric", name).factory
    own = {o: SMALL[o] for o in inspect.signature(factory).parameters if o in SMALL}
    more = maker("metric", name)
    return {**own, **(more() if more else {})}


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """One scene in every direction, of a small model; check_metric's own are of `tiny`."""
    method = mm.load_method("ca-m2ib", points=4, guide_points=2)
    return cases_of(small_tiny(), mm.load_dataset("scenes", n=1, seed=11), method)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_keeps_its_contract(name: str, cases: list[Case]) -> None:
    registry = default_plugins().registry
    options = quick(name)
    metric = registry.create("metric", name, **options)
    picture, recording, caption = cases[0], cases[1], cases[5]
    if REEXPLAIN in metric.needs:  # the costliest first
        cases = [picture, caption] if not options else [picture]
    elif MODEL in metric.needs:
        cases = [picture, recording, caption]
    check_metric(metric, cases)
    for option, value in options.items():
        assert metric.describe()[option] == value
    assert metric.name == name
    assert metric.summary == registry.get("metric", name).summary
