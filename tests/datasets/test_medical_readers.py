"""MS-CXR and CheXlocalize in their layouts: boxes and outlines follow the picture's size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_folders import (
    HEIGHT,
    WIDTH,
    compressed,
    picture,
    text,
    written,
)

import mmattrib as mm
from mmattrib.datasets.regions import Outlines, run_lengths
from mmattrib.errors import InputError, InputWarning
from mmattrib.placement import from_map
from mmattrib.testing import check_dataset
from mmattrib.types import Attribution, Axis

CXR = "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"
CXR_PATH = f"files/p10/p10000032/s50414267/{CXR}.jpg"


def ms_cxr_json() -> dict[str, Any]:
    said = ["left basal opacity", "left basal opacity", "small right effusion"]
    boxes = [[10, 20, 30, 40], [100, 20, 30.5, 40], [0, 0, 320, 120]]
    return {
        "info": {"version": "1.0.0"},
        "images": [
            {"id": 3, "file_name": f"{CXR}.jpg", "width": 320, "height": 240,
             "num_annotations": 3, "path": CXR_PATH},
        ],
        "categories": [{"id": 1, "name": "Lung Opacity"}, {"id": 2, "name": "Pleural Effusion"}],
        "annotations": [
            {"id": n, "image_id": 3, "category_id": 1 + (n == 2), "bbox": box, "label_text": text}
            for n, (box, text) in enumerate(zip(boxes, said, strict=True))
        ],
    }  # fmt: skip


def ms_cxr_csv() -> list[str]:
    head = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split"
    start = f"{CXR},Lung Opacity,left basal opacity,{CXR_PATH}"
    other = f"{CXR},Pleural Effusion,small right effusion,{CXR_PATH}"
    return [head, f"{start},10,20,30,40,320,240,test", f"{other},0,0,320,120,320,240,val",
            f"{start},100,20,30,40,320,240,test"]  # fmt: skip


def small_ms_cxr(folder: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, Any]:
    """The picture is a tenth of the size on which the boxes were drawn."""
    written(folder / "MS_CXR_Local_Alignment_v1.0.0.json", ms_cxr_json())
    picture(folder / CXR_PATH, size)
    return {"folder": folder}


CHEX = "patient64622_study1_view1_frontal"


def small_chexlocalize(folder: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, Any]:
    found = {
        CHEX: {
            "img_size": [48, 64],
            "Support Devices": [[[2.0, 2.5], [20.0, 2.5], [20.0, 20.0], [2.0, 20.0]]],
            "Lung Lesion": [[[30, 30], [40, 30], [40, 40]], [[50, 8], [60, 8], [60, 20], [50, 20]]],
        }
    }
    written(folder / "CheXlocalize" / "gt_annotations_val.json", found)
    picture(folder / "CheXpert" / "val" / "patient64622" / "study1" / "view1_frontal.jpg", size)
    return {"folder": folder}


JSON = "MS_CXR_Local_Alignment_v1.0.0.json"


def plane(width: int, height: int) -> Attribution:
    """A map of zeros on a picture."""
    axes = tuple(
        Axis(name, "px", np.arange(n, dtype=np.float32) + np.float32(0.5))
        for name, n in (("y", height), ("x", width))
    )
    return from_map("image", np.zeros((height, width)), "none", axes)


@pytest.mark.parametrize("size", [(32, 24), (320, 240), (64, 48)])
def test_boxes_of_a_phrase_are_scaled_with_the_picture(tmp_path: Path, size: Any) -> None:
    first, second = mm.load_dataset("ms-cxr", **small_ms_cxr(tmp_path, size))
    assert (first.id, second.id) == (f"{CXR}-0", f"{CXR}-1")
    assert first.inputs == {"image": tmp_path / CXR_PATH, "text": "left basal opacity"}
    assert first.tags["category_name"] == "Lung Opacity"
    (part,) = first.truth["image"].parts
    assert (part.shared, part.name) == (True, "Lung Opacity")
    scale = size[0] / 320
    want = np.zeros(size[::-1], bool)
    for left in (10, 100):
        want[
            round(20 * scale) : round(60 * scale), round(left * scale) : round((left + 30) * scale)
        ] = True
    got = part.on(plane(*size))
    assert (got != want).sum() <= 40 * scale, "but for the half pixel of one box"
    assert second.truth["image"].on(plane(*size)).mask.mean() == 0.5


def test_the_csv_form_says_the_same_and_has_splits(tmp_path: Path) -> None:
    small_ms_cxr(tmp_path)
    text(tmp_path / "MS_CXR_Local_Alignment_v1.1.0.csv", *ms_cxr_csv())  # newer than the JSON
    data = mm.load_dataset("ms-cxr", folder=tmp_path)
    check_dataset(data)
    assert [len(s.truth["image"].parts[0].region) for s in data] == [2, 1]  # type: ignore[arg-type]
    (only,) = mm.load_dataset("ms-cxr", folder=tmp_path, split="val")
    assert only.inputs["text"] == "small right effusion"
    with pytest.raises(InputError, match="no rows or entries"):
        mm.load_dataset("ms-cxr", folder=tmp_path, split="train")


@pytest.mark.parametrize(
    "place", [CXR_PATH.removeprefix("files/"), f"{CXR}.jpg", f"{CXR}.png", CXR_PATH[:-3] + "png"]
)
def test_radiographs_are_found_where_they_may_lie(tmp_path: Path, place: str) -> None:
    written(tmp_path / JSON, ms_cxr_json())
    picture(tmp_path / place)
    assert all(
        s.inputs["image"] == tmp_path / place for s in mm.load_dataset("ms-cxr", folder=tmp_path)
    )


def test_radiographs_in_dicom_are_scaled_too(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    written(tmp_path / JSON, ms_cxr_json())
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.Rows, data.Columns, data.SamplesPerPixel = 24, 32, 1
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = bytes(range(256)) * 3
    data.save_as(tmp_path / f"{CXR}.dcm", enforce_file_format=True)
    loaded = mm.load_dataset("ms-cxr", folder=tmp_path)
    check_dataset(loaded)
    assert next(iter(loaded)).inputs["image"] == tmp_path / f"{CXR}.dcm"


def changed(number: int, **changes: Any) -> dict[str, Any]:
    index = ms_cxr_json()
    index["annotations"][number] = {**index["annotations"][number], **changes}
    return index


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (
            changed(1, bbox=[100, 20, 900, 40]),
            "annotation 1: annotation 2: box .* outside .* 320 x 240",
        ),
        (changed(1, bbox=[100, 20, 0, 40]), "annotation 1: annotation 2: box .* has no area"),
        (changed(0, bbox=[1, 2, 3]), "annotation 1: it is not in the layout"),
        (changed(0, image_id=8), "annotation 1: it is not in the layout"),
        (changed(0, bbox=[1, 2, 3, float("nan")]), "annotation 1: h is nan; accepted: a number"),
        (changed(0, label_text=" "), "annotation 1: label_text is empty"),
    ],
)
def test_a_broken_annotation_costs_its_phrase_alone(tmp_path: Path, index: Any, says: str) -> None:
    small_ms_cxr(tmp_path)
    written(tmp_path / JSON, index)
    with pytest.warns(InputWarning, match=says):
        left = [sample.inputs["text"] for sample in mm.load_dataset("ms-cxr", folder=tmp_path)]
    assert left[-1] == "small right effusion"
    with pytest.raises(InputError, match=says):
        mm.load_dataset("ms-cxr", folder=tmp_path, strict=True)


def test_a_picture_that_was_cut_cannot_take_the_boxes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it was cut or padded, not only scaled"):
        mm.load_dataset("ms-cxr", **small_ms_cxr(tmp_path, (24, 24)))
    with pytest.raises(InputError, match="it was cut or padded, not only scaled"):
        mm.load_dataset("chexlocalize", **small_chexlocalize(tmp_path, (24, 24)))


def test_a_picture_that_was_stretched_takes_them_when_that_is_said(tmp_path: Path) -> None:
    _, whole = mm.load_dataset("ms-cxr", **small_ms_cxr(tmp_path, (24, 24)), stretched=True)
    assert whole.truth["image"].on(plane(24, 24)).mask[:12].all()
    data = mm.load_dataset("chexlocalize", **small_chexlocalize(tmp_path, (24, 24)), stretched=True)
    mask = next(iter(data)).truth["image"].on(plane(24, 24)).mask
    assert mask[2:9, 1:7].all()
    assert mask.sum() <= 10 * 8


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a\\b", "files/../../x.jpg"])
def test_an_index_leads_nowhere_else(tmp_path: Path, path: str) -> None:
    small_ms_cxr(tmp_path)
    index = ms_cxr_json()
    index["images"][0]["path"] = path
    written(tmp_path / JSON, index)
    with pytest.raises(InputError, match=r"outside of its folder|no relative path"):
        mm.load_dataset("ms-cxr", folder=tmp_path)


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no MS_CXR_Local_Alignment_v\*"):
        mm.load_dataset("ms-cxr", folder=tmp_path)
    for content, says in (("{}", "holds no 'images'"), ("[", "no JSON")):
        text(tmp_path / JSON, content)
        with pytest.raises(InputError, match=says):
            mm.load_dataset("ms-cxr", folder=tmp_path)


@pytest.mark.parametrize("size", [(32, 24), (64, 48)])
def test_outlines_of_findings_are_scaled_with_the_picture(tmp_path: Path, size: Any) -> None:
    devices, lesion = mm.load_dataset("chexlocalize", **small_chexlocalize(tmp_path, size))
    assert devices.id == f"{CHEX}-Support-Devices"
    assert devices.inputs["text"] == "support devices"
    assert devices.tags == {"cxr": CHEX, "finding": "Support Devices"}
    mask = devices.truth["image"].on(plane(*size)).mask
    scale = size[0] / 64
    inside = mask[round(4 * scale) : round(19 * scale), round(3 * scale) : round(19 * scale)]
    assert inside.all()
    assert mask.sum() <= (22 * scale) * (20 * scale)
    found = lesion.truth["image"].on(plane(*size)).mask
    assert found[round(10 * scale), round(55 * scale)]
    assert found[round(33 * scale), round(38 * scale)]


def test_compressed_run_lengths_are_those_that_were_written() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        size = tuple(int(n) for n in random.integers(1, 60, 2))
        mask = random.random(size) < random.random()
        found = run_lengths({"counts": compressed(mask), "size": size}, size, "it")
        assert (Outlines((found,), size).mask() == mask).all()
    assert run_lengths({"counts": "ifdl3"}, (2021, 2021), "it")["counts"] == [2021**2]


@pytest.mark.parametrize("counts", ["", "5", "PPPPPPPPPPPPPPPPPPPP", "\x00", "é", "o", [-1, 9], 3])
def test_broken_run_lengths_are_refused(counts: Any) -> None:
    with pytest.raises(InputError, match="run length"):
        run_lengths({"counts": counts}, (2, 4), "it")


def test_masks_of_findings_that_are_there(tmp_path: Path) -> None:
    small_chexlocalize(tmp_path)
    mask = np.zeros((48, 64), bool)
    mask[10:20, 30:50] = True
    masks = {"Edema": mask, "Lung Lesion": mask & False}
    found = {CHEX: {k: {"size": [48, 64], "counts": compressed(m)} for k, m in masks.items()}}
    index = written(tmp_path / "gt_segmentations_val.json", found)
    data = mm.load_dataset("chexlocalize", folder=tmp_path, annotations=index)
    check_dataset(data)
    (edema,) = data
    assert edema.truth["image"].on(plane(64, 48)).mask.sum() == 200
    assert edema.truth["image"].on(plane(32, 24)).mask.sum() == 50


@pytest.mark.parametrize(
    ("findings", "says"),
    [
        ({"Edema": [[[1, 1], [9, 1], [9, 9]]]}, "'Edema': there is no img_size"),
        ({"img_size": [48, 64], "Edema": [[[1, 1], [9, 1]]]}, "three points"),
        ({"img_size": [48, 64], "Edema": [[[1, 1], [99, 1], [9, 9]]]}, "outside of the picture"),
        ({"img_size": [10**6, 10**6], "Edema": [[[1, 1], [9, 1], [9, 9]]]}, "pixels"),
        ({"Edema": {"size": [48, 64], "counts": "PPPP"}}, "run length"),
        ({"Edema": {"size": "x"}}, "not in the layout"),
        ([], "no object"),
    ],
)
def test_a_broken_finding_is_named(tmp_path: Path, findings: Any, says: str) -> None:
    small_chexlocalize(tmp_path)
    path = tmp_path / "CheXlocalize" / "gt_annotations_val.json"
    found = {"patient1_study1_view1_frontal": findings, **json.loads(path.read_text())}
    written(path, found)
    with pytest.warns(InputWarning, match=says):
        assert len(list(mm.load_dataset("chexlocalize", folder=tmp_path))) == 2
