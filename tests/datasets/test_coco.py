"""Photographs in COCO's layout, written here as COCO writes them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_folder import instances, write_coco
from dataset_folders import compressed
from PIL import Image
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.datasets.coco import Outlines, naming
from mmattrib.errors import InputError, OptionError
from mmattrib.testing import check_dataset


def small_coco(folder: Path) -> dict[str, Any]:
    return {"folder": write_coco(folder)}


def test_a_sample_for_every_category_that_is_neither_small_nor_everything(tmp_path: Path) -> None:
    found = list(mm.load_dataset("coco", folder=write_coco(tmp_path)))
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
    (person,) = (
        s for s in mm.load_dataset("coco", folder=write_coco(tmp_path)) if s.id == "7-person"
    )
    region = person.truth["image"].parts[0].region
    assert isinstance(region, Outlines)
    assert region.mask()[:10].all()
    assert region.mask().sum() == 600


def test_compressed_run_lengths_are_the_same_mask(tmp_path: Path) -> None:
    upper = np.zeros((40, 60), bool)
    upper[:10] = True
    index = instances()
    index["annotations"][-1]["segmentation"] = {"counts": compressed(upper), "size": [40, 60]}
    data = mm.load_dataset("coco", folder=write_coco(tmp_path, index))
    (person,) = (sample for sample in data if sample.id == "7-person")
    region = person.truth["image"].parts[0].region
    assert isinstance(region, Outlines)
    assert (region.mask() == upper).all()


@pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")
def test_the_truth_of_a_caption_is_the_words_that_name_what_is_there(tmp_path: Path) -> None:
    found = list(mm.load_dataset("coco", folder=write_coco(tmp_path), texts="captions"))
    assert [sample.id for sample in found] == ["3-0", "7-0"]
    ex = mm.attribute(small_tiny(), inputs=found[0].inputs, method="random")
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
    folder = write_coco(tmp_path, split="val2017")
    check_dataset(mm.load_dataset("coco", folder=folder, split="val2017"))
    check_dataset(mm.load_dataset("coco", folder=folder, split="val2017", texts="captions"))


def test_other_photographs_are_another_data_set(tmp_path: Path) -> None:
    folder = write_coco(tmp_path)
    before = mm.load_dataset("coco", folder=folder).fingerprint()
    assert mm.load_dataset("coco", folder=folder).fingerprint() == before
    Image.new("RGB", (60, 40)).save(folder / "photos" / "a.png")
    assert mm.load_dataset("coco", folder=folder).fingerprint() != before


def broken(**changes: Any) -> dict[str, Any]:
    return {**instances(), **changes}


def changed(**changes: Any) -> list[dict[str, Any]]:
    first, *rest = instances()["annotations"]
    return [{**first, **changes}, *rest]


def categories(*more: dict[str, Any]) -> dict[str, Any]:
    return broken(categories=[*instances()["categories"], *more])


def sized(height: int, width: int) -> dict[str, Any]:
    first, second = instances()["images"]
    return broken(images=[first, {**second, "height": height, "width": width}])


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
        (categories({"id": 50, "name": "dog"}), "'dog'"),
        (categories({"id": 50, "name": "cell-phone"}, {"id": 51, "name": "cell phone"}), "told"),
        (categories({"id": 50, "name": "a"}, {"id": 51, "name": "a"}), "'a'"),
        (categories({"id": 18, "name": "cat"}), "the id 18"),
        (categories({"id": 18.5, "name": "cat"}), "no whole number"),
        (categories({"id": 50, "name": ""}), "name of category 50"),
        (categories({"id": 50, "name": None}), "name of category 50"),
        (broken(annotations=changed(segmentation=[[0, 0, 2**31, 0, 20, 30]])), "annotation 1.*far"),
        (broken(annotations=changed(segmentation=[[0, 0, 1e15, 0, 20, 30]])), "json: annotation 1"),
        (broken(annotations=changed(segmentation=[[0, 0, 20, 30, 5, -50]])), "annotation 1.*far"),
        (broken(annotations=changed(segmentation=[[1] * 300_000])), "annotation 1.*262,144"),
        (broken(annotations=changed(segmentation=[[0, 0, 1, 39] * 20_000])), "annotation 1.*rows"),
        (
            broken(annotations=changed(segmentation={"counts": [0, 2400], "size": [60, 40]})),
            "annotation 1 has run lengths of a picture of",
        ),
        (broken(annotations=changed(segmentation={"counts": [0.0, 2400.0]})), "no whole numbers"),
        (sized(60, 40), r"a\.png has 60 x 40 pixels as it is shown, and the index says 40 x 60"),
        (sized(4000, 6000), r"a\.png has 60 x 40 pixels"),
    ],
)
def test_a_broken_index_is_named(tmp_path: Path, index: Any, named: str) -> None:
    with pytest.raises(InputError, match=named):
        mm.load_dataset("coco", folder=write_coco(tmp_path, index))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"instances\.json is missing"):
        mm.load_dataset("coco", folder=tmp_path / "none")
    folder = write_coco(tmp_path / "some")
    (folder / "photos" / "b.png").unlink()
    with pytest.raises(InputError, match=r"b\.png. is missing"):
        mm.load_dataset("coco", folder=folder)
    (folder / "instances.json").write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        mm.load_dataset("coco", folder=folder)
    with pytest.raises(OptionError, match="texts must be one of"):
        mm.load_dataset("coco", folder=folder, texts="words")
    with pytest.raises(OptionError, match="least < most"):
        mm.load_dataset("coco", folder=folder, least=0.5, most=0.2)


def test_an_outline_is_cut_at_the_edge_of_its_picture(tmp_path: Path) -> None:
    index = broken(annotations=changed(segmentation=[[-30, -20, 20, -20, 20, 20, -30, 20]]))
    (own, *_) = (s for s in mm.load_dataset("coco", folder=write_coco(tmp_path, index)))
    parts = {part.name: part.region for part in own.truth["image"].parts}
    region = parts["dog"]
    assert isinstance(region, Outlines)
    inside = mm.load_dataset("coco", folder=write_coco(tmp_path / "inside"))
    (plain, *_) = inside
    other = {part.name: part.region for part in plain.truth["image"].parts}["dog"]
    assert isinstance(other, Outlines)
    assert (region.mask() == other.mask()).all()


def test_a_photograph_that_is_turned_has_the_size_that_is_shown(tmp_path: Path) -> None:
    folder = write_coco(tmp_path, sized(60, 40))
    with Image.open(folder / "photos" / "a.png") as photo:
        exif = photo.getexif()
        exif[0x0112] = 6
        photo.save(folder / "photos" / "a.png", exif=exif)
    assert len(list(mm.load_dataset("coco", folder=folder))) > 1


def test_a_photograph_that_is_no_picture_is_named(tmp_path: Path) -> None:
    folder = write_coco(tmp_path)
    (folder / "photos" / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png is no picture"):
        mm.load_dataset("coco", folder=folder)


def test_files_are_hashed_in_pieces_and_missed_by_name(tmp_path: Path) -> None:
    folder = write_coco(tmp_path)
    with (folder / "photos" / "a.png").open("ab") as file:
        file.truncate(2**26)
    data = mm.load_dataset("coco", folder=folder)
    tracemalloc.start()
    data.describe()
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()
    (folder / "photos" / "b.png").unlink()
    with pytest.raises(InputError, match=r"b\.png cannot be read"):
        data.describe()
