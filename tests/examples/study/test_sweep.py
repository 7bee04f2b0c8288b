"""The sweep: plans, resuming, and results that do not depend on how they came about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from examples.study import load_results, sweep
from examples.study.__main__ import main
from examples.study.measure import Row, Variant
from examples.study.plan import choose, parse_plan, read_plan
from examples.study.results import FILE, Results
from examples.study.sweep import Checkpoint, Outcome, Scope, definition_id
from examples.study.table import View, against, difference, markdown
from mmattrib.errors import OptionError, UnknownNameError

PAIR = ("image", "text")
SCOPE = Scope(n=3, pairs=[PAIR])
QUICK = (Variant("nib", "nib", {"steps": 1}), Variant("random", "random", {}))


@pytest.fixture(scope="module")
def shipped() -> Checkpoint:
    return Checkpoint.of()


@pytest.fixture
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.study.sweep.CHUNK", 2)


def run(
    folder: Path, shipped: Checkpoint, variants: Sequence[Variant] = QUICK, scope: Scope = SCOPE,
    **given: object,
) -> Outcome:  # fmt: skip
    return sweep_quietly(variants, [shipped], scope, folder, **given)


def sweep_quietly(*args: object, **given: object) -> Outcome:
    return sweep.sweep(*args, progress=False, **given)  # type: ignore[arg-type]


def numbers(results: Results) -> dict[tuple[str, str, str], np.ndarray]:
    return {
        (v, d, m): results.values(v, d, m)
        for v in results.variants
        for d in results.directions()
        for m in ("iou", "specificity", "auc", "confidence_drop", "cosine", "tsens")
    }


def assert_same(a: Results, b: Results) -> None:
    one, two = numbers(a), numbers(b)
    assert set(one) == set(two)
    for key, values in one.items():
        np.testing.assert_array_equal(values, two[key])


@pytest.mark.usefixtures("chunks_of_two")
def test_order_and_processes_change_no_number(shipped: Checkpoint, tmp_path: Path) -> None:
    assert run(tmp_path / "a", shipped).done == 4
    run(tmp_path / "b", shipped, QUICK[::-1], jobs=2)
    a, b = load_results(tmp_path / "a"), load_results(tmp_path / "b")
    assert_same(a, b)
    assert a.scene_numbers() == (0, 1, 2)
    assert not np.isnan(a.values("nib", "image|text", "iou")).any()


@pytest.mark.usefixtures("chunks_of_two")
def test_a_killed_run_goes_on(shipped: Checkpoint, tmp_path: Path) -> None:
    run(tmp_path / "whole", shipped)
    text = (tmp_path / "whole" / FILE).read_text()
    for keep, cut in ((2, 40), (3, 9)):  # whole lines kept, characters of the next one
        lines = text.splitlines(keepends=True)
        folder = tmp_path / f"cut{keep}"
        folder.mkdir()
        (folder / FILE).write_text("".join(lines[:keep]) + lines[keep][:cut])
        outcome = run(folder, shipped)
        assert outcome.kept == keep - 1, "the first line names the variants"
        assert outcome.done == 4 - outcome.kept
        assert_same(load_results(tmp_path / "whole"), load_results(folder))
        assert run(folder, shipped).done == 0


def test_a_plan_may_grow(shipped: Checkpoint, tmp_path: Path) -> None:
    run(tmp_path, shipped, QUICK[:1])
    assert run(tmp_path, shipped, QUICK).done == 1
    assert run(tmp_path, shipped, QUICK[1:], Scope(n=1, start=18, pairs=[PAIR])).done == 1
    results = load_results(tmp_path)
    assert results.scene_numbers() == (0, 1, 2, 18)
    values = results.values("nib", "image|text", "auc")
    assert np.isnan(values[3])
    assert np.isfinite(values[:3]).all()


def test_a_name_that_changes_its_meaning_shows_the_new_numbers(
    shipped: Checkpoint, tmp_path: Path
) -> None:
    run(tmp_path, shipped, [Variant("v", "nib", {"steps": 1})])
    run(tmp_path, shipped, [Variant("v", "random", {})])
    run(tmp_path / "new", shipped, [Variant("v", "random", {})])
    assert_same(load_results(tmp_path), load_results(tmp_path / "new"))
    assert run(tmp_path, shipped, [Variant("other", "nib", {"steps": 1})]).done == 0
    assert load_results(tmp_path).variants == ("v", "other")


def test_a_definition_is_not_its_name_nor_its_spelling() -> None:
    same = [
        Variant("a", "ca-m2ib", {"beta": 1}),
        Variant("b", "ca-m2ib", {"beta": 1.0}),
        Variant("c", "ca-m2ib", {"beta": "1"}),
    ]
    assert len({definition_id(v) for v in same}) == 1
    other = [
        Variant("a", "ca-m2ib", {"beta": 2}),
        Variant("a", "m2ib", {"beta": 1}),
        Variant("a", "ca-m2ib", {"beta": 1}, {"image": 0}),
    ]
    assert len({definition_id(v) for v in [*same, *other]}) == 4


def test_options_gained_keep_results_and_changed_defaults_do_not(
    shipped: Checkpoint, tmp_path: Path
) -> None:
    given = [Variant("v", "nib", {"steps": 1})]
    run(tmp_path, shipped, given)
    path = tmp_path / FILE
    names, line = path.read_text().splitlines()

    def with_options(options: dict[str, object], source: str | None = None) -> None:
        entry = json.loads(line)
        entry["stamp"]["options"] = options
        entry["stamp"]["source"] = source or entry["stamp"]["source"]
        path.write_text(f"{names}\n{json.dumps(entry)}\n")

    with_options({"steps": 1})
    assert run(tmp_path, shipped, given).done == 0
    with_options({"steps": 1, "max_rows": 8})
    assert run(tmp_path, shipped, given).done == 1
    with_options({"steps": 1}, source="another")
    outcome = run(tmp_path, shipped, given)
    assert (outcome.done, outcome.outdated) == (0, 1)
    assert run(tmp_path, shipped, given, fresh=True).done == 1
    assert run(tmp_path, shipped, given, fresh=True).done == 0


def test_probes_are_added_and_not_lost(shipped: Checkpoint, tmp_path: Path) -> None:
    given = QUICK[:1]
    run(tmp_path, shipped, given)
    assert np.isnan(load_results(tmp_path).values("nib", "image|text", "tsens")).all()
    assert run(tmp_path, shipped, given, Scope(n=3, pairs=[PAIR], probes=1)).done == 1
    values = load_results(tmp_path).values("nib", "image|text", "tsens")
    assert np.isfinite(values).tolist() == [True, False, False]
    assert run(tmp_path, shipped, given).done == 0


def test_a_variant_that_fails_leaves_the_others_alone(shipped: Checkpoint, tmp_path: Path) -> None:
    bad = Variant("bad", "nib", {"steps": 1}, {"image": 99, "text": -1})
    for jobs in (1, 2):
        outcome = run(tmp_path / str(jobs), shipped, [bad, *QUICK], jobs=jobs)
        assert outcome.done == 2
        (message,) = outcome.failures.values()
        assert "no layer 99" in message
        assert load_results(tmp_path / str(jobs)).variants == ("nib", "random")


@pytest.mark.usefixtures("chunks_of_two")
def test_a_variant_is_given_up_at_its_first_failure(
    tmp_path: Path, shipped: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def work(task: sweep.Task) -> str:
        seen.append(task.start)
        return "broken"

    monkeypatch.setattr(sweep, "_work", work)
    outcome = run(tmp_path, shipped, QUICK[:1])
    assert (seen, outcome.done, len(outcome.failures)) == ([0], 0, 1)


def test_weights_that_change_under_a_sweep_are_noticed(tmp_path: Path, shipped: Checkpoint) -> None:
    changed = Checkpoint(shipped.label, shipped.backbone, shipped.file, "0" * 64)
    outcome = sweep_quietly(QUICK[:1], [changed], SCOPE, tmp_path)
    assert "has changed" in str(outcome.failures)


def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that say which variant, checkpoint and scene they belong to."""

    def work(task: sweep.Task) -> list[Row]:
        shift = (0.5 if task.checkpoint.label == "b" else 0.0) + (
            0.25 if task.variant and task.variant.name == "nib" else 0
        )
        direction = "|".join(task.pair)
        return [
            {direction: {"iou": i / 100 + shift}}
            for i in range(task.start, task.start + task.size)
        ]  # fmt: skip

    monkeypatch.setattr(sweep, "_work", work)


