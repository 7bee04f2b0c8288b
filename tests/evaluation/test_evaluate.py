"""Evaluation: numbers that add up, columns that are not lost, work that can be stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmattrib as mm
from mmattrib.errors import InputError, OptionError, UnknownNameError
from mmattrib.evaluation import Chance, Column, OcclusionOracle, Results, Variant
from mmattrib.evaluation.measure import SECONDS, Context
from mmattrib.evaluation.run import make_plan
from mmattrib.metrics import Case, Metric
from mmattrib.metrics.faithfulness import reduced_input
from mmattrib.metrics.localisation import object_top1
from mmattrib.samples import Sample

QUICK = ("random", "gradient-x-input")
PAIRS = [("image", "text")]
SIDES = ("image", "text", "audio")


def evaluate(backbone: mm.Backbone, data: Any, **given: Any) -> Results:
    return mm.evaluate(backbone, data, progress=False, **{"pairs": PAIRS, **given})


def assert_same(one: Results, two: Results) -> None:
    assert set(one.columns) == set(two.columns)
    for column, values in one.columns.items():
        if column.metric != SECONDS:
            np.testing.assert_array_equal(two.columns[column], values)


def test_both_directions_of_every_pair_are_scored(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    found = evaluate(untrained, three, methods=QUICK, pairs=None)
    assert set(found.directions) == {f"{a}|{b}" for a in SIDES for b in SIDES if a != b}
    assert found.methods == QUICK
    assert set(found.metrics) == {"object_top1", "pointing", "iou", "auc", "energy", "seconds"}
    column = found.values("random", "image|text", "auc")
    assert column.shape == (3,)
    mean, error = found.mean("random", "image|text", "auc")
    assert mean == pytest.approx(column.mean())
    assert error == pytest.approx(column.std(ddof=1) / np.sqrt(3))
    table = found.table()
    assert table.count("| random |") == 6
    assert f"{100 * mean:.1f} ± {100 * error:.1f}" in table
    stored = json.loads(found.to_json())
    assert stored["provenance"]["datasets"]["scenes"]["size"] == 3
    assert len(stored["columns"]) == len(found.columns)
    assert len(repr(found)) < 120


def test_numbers_are_those_of_the_map_and_the_truth(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    found = evaluate(untrained, three, methods=["nib"])
    for place, sample in enumerate(three):
        ex = mm.attribute(untrained, inputs=sample.pair("image", "text").inputs, method="nib")
        truth = sample.truth["text"].on(ex["text"])
        expected = object_top1(ex["text"].scores, truth.parts, truth.shared)
        number = found.values("nib", "text|image", "object_top1")[place]
        np.testing.assert_allclose(number, expected, atol=1e-6)


def test_two_methods_of_one_name_keep_a_column_each(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    methods = [mm.load_method("nib", steps=1), mm.load_method("nib", steps=4)]
    found = evaluate(untrained, three, methods=methods)
    assert found.methods == ("nib (steps=1)", "nib (steps=4)")
    told = found.provenance["methods"]
    assert [told[m]["options"]["steps"] for m in found.methods] == [1, 4]
    one, four = (found.values(m, "image|text", "auc") for m in found.methods)
    assert not np.array_equal(one, four)
    with pytest.raises(OptionError, match="name them apart"):
        evaluate(untrained, three, methods=[mm.load_method("nib"), mm.load_method("nib")])
    named = evaluate(untrained, three, methods={"a": mm.load_method("nib", steps=1), "b": "nib"})
    assert named.methods == ("a", "b")


def test_methods_that_differ_in_their_seed_alone_are_refused(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    methods = {"a": mm.load_method("random", seed=0), "b": mm.load_method("random", seed=1)}
    with pytest.raises(OptionError, match=r"differ in their seed alone.*seed=\[0, 1\]"):
        evaluate(untrained, three, methods=methods)


def test_layers_go_with_the_variant(untrained: mm.Backbone, three: mm.Dataset) -> None:
    variants = [Variant(f"at {k}", "nib", {"steps": 1}, {"image": k, "audio": 0}) for k in (0, 2)]
    found = evaluate(untrained, three, methods=variants)
    zero, two = (found.values(v.label, "image|text", "auc") for v in variants)
    assert not np.array_equal(zero, two)


def test_seeds_are_averaged_and_only_noise_has_them(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    both = evaluate(untrained, three, methods=["random", "nib"], seed=(3, 4))
    alone = [evaluate(untrained, three, methods=["random"], seed=s) for s in (3, 4)]
    mean = np.mean([a.values("random", "image|text", "auc") for a in alone], axis=0)
    np.testing.assert_allclose(both.values("random", "image|text", "auc"), mean)
    one = both.values("random", "image|text", "auc", seed=4)
    np.testing.assert_array_equal(one, alone[1].values("random", "image|text", "auc"))
    seeds = {c.method: {k.seed for k in both.columns if k.method == c.method} for c in both.columns}
    assert seeds == {"random": {3, 4}, "nib": {None}}


def test_a_seed_is_recorded_where_something_draws_noise(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    def recorded(*methods: str) -> object:
        plan = make_plan(untrained, three, methods=methods, pairs=[("image", "text")], seed=[3, 4])
        return plan.describe()["seeds"]

    assert recorded("nib", "random") == [3, 4]
    assert recorded("nib", "gradient-x-input") == []


def test_several_backbones_and_data_sets_keep_their_labels(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    tiny = mm.load_backbone("tiny")
    other = mm.load_dataset("scenes", n=2, seed=5)
    found = evaluate(
        {"before": untrained, "after": tiny}, {"a": three, "b": other}, methods=["nib"]
    )
    assert (found.backbones, found.datasets) == (("before", "after"), ("a", "b"))
    assert found.table_of("nib", "image|text", "auc", dataset="a").shape == (2, 3)
    assert found.values("nib", "image|text", "auc", "after", "b").shape == (2,)
    with pytest.raises(OptionError, match="several data sets"):
        found.table()
    assert "b: 2 samples; backbones: after" in found.table(dataset="b", backbones=["after"])


def test_a_method_that_is_added_is_measured_and_the_others_are_not_again(
    untrained: mm.Backbone, three: mm.Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    given = {"pairs": [("image", "text")], "resume": path}
    evaluate(untrained, three, methods=["random"], **given)
    before = path.read_bytes()
    grown = evaluate(untrained, three, methods=["nib", "random"], **given)
    assert path.read_bytes().startswith(before)
    assert path.read_text().count('"rows"') == 2
    fresh = evaluate(untrained, three, methods=["nib", "random"], pairs=[("image", "text")])
    assert_same(grown, fresh)
    again = evaluate(untrained, three, methods=["random", "nib"], **given)
    assert path.read_text().count('"rows"') == 2
    assert again.methods == ("random", "nib")
    for methods in (["nib"], {"random": "nib"}, {"noise": "random"}):
        with pytest.raises(OptionError, match=r"belongs to another evaluation: methods\.random"):
            evaluate(untrained, three, methods=methods, **given)
    with pytest.raises(OptionError, match="metrics"):
        evaluate(untrained, three, methods=["random", "nib"], metrics=["iou"], **given)


@pytest.mark.usefixtures("chunks_of_two")
def test_a_stopped_evaluation_goes_on(
    untrained: mm.Backbone, three: mm.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"methods": QUICK, "pairs": [("image", "text"), ("audio", "text")]}
    whole = evaluate(untrained, three, **given)
    file, calls = tmp_path / "run.jsonl", []
    real = Context.measure

    def stops_at_the_third(self: Context, task: Any) -> Any:
        calls.append(task)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, task)

    monkeypatch.setattr(Context, "measure", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        evaluate(untrained, three, resume=file, **given)
    file.write_text(file.read_text() + '{"id": "cut o')
    found = evaluate(untrained, three, resume=file, **given)
    assert len(calls) == 3 + 6, "what is finished is not done again"
    assert_same(whole, found)
    assert_same(whole, evaluate(untrained, three, resume=file, **given))
    assert len(calls) == 9


@pytest.mark.usefixtures("chunks_of_two")
def test_the_number_of_processes_changes_no_number(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    given = {"methods": ["nib", "random"]}
    assert_same(evaluate(untrained, three, **given), evaluate(untrained, three, jobs=2, **given))


def test_methods_and_seeds_may_be_added_to_a_file_in_any_order(
    untrained: mm.Backbone, three: mm.Dataset, tmp_path: Path
) -> None:
    """Also a method that draws noise, where none did before."""
    file, given = tmp_path / "run.jsonl", {"pairs": [("image", "text")]}
    evaluate(untrained, three, methods=["nib"], resume=file, **given)
    both = ["nib", "random"]
    evaluate(untrained, three, methods=both, resume=file, **given)
    for seed in ((0, 1), 1):
        grown = evaluate(untrained, three, methods=both, seed=seed, resume=file, **given)
        assert_same(grown, evaluate(untrained, three, methods=both, seed=seed, **given))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_file_tells_where_and_with_what_each_task_was_measured(
    jobs: int, untrained: mm.Backbone, three: mm.Dataset, tmp_path: Path
) -> None:
    file = tmp_path / "run.jsonl"
    pair = {side: next(iter(three)).inputs[side] for side in ("image", "text")}
    explained = mm.attribute(untrained, inputs=pair, method="random")
    evaluate(untrained, three, methods=["random"], resume=file, jobs=jobs)
    stamps = [
        entry["stamp"] for entry in map(json.loads, file.read_text().splitlines()) if "id" in entry
    ]
    assert stamps
    for stamp in stamps:
        assert (stamp["device"], stamp["versions"]) == ("cpu", explained.provenance["versions"])


@pytest.mark.parametrize(
    "methods",
    [
        ["random", mm.Variant("random", "nib")],
        [mm.Variant("x", "random"), mm.Variant("x", "nib")],
        [mm.Variant("x", "nib", {"steps": 2}), mm.Variant("x", "nib", {"steps": 3})],
    ],
    ids=["of another method", "of two methods", "of two settings"],
)
def test_a_label_that_somebody_chose_stands_for_one_method(
    untrained: mm.Backbone, three: mm.Dataset, methods: list[Any]
) -> None:
    with pytest.raises(OptionError, match="name them apart"):
        evaluate(untrained, three, methods=methods)


def test_a_file_of_another_plan_is_refused_by_naming_the_difference(
    untrained: mm.Backbone, three: mm.Dataset, tmp_path: Path
) -> None:
    file = tmp_path / "run.jsonl"
    evaluate(untrained, three, methods=["random"], resume=file)
    before = file.read_bytes()
    with pytest.raises(
        OptionError, match=r"methods\.random\.method is 'random' in the file, 'nib'"
    ):
        evaluate(untrained, three, methods={"random": "nib"}, resume=file)
    with pytest.raises(OptionError, match="weights_sha256"):
        evaluate(mm.load_backbone("tiny"), three, methods=["random"], resume=file)
    assert file.read_bytes() == before


def test_a_broken_sample_is_told_and_costs_no_other(
    untrained: mm.Backbone, three: mm.Dataset, tmp_path: Path
) -> None:
    good = [sample.pair("image", "text") for sample in three]
    bad = [
        Sample("missing", {"image": tmp_path / "none.png", "text": "a dog"}),
        Sample("one side", {"image": good[0].inputs["image"]}),
    ]
    for path in [tmp_path / "none.png"]:
        path.write_bytes(b"no picture")
    mixed = [good[0], bad[0], good[1], bad[1], good[2]]
    found = evaluate(untrained, mixed, methods=["nib"])
    values = found.values("nib", "image|text", "auc")
    assert np.isnan(values).tolist() == [False, True, False, True, False]
    np.testing.assert_array_equal(
        values[[0, 2, 4]], evaluate(untrained, good, methods=["nib"]).values(
            "nib", "image|text", "auc")
    )  # fmt: skip
    assert {problem.sample for problem in found.problems} == {"missing", "one side"}
    assert "none.png" in found.table()


def test_a_sample_that_lacks_a_side_is_not_taken_for_another_pair(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    whole, lacking, _ = three
    lacking = Sample("lacks sound", {k: lacking.inputs[k] for k in ("image", "text")})
    found = evaluate(
        untrained, [whole, lacking], methods=["random"], metrics=["cosine"], pairs=None
    )
    assert np.isnan(found.values("random", "image|audio", "cosine")).tolist() == [False, True]
    assert not np.isnan(found.values("random", "image|text", "cosine")).any()
    assert {p.sample for p in found.problems} == {"lacks sound"}


def test_a_metric_that_asks_the_model(untrained: mm.Backbone, three: mm.Dataset) -> None:
    found = evaluate(untrained, three, methods=["nib"], metrics=["confidence_drop", "cosine"])
    for place, sample in enumerate(three):
        pair = sample.pair("image", "text")
        ex = mm.attribute(untrained, inputs=pair.inputs, method="nib")
        reduced = reduced_input(ex.inputs["image"], ex["image"])
        left = mm.attribute(
            untrained, inputs={"image": reduced, "text": pair.inputs["text"]}, method="nib"
        ).similarity
        drop = found.values("nib", "image|text", "confidence_drop")[place]
        assert drop == pytest.approx(max(0.0, ex.similarity - left), abs=2e-6)
        cosine = found.values("nib", "image|text", "cosine")[place]
        assert cosine == pytest.approx(ex.similarity, abs=2e-6)


def test_a_metric_may_be_wanted_on_the_first_samples_alone(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    found = evaluate(untrained, three, methods=["random"], metrics={"auc": None, "stability": 2})
    assert np.isnan(found.values("random", "image|text", "stability")).tolist() == [False] * 2 + [
        True
    ]
    assert not np.isnan(found.values("random", "image|text", "auc")).any()


class Bound(Metric):
    """A metric that was never registered."""

    name = "largest"
    summary = "the largest score"
    needs = frozenset()
    percent = False

    def score(self, case: Case) -> float:
        return float(case.scores.max())


def test_a_live_metric_is_taken_as_it_is(untrained: mm.Backbone, three: mm.Dataset) -> None:
    found = evaluate(untrained, three, methods=["random"], metrics=[Bound(), "auc"])
    assert (found.values("random", "image|text", "largest") <= 1).all()
    with pytest.raises(OptionError, match="given twice"):
        evaluate(untrained, three, methods=["random"], metrics=[Bound(), Bound()])


def test_references_stand_beside_methods(three: mm.Dataset) -> None:
    tiny = mm.load_backbone("tiny")
    found = evaluate(tiny, three, methods=["random", Chance(), OcclusionOracle()])
    for place, sample in enumerate(three):
        shared = [part.shared for part in sample.truth["image"].parts]
        chance = found.values("chance", "image|text", "object_top1")[place]
        expected = np.mean(shared) if 0 < sum(shared) < len(shared) else np.nan
        np.testing.assert_allclose(chance, expected, atol=1e-6)
    assert np.nanmean(found.values("oracle", "image|text", "object_top1")) > 0.6


def test_a_row_says_on_how_many_samples_its_numbers_rest() -> None:
    whole, part = np.ones(3), np.array([1.0, np.nan, np.nan])
    columns = {
        Column("a", "tiny", method, None, "image|text", metric): values
        for method, auc in (("random", part), ("nib", whole))
        for metric, values in (("auc", auc), ("iou", whole), ("energy", np.full(3, np.nan)))
    }
    table = Results(columns, {"a": {0: "x", 1: "y", 2: "z"}}).table()
    assert "| random | 1 to 3 |" in table
    assert "| nib | 3 |" in table


def test_paired_differences_tell_better_from_equal() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=200)
    made = {
        "a": base + 0.5 + 0.1 * rng.normal(size=200),
        "b": base,
        "c": base + 0.5 * rng.normal(size=200),
    }
    columns = {Column("d", "m", k, 0, "image|text", "auc"): v for k, v in made.items()}
    found = Results(columns, {"d": {n: str(n) for n in range(200)}})
    better = found.difference("a", "b", "auc", "image|text")
    assert 0.4 < better.low < better.mean < better.high
    equal = found.difference("c", "b", "auc", "image|text")
    assert equal.low < 0 < equal.high


class Endless(mm.Dataset):
    """A stream that says what is asked of it."""

    name = "endless"

    def __init__(self, inner: mm.Dataset) -> None:
        self.sample, self.asked = next(iter(inner)), 0

    def __iter__(self) -> Iterator[Sample]:
        while True:
            self.asked += 1
            assert self.asked < 100, "a stream is read no further than its limit"
            yield Sample(
                f"sample {self.asked}", self.sample.inputs, self.sample.truth, self.sample.tags
            )

    def describe(self) -> dict[str, Any]:
        return {}


def test_a_stream_is_read_as_far_as_its_limit(untrained: mm.Backbone, three: mm.Dataset) -> None:
    found = evaluate(untrained, Endless(three), methods=["random"], limit=4)
    assert len(found.samples["endless"]) == 4


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"jobs": 0}, OptionError, "from 1 to"),
        ({"methods": []}, OptionError, "at least one method"),
        ({"methods": "m2ib"}, OptionError, "'all' or a sequence"),
        ({"methods": ["m2bi"]}, UnknownNameError, "m2ib"),
        ({"metrics": ["acu"]}, UnknownNameError, "auc"),
        ({"metrics": []}, OptionError, "at least one metric"),
        ({"pairs": [("image", "depth")]}, InputError, "no 'depth'"),
        ({"layer": {"imgae": 3}}, OptionError, "imgae"),
        ({"layer": {"image": 99}}, OptionError, "no layer 99"),
        ({"limit": 0}, OptionError, "from 1 to"),
        ({"seed": ()}, OptionError, "whole number"),
    ],
)
def test_what_cannot_be_evaluated_is_said(
    given: dict[str, Any],
    error: type[Exception],
    says: str,
    untrained: mm.Backbone,
    three: mm.Dataset,
) -> None:
    with pytest.raises(error, match=says):
        evaluate(untrained, three, **{"methods": ["nib"], **given})


def test_what_is_no_data_set_is_refused(untrained: mm.Backbone) -> None:
    with pytest.raises(OptionError, match="holds no sample"):
        evaluate(untrained, [])
    with pytest.raises(OptionError, match="load_dataset"):
        evaluate(untrained, mm.scenes(1))
    with pytest.raises(OptionError, match="load_dataset"):
        evaluate(untrained, "scenes")


def test_what_an_earlier_run_finished_is_shown_and_counts_not_towards_the_rate(
    untrained: mm.Backbone, three: mm.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, bars = sys.modules["mmattrib.evaluation.run"], []

    class Kept(module.tqdm):  # type: ignore[misc,name-defined]
        def __init__(self, *args: Any, **given: Any) -> None:
            super().__init__(*args, **given)
            bars.append(self)

    monkeypatch.setattr(module, "tqdm", Kept)
    given = {"pairs": PAIRS, "metrics": ["auc"], "resume": tmp_path / "kept.jsonl"}
    mm.evaluate(untrained, three, methods=["random"], **given)
    mm.evaluate(untrained, three, methods=["random", "gradient-x-input"], **given)
    assert [(bar.total, bar.n, bar.initial) for bar in bars] == [(3, 3, 0), (6, 6, 3)]


def test_a_method_that_does_not_fit_is_left_out_where_that_is_wanted(
    untrained: mm.Backbone, three: mm.Dataset
) -> None:
    methods = [Variant("bad", "nib", {}, 99), "random"]
    found = evaluate(untrained, three, methods=methods, metrics=["auc"], keep_going=True)
    assert found.methods == ("random",)
    assert "no layer 99" in found.left_out["bad on tiny"]
    assert "Left out: bad on tiny: " in found.table()
    assert json.loads(found.to_json())["left_out"] == found.left_out
    with pytest.raises(OptionError, match=r"no method could be measured.*no layer 99"):
        evaluate(untrained, three, methods=methods[:1], metrics=["auc"], keep_going=True)
