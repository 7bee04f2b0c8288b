"""A whole number that is far too large is refused at once, wherever one is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.datasets import as_dataset
from mmattrib.errors import InputError, OptionError, check_whole
from mmattrib.evaluation.executors import executor_for
from mmattrib.evaluation.statistics import bootstrap_interval

TAKERS: dict[str, Callable[[Any], Any]] = {
    "batch_size": lambda n: list(
        mm.attribute_many(small_tiny(), [], batch_size=n, progress=False)
    ),
    "jobs": executor_for,
    "limit": lambda n: as_dataset(list(mm.load_dataset("scenes", n=1))).head(n),
    "first": lambda n: mm.load_dataset("scenes", n=1, first=n),
    "n": mm.scenes,
    "metric": lambda n: mm.evaluate(
        small_tiny(), mm.load_dataset("scenes", n=1), methods=["random"],
        metrics={"auc": n}, progress=False,
    ),
    "maps": lambda n: mm.calibrate(small_tiny(), mm.load_dataset("scenes"), maps=n),
    "draws": lambda n: bootstrap_interval(np.ones(3), draws=n),
}  # fmt: skip


@pytest.mark.parametrize("value", [10**19, 10**30, 10**5000, -1, 1.5, "x", True], ids=range(7))
@pytest.mark.parametrize("name", TAKERS)
def test_one_out_of_range_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name):
        TAKERS[name](value)


def test_a_map_larger_than_the_memory_is_refused_and_its_own_size_never_is() -> None:
    scene = mm.scenes(1)[0]
    made = mm.attribute(small_tiny(), image=scene.image, text="dog", method="random")
    for size in ((10**30, 10**30), (10**6, 10**6), (0, 4), (4,), (4, 4, 4)):
        with pytest.raises(InputError, match="size"):
            made["image"].scores_at(size)
    assert made["image"].scores_at(made["image"].shape).shape == (96, 96)


def test_what_is_within_bounds_is_given_back() -> None:
    assert [check_whole(n, "n", 1, 3) for n in (1, 3)] == [1, 3]
