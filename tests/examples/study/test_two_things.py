"""Texts that name two things: which pairs are taken, and the truth of both and of each alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from coco_folder import write_coco

import mmattrib as mm
from examples.study import photographs as study
from examples.study import two_things
from examples.study.two_things import METRICS, OfOne, TwoThings
from mmattrib.datasets import Dataset
from mmattrib.errors import InputError
from mmattrib.metrics import Case, iou, object_top1

pytestmark = pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def chosen(folder: Path) -> Dataset:
    return study.pairs(folder, "two", mm.load_backbone("tiny"))


def test_two_categories_that_one_caption_names_are_a_pair_in_its_order(chosen: Dataset) -> None:
    assert isinstance(chosen, TwoThings)
    (sample,) = chosen
    assert sample.id == "3-person-and-dog"
    assert sample.inputs["text"] == "a photo of a dog and a person"
    shared = {part.name: part.shared for part in sample.truth["image"].parts}
    assert shared == {"person": True, "dog": True, "bottle": False}


def test_a_pair_that_the_model_does_not_see_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_things, "OTHER", 1)
    with pytest.raises(InputError, match="names two things that tiny sees"):
        study.pairs(folder, "two", mm.load_backbone("tiny"))


def test_the_metrics_of_one_take_the_other_for_one_of_the_rest(chosen: Dataset) -> None:
    (sample,) = chosen
    found = mm.attribute(mm.load_backbone("tiny"), inputs=sample.inputs, method="random", layer=-1)
    case = Case(sample, found, "image", "text")
    person, dog, _ = (part.on(found["image"]) for part in sample.truth["image"].parts)
    assert case.truth is not None
    np.testing.assert_array_equal(case.truth.mask, person | dog)
    assert OfOne("iou", 0).score(case) == iou(case.scores, dog)
    assert OfOne("iou", 1).score(case) == iou(case.scores, person)
    alone = object_top1(case.scores, case.truth.parts, [False, True, False])
    assert OfOne("object_top1", 0).score(case) == alone
    assert len({metric.name for metric in METRICS}) == len(METRICS) == 11
