"""ROAD: signs, chance, and what it applies to."""

from __future__ import annotations

import numpy as np
import pytest
from metric_cases import LinearCase, worth

from mmattrib.errors import OptionError
from mmattrib.metrics import Case
from mmattrib.metrics.road import Road, road
from mmattrib.perturb import keep, top_weights


def test_a_linear_model_loses_what_its_best_and_its_worst_places_are_worth() -> None:
    values = worth("image")
    case = LinearCase("image", values)
    flat = np.sort(values.ravel())
    counts = [round(share * flat.size) for share in (0.25, 0.5)]
    expected = np.mean([flat[-count:].sum() - flat[:count].sum() for count in counts])
    assert Road(percentiles=[25, 50])(case) == pytest.approx(expected, rel=1e-4)
    wrong = LinearCase("image", values, -values)
    assert Road(percentiles=[25, 50])(wrong) == pytest.approx(-expected, rel=1e-4)


def test_a_constant_map_scores_as_chance_does() -> None:
    values = worth("image")
    assert Road(percentiles=[10, 50])(LinearCase("image", values, np.ones_like(values))) == 0


@pytest.mark.parametrize("side", ["audio", "text"])
def test_it_is_for_pictures_alone(side: str) -> None:
    assert np.isnan(Road()(LinearCase(side, worth(side))))


def test_holes_are_mended_by_the_linear_fill(cases: dict[str, Case]) -> None:
    case = cases["image|text"]
    scores = case.attribution.scores
    left = [
        float(case.cosines([keep(case.raw, ~top_weights(each, 0.3), fill="linear")])[0])
        for each in (-scores, scores)
    ]
    assert Road(percentiles=[30])(case) == pytest.approx(road([left[0]], [left[1]]), abs=1e-5)


def test_options_are_checked_and_described() -> None:
    assert Road([20], seed=1).describe() == {"percentiles": [20], "seed": 1}
    assert Road().describe()["percentiles"] == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    for wrong in ([], "90", [0], [100], [0.5]):
        with pytest.raises(OptionError):
            Road(percentiles=wrong)  # type: ignore[arg-type]
