"""What the tests of the evaluation share."""

from __future__ import annotations

import pytest

import mmattrib as mm
from mmattrib.datasets.scenes import ScenesDataset

PAIR = ("image", "text")


@pytest.fixture(scope="session")
def three() -> mm.Dataset:
    """Three scenes."""
    return ScenesDataset(3, seed=21)


@pytest.fixture
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of two samples in place of sixteen."""
    monkeypatch.setattr("mmattrib.evaluation.tasks.CHUNK", 2)
