"""A copy of every registered backbone goes to another process: it gives the same maps."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from small_backbones import NAMES, Small

import mmattrib as mm
from mmattrib.preparing import prepare


@pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_pickled_backbone_gives_the_same_maps(
    name: str, small_backbone: Callable[[str], Small]
) -> None:
    made = small_backbone(name)
    model = made.load()
    copied = pickle.loads(pickle.dumps(model))
    maps: list[Any] = [
        mm.attribute(each, inputs=made.pair, method="gradient-x-input") for each in (model, copied)
    ]
    for side, inputs in prepare(model, made.pair).inputs.items():
        own, other = (found[side].token_scores for found in maps)
        assert np.array_equal(own, other, equal_nan=True)
        last = getattr(copied[side], "last", None)
        if last is not None:  # made of the copy's own parts, not of others beside them
            tokens = model[side].prefix(inputs, 0)
            assert last.value_path(tokens).equal(model[side].last.value_path(tokens))
            assert any(last.norm1 is part for part in copied[side].module.modules())
