"""L-MAC's five, the joint drop and the paper's localization, by their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import untrained_backbone

import mmattrib as mm
from mmattrib.datasets.scenes import ScenesDataset
from mmattrib.errors import OptionError
from mmattrib.metrics import Case, confidence_drop, joint_drop, threshold_iou
from mmattrib.metrics.joint import JointDrop
from mmattrib.metrics.lmac import (
    AverageDrop,
    AverageGain,
    AverageIncrease,
    Faithfulness,
    InputFidelity,
    average_drop,
    average_gain,
    confidence,
    same_winner,
)
from mmattrib.metrics.localisation import Localization
from mmattrib.metrics.reduction import kept_cosine, reduced_input
from mmattrib.plugins import default_plugins
from mmattrib.testing.metrics import cases_of

COSINES = st.floats(-0.99, 0.99)
DIRECTIONS = pytest.mark.parametrize("direction", ["image|text", "audio|text", "text|image"])


@given(COSINES, COSINES)
def test_shares_of_the_confidence_lie_in_their_range(before: float, after: float) -> None:
    f0, f1 = confidence(before), confidence(after)
    drop, gain = average_drop(f0, f1), average_gain(f0, f1)
    assert 0 <= drop <= 1
    assert 0 <= gain <= 1
    assert drop == 0 or gain == 0
    assert drop == pytest.approx(confidence_drop(before, after) / (1 + before))
    assert gain == pytest.approx(max(0.0, after - before) / (1 - before))


def test_the_ends_of_the_range() -> None:
    assert [confidence(-1), confidence(0), confidence(1)] == [0, 0.5, 1]
    assert np.isnan([average_drop(0, 0.5), average_gain(1, 0.5)]).all()
    assert np.isnan([average_drop(0.5, np.nan), average_gain(0.5, np.nan)]).all()
    assert [same_winner([1, 0], [0.2, 0.1]), same_winner([1, 0], [0.1, 0.2])] == [1, 0]
    assert np.isnan(same_winner([1, 0], [np.nan, 0]))


@DIRECTIONS
def test_the_metrics_are_their_formulas_on_what_is_kept_and_taken_away(
    cases: dict[str, Case], direction: str
) -> None:
    case = cases[direction]
    kept, removed = (
        float(case.cosines([reduced_input(case.raw, case.attribution, complement=c)])[0])
        for c in (False, True)
    )
    assert kept != pytest.approx(removed, abs=1e-3)
    assert AverageIncrease()(case) == float(kept > case.clean)
    f0, f1 = (1 + case.clean) / 2, (1 + kept) / 2
    assert AverageDrop()(case) == pytest.approx(max(0, f0 - f1) / f0, abs=1e-6)
    assert AverageGain()(case) == pytest.approx(max(0, f1 - f0) / (1 - f0), abs=1e-6)
    assert Faithfulness()(case) == pytest.approx((case.clean - removed) / 2, abs=1e-6)


def test_what_is_kept_and_what_is_taken_away_make_the_whole(cases: dict[str, Case]) -> None:
    case = cases["image|text"]
    parts = [
        reduced_input(case.raw, case.attribution, complement=c).pixels.astype(float)
        for c in (False, True)
    ]
    mean = case.raw.pixels.mean(axis=(0, 1))
    np.testing.assert_allclose(sum(parts), case.raw.pixels + mean, atol=1.01)


def test_input_fidelity_compares_two_guides() -> None:
    case = cases_of(untrained_backbone(), ScenesDataset(1, seed=7001), "random")[0]
    assert case.unrelated is not None
    other = case.model.guide_embedding(case.unrelated)
    known = mm.attribute(
        case.model.backbone, inputs={case.side: case.raw, case.guide: case.unrelated},
        method="random",
    )  # fmt: skip
    whole, part = case.embeddings([case.raw, reduced_input(case.raw, case.attribution)])
    assert float((whole * other).sum()) == pytest.approx(known.similarity, abs=1e-5)
    expected = same_winner(
        [case.clean, known.similarity], [kept_cosine(case), float((part * other).sum())]
    )
    assert InputFidelity()(case) == expected


def test_without_another_guide_input_fidelity_is_unknown(cases: dict[str, Case]) -> None:
    assert np.isnan(InputFidelity()(cases["image|text"]))


@DIRECTIONS
def test_the_joint_drop_is_beyond_the_worse_of_both(cases: dict[str, Case], direction: str) -> None:
    case, back = cases[direction], cases["|".join(direction.split("|")[::-1])]
    found = JointDrop()(case)
    assert found == pytest.approx(JointDrop()(back), abs=1e-5), "it belongs to the pair"
    pair = {
        side: reduced_input(case.explanation.inputs[side], case.explanation[side])
        for side in case.explanation
    }
    both = mm.attribute(case.model.backbone, inputs=pair, method="random").similarity
    worse = min(kept_cosine(case), kept_cosine(back))
    assert found == pytest.approx(worse - both, abs=1e-5)
    assert np.isnan([joint_drop(np.nan, 0.1, 0.1), joint_drop(0.1, np.nan, 0.1)]).all()


def test_localization_takes_what_lies_above_three_quarters_of_the_range() -> None:
    scores = np.array([[0.0, 4.0, 3.1], [2.9, 3.0, 1.0]], dtype=np.float32)
    mask = np.array([[False, True, False], [True, False, False]])
    assert threshold_iou(scores, mask) == pytest.approx(1 / 3), "above 3: two places, one is right"
    assert threshold_iou(5 * scores - 7, mask) == pytest.approx(1 / 3)
    assert threshold_iou(scores, mask, 0.5) == pytest.approx(2 / 4)
    assert threshold_iou(np.ones((2, 3), np.float32), mask) == 0, "never above chance"
    assert threshold_iou(mask.astype(np.float32), mask) == 1
    assert Localization(0.5).describe() == {"threshold": 0.5}
    for wrong in (1.0, -0.1, True, "half"):
        with pytest.raises(OptionError):
            Localization(wrong)  # type: ignore[arg-type]


def test_what_evaluate_measures_unasked_is_as_before() -> None:
    from mmattrib.evaluation.run import _metrics

    chosen, _ = _metrics(None)
    assert {"auc", "energy", "iou", "object_top1", "pointing"} <= set(chosen)
    assert "localization" not in chosen
    every, _ = _metrics("all")
    assert set(every) == set(default_plugins().registry.names("metric"))
