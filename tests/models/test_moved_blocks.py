"""Blocks that were taken out, replaced or added since a tower was wrapped are named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn
from toy_encoders import ToyImage

import mmattrib as mm
from mmattrib.errors import EncoderError

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize("method", ["chefer", "ca-m2ib", "leave-one-out"])
@pytest.mark.parametrize("change", ["replaced", "pruned"])
def test_blocks_that_the_tower_no_longer_has_are_named(
    untrained: mm.Backbone, change: str, method: str
) -> None:
    tower: Any = untrained["image"].module
    kept = list(tower.blocks)[:-1]
    last = type(kept[-1]).__new__(type(kept[-1]))
    last.__dict__.update(tower.blocks[-1].__dict__)
    tower.blocks = nn.ModuleList([*kept, *([last] if change == "replaced" else [])])
    number = len(kept)
    with pytest.raises(EncoderError, match=f"block {number} of the image .*wrap the model again"):
        mm.attribute(untrained, image=PICTURE, text="a dog", method=method)


def appended(row: nn.ModuleList, block: nn.Module) -> nn.ModuleList:
    return row.append(block)


def put_between(row: nn.ModuleList, block: nn.Module) -> nn.ModuleList:
    row.insert(1, block)
    return row


def rebuilt(row: nn.ModuleList, block: nn.Module) -> nn.Sequential:
    return nn.Sequential(*row, block)


@pytest.mark.parametrize("change", [appended, put_between, rebuilt])
@pytest.mark.parametrize("copied", [False, True])
def test_blocks_that_were_added_are_named(change: Callable[..., Any], copied: bool) -> None:
    """A suffix that replays the tower agrees with the model, and its layers are others."""
    encoder: Any = copy.deepcopy(ToyImage()) if copied else ToyImage()
    tower = encoder.module
    with encoder.frozen():
        pass
    tower.blocks = change(tower.blocks, copy.deepcopy(tower.blocks[0]))
    with (
        pytest.raises(EncoderError, match=r"wrapped with 3 blocks, and 1 more .*wrap the model"),
        encoder.frozen(),
    ):
        pass


def test_what_is_put_in_the_place_of_a_part_beside_the_blocks_is_no_added_block() -> None:
    """A head of another kind in one sequence with the blocks: the model as it is now."""
    encoder: Any = ToyImage()
    tower = encoder.module
    tower.row = nn.Sequential(*tower.blocks, tower.norm)
    encoder.blocks = list(tower.blocks)  # as if it had been wrapped so
    tower.row[-1] = nn.Identity()
    with encoder.frozen():
        pass
    tower.row.append(nn.Identity())
    with pytest.raises(EncoderError, match="1 more stand among them"), encoder.frozen():
        pass
