"""The study on photographs: which pairs are taken, and that a run measures them and goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from coco_folder import write_coco

import mmattrib as mm
from examples.study import photographs as study
from examples.study.__main__ import main
from examples.study.photographs import Recognised, measure, model_card
from mmattrib.datasets.coco import CocoDataset
from mmattrib.errors import InputError
from mmattrib.evaluation import Variant, load_results

pytestmark = pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco"))


def test_a_category_is_taken_where_the_model_finds_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = mm.load_backbone("tiny")
    every = Recognised(CocoDataset(folder), tiny)
    assert [sample.id for sample in every] == ["3-person", "3-dog", "7-person"]
    monkeypatch.setattr(study, "BEST", 1)
    nearest = Recognised(CocoDataset(folder), tiny)
    names = ["a photo of a person", "a photo of a dog", "a photo of a bottle"]
    prompts = study.text_embeddings(tiny, names)
    wanted = []
    for sample in every:
        cosines = study.image_embedding(tiny, sample.inputs["image"]) @ prompts.T
        if names[int(cosines.argmax())] == sample.inputs["text"]:
            wanted.append(sample.id)
    if wanted:
        assert [sample.id for sample in nearest] == wanted
    assert nearest.fingerprint() != every.fingerprint()


def test_of_captions_one_a_photograph_is_taken(folder: Path) -> None:
    found = Recognised(CocoDataset(folder, "captions"), mm.load_backbone("tiny"))
    assert [sample.id for sample in found] == ["3-0", "7-0"]


def test_a_model_that_recognises_nothing_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "_chosen", lambda *_: iter(()))
    with pytest.raises(InputError, match="recognises no category"):
        Recognised(CocoDataset(folder), mm.load_backbone("tiny"))


def test_a_run_measures_both_sides_and_goes_on(folder: Path, tmp_path: Path) -> None:
    plan = [Variant("random", "random"), Variant("nib", "nib", {"steps": 2}, -1)]
    for texts in study.DIRECTIONS:
        out = tmp_path / texts
        first = measure(
            plan[:1], folder, texts, out, backbone="tiny", limit=1, progress=False
        )  # fmt: skip
        assert (first.done, first.kept) == (1, 0)
        again = measure(plan, folder, texts, out, backbone="tiny", progress=False)
        assert not again.failures
        results = load_results(out / "results.jsonl")
        for direction in study.DIRECTIONS[texts]:
            found = results.values("nib", direction, "auc", dataset=study.label(texts))
            assert len(found) == {"categories": 3, "captions": 2, "two": 1}[texts]
            assert ((found >= 0) & (found <= 1)).all()
        if texts == "two":
            assert np.isfinite(results.values("nib", "image|text", "auc_second")).all()
            assert (results.values("nib", "image|text", "rank") < 3).all()


def test_the_commands_print_a_table_and_a_card(folder: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('[variant.random]\nmethod = "random"\n', encoding="utf-8")
    arguments = ["photographs", str(plan), str(folder), "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(main, [*arguments, "--backbone", "tiny", "--jobs", "1"])
    assert found.exit_code == 0, found.output
    assert "photographs/categories: 3 samples" in found.stdout
    assert "| random | 2 to 3 |" in found.stdout
    card = model_card(folder, "tiny")
    assert card.startswith("2 photographs, the first caption of each: R@1")
