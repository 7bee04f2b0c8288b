"""A folder of pairs: its rows are samples, and what is wrong with one is named with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from dataset_folders import HEIGHT, WIDTH, picture, text
from PIL import Image
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.errors import InputError, InputWarning, OptionError
from mmattrib.io import load_image
from mmattrib.samples import BoxRegion
from mmattrib.testing import check_dataset
from mmattrib.types import RawImage


def small_pairs(folder: Path) -> dict[str, Any]:
    picture(folder / "one.png")
    picture(folder / "two.png", seed=1)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:12, 8:20] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    text(folder / "pairs.csv", "image,text,id,mask,boxes,source", "one.png,a dog,x,mask.png,,mine",
         "two.png,a cat,y,,2 3 10 12; 4 4 8 20,")  # fmt: skip
    return {"folder": folder}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(tmp_path / name)
    mask = np.zeros((48, 64), np.uint8)
    mask[:10] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    soundfile.write(tmp_path / "s.wav", rng.normal(0, 0.1, 8000).astype(np.float32), 16000)
    return tmp_path


def write(folder: Path, *lines: str) -> Path:
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_rows_are_samples(folder: Path) -> None:
    data = mm.load_dataset("pairs", folder=write(
        folder,
        "id,image,audio,text,boxes,mask,source",
        'first,a.png,,"a dog, asleep",1 2 3 4; 5 6 7 8,,web',
        ",b.png,s.wav,,,mask.png,",
    ))  # fmt: skip
    first, second = data
    assert (first.id, second.id) == ("first", "line-3")
    assert dict(first.inputs) == {"image": folder / "a.png", "text": "a dog, asleep"}
    assert list(second.inputs) == ["image", "audio"]
    assert first.truth["image"].parts[0].region == (
        BoxRegion(2, 1, 4, 3), BoxRegion(6, 5, 8, 7),
    )  # fmt: skip
    ex = mm.attribute(small_tiny(), inputs=second.inputs, method="random")
    assert second.truth["image"].on(ex["image"]).mask.sum() == 640
    assert first.tags == {"source": "web"}
    assert data.size() == 2
    assert repr(data) == "PairsDataset('pairs', 2 samples)"


def test_a_folder_of_pairs_keeps_the_contract_of_data_sets(folder: Path) -> None:
    lines = ["image,text,boxes,mask", "a.png,a dog,0 0 32 24,", "b.png,a piano,,mask.png"]
    check_dataset(mm.load_dataset("pairs", folder=write(folder, *lines)))


def test_a_part_of_a_picture_can_be_taken_away(folder: Path) -> None:
    data = mm.load_dataset("pairs", folder=write(folder, "image,text,boxes", "a.png,a,0 0 9 5"))
    (sample,) = data
    raw = load_image(folder / "a.png")
    left = data.without(sample, "image", 0, raw)
    assert isinstance(left, RawImage)
    changed = (left.pixels != raw.pixels).any(-1)
    assert changed[:5, :9].mean() > 0.95
    assert not changed[5:].any()
    assert not changed[:, 9:].any()


def test_a_folder_is_evaluated_as_it_is(folder: Path) -> None:
    tiny = small_tiny()
    lines = ["image,text,boxes", "a.png,a dog,0 0 32 24", "b.png,a piano,0 0 10 10"]
    data = mm.load_dataset("pairs", folder=write(folder, *lines))
    found = mm.evaluate(tiny, data, methods=["random"], progress=False)
    assert found.directions == ("image|text", "text|image")
    assert np.isfinite(found.values("random", "image|text", "auc")).all()
    assert np.isnan(found.values("random", "text|image", "auc")).all(), "nothing is known of words"


def test_the_fingerprint_follows_the_files(folder: Path) -> None:
    lines = ["image,text", "a.png,a dog"]
    before = mm.load_dataset("pairs", folder=write(folder, *lines)).fingerprint()
    assert mm.load_dataset("pairs", folder=folder / "pairs.csv").fingerprint() == before
    (folder / "a.png").write_bytes((folder / "b.png").read_bytes())
    assert mm.load_dataset("pairs", folder=folder).fingerprint() != before


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["image", "a.png"], "columns image; accepted: two or more"),
        (["image,image,text", "a.png,b.png,c"], "each once"),
        (["image,text"], "no rows"),
        (["image,text", "a.png,"], "line 2: fewer than two"),
        (["image,text", "none.png,a dog"], "line 2: image 'none.png' is missing"),
        (["id,image,text", "x,a.png,c", "x,b.png,d"], "line 3: id 'x' stands in line 2 too"),
        (["image,text", "a.png,a,b"], "line 2: more cells"),
        (["image,text,boxes", "a.png,a,1 2 3"], "line 2: box '1 2 3' is not four numbers"),
        (["image,text,boxes", "a.png,a,3 2 1 4"], "line 2: box '3 2 1 4' has no area"),
        (["image,text,boxes", "a.png,a,1 2 nan 4"], "line 2"),
        (["image,text,mask", "a.png,a,none.png"], "line 2: mask 'none.png' is missing"),
        (["text,audio,boxes", "a,s.wav,1 2 3 4"], "line 2: a mask or boxes are given without"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(folder: Path, lines: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        mm.load_dataset("pairs", folder=write(folder, *lines), strict=True)


def test_a_broken_row_is_left_out_and_told(folder: Path) -> None:
    data = mm.load_dataset("pairs", folder=write(folder, "image,text", "none.png,a", "a.png,a dog"))
    with pytest.warns(InputWarning, match=r"pairs: 1 left out .*pairs\.csv, line 2: image 'none"):
        assert [sample.id for sample in data] == ["line-3"]
    assert data.size() == 1


def test_boxes_and_masks_must_fit_the_picture(folder: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: box .* outside of the picture of 64 x 48"):
        mm.load_dataset("pairs", folder=write(folder, "image,text,boxes", "a.png,a,1 2 900 4"))
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(folder / "mask.png")
    with pytest.raises(InputError, match=r"line 2: the mask has 5 x 5 pixels, .* 64 x 48"):
        mm.load_dataset("pairs", folder=write(folder, "image,text,mask", "a.png,a,mask.png"))


def test_a_mask_of_zeros_and_ones_is_as_good(folder: Path) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:5] = 1
    Image.fromarray(mask).save(folder / "mask.png")
    data = mm.load_dataset("pairs", folder=write(folder, "image,text,mask", "a.png,a dog,mask.png"))
    (sample,) = data
    ex = mm.attribute(small_tiny(), inputs=sample.inputs, method="random")
    assert sample.truth["image"].on(ex["image"]).mask.sum() == 5 * 64


def test_a_broken_file_costs_its_own_numbers_alone(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"no picture")
    (folder / "mask.png").write_bytes(b"no picture")
    lines = ["image,text,boxes,mask", "a.png,a dog,0 0 9 9,", "b.png,a dog,0 0 9 9,",
             "a.png,a piano,,mask.png"]  # fmt: skip
    data = mm.load_dataset("pairs", folder=write(folder, *lines))
    found = mm.evaluate(small_tiny(), data, methods=["random"], progress=False)
    assert np.isnan(found.values("random", "image|text", "auc")).tolist() == [False, True, True]
    assert {problem.sample for problem in found.problems} == {"line-3", "line-4"}


def test_what_is_no_folder_of_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        mm.load_dataset("pairs", folder=tmp_path)
    (tmp_path / "pairs.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no CSV file"):
        mm.load_dataset("pairs", folder=tmp_path)
    with pytest.raises(OptionError, match="needs the option 'folder'"):
        mm.load_dataset("pairs")
    with pytest.raises(OptionError, match="must be text or a path"):
        mm.load_dataset("pairs", folder=3)
