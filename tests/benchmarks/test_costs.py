"""What ours computes beside the published code: counted GFLOP and their ratios, never seconds."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest
import torch
from torch.nn import functional as nnf

import mmattrib as mm
from mmattrib.benchmark import memory
from mmattrib.benchmark.entrants import Entrant, ours, published
from mmattrib.benchmark.floors import floor
from mmattrib.benchmark.subjects import pair, random_clip
from mmattrib.benchmark.watch import EXPLAINING, FlopCount
from mmattrib.models import EncoderInputs
from mmattrib.preparing import prepare

LAYER, DEPTH = 8, 12
WIDE = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": DEPTH,
        "num_attention_heads": 2}  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip() -> mm.Backbone:
    """CLIP as deep as ViT-B/32, with as many tokens, and narrow."""
    pytest.importorskip("transformers")
    return random_clip(vision_config=WIDE, text_config=WIDE)


def test_products_are_counted_forwards_and_backwards_with_attention() -> None:
    rows = torch.ones(5, 7, dtype=torch.float32, requires_grad=True)
    with FlopCount() as count:
        nnf.linear(rows, torch.ones(3, 7, dtype=torch.float32)).sum().backward()
    assert count.total == 2 * (2 * 5 * 7 * 3)
    query = torch.ones(2, 4, 5, 8, dtype=torch.float32, requires_grad=True)
    other = torch.ones(2, 4, 6, 8, dtype=torch.float32)
    with FlopCount() as count:
        found = nnf.scaled_dot_product_attention(query, other, other)
    forward = 2 * (2 * 2 * 4 * 5 * 6 * 8)
    assert count.total == forward
    with FlopCount() as count:
        found.sum().backward()
    assert count.total in (2 * forward, 5 * forward // 2, 3 * forward // 2)


def test_counts_are_the_same_each_time_and_change_nothing(clip: mm.Backbone) -> None:
    entrant = ours(clip, pair(clip), "nib", dict.fromkeys(pair(clip), LAYER), CPU)
    first = entrant.count()
    assert set(first) <= set(EXPLAINING)
    assert entrant.count() == first


def gflop(entrant: Entrant | None) -> float:
    assert entrant is not None
    return sum(entrant.count().values())


@pytest.fixture(scope="module")
def costs(clip: mm.Backbone) -> Mapping[str, float]:
    """Of one pair, both maps, at the layer that M2IB explains in a tower of this depth."""
    given, at = pair(clip), dict.fromkeys(pair(clip), LAYER + 1)
    found = {name: gflop(ours(clip, given, name, at, CPU)) for name in ("m2ib", "ca-m2ib")}
    found["M2IB as published"] = gflop(published(clip, given, "M2IB as published", at, CPU))
    earlier = dict.fromkeys(given, LAYER)
    found["nib at the same layer"] = gflop(ours(clip, given, "nib", earlier, CPU))
    found["NIB as published"] = gflop(published(clip, given, "NIB as published", earlier, CPU))
    return found


LEAST = {
    ("M2IB as published", "m2ib"): 35.0,
    ("M2IB as published", "ca-m2ib"): 27.5,
    ("NIB as published", "nib at the same layer"): 1.8,
}
"""How many times as much the published code computes, at least."""

MOST = {"m2ib": 1.2, "ca-m2ib": 1.2, "nib": 1.2}
"""How many times its floor a method may compute."""


@pytest.mark.parametrize("pair_of", LEAST, ids=" beside ".join)
def test_the_published_code_computes_so_many_times_as_much(
    costs: Mapping[str, float], pair_of: tuple[str, str]
) -> None:
    theirs, own = pair_of
    assert costs[theirs] / costs[own] >= LEAST[pair_of]


def test_m2ib_as_published_is_three_passes_of_both_towers_for_each_copy_at_each_step(
    clip: mm.Backbone, costs: Mapping[str, float]
) -> None:
    """Forwards, to the tokens and to the weights: for 10 copies at 10 steps, for both maps."""
    with torch.no_grad(), FlopCount() as count:
        for side, inputs in _inputs(clip).items():
            clip[side].embed(inputs)
    whole = 2 * 10 * 10 * 3 * count.total / 1e9
    assert costs["M2IB as published"] == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize("method", ["m2ib", "ca-m2ib", "nib"])
def test_no_method_computes_less_than_its_floor_or_far_more(
    clip: mm.Backbone, costs: Mapping[str, float], method: str
) -> None:
    layer = LAYER if method == "nib" else LAYER + 1
    own = costs["nib at the same layer" if method == "nib" else method]
    least = floor(clip.encoders, _inputs(clip), dict.fromkeys(pair(clip), layer), method)
    assert least is not None
    assert least <= own <= MOST[method] * least


def test_a_floor_is_one_pass_and_the_rows_behind_the_layer(clip: mm.Backbone) -> None:
    """Blocks have 12 C² weights; the last is read from one token."""
    inputs, width = _inputs(clip), 64
    at = {"image": DEPTH - 2, "text": DEPTH - 2}  # the last block alone
    found = floor(clip.encoders, inputs, at, "nib")
    with torch.no_grad(), FlopCount() as passes:
        for side, each in inputs.items():
            clip[side].embed(each)
    rows = 2 * 10 * 2 * (2 * 12 * width**2)
    assert found == pytest.approx((passes.total + rows) / 1e9, rel=1e-6)
    assert floor(clip.encoders, inputs, at, "random") is None


def _inputs(clip: mm.Backbone) -> Mapping[str, EncoderInputs]:
    return prepare(clip, pair(clip)).inputs


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak where Linux shows it")
def test_a_pair_on_a_whole_clip_takes_150_megabytes_at_most() -> None:
    pytest.importorskip("transformers")
    (found,) = memory.measure({"name": None, "options": {}}, ["ca-m2ib"])
    assert found["pair_mb"] <= 150
