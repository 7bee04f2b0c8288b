"""A block that is put into a registered backbone's tower is noticed before a map is made."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from small_backbones import NAMES, Small
from torch import nn

import mmattrib as mm
from mmattrib.errors import EncoderError


@pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")
@pytest.mark.parametrize("name", NAMES)
def test_an_added_block_is_named(name: str, small_backbone: Callable[[str], Small]) -> None:
    made = small_backbone(name)
    model = made.load()
    for modality in dict.fromkeys(made.modalities(model).values()):
        encoder: Any = model[modality]
        last = encoder.blocks[-1]
        (row,) = [part for part in encoder.module.modules()
                  if isinstance(part, nn.ModuleList | nn.Sequential)
                  and any(each is last for each in part)]  # fmt: skip
        for place in (len(row), len(row) // 2):
            row.insert(place, copy.deepcopy(last))
            with pytest.raises(EncoderError, match=f"the {modality} encoder .* 1 more stand among"):
                mm.attribute(model, inputs=made.pair, method="random")
            del row[place]
    mm.attribute(model, inputs=made.pair, method="random")
