"""The sweep: resuming, plans that grow, and results that do not depend on how they came about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from examples.study import sweep as study
from examples.study.__main__ import main
from examples.study.protocol import METRICS
from examples.study.sweep import FILE, Scope, checkpoints
from mmattrib.errors import OptionError
from mmattrib.evaluation import NamedModel, Outcome, Results, Variant, View, load_results, markdown
from mmattrib.evaluation.measure import Context, SampleRow

PAIR = ("image", "text")
SIDES = ("image", "audio", "text")
SCOPE = Scope(n=3, pairs=[PAIR])
BAD = Variant("bad", "nib", {"steps": 1}, {"image": 99, "text": -1})
QUICK = (Variant("nib", "nib", {"steps": 1}), Variant("random", "random", {}))


@pytest.fixture(scope="module")
def shipped() -> dict[str, NamedModel]:
    return checkpoints()


@pytest.fixture
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmattrib.evaluation.tasks.CHUNK", 2)


def sweep(
    folder: Path,
    models: dict[str, NamedModel],
    variants: Sequence[Variant] = QUICK,
    scope: Scope = SCOPE,
    **given: Any,
) -> Outcome:
    return study.sweep(variants, models, scope, folder, progress=False, **given)


def load(folder: Path) -> Results:
    return load_results(folder / FILE)


def assert_same(a: Results, b: Results) -> None:
    keys = {k for k in a.columns if k.metric != "seconds"}
    assert keys == {k for k in b.columns if k.metric != "seconds"}
    for key in keys:
        np.testing.assert_array_equal(a.columns[key], b.columns[key])


@pytest.mark.slow  # tests/evaluation shows the same of the library
@pytest.mark.usefixtures("chunks_of_two")
def test_order_processes_and_a_failing_variant_change_no_number(
    shipped: dict[str, NamedModel], tmp_path: Path
) -> None:
    assert sweep(tmp_path / "a", shipped).done == 4
    outcome = sweep(tmp_path / "b", shipped, [BAD, *QUICK[::-1]], jobs=2)
    assert outcome.done == 4
    assert {"no layer 99" in message for message in outcome.failures.values()} == {True}
    a, b = load(tmp_path / "a"), load(tmp_path / "b")
    assert b.methods == ("random", "nib")
    assert_same(a, b)
    assert list(a.samples["search/one"]) == [0, 1, 2]
    assert not np.isnan(a.values("nib", "image|text", "iou")).any()


@pytest.mark.usefixtures("chunks_of_two")
def test_a_killed_run_goes_on(shipped: dict[str, NamedModel], tmp_path: Path) -> None:
    sweep(tmp_path / "whole", shipped)
    text = (tmp_path / "whole" / FILE).read_text()
    for keep, cut in ((3, 40), (4, 9)):  # whole lines kept, characters of the next one
        lines = text.splitlines(keepends=True)
        folder = tmp_path / f"cut{keep}"
        folder.mkdir()
        (folder / FILE).write_text("".join(lines[:keep]) + lines[keep][:cut])
        outcome = sweep(folder, shipped)
        assert outcome.kept == keep - 2, "the first lines are the head and the labels"
        assert outcome.done == 4 - outcome.kept
        assert_same(load(tmp_path / "whole"), load(folder))
        assert sweep(folder, shipped).done == 0


def test_a_plan_may_grow(shipped: dict[str, NamedModel], tmp_path: Path) -> None:
    sweep(tmp_path, shipped, QUICK[:1])
    assert sweep(tmp_path, shipped, QUICK).done == 1
    later = Scope(n=1, start=18, pairs=[PAIR])
    assert sweep(tmp_path, shipped, QUICK[1:], later).done == 1
    results = load(tmp_path)
    assert list(results.samples["search/one"]) == [0, 1, 2, 18]
    values = results.values("nib", "image|text", "auc")
    assert np.isnan(values[3])
    assert np.isfinite(values[:3]).all()


def test_a_label_that_changes_its_meaning_shows_the_new_numbers(
    shipped: dict[str, NamedModel], tmp_path: Path
) -> None:
    sweep(tmp_path, shipped, [Variant("v", "nib", {"steps": 1})])
    sweep(tmp_path, shipped, [Variant("v", "random", {})])
    sweep(tmp_path / "new", shipped, [Variant("v", "random", {})])
    assert_same(load(tmp_path), load(tmp_path / "new"))
    assert sweep(tmp_path, shipped, [Variant("other", "nib", {"steps": 1})]).done == 0
    assert load(tmp_path).methods == ("v", "other")


def test_a_definition_is_not_its_label_nor_its_spelling() -> None:
    same = [
        Variant("a", "ca-m2ib", {"beta": 1}),
        Variant("b", "ca-m2ib", {"beta": 1.0}),
        Variant("c", "ca-m2ib", {"beta": "1"}),
    ]
    assert len({v.id for v in same}) == 1
    other = [
        Variant("a", "ca-m2ib", {"beta": 2}),
        Variant("a", "m2ib", {"beta": 1}),
        Variant("a", "ca-m2ib", {"beta": 1}, {"image": 0}),
    ]
    assert len({v.id for v in [*same, *other]}) == 4


def test_options_gained_keep_results_and_changed_defaults_do_not(
    shipped: dict[str, NamedModel], tmp_path: Path
) -> None:
    given = [Variant("v", "nib", {"steps": 1})]
    sweep(tmp_path, shipped, given)
    path = tmp_path / FILE
    *head, line = path.read_text().splitlines()

    def with_options(options: dict[str, object], source: str | None = None) -> None:
        entry = json.loads(line)
        entry["stamp"]["options"] = options
        entry["stamp"]["source"] = source or entry["stamp"]["source"]
        path.write_text("\n".join([*head, json.dumps(entry)]) + "\n")

    with_options({"steps": 1})
    assert sweep(tmp_path, shipped, given).done == 0
    with_options({"steps": 2})
    assert sweep(tmp_path, shipped, given).done == 1
    with_options({"steps": 1}, source="another")
    outcome = sweep(tmp_path, shipped, given)
    assert (outcome.done, outcome.outdated) == (0, 1)
    assert sweep(tmp_path, shipped, given, fresh=True).done == 1
    assert sweep(tmp_path, shipped, given, fresh=True).done == 0


def test_probes_are_added_and_not_lost(shipped: dict[str, NamedModel], tmp_path: Path) -> None:
    def probed() -> list[bool]:
        values = load(tmp_path).values("random", "image|text", "prompt_sensitivity")
        return np.isfinite(values).tolist()

    given = QUICK[1:]
    sweep(tmp_path, shipped, given)
    assert "prompt_sensitivity" not in load(tmp_path).metrics
    assert sweep(tmp_path, shipped, given, Scope(n=3, pairs=[PAIR], probes=1)).done == 1
    assert probed() == [True, False, False]
    assert set(load(tmp_path).metrics) == set(METRICS)
    assert sweep(tmp_path, shipped, given).done == 0
    assert probed() == [True, False, False]


def test_a_variant_that_fails_leaves_the_others_alone(
    shipped: dict[str, NamedModel], tmp_path: Path
) -> None:
    outcome = sweep(tmp_path, shipped, [BAD, *QUICK])
    assert outcome.done == 2
    (message,) = outcome.failures.values()
    assert "no layer 99" in message
    assert load(tmp_path).methods == ("nib", "random")


@pytest.mark.usefixtures("chunks_of_two")
def test_a_variant_is_given_up_at_its_first_failure(
    tmp_path: Path, shipped: dict[str, NamedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def measure(self: Context, task: Any) -> list[SampleRow]:
        seen.append(task.start)
        raise OptionError("broken")

    monkeypatch.setattr(Context, "measure", measure)
    outcome = sweep(tmp_path, shipped, QUICK[:1])
    assert (seen, outcome.done, len(outcome.failures)) == ([0], 0, 1)


def test_weights_that_change_under_a_sweep_are_noticed(tmp_path: Path) -> None:
    outcome = sweep(tmp_path, {"x": NamedModel("tiny", "0" * 64, SIDES)}, QUICK[:1])
    assert "have changed" in str(outcome.failures)


def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that say which variant, checkpoint and scene they belong to."""

    def measure(self: Context, task: Any) -> list[SampleRow]:
        shift = (0.5 if task.backbone == "b" else 0.0) + (0.25 if task.candidate == "nib" else 0)
        return [
            SampleRow(sample.id, {"|".join(task.pair): {"iou": (task.start + k) / 100 + shift}})
            for k, sample in enumerate(task.samples)
        ]

    monkeypatch.setattr(Context, "measure", measure)


