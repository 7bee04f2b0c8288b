"""Plans: variants alone and as grids, and what is wrong with one."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from mmattrib.errors import OptionError, UnknownNameError
from mmattrib.evaluation import Variant
from mmattrib.evaluation.plans import choose, parse_plan, read_plan, write_plan

PLANS = Path(__file__).parents[2] / "examples" / "study" / "plans"

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
    assert [v.label for v in variants] == ["default", "other", *grid]
    assert variants[0].options == {"beta": 3, "points": 5}
    assert variants[1].options == {"steps": 2}, "defaults are for the default method alone"
    assert variants[3].options == {"beta": 1, "points": 5}
    assert variants[3].layer == {"image": 1, "audio": -1, "text": -1}
    assert [v.label for v in choose(variants, ["beta/beta=1/*", "other"])] == ["other", *grid[:2]]
    with pytest.raises(OptionError, match="no variant matches"):
        choose(variants, ["nothing"])
    with pytest.raises(OptionError, match="does not exist"):
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
        ({"variant": {"a": {"method": "nib", "layer": 10**6000}}}, OptionError, "layer of variant"),
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


@pytest.mark.parametrize("name", ["ablation", "final", "layers"])
def test_the_plans_of_the_study_can_be_made(name: str) -> None:
    variants = read_plan(PLANS / f"{name}.toml")
    assert len({variant.id for variant in variants}) == len(variants), "no row stands twice"
    for variant in variants:
        described = variant.make().describe()
        assert {option: described[option] for option in variant.options} == variant.options


@pytest.mark.parametrize("text", ["variant = 3", "grid = []", "[[variant]]", "defaults = 1"])
def test_a_table_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="table"):
        parse_plan(tomllib.loads(text))


def test_what_is_written_is_read_again_and_what_cannot_be_is_said(tmp_path: Path) -> None:
    odd = Variant('a "b"\n[c]', "ca-m2ib", {"beta": 1e-7}, {"image": -1}, {"text": {"beta": 3.5}})
    (tmp_path / "plan.toml").write_text(write_plan([odd], ["two\nlines"]), encoding="utf-8")
    (again,) = read_plan(tmp_path / "plan.toml")
    assert (again.label, again.id) == (odd.label, odd.id)
    with pytest.raises(OptionError, match="cannot hold"):
        write_plan([Variant("a", "ca-m2ib", {"keep": None})])
    with pytest.raises(OptionError, match="live method"):
        write_plan([Variant("a", odd.make())])


@pytest.mark.parametrize("sides", [3, {"text": 3}, {"text": {"seed": 1}}, {"text": {"betta": 1}}])
def test_wrong_options_of_one_side_are_refused(sides: object) -> None:
    with pytest.raises(OptionError):
        parse_plan({"variant": {"a": {"method": "ca-m2ib", "sides": sides}}})


def test_a_plan_of_endless_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(OptionError, match="more than 1048576 bytes"):
        read_plan(tmp_path / "plan.toml")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_plan_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.toml")
    for given in (tmp_path / "plan.toml", Path("/dev/zero"), tmp_path):
        with pytest.raises(OptionError, match=r"regular file|folder"):
            read_plan(given)
