"""`mmattrib reproduce` on scenes, with quick methods in place of the paper's."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_program import Run
from PIL import Image

from mmattrib.evaluation import Variant, presets
from mmattrib.evaluation.presets import PARTS, Part, table_methods


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample, one seed, and methods that take no time under the names of the paper's."""

    def methods(part: Part, own_backbone: bool = False) -> tuple[list[Variant], list[str]]:
        return [Variant("m2ib", "random"), Variant("ca-m2ib", "gradient-x-input")], ["rise"]

    def grid(method: str, layers: int, quick: bool = False) -> list[Variant]:
        return [Variant(f"{method} at {k}", "gradient-x-input", {}, k) for k in (0, 1)]

    monkeypatch.setattr(presets, "table_methods", methods)
    monkeypatch.setattr(presets, "tuning_grid", grid)
    monkeypatch.setattr(presets, "QUICK_SAMPLES", 2)


@pytest.mark.usefixtures("quick")
def test_table_one_is_written_in_every_form_and_goes_on(run: Run, tmp_path: Path) -> None:
    given = ("reproduce", "table1", "--data", "scenes", "--quick", "--out", tmp_path / "r")
    result = run(*given)
    assert result.code == 0, result.err
    assert result.out.count("confidence_drop ↓") == 6
    assert "Not registered here, so not measured: rise." in result.out
    written = {path.name for path in (tmp_path / "r").iterdir()}
    suffixes = (".txt", ".md", ".csv", ".tex", ".numbers.csv")
    assert {f"table1{suffix}" for suffix in suffixes} < written
    kept = (tmp_path / "r" / "table1-scenes.jsonl").read_bytes()
    again = run(*given)
    assert (again.code, again.out) == (0, result.out)
    assert (tmp_path / "r" / "table1-scenes.jsonl").read_bytes() == kept


LONGER = [pytest.param(what, marks=pytest.mark.slow) for what in ("fig3", "fig4")]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("what", ["fig2", *LONGER])
def test_figures_are_pdf_and_png(what: str, run: Run, tmp_path: Path) -> None:
    result = run("reproduce", what, "--data", "scenes", "--quick", "--out", tmp_path)
    assert result.code == 0, result.err
    with Image.open(tmp_path / f"{what}-scenes.png") as drawn:
        assert drawn.width > 400
    assert (tmp_path / f"{what}-scenes.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_tuning_writes_a_plan_and_a_surface_for_each_method(run: Run, tmp_path: Path) -> None:
    result = run("reproduce", "tuning", "--data", "scenes", "--quick", "--out", tmp_path)
    assert result.code == 0, result.err
    for method in ("ca-m2ib", "ca-m2ib-literal"):
        for suffix in ("toml", "png", "pdf"):
            assert (tmp_path / f"tuning-scenes-{method}.{suffix}").stat().st_size > 50


def test_the_papers_settings_are_those_of_the_papers_model_alone() -> None:
    by_name = {variant.label: variant for variant in table_methods(PARTS["ms-cxr"])[0]}
    assert by_name["m2ib"].layer == {"image": 9, "text": 7}
    assert by_name["m2ib"].make().describe()["beta"] == 1.0
    assert by_name["ca-m2ib"].layer is None
    own = {variant.label: variant for variant in table_methods(PARTS["cc"], own_backbone=True)[0]}
    assert own["m2ib"].layer is None
    assert (PARTS["ms-cxr"].samples, PARTS["cc"].samples) == (1000, 2000)
    assert len(PARTS["cc"].seeds) == len(PARTS["ms-cxr"].seeds) == 10


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("table1", "--data", "ms-cxr=here"), "ms-cxr"),
        (("table1", "--data", "cc"), "cc=DIR"),
        (("fig2", "--data", "pairs=no-such-folder"), "no-such-folder"),
        (("table1", "--data", "scenes", "--data", "scenes"), "twice"),
        (("table1", "--data", "scnes=here"), "scenes"),
        (("table1", "--data", "scenes", "--weights", "cxr=w.pt"), "--weights cxr"),
        (("table1", "--data", "scenes", "--weights", "cxr"), "NAME=PLACE"),
        (("table1", "--data", "scenes", "--quick", "--limit", 3), "leave --limit"),
        (("table1", "--data", "scenes", "--backbone", "tniy"), "tiny"),
        (("fig3", "--data", "scenes", "--seeds", 2), "--seeds"),
        (("fig3", "--data", "scenes", "--config", "x.toml"), "--config"),
        (("table2", "--data", "scenes"), "table1"),
    ],
)
def test_wrong_options_are_one_line(
    given: tuple[object, ...], said: str, run: Run, tmp_path: Path
) -> None:
    result = run("reproduce", *given, "--out", tmp_path / "r")
    assert result.code == 2, result.out
    assert said in result.err
    assert result.err.count("\n") == 1
    assert not any(tmp_path.glob("r/*"))
