"""What every stream of samples is held to where it is read, and how often it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dataset_folders import picture, text
from PIL import Image
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.datasets import Dataset
from mmattrib.errors import DatasetError, InputError, OptionError


class Numbered(Dataset):
    """Samples with the ids that are given; how many were made is counted."""

    def __init__(self, *ids: Any, first: int = 0) -> None:
        self.ids, self.first, self.made = ids, first, 0

    def __iter__(self) -> Iterator[mm.Sample]:
        for name in self.ids:
            self.made += 1
            yield mm.Sample(name, {"image": Image.new("RGB", (24, 24)), "text": f"dog {name}"})

    def describe(self) -> dict[str, Any]:
        return {"ids": list(map(str, self.ids))}


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (("a", "b", "a"), "two samples with id 'a', in place 2 and in place 0"),
    ],
)
def test_two_samples_of_one_id_are_an_error_wherever_a_stream_is_read(
    ids: tuple[Any, ...], says: str
) -> None:
    tiny = small_tiny()
    with pytest.raises(DatasetError, match=says):
        mm.evaluate(tiny, Numbered(*ids), methods=["random"], metrics=["cosine"], progress=False)
    with pytest.raises(DatasetError, match=says):
        mm.calibrate(tiny, Numbered(*ids), maps=0)


@pytest.mark.parametrize("first", [0, 7])
def test_what_follows_is_read_in_one_pass(first: int) -> None:
    data = Numbered(*(f"{n}" for n in range(300)), first=first)
    for place in range(300):
        ids = [next(data.following(first + place)).id for _ in "ab"]
        assert ids == [str((place + 1) % 300)] * 2
    assert data.made < 2 * 300
    assert [sample.id for sample in data.following(first + 297)][:3] == ["298", "299", "0"]
    assert len(list(data.following(first + 5))) == 299


@pytest.mark.parametrize("name", ["manifest", "pairs"])
def test_rows_stay_in_their_folder_unless_they_may_leave_it(tmp_path: Path, name: str) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    picture(other / "a.png")
    rows = ["../other/a.png,a dog", f"{other / 'a.png'},a cat"]
    path = text(own / "pairs.csv", "image,text", *rows)
    option = {"path" if name == "manifest" else "folder": path}
    with pytest.raises(InputError, match=r"line 2: .*outside of its folder; outside=true"):
        mm.load_dataset(name, **option)
    found = list(mm.load_dataset(name, **option, outside=True))
    assert [sample.inputs["text"] for sample in found] == ["a dog", "a cat"]
    (own / "linked").symlink_to(other)
    text(path, "image,text", "linked/a.png,a dog")
    assert len(list(mm.load_dataset(name, **option))) == 1
    with pytest.raises(OptionError, match="outside must be true or false"):
        mm.load_dataset(name, **option, outside=1)
