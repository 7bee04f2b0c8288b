"""Photographs in COCO's layout, written here as COCO writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmattrib as mm
from mmattrib.datasets.coco import Outlines, naming
from mmattrib.errors import InputError, OptionError
from mmattrib.testing import check_dataset

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 44, "name": "bottle"}]


def square(left: int, top: int, side: int) -> list[list[float]]:
    right, bottom = left + side, top + side
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(number: int, image: int, category: int, segmentation: Any) -> dict[str, Any]:
    return {
        "id": number, "image_id": image, "category_id": category, "iscrowd": 0,
        "segmentation": segmentation, "bbox": [0, 0, 1, 1], "area": 1.0,
    }  # fmt: skip


def instances() -> dict[str, Any]:
    runs = [0] + [10, 30] * 60  # the upper ten of forty rows, column by column
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "height": 40, "width": 60},
            {"id": 3, "file_name": "a.png", "height": 40, "width": 60},
        ],
        "categories": CATEGORIES,
        "annotations": [
            annotation(1, 3, 18, square(0, 0, 20)),
            annotation(2, 3, 18, square(30, 10, 9)),
            annotation(3, 3, 1, square(45, 20, 15)),
            annotation(4, 3, 44, square(58, 38, 1)),
            annotation(5, 7, 1, {"counts": runs, "size": [40, 60]}),
        ],
    }


def captions() -> dict[str, Any]:
    said = [(3, "Two dogs look at a man"), (3, "An empty  street"), (7, "PEOPLE by the sea")]
    return {
        "images": instances()["images"],
        "annotations": [
            {"id": number, "image_id": image, "caption": caption}
            for number, (image, caption) in enumerate(said)
        ],
    }


def write(folder: Path, index: Any = None, split: str | None = None) -> Path:
    rng = np.random.default_rng(0)
    photos = folder / (split or "photos")
    texts = folder / "annotations" if split else folder
    tail = f"_{split}" if split else ""
    photos.mkdir(parents=True)
    texts.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(photos / name)
    given = instances() if index is None else index
    (texts / f"instances{tail}.json").write_text(json.dumps(given))
    (texts / f"captions{tail}.json").write_text(json.dumps(captions()))
    return folder


def test_a_sample_for_every_category_that_is_neither_small_nor_everything(tmp_path: Path) -> None:
    found = list(mm.load_dataset("coco", folder=write(tmp_path)))
    assert [sample.id for sample in found] == ["3-person", "3-dog", "7-person"]
    dog = found[1]
    assert dog.inputs["text"] == "a photo of a dog"
    assert Path(dog.inputs["image"]).name == "a.png"
    parts = {part.name: part for part in dog.truth["image"].parts}
    assert {name: part.shared for name, part in parts.items()} == {
        "person": False, "dog": True, "bottle": False,
    }  # fmt: skip
    # both dogs; an outline is filled with its edge
    assert isinstance(parts["dog"].region, Outlines)
    mask = parts["dog"].region.mask()
    assert mask[:20, :20].all()
    assert mask[10:19, 30:39].all()
    assert mask.sum() <= 21 * 21 + 10 * 10


def test_run_lengths_go_down_the_columns(tmp_path: Path) -> None:
    (person,) = (s for s in mm.load_dataset("coco", folder=write(tmp_path)) if s.id == "7-person")
    region = person.truth["image"].parts[0].region
    assert isinstance(region, Outlines)
    assert region.mask()[:10].all()
    assert region.mask().sum() == 600


@pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")
def test_the_truth_of_a_caption_is_the_words_that_name_what_is_there(tmp_path: Path) -> None:
    found = list(mm.load_dataset("coco", folder=write(tmp_path), texts="captions"))
    assert [sample.id for sample in found] == ["3-0", "7-0"]
    ex = mm.attribute(mm.load_backbone("tiny"), inputs=found[0].inputs, method="random")
    words = [
        ex["text"].words[k].text for k in found[0].truth["text"].on(ex["text"]).mask.nonzero()[0]
    ]
    assert words == ["dogs", "man"]
    image = found[0].truth["image"].on(ex["image"])
    assert image.shared == (True, True, False)
    assert [part.name for part in found[1].truth["text"].parts] == ["person"]


@pytest.mark.parametrize(
    ("category", "caption", "wanted"),
    [
        ("bus", "Two buses and a busy bus", ["buses", "bus"]),
        ("teddy bear", "Teddy bears, a bear", ["Teddy bears"]),
        ("person", "A woman and her childish personality", ["woman"]),
        ("dog", "a hotdog (dog)", ["dog"]),
    ],
)
def test_words_that_name_a_category(category: str, caption: str, wanted: list[str]) -> None:
    assert [caption[start:end] for start, end in naming(category, caption)] == wanted


def test_an_original_release(tmp_path: Path) -> None:
    folder = write(tmp_path, split="val2017")
    check_dataset(mm.load_dataset("coco", folder=folder, split="val2017"))
    check_dataset(mm.load_dataset("coco", folder=folder, split="val2017", texts="captions"))


def test_other_photographs_are_another_data_set(tmp_path: Path) -> None:
    folder = write(tmp_path)
    before = mm.load_dataset("coco", folder=folder).fingerprint()
    assert mm.load_dataset("coco", folder=folder).fingerprint() == before
    Image.new("RGB", (60, 40)).save(folder / "photos" / "a.png")
    assert mm.load_dataset("coco", folder=folder).fingerprint() != before


def broken(**changes: Any) -> dict[str, Any]:
    return {**instances(), **changes}


def changed(**changes: Any) -> list[dict[str, Any]]:
    first, *rest = instances()["annotations"]
    return [{**first, **changes}, *rest]


@pytest.mark.parametrize(
    ("index", "named"),
    [
        ([], "holds list"),
        ({}, "categories"),
        (broken(images=[{"id": 3}]), "file_name"),
        (broken(images=[*instances()["images"], instances()["images"][0]]), "twice"),
        (broken(annotations=changed(image_id=99)), "99"),
        (broken(annotations=changed(category_id=99)), "no category"),
        (broken(annotations=changed(segmentation=[[1, 2, 3]])), "annotation 1"),
        (broken(annotations=changed(segmentation=[[1, 2, float("nan"), 4, 5, 6]])), "annotation 1"),
        (broken(annotations=changed(segmentation={"counts": "abc", "size": [1, 1]})), "compressed"),
        (broken(annotations=changed(segmentation={"counts": [-1, 2401]})), "below 0"),
        (
            broken(images=[{"id": 3, "file_name": "../a.png", "height": 40, "width": 60}]),
            "outside of its folder",
        ),
        (
            broken(images=[{"id": 3, "file_name": "a.png", "height": 10**6, "width": 10**6}]),
            "pixels",
        ),
        (broken(annotations=[]), "no photograph"),
    ],
)
def test_a_broken_index_is_named(tmp_path: Path, index: Any, named: str) -> None:
    with pytest.raises(InputError, match=named):
        mm.load_dataset("coco", folder=write(tmp_path, index))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"instances\.json is missing"):
        mm.load_dataset("coco", folder=tmp_path / "none")
    folder = write(tmp_path / "some")
    (folder / "photos" / "b.png").unlink()
    with pytest.raises(InputError, match=r"b\.png is missing"):
        mm.load_dataset("coco", folder=folder)
    (folder / "instances.json").write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        mm.load_dataset("coco", folder=folder)
    with pytest.raises(OptionError, match="texts must be one of"):
        mm.load_dataset("coco", folder=folder, texts="words")
    with pytest.raises(OptionError, match="least < most"):
        mm.load_dataset("coco", folder=folder, least=0.5, most=0.2)
