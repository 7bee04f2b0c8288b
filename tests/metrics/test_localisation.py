"""Metrics: identities, chance levels, and what scikit-free definitions say on small cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattrib.metrics import auc, iou, object_top1, pointing_game, rectified_energy


def _case(seed: int, shape: tuple[int, ...] = (8, 6)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, dtype=bool)
    mask.ravel()[rng.permutation(mask.size)[: mask.size // 4]] = True
    return rng.normal(size=shape).astype(np.float32), mask


def test_the_truth_itself_earns_everything() -> None:
    _, mask = _case(0)
    perfect = mask.astype(np.float32)
    assert pointing_game(perfect, mask) == 1
    assert iou(perfect, mask) == 1
    assert auc(perfect, mask) == 1
    assert rectified_energy(perfect, mask) == 1


def test_the_opposite_earns_nothing() -> None:
    _, mask = _case(0)
    wrong = (~mask).astype(np.float32)
    assert pointing_game(wrong, mask) == 0
    assert iou(wrong, mask) == 0
    assert auc(wrong, mask) == 0
    assert rectified_energy(wrong, mask) == 0


@given(st.integers(0, 50))
def test_a_constant_map_earns_chance(seed: int) -> None:
    _, mask = _case(seed)
    flat = np.full(mask.shape, 0.3, dtype=np.float32)
    share = mask.mean()
    assert pointing_game(flat, mask) == pytest.approx(share)
    assert auc(flat, mask) == pytest.approx(0.5)
    assert rectified_energy(flat, mask) == pytest.approx(share)
    quota = round(0.25 * mask.size)
    hit = share * quota
    assert iou(flat, mask) == pytest.approx(hit / (quota + mask.sum() - hit))


@given(st.integers(0, 50))
def test_auc_is_the_share_of_pairs_in_order(seed: int) -> None:
    scores, mask = _case(seed, (4, 5))
    scores = np.round(scores, 1)
    pairs = itertools.product(scores[mask], scores[~mask])
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]
    assert auc(scores, mask) == pytest.approx(np.mean(wins))


@given(st.integers(0, 50), st.floats(0.5, 4))
def test_rank_metrics_ignore_scale(seed: int, scale: float) -> None:
    scores, mask = _case(seed)
    other = (scores * np.float32(scale) + np.float32(7)).astype(np.float32)
    if len(np.unique(other)) == len(np.unique(scores)):
        assert iou(scores, mask) == pytest.approx(iou(other, mask))
        assert auc(scores, mask) == pytest.approx(auc(other, mask))
        assert pointing_game(scores, mask) == pointing_game(other, mask)


def test_negative_scores_carry_no_energy() -> None:
    scores = np.array([1.0, -5.0, 3.0], dtype=np.float32)
    assert rectified_energy(scores, np.array([True, True, False])) == pytest.approx(0.25)
    assert rectified_energy(-np.abs(scores), np.array([True, False, False])) == pytest.approx(1 / 3)


def test_auc_without_both_kinds_is_nan() -> None:
    scores = np.zeros(3, dtype=np.float32)
    assert np.isnan(auc(scores, np.ones(3, dtype=bool)))
    assert np.isnan(auc(scores, np.zeros(3, dtype=bool)))


def test_object_top1_compares_means_not_sums() -> None:
    scores = np.array([[4.0, 1.0, 1.0, 1.0, 1.0, 1.0]], dtype=np.float32)
    small = np.array([[True, False, False, False, False, False]])
    large = ~small
    assert object_top1(scores, [small, large], [True, False]) == 1
    assert object_top1(scores, [small, large], [False, True]) == 0
    assert object_top1(scores * 0, [small, large], [True, False]) == 0.5
    assert np.isnan(object_top1(scores, [small, large], [True, True]))
    assert np.isnan(object_top1(scores, [small, large], [False, False]))


def test_a_part_of_no_place_is_never_the_highest() -> None:
    scores, mask = _case(0)
    nowhere = np.zeros_like(mask)
    assert object_top1(-np.abs(scores), [mask, nowhere], [True, False]) == 1