def test_checkpoints_are_averaged_per_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch)
    models = {name: NamedModel("tiny", name * 8, SIDES) for name in "ab"}
    sweep(tmp_path, models)
    results = load(tmp_path)
    assert results.backbones == ("a", "b")
    find = results.values
    np.testing.assert_allclose(find("random", "image|text", "iou", "a"), [0, 0.01, 0.02])
    np.testing.assert_allclose(find("random", "image|text", "iou"), [0.25, 0.26, 0.27])
    found = results.difference("nib", "random", "iou", "image|text")
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.per_backbone == pytest.approx((0.25, 0.25))
    for view, mean in ((View(), "26.0"), (View(backbones=["b"]), "51.0")):
        assert f"| random | 3 | {mean} ± 0.6 |" in markdown(results, view)
    sweep(tmp_path, {"a": models["a"]}, [Variant("late", "gradient-x-input", {})])
    found = load(tmp_path).difference("nib", "late", "iou", "image|text")
    assert found.mean == pytest.approx(0.25), "on the checkpoint that both have"
    assert len(found.per_backbone) == 1
    sweep(tmp_path, {"a": NamedModel("tiny", "c" * 8, SIDES)})
    assert set(load(tmp_path).backbones) == {"a-aaaaaaaa", "b", "a-cccccccc"}