def test_checkpoints_are_averaged_per_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch)
    a, b = (Checkpoint(name, "tiny", None, name * 8) for name in "ab")
    sweep_quietly(QUICK, [a, b, a], SCOPE, tmp_path)
    results = load_results(tmp_path)
    assert tuple(results.checkpoints) == ("a", "b")
    find = results.values
    np.testing.assert_allclose(find("random", "image|text", "iou", "a"), [0, 0.01, 0.02])
    np.testing.assert_allclose(find("random", "image|text", "iou"), [0.25, 0.26, 0.27])
    found = difference(results, "nib", "random", "iou", ["image|text"])
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.per_checkpoint == pytest.approx((0.25, 0.25))
    for view, mean in ((View(), "26.0"), (View(checkpoints=["b"]), "51.0")):
        assert f"| random | 3 | {mean} ± 0.6 |" in markdown(results, view)
    sweep_quietly([Variant("late", "gradient-x-input", {})], [a], SCOPE, tmp_path)
    results = load_results(tmp_path)
    found = difference(results, "nib", "late", "iou", ["image|text"])
    assert found.mean == pytest.approx(0.25), "on the checkpoint that both have"
    assert len(found.per_checkpoint) == 1
    twin = Checkpoint("a", "tiny", None, "c" * 8)
    sweep_quietly(QUICK, [twin], SCOPE, tmp_path)
    assert set(load_results(tmp_path).checkpoints) == {"a-aaaaaaaa", "b", "a-cccccccc"}


