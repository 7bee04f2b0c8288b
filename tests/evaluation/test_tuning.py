"""Tuning: ranks without units, each kind of input by itself, and a plan of what was chosen."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

import mmattrib as mm
from mmattrib.errors import OptionError
from mmattrib.evaluation import Column, Results, Variant
from mmattrib.evaluation.plans import parse_plan, write_plan
from mmattrib.evaluation.tuning import CONFIDENCE, _rounds, grid, rank, tune

GRID = grid("nib", [0, 1], {"steps": [1, 2]})


def results(numbers: dict[str, dict[str, list[float]]]) -> Results:
    """Metric -> direction -> a number for each variant of the grid."""
    columns = {
        Column("d", "m", variant.label, None, direction, metric): np.array([values[place]])
        for metric, directions in numbers.items()
        for direction, values in directions.items()
        for place, variant in enumerate(GRID)
    }
    return Results(columns, {"d": {0: "a"}})


def test_each_kind_of_input_is_ranked_by_the_directions_that_explain_it() -> None:
    found = results({"auc": {"image|text": [1, 2, 4, 3], "text|image": [9, 5, 6, 7]}})
    ranked = rank(found, GRID, ["auc"])
    best = {modality: trials[0].variant for modality, trials in ranked.items()}
    assert best == {"image": GRID[2], "text": GRID[0]}
    assert [trial.rank for trial in ranked["image"]] == [0, 1, 2, 3]


def test_several_metrics_are_joined_by_places_and_less_may_be_better() -> None:
    numbers = {
        "confidence_drop": {"image|text": [0.001, 0.002, 0.003, 0.004]},
        "confidence_increase": {"image|text": [0.2, 0.3, 0.1, 0.0]},
    }
    ranked = rank(results(numbers), GRID, CONFIDENCE)["image"]
    assert [trial.variant for trial in ranked] == [GRID[0], GRID[1], GRID[2], GRID[3]]
    assert [trial.rank for trial in ranked] == [0.5, 0.5, 2, 3]


def test_what_is_chosen_is_a_plan_with_options_of_each_kind_of_input(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    found = tune(untrained, three, GRID, ["auc"], pairs=[("image", "text")], limit=2, eta=None,
                 progress=False)  # fmt: skip
    assert {m: len(trials) for m, trials in found.trials.items()} == {"image": 4, "text": 4}
    chosen = found.chosen()
    (again,) = parse_plan(tomllib.loads(write_plan([chosen], ["where it\nis from"])))
    assert again.id == chosen.id
    for modality, trials in found.trials.items():
        best = trials[0].variant
        assert chosen.layer[modality] == best.layer  # type: ignore[index]
        own = {**chosen.options, **chosen.sides.get(modality, {})}
        assert own == best.options
    surface = found.surfaces()[0]
    assert surface.values.shape == (2, 2)
    assert surface.values[surface.best] == np.float32(100 * found.trials["image"][0].means["auc"])


def test_options_of_one_side_change_that_side_alone(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    pair = next(iter(three)).pair("image", "text").inputs

    def maps(variant: Variant) -> tuple[np.ndarray, np.ndarray]:
        made = mm.attribute(untrained, inputs=pair, method=variant.make(0))
        return made["image"].token_scores, made["text"].token_scores

    plain, sided = Variant("a", "nib", {"steps": 1}), Variant("b", "nib", {"steps": 4})
    both = Variant("c", "nib", {"steps": 1}, None, {"text": {"steps": 4}})
    np.testing.assert_array_equal(maps(both)[0], maps(plain)[0])
    np.testing.assert_array_equal(maps(both)[1], maps(sided)[1])
    assert len({variant.id for variant in (plain, sided, both)}) == 3
    assert not both.make(0).draws
    noisy = Variant("d", "random", {}, None, {"text": {}})
    assert noisy.make(3).describe()["seed"] == 3


def test_halving_measures_whole_tasks_and_ends_on_all_samples() -> None:
    assert _rounds(8, 64, 2) == [16, 32, 64]
    assert _rounds(8, 50, 2) == [16, 50]
    assert _rounds(8, 10, 2) == [10]
    assert _rounds(8, 64, None) == [64]
    assert _rounds(1, 64, 2) == [64]


def test_halving_leaves_the_worse_half_and_keeps_what_is_finished(
    untrained: mm.Backbone, three: mm.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tasks", "tuning"):
        monkeypatch.setattr(f"mmattrib.evaluation.{name}.CHUNK", 1)
    store = tmp_path / "kept.jsonl"
    given = {"pairs": [("image", "text")], "limit": 2, "resume": store, "progress": False}
    bad = Variant("bad", "nib", {}, 99)
    found = tune(untrained, three, [*GRID, bad], ["auc"], **given)  # type: ignore[arg-type]
    assert "no layer 99" in found.failures["bad"]
    assert found.rounds[0] == (5, 1)
    assert found.rounds[1][1] == 2
    assert found.rounds[1][0] < 5
    kept = store.read_bytes()
    again = tune(untrained, three, [*GRID, bad], ["auc"], **given)  # type: ignore[arg-type]
    assert store.read_bytes() == kept
    assert again.chosen() == found.chosen()


def test_what_cannot_be_tuned_is_said(untrained: mm.Backbone, three: mm.Dataset) -> None:
    with pytest.raises(OptionError, match="says not whether"):
        tune(untrained, three, GRID, ["cosine"])
    with pytest.raises(OptionError, match="at least one variant"):
        tune(untrained, three, [], ["auc"])
    with pytest.raises(OptionError, match=r"no variant could be measured.*no layer 99"):
        tune(untrained, three, [Variant("bad", "nib", {}, 99)], ["auc"], limit=1, progress=False)
    with pytest.raises(OptionError, match="more than"):
        grid("nib", list(range(200)), {"steps": list(range(1, 101))})
