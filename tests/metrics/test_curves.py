"""Insertion and deletion: exact on models that add up their parts, chance for constant maps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import LinearCase, worth

from mmattrib.errors import OptionError
from mmattrib.metrics import Case, curve_area
from mmattrib.metrics.curves import Deletion, Insertion, ladder, orders, step_counts
from mmattrib.perturb import keep
from mmattrib.plugins import default_plugins


def summed(values: np.ndarray):
    return lambda masks: [float((values * mask).sum()) for mask in masks]


@given(st.integers(1, 300), st.integers(1, 300))
def test_steps_run_from_nothing_to_everything_and_mirror_each_other(
    places: int, steps: int
) -> None:
    counts = step_counts(places, steps)
    assert len(counts) == min(places, steps) + 1
    assert (counts[0], counts[-1]) == (0, places)
    assert (np.diff(counts) >= 0).all()
    middle = len(counts) // 2
    mirrored = places - counts[::-1]
    keep_middle = np.arange(len(counts)) != middle if len(counts) % 2 else slice(None)
    assert (counts == mirrored)[keep_middle].all()


@given(st.integers(0, 200), st.integers(1, 40))
def test_curves_of_a_linear_model_have_exact_areas(seed: int, steps: int) -> None:
    random = np.random.default_rng(seed)
    values, scores = random.normal(size=(4, 6)), random.permutation(24).reshape(4, 6)
    order = values.ravel()[np.argsort(-scores.ravel())]
    inserted = np.concatenate([[0.0], np.cumsum(order)])[step_counts(24, steps)]
    area = float(((inserted[1:] + inserted[:-1]) / 2).mean())
    assert curve_area(scores, summed(values), steps=steps, insert=True) == pytest.approx(area)
    whole = values.sum()
    deletion = curve_area(scores, summed(values), steps=steps, insert=False)
    assert deletion == pytest.approx(whole - area), "what was deleted is what was inserted"


@given(st.integers(0, 100), st.sampled_from([1, 4, 6, 12, 24]))
def test_a_constant_map_scores_as_chance_does(seed: int, steps: int) -> None:
    """The mean over every order of a linear model's curve is half of its range."""
    values = np.random.default_rng(seed).normal(size=24).reshape(4, 6)
    for insert in (True, False):
        found = curve_area(np.full((4, 6), 0.3), summed(values), steps=steps, insert=insert)
        assert found == pytest.approx(values.sum() / 2)


def test_chance_is_the_mean_over_all_orders() -> None:
    values = np.array([3.0, -1.0, 0.5, 2.0])
    areas = [
        curve_area(np.array(order), summed(values), insert=True)
        for order in itertools.permutations(range(4))
    ]
    assert np.mean(areas) == pytest.approx(values.sum() / 2)


def test_the_exact_map_is_the_best_of_all_orders() -> None:
    values = np.array([3.0, -1.0, 0.5, 2.0])
    found = [
        curve_area(np.array(order, float), summed(values), insert=True)
        for order in itertools.permutations(range(4))
    ]
    assert curve_area(values, summed(values), insert=True) == pytest.approx(max(found))
    assert curve_area(values, summed(values), insert=False) == pytest.approx(
        values.sum() - max(found)
    )


def test_places_that_tie_are_taken_from_both_ends_where_a_step_cuts_them() -> None:
    scores = np.array([1.0, 2.0, 1.0, 1.0])
    forward, backward = orders(scores, 4)
    assert (forward.tolist(), backward.tolist()) == ([1, 0, 2, 3], [1, 3, 2, 0])
    assert len(orders(scores, 1)) == 1, "one step takes them all"


def test_what_is_not_finite_is_never_marked() -> None:
    scores = np.array([[1.0, np.nan], [3.0, 2.0]])
    (order,) = orders(scores, 3)
    masks = list(ladder(scores.shape, order, 3))
    assert [mask.sum() for mask in masks] == [0, 1, 2, 3]
    assert not any(mask[0, 1] for mask in masks)
    assert np.isnan(curve_area(np.full(3, np.nan), summed(np.ones(3)), insert=True))


@pytest.mark.parametrize("side", ["image", "audio", "text"])
def test_metrics_give_the_area_of_their_case(side: str) -> None:
    values = worth(side)
    case = LinearCase(side, values)
    best = curve_area(values, summed(values), steps=7, insert=True)
    assert Insertion(steps=7)(case) == pytest.approx(best)
    assert Deletion(steps=7)(case) == pytest.approx(values.sum() - best, rel=1e-4)
    wrong = LinearCase(side, values, -values)
    assert Insertion(steps=7)(wrong) < values.sum() / 2 < Insertion(steps=7)(case)


@pytest.mark.parametrize("direction", ["image|text", "audio|text", "text|image"])
def test_one_step_is_the_mean_of_the_whole_and_the_fill(
    cases: dict[str, Case], direction: str
) -> None:
    case = cases[direction]
    attribution = case.attribution
    nothing = keep(
        case.raw, np.zeros(attribution.shape), axes=attribution.axes, words=attribution.words
    )
    expected = (case.clean + float(case.cosines([nothing])[0])) / 2
    assert Deletion(steps=1)(case) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("direction", ["image|text", "audio|text", "text|image"])
def test_many_inputs_in_batches_have_the_cosines_that_they_have_alone(
    cases: dict[str, Case], direction: str
) -> None:
    case = cases[direction]
    shape = case.attribution.shape
    random = np.random.default_rng(0)
    masks = [random.random(shape) < share for share in (0.2, 0.5, 0.8, 0.9, 1.0)]
    alone = case.kept_cosines(masks, batch_size=1)
    assert np.ptp(alone) > 0.01
    for size in (2, 4, 32):
        np.testing.assert_allclose(case.kept_cosines(masks, batch_size=size), alone, atol=1e-5)
    kept = [
        keep(case.raw, mask, axes=case.attribution.axes, words=case.attribution.words)
        for mask in masks
    ]
    np.testing.assert_allclose(case.cosines(kept, batch_size=1), alone, atol=1e-6)


def test_no_input_has_no_cosine_and_a_batch_holds_at_least_one(cases: dict[str, Case]) -> None:
    case = cases["image|text"]
    assert case.cosines([]).shape == (0,)
    with pytest.raises(OptionError, match="batch_size"):
        case.cosines([case.raw], batch_size=0)


def test_inputs_of_different_shapes_go_through_the_tower_apart(cases: dict[str, Case]) -> None:
    case = cases["audio|text"]
    raw = case.raw
    longer = type(raw)(np.tile(raw.samples, 2), raw.sample_rate)
    mixed = case.cosines([raw, longer, longer, raw])
    alone = [float(case.cosines([one])[0]) for one in (raw, longer)]
    np.testing.assert_allclose(mixed, [alone[0], alone[1], alone[1], alone[0]], atol=1e-5)


def test_options_act_are_checked_and_described(cases: dict[str, Case]) -> None:
    case = cases["image|text"]
    metric = default_plugins().registry.create("metric", "deletion", steps=2, fill="black")
    assert metric.describe() == {"steps": 2, "fill": "black"}
    assert metric(case) != Deletion(steps=2)(case)
    assert Insertion().fill_of("image") == "blur"
    assert Insertion(fill="black").fill_of("audio") is None, "no such fill of recordings"
    for wrong in ({"steps": 0}, {"steps": 1.5}, {"fill": "grey"}):
        with pytest.raises(OptionError):
            Deletion(**wrong)  # type: ignore[arg-type]
