"""Every registered metric keeps the contract of a metric."""

from __future__ import annotations

from typing import Any

import pytest
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.metrics import MODEL, REEXPLAIN, Case
from mmattrib.plugins import default_plugins
from mmattrib.testing import check_metric
from mmattrib.testing.metrics import cases_of

NAMES = default_plugins().registry.names("metric")

QUICK: dict[str, dict[str, Any]] = {
    "deletion": {"steps": 3},
    "faithfulness_correlation": {"subsets": 4},
    "infidelity": {"subsets": 4},
    "insertion": {"steps": 3},
    "randomisation_cascading": {"stages": 1},
    "randomisation_independent": {"stages": 1},
    "road": {"percentiles": [50]},
    "sensitivity_n": {"subsets": 3, "sizes": 2},
}
"""Fewer steps than the defaults, which are those of the papers. A new metric needs no line here."""


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """One scene in every direction, of a small model; check_metric's own are of `tiny`."""
    method = mm.load_method("ca-m2ib", points=4, guide_points=2)
    return cases_of(small_tiny(), mm.load_dataset("scenes", n=1, seed=11), method)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_keeps_its_contract(name: str, cases: list[Case]) -> None:
    registry = default_plugins().registry
    metric = registry.create("metric", name, **QUICK.get(name, {}))
    picture, recording, caption = cases[0], cases[1], cases[5]
    if REEXPLAIN in metric.needs:  # the costliest first
        cases = [picture, caption] if name not in QUICK else [picture]
    elif MODEL in metric.needs:
        cases = [picture, recording, caption]
    check_metric(metric, cases)
    for option, value in QUICK.get(name, {}).items():
        assert metric.describe()[option] == value
    assert metric.name == name
    assert metric.summary == registry.get("metric", name).summary
