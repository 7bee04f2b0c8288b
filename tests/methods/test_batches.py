"""A pair's map and its diagnostics do not depend on the pairs beside it, nor on their order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from quick_methods import NAMES, quick
from small_tiny import small_tiny

import mmattrib as mm

pytestmark = pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")
DIRECTIONS = [("image", "text"), ("audio", "text"), ("image", "audio")]


@pytest.fixture(scope="module", params=["small", pytest.param("shipped", marks=pytest.mark.slow)])
def tiny(request: pytest.FixtureRequest) -> mm.Backbone:
    return small_tiny() if request.param == "small" else mm.load_backbone("tiny")


@pytest.fixture(scope="module")
def samples() -> list[Any]:
    return mm.scenes(3, seed=11)


def same(found: mm.Explanation, expected: mm.Explanation) -> None:
    assert found.similarity == expected.similarity
    for side, own in expected.items():
        np.testing.assert_array_equal(found[side].token_scores, own.token_scores)
        assert found[side].diagnostics == own.diagnostics


def _cases() -> Iterator[Any]:
    """Descents fit with the same code in every direction, and each of them is a longer test.

    So are the other directions of methods whose code is the same for every modality.
    """
    for method in NAMES:
        for pair in DIRECTIONS:
            first = pair == DIRECTIONS[0]
            if method.startswith("descent") and not first:
                continue
            longer = method.startswith("descent-") or not (first or method in ("ca-m2ib", "m2ib"))
            marks = [pytest.mark.slow] if longer else []
            yield pytest.param(method, pair, marks=marks, id=f"{method}-{'-'.join(pair)}")


@pytest.mark.parametrize(("method", "pair"), list(_cases()))
def test_a_map_is_the_same_alone_and_in_a_batch_bit_for_bit(
    tiny: mm.Backbone, samples: list[Any], method: str, pair: tuple[str, str]
) -> None:
    """Both sides of each pair; on `tiny`, on one thread."""
    pairs = [{side: scene.input(side) for side in pair} for scene in samples]
    options: dict[str, Any] = {"method": method, "progress": False, **quick(method)}
    batch = list(mm.attribute_many(tiny, pairs, **options))
    turned = list(mm.attribute_many(tiny, pairs[::-1], **options))[::-1]
    for row, one in enumerate(pairs):
        alone = mm.attribute(tiny, inputs=one, method=method, **quick(method))
        same(batch[row], alone)
        same(turned[row], alone)


def _in_threads() -> Iterator[Any]:
    """One method of each way of using the tower: the others are longer tests."""
    for method in NAMES:
        if not method.startswith("descent-"):
            usual = method in ("ca-m2ib", "m2ib", "gradient-x-input")
            yield pytest.param(method, marks=[] if usual else [pytest.mark.slow])


@pytest.mark.parametrize("method", list(_in_threads()))
def test_another_number_of_threads_changes_a_map_by_rounding_alone(
    tiny: mm.Backbone, samples: list[Any], method: str
) -> None:
    """docs/architecture.md states the bound: 1e-4 of the map's largest score."""
    pair = {side: samples[0].input(side) for side in ("image", "text")}
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(mm.attribute(tiny, inputs=pair, method=method, **quick(method)))
    finally:
        torch.set_num_threads(before)
    for side in pair:
        one, two = (each[side].token_scores[each[side].content] for each in found)
        assert np.abs(one - two).max() <= 1e-4 * np.abs(one).max()