def test_the_command_line(tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text('[variant.r]\nmethod = "random"\n[variant.n]\nmethod = "nib"\n')
    common = ["--out", str(out), "--n", "2", "--jobs", "1", "--pair", "text,image"]
    done = CliRunner().invoke(main, ["sweep", str(plan), *common, "--variant", "r", "--oracle"])
    assert done.exit_code == 0, done.output
    assert "**text|image**" in done.output
    for row in ("| r | 2 |", "| chance | 2 |", "| oracle | 2 |"):
        assert row in done.output
    again = CliRunner().invoke(main, ["oracle", *common])
    assert again.exit_code == 0
    table = CliRunner().invoke(
        main, ["table", str(out), "--direction", "image|text", "--metric", "iou"]
    )
    assert "| method | n | iou |" in table.output
    assert "text|image" not in table.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["table", "{folder}", "--metric", "uoi"], "uoi"),
        (["table", "{folder}/nowhere"], "holds no"),
        (["sweep", "{folder}/plan.toml", "--out", "{folder}/o"], "plan.toml"),
        (["sweep", "{folder}/good.toml", "--out", "{folder}/good.toml/x"], "cannot be used"),
        (["sweep", "{folder}/good.toml", "--out", "{folder}/o", "--pair", "a"], "--pair a"),
        (["sweep", "{folder}/good.toml", "--out", "{folder}/o", "--checkpoint", "none"], "none"),
        (["sweep", "{folder}/good.toml", "--out", "{folder}/o", "--bank", "none"], "none"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "plan.toml").write_text("[[[")
    (tmp_path / "good.toml").write_text('[variant.r]\nmethod = "random"\n')
    given = [argument.replace("{folder}", str(tmp_path)) for argument in arguments]
    found = CliRunner().invoke(main, given)
    assert found.exit_code == 2, found.output
    assert says in found.output
    assert "Traceback" not in found.output
