"""The album takes the worst maps, then those around the median."""

from __future__ import annotations

import pytest

from examples.study.album import chosen
from examples.study.kept import raw
from mmattrib.errors import OptionError


def test_the_worst_come_first_and_the_median_lies_among_the_rest() -> None:
    results = raw("photographs-categories")
    found = [score for _, score in chosen(results, 4)]
    scored = sorted(results.values("ca-m2ib", "image|text", "auc"))
    assert found[:4] == scored[:4]
    assert found[4] <= scored[len(scored) // 2] <= found[7]
    assert len({name for name, _ in chosen(results, 4)}) == 8


def test_more_than_were_measured_cannot_be_drawn() -> None:
    with pytest.raises(OptionError, match="only 67 pairs were measured; 80 are to be drawn"):
        chosen(raw("photographs-categories"), 40)
