"""``ca-m2ib`` with ``keep``: a share of the match in place of a price, on the shipped model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import mmattrib as mm
from mmattrib.datasets.scenes import SceneOptions, ScenesDataset
from mmattrib.engine.diagnostics import steering_warnings
from mmattrib.methods.ca_m2ib import CAM2IB, ROUNDING, _warnings, kept_share

pytestmark = pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")

QUICK = {"points": 16, "guide_points": 8}
SHARED, UNSHARED = SceneOptions(), SceneOptions(shared=0)


@cache
def pairs(options: SceneOptions, modalities: tuple[str, str]) -> list[Any]:
    return [scene.pair(*modalities) for scene in ScenesDataset(3, 11, options=options)]


@cache
def maps(
    options: SceneOptions = SHARED,
    modalities: tuple[str, str] = ("image", "text"),
    rows: Sequence[int] = (0, 1, 2),
    **given: Any,
) -> list[mm.Attribution]:
    """Maps of both sides of some pairs."""
    some = [pairs(options, modalities)[row] for row in rows]
    method = CAM2IB.build(**QUICK, **given)
    found = mm.attribute_many(mm.load_backbone("tiny"), some, method=method, progress=False)
    return [explanation[side] for explanation in found for side in modalities]


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_the_stated_share_of_the_match_is_kept_and_little_more(keep: float) -> None:
    """A price is found to 2 %, and the share is a smooth function of the price."""
    for attribution in maps(keep=keep):
        told = attribution.diagnostics
        assert keep - ROUNDING <= told["kept"] <= keep + 0.06
        assert told["kept"] == kept_share(told)
        assert told["cosine_end"] == pytest.approx(
            told["cosine_start"] + told["kept"] * (told["clean_cosine"] - told["cosine_start"])
        )
        assert not told["warnings"]


def test_a_price_for_all_keeps_what_it_may() -> None:
    shares = [attribution.diagnostics["kept"] for attribution in maps()]
    assert max(shares) - min(shares) > 0.3
    assert {attribution.diagnostics["price"] for attribution in maps()} == {3.0}


def test_a_larger_share_costs_more_bits_in_every_token() -> None:
    half, most = maps(keep=0.5), maps(keep=0.9)
    for less, more in zip(half, most, strict=True):
        assert less.diagnostics["price"] > more.diagnostics["price"]
        assert less.diagnostics["capacity_bits"] < more.diagnostics["capacity_bits"]
        pair = np.nan_to_num(np.asarray(less.scores)), np.nan_to_num(np.asarray(more.scores))
        assert (pair[0] <= pair[1]).all()


@pytest.mark.parametrize("number", range(3))
def test_the_map_is_that_of_the_price_found(number: int) -> None:
    for side in (0, 1):
        found = maps(keep=0.9)[2 * number + side]
        price = found.diagnostics["price"]
        bought = maps(rows=(number,), beta=price)[side]
        assert np.array_equal(found.scores, bought.scores, equal_nan=True)
        alike = {name: value for name, value in found.diagnostics.items() if name != "seed"}
        assert alike == bought.diagnostics


def test_a_pair_has_the_same_map_and_price_alone() -> None:
    together = maps(keep=0.9)
    for number in range(3):
        for side, found in enumerate(maps(rows=(number,), keep=0.9)):
            expected = together[2 * number + side]
            assert np.array_equal(found.scores, expected.scores, equal_nan=True)
            assert found.diagnostics == expected.diagnostics


def test_where_there_is_no_match_there_is_nothing_to_keep() -> None:
    found = maps(UNSHARED, ("image", "text"), keep=0.9)
    shut = [attribution for attribution in found if attribution.diagnostics["kept"] is None]
    assert shut
    for attribution in shut:
        told = attribution.diagnostics
        assert told["clean_cosine"] <= told["cosine_start"]
        assert told["cosine_end"] == told["cosine_start"]
        assert told["price"] is None
        assert told["capacity_bits"] == 0
        assert not np.nan_to_num(np.asarray(attribution.scores)).any()
        assert "no match to keep" in str(told["warnings"])
    for attribution in found:
        assert (attribution.diagnostics["kept"] is None) == (attribution in shut)


def test_a_share_that_cannot_be_reached_is_said() -> None:
    numbers = {"clean_cosine": 0.3, "cosine_start": 0.1, "cosine_end": 0.2, "capacity_bits": 9.0}
    numbers["kept"] = kept_share(numbers)  # type: ignore[assignment]
    assert numbers["kept"] == pytest.approx(0.5)
    (told,) = _warnings(numbers, 0.9)
    assert "keeps 90% of the match" in told
    assert "most, 50%" in told
    assert _warnings(numbers, 0.5 + ROUNDING / 2) == []
    assert _warnings(numbers, None) == []


def test_exactly_one_of_price_and_share_acts_and_is_described() -> None:
    price, share = CAM2IB.build().describe(), CAM2IB.build(keep="0.9").describe()
    assert price["beta"] == 3.0
    assert "keep" not in price
    assert share["keep"] == 0.9
    assert "beta" not in share
    assert CAM2IB.build(keep=None).describe() == price
    assert CAM2IB.build(keep=0.5).seeded(4).describe() == {**CAM2IB.build(keep=0.5).describe(),
                                                           "seed": 4}  # fmt: skip


@pytest.mark.slow
def test_a_share_costs_rows_without_a_gradient_alone() -> None:
    counted: dict[bool, int] = {True: 0, False: 0}
    tiny = mm.load_backbone("tiny")
    encoder = tiny["image"]
    suffix = encoder.suffix

    def counting(tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        counted[tokens.requires_grad] += len(tokens)
        return suffix(tokens, *rest)

    def rows(**given: Any) -> dict[bool, int]:
        counted.update({True: 0, False: 0})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(encoder, "suffix", counting)
            for _ in mm.attribute_many(
                tiny, pairs(SHARED, ("image", "text"))[:1], method=CAM2IB.build(**QUICK, **given),
                progress=False,
            ):  # fmt: skip
                pass
        return dict(counted)

    price, share = rows(), rows(keep=0.9)
    assert share[True] == price[True]
    extra = share[False] - price[False]
    assert (6 + 1) * 8 <= extra <= (6 + 6 + 1) * 8 + 1


def test_a_mask_is_not_blamed_for_what_noise_does() -> None:
    """Noise alone may be nearer to the guide than the clean input is."""
    numbers = {"clean_cosine": -0.1, "cosine_start": 0.25, "cosine_end": 0.26}
    assert steering_warnings(numbers) == []
    (told,) = steering_warnings({**numbers, "cosine_start": -0.1})
    assert "ended 0.36 above the clean -0.10" in told
