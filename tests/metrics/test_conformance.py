"""Every registered metric keeps the contract of a metric."""

from __future__ import annotations

import pytest

from mmattrib.metrics import Case
from mmattrib.plugins import default_plugins
from mmattrib.testing import check_metric
from mmattrib.testing.metrics import example_cases

NAMES = default_plugins().registry.names("metric")


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """One scene in every direction; check_metric's own have another as well."""
    return example_cases()[:6]


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_keeps_its_contract(name: str, cases: list[Case]) -> None:
    registry = default_plugins().registry
    metric = registry.create("metric", name)
    check_metric(metric, cases)
    assert metric.name == name
    assert metric.summary == registry.get("metric", name).summary
