"""Fixtures of the metrics' tests."""

from __future__ import annotations

import pytest
from metric_cases import model_cases

from mmattrib.metrics import Case


@pytest.fixture(scope="session")
def cases() -> dict[str, Case]:
    """``"image|text"`` -> case, of a random model on one small sample."""
    return model_cases()
