"""The benchmark: truth in the maps' shape, numbers that add up, work that can be stopped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mmattrib as mm
from mmattrib.errors import InputError, OptionError, UnknownNameError
from mmattrib.evaluation.benchmark import Evaluation, raw_input, scene_truth

QUICK = ("random", "gradient-x-input")


@pytest.fixture(scope="module")
def scenes() -> list[mm.Scene]:
    return mm.scenes(3, seed=21)


def test_truth_has_the_shape_of_the_map(untrained: mm.Backbone, scenes: list[mm.Scene]) -> None:
    scene = scenes[0]
    for pair in (("image", "text"), ("audio", "text")):
        inputs = {side: raw_input(scene, side) for side in pair}
        ex = mm.attribute(untrained, inputs=inputs, method="random")
        for side in pair:
            truth = scene_truth(scene, ex[side])
            assert truth.mask.shape == ex[side].scores.shape
            assert truth.mask.any()
            assert not truth.mask.all()
            assert sum(truth.shared) == len(scene.shared) == 1
            shared = truth.objects[truth.shared.index(True)]
            assert np.array_equal(shared, truth.mask)


def test_words_of_the_truth_are_the_shared_class(
    untrained: mm.Backbone, scenes: list[mm.Scene]
) -> None:
    for scene in scenes:
        inputs = {"image": scene.image, "text": scene.caption}
        found = mm.attribute(untrained, inputs=inputs, method="random")["text"]
        truth = scene_truth(scene, found)
        words = {w.text for w, yes in zip(found.words, truth.mask, strict=True) if yes}
        (mention,) = [m for m in scene.mentions if m.class_name in scene.shared]
        assert words == set(scene.caption[slice(*mention.span)].split())


def test_evaluate_scores_both_directions(
    untrained: mm.Backbone, scenes: list[mm.Scene], tmp_path: Path
) -> None:
    found = mm.evaluate(untrained, scenes, methods=QUICK, progress=False)
    assert set(found.directions) == {f"{a}|{b}" for a in _M for b in _M if a != b}
    assert found.methods == QUICK
    assert set(found.metrics) >= {"specificity", "pointing", "iou", "auc", "energy", "seconds"}
    for values in found.values.values():
        assert values.shape == (3,)
    mean, error = found.mean("image|text", "random", "auc")
    column = found.values["image|text", "random", "auc"]
    assert mean == pytest.approx(column.mean())
    assert error == pytest.approx(column.std(ddof=1) / np.sqrt(3))
    table = found.table()
    assert table.count("| random |") == 6
    assert f"{100 * mean:.1f} ± {100 * error:.1f}" in table
    stored = json.loads(found.to_json())
    assert stored["provenance"]["scenes"] == 3
    assert len(stored["values"]) == len(found.values)


_M = ("image", "text", "audio")


def test_a_stopped_evaluation_goes_on(
    untrained: mm.Backbone,
    scenes: list[mm.Scene],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = [("image", "text"), ("audio", "text")]
    whole = mm.evaluate(untrained, scenes, methods=QUICK, pairs=pairs, progress=False)
    file = tmp_path / "run.jsonl"

    from mmattrib import benchmark

    real, calls = benchmark._score, []

    def stops_at_the_third(*args: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(benchmark, "_score", stops_at_the_third)
    given = {"methods": QUICK, "pairs": pairs, "resume": file, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        mm.evaluate(untrained, scenes, **given)
    file.write_text(file.read_text() + '{"tag": "cut o')
    found = mm.evaluate(untrained, scenes, **given)
    assert len(calls) == 3 + 2, "finished chunks are not done again"
    for key, values in whole.values.items():
        if key[2] != "seconds":
            np.testing.assert_array_equal(found.values[key], values)
    again = mm.evaluate(untrained, scenes, **given)
    assert len(calls) == 5
    assert set(again.values) == set(whole.values)


def test_two_processes_give_the_same_numbers(
    untrained: mm.Backbone, scenes: list[mm.Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmattrib import benchmark

    monkeypatch.setattr(benchmark, "CHUNK", 2)
    given = {"methods": ["nib"], "pairs": [("image", "text")], "progress": False}
    one = mm.evaluate(untrained, scenes, **given)
    two = mm.evaluate(untrained, scenes, jobs=2, **given)
    assert list(one.values) == list(two.values)
    for key, values in one.values.items():
        if key[2] != "seconds":
            np.testing.assert_array_equal(two.values[key], values)


def test_a_resume_file_of_other_arguments_is_refused(
    untrained: mm.Backbone, scenes: list[mm.Scene], tmp_path: Path
) -> None:
    given = {"methods": ["random"], "pairs": [("image", "text")], "progress": False}
    file = tmp_path / "run.jsonl"
    mm.evaluate(untrained, scenes, resume=file, **given)
    with pytest.raises(OptionError, match="other arguments"):
        mm.evaluate(untrained, scenes, resume=file, seed=1, **given)


def test_paired_differences_tell_better_from_equal() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=200)
    values = {
        ("image|text", "a", "auc"): base + 0.5 + 0.1 * rng.normal(size=200),
        ("image|text", "b", "auc"): base,
        ("image|text", "c", "auc"): base + 0.5 * rng.normal(size=200),
    }
    found = Evaluation(values, {})
    mean, low, high = found.difference("image|text", "a", "b", "auc")
    assert low < mean < high
    assert low > 0.4
    _, low, high = found.difference("image|text", "c", "b", "auc")
    assert low < 0 < high
    _, narrow_low, _ = found.difference("image|text", "c", "b", "auc", level=0.5)
    assert narrow_low > low


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"jobs": 0}, OptionError, "at least 1"),
        ({"methods": []}, OptionError, "at least one method"),
        ({"methods": "m2ib"}, OptionError, "'all' or a sequence"),
        ({"methods": ["m2bi"]}, UnknownNameError, "m2ib"),
        ({"metrics": ["acu"]}, UnknownNameError, "auc"),
        ({"pairs": [("image", "depth")]}, InputError, "does not embed depth"),
    ],
)
def test_what_cannot_be_evaluated_is_said(
    given: dict[str, object],
    error: type[Exception],
    says: str,
    untrained: mm.Backbone,
    scenes: list[mm.Scene],
) -> None:
    with pytest.raises(error, match=says):
        mm.evaluate(untrained, scenes, progress=False, **given)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="at least one scene"):
        mm.evaluate(untrained, [], progress=False)