def test_tables_give_means_and_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    sweep_quietly(QUICK, [Checkpoint("a", "tiny", None, "a")], SCOPE, tmp_path)
    text = markdown(load_results(tmp_path), View(baseline="random", draws=200))
    assert "| random | 3 | 1.0 ± 0.6 |" in text
    assert "| nib | 3 | 26.0 ± 0.6 (+25.0 [25.0, 25.0]*) |" in text
    with pytest.raises(OptionError, match="nib"):
        markdown(load_results(tmp_path), View(baseline="nob"))
    with pytest.raises(OptionError, match="nothing was measured"):
        markdown(load_results(tmp_path), View(split="final"))
    with pytest.raises(OptionError, match="specificity"):
        load_results(tmp_path).values("nib", "image|text", "specifity")
    with pytest.raises(OptionError, match="holds no"):
        load_results(tmp_path / "nowhere")


PLAN = """
[defaults]
method = "ca-m2ib"
layer = {image = -1, audio = -1, text = -1}
options = {beta = 3, points = 5}
[variant.default]
[variant.other]
method = "nib"
options = {steps = 2}
[grid.beta]
options = {beta = [1, 0.5], noise_samples = 2}
layer = {image = [0, 1]}
"""


def test_a_plan_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.replace(", noise_samples = 2", ""))
    variants = read_plan(path)
    grid = [f"beta/beta={b}/layer.image={k}" for b in ("1", "0.5") for k in (0, 1)]
    assert [v.name for v in variants] == ["default", "other", *grid]
    assert variants[0].options == {"beta": 3, "points": 5}
    assert variants[1].options == {"steps": 2}, "defaults are for the default method alone"
    assert variants[3].options == {"beta": 1, "points": 5}
    assert variants[3].layer == {"image": 1, "audio": -1, "text": -1}
    assert [v.name for v in choose(variants, ["beta/beta=1/*", "other"])] == ["other", *grid[:2]]
    with pytest.raises(OptionError, match="no variant matches"):
        choose(variants, ["nothing"])
    with pytest.raises(OptionError, match="missing"):
        read_plan(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("plan", "error", "says"),
    [
        ({}, OptionError, "names no variant"),
        ({"variants": {}}, OptionError, "accepted: defaults, variant, grid"),
        ({"variant": {"a": {}}}, OptionError, "needs a method"),
        ({"variant": {"a": {"method": "m2bi"}}}, UnknownNameError, "m2ib"),
        ({"variant": {"a": {"method": "nib", "options": {"step": 1}}}}, OptionError, "'a'.*steps"),
        ({"variant": {"a": {"method": "nib", "options": {"seed": 1}}}}, OptionError, "seed"),
        ({"variant": {"a": {"method": "nib", "layer": "x"}}}, OptionError, "whole number"),
        ({"variant": {"a": {"method": "nib", "beta": 1}}}, OptionError, "method, layer, options"),
        ({"variant": {"oracle": {"method": "nib"}}}, OptionError, "reserved"),
        ({"variant": {"a": 3}}, OptionError, "must each be a table"),
    ],
)
def test_a_wrong_plan_is_refused(
    plan: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        parse_plan(plan)


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
    assert "| variant | n | iou |" in table.output
    assert "text|image" not in table.output
    bad = CliRunner().invoke(main, ["table", str(out), "--metric", "uoi"])
    assert bad.exit_code == 2
    assert "accepted are" in bad.output


def test_a_lead_is_given_direction_by_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch)
    sweep_quietly(QUICK, [Checkpoint("a", "tiny", None, "a")], SCOPE, tmp_path)
    text = against(load_results(tmp_path), "nib", view=View(metrics=["iou"], draws=200))
    head, _, row = text.splitlines()
    assert head.startswith(r"| rival | metric | image\|text | ")
    assert row.startswith("| random (3) | iou | +25.0 [25.0, 25.0]* | ")
    turned = against(load_results(tmp_path), "random", ["nib"], View(metrics=["iou"], draws=200))
    assert "-25.0 [-25.0, -25.0]*" in turned
