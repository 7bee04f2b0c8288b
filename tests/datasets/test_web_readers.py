"""Conceptual Captions, WebDataset shards and objects of the datasets package."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_folders import (
    HEIGHT,
    WIDTH,
    encoded_picture,
    encoded_sound,
    picture,
    sound,
    text,
    written,
)
from PIL import Image
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.errors import InputError, InputWarning, MissingExtraError, OptionError
from mmattrib.io import Encoded, load_audio, load_image
from mmattrib.samples import BoxRegion
from mmattrib.testing import check_dataset


def small_conceptual_captions(folder: Path) -> dict[str, Any]:
    for number in range(2):
        key = folder / "00000" / f"{number:09d}"
        picture(key.with_suffix(".jpg"), seed=number)
        key.with_suffix(".txt").write_text(f"a dog number {number}", encoding="utf-8")
        told = {"caption": f"a dog number {number}", "url": f"http://web/{number}.jpg",
                "key": key.name, "status": "success", "error_message": None, "width": WIDTH,
                "height": HEIGHT, "exif": "{}"}  # fmt: skip
        written(key.with_suffix(".json"), told)
    return {"folder": folder}


class Rows:
    """What a data set of the ``datasets`` package is to its users: rows by number, and features."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.features = dict.fromkeys(rows[0])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.rows[number]


def small_huggingface(_: Path) -> dict[str, Any]:
    rows = [
        {"image": {"bytes": encoded_picture(seed), "path": f"{seed}.png"}, "caption": "a dog",
         "objects": [[1, 2, 10, 8]], "source": "web"}
        for seed in range(2)
    ]  # fmt: skip
    return {"data": Rows(rows), "boxes": "objects", "box_form": "sizes"}


def shard(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            head = tarfile.TarInfo(name)
            head.size = len(data)
            tar.addfile(head, io.BytesIO(data))
    return path


def small_webdataset(folder: Path) -> dict[str, Any]:
    told = json.dumps({"boxes": [[1, 1, 9, 9]], "source": "web"}).encode()
    shard(folder / "000000.tar", ("a/0001.jpg", encoded_picture()), ("a/0001.txt", b"a dog"),
          ("a/0001.json", told), ("a/0002.flac", encoded_sound()),
          ("a/0002.json", b'{"caption": "a dog barks"}'))  # fmt: skip
    shard(folder / "000001.tar", ("b.png", encoded_picture(1)), ("b.txt", b"a cat"),
          ("b.wav", encoded_sound(1)), ("b.cls", b"3"))  # fmt: skip
    return {"path": folder}


LINKS = ("http://web/some/cat.jpg?w=3", "http://web/gone.jpg", "https://web/dog.png")
TABLE = tuple(f"a {name} on the web\t{link}" for name, link in zip("xyz", LINKS, strict=True))


def test_what_img2dataset_fetched_as_files(tmp_path: Path) -> None:
    options = small_conceptual_captions(tmp_path)
    first, second = mm.load_dataset("conceptual-captions", **options)
    assert (first.id, second.id) == ("000000000", "000000001")
    assert first.inputs["image"] == tmp_path / "00000" / "000000000.jpg"
    assert first.inputs["text"] == "a dog number 0"
    assert second.tags == {"url": "http://web/1.jpg", "key": "000000001"}


def test_bad_links_are_counted_by_what_img2dataset_wrote(tmp_path: Path) -> None:
    options = small_conceptual_captions(tmp_path)
    stats = {"count": 5, "successes": 2, "failed_to_download": 2, "failed_to_resize": 1}
    written(tmp_path / "00000_stats.json", stats)
    data = mm.load_dataset("conceptual-captions", **options)
    with pytest.warns(InputWarning, match=r"3 left out \(3 of a bad link\).*3 links failed"):
        assert len(list(data)) == 2
    with pytest.raises(InputError, match="3 links failed"):
        mm.load_dataset("conceptual-captions", **options, strict=True)


def test_parquet_says_which_links_are_bad(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    options = small_conceptual_captions(tmp_path)
    told = {"url": LINKS, "key": ["000000000", "000000001", "000000002"],
            "status": ["success", "failed_to_download", "success"],
            "error_message": [None, "HTTP Error 404: Not Found", None]}  # fmt: skip
    parquet.write_table(arrow.table(told), tmp_path / "00000.parquet")
    data = mm.load_dataset("conceptual-captions", **options)
    with pytest.warns(InputWarning, match=r"1 of a bad link.*row 2: .*gone.*HTTP Error 404"):
        list(data)


def test_a_picture_without_its_caption_is_named(tmp_path: Path) -> None:
    options = small_conceptual_captions(tmp_path)
    beside = tmp_path / "00000" / "000000000.txt"
    beside.unlink()
    assert next(iter(mm.load_dataset("conceptual-captions", **options))).inputs["text"] == (
        "a dog number 0"
    ), "JSON has it too"
    beside.with_suffix(".json").unlink()
    data = mm.load_dataset("conceptual-captions", **options)
    with pytest.warns(InputWarning, match=r"000000000\.jpg: caption 000000000\.txt is missing"):
        assert len(list(data)) == 1


def test_what_img2dataset_fetched_as_shards(tmp_path: Path) -> None:
    told = json.dumps({"url": "http://web/0.jpg", "status": "success", "caption": "x"}).encode()
    shard(tmp_path / "00000.tar", ("000000000.jpg", encoded_picture()), ("000000000.txt", b"a dog"),
          ("000000000.json", told))  # fmt: skip
    data = mm.load_dataset("conceptual-captions", folder=tmp_path)
    check_dataset(data)
    (only,) = data
    assert (only.id, only.inputs["text"]) == ("000000000", "a dog")
    assert only.tags["url"] == "http://web/0.jpg"


@pytest.mark.parametrize(
    ("names", "files"),
    [
        ("number", ("000000000.jpg", "000000002.png")),
        ("number", ("00000/000000000.jpg", "00000/000000002.jpg")),
        ("number", ("0.jpg", "2")),
        ("url", ("cat.jpg", "dog.png")),
        ("md5", tuple(hashlib.md5(link.encode()).hexdigest() for link in LINKS[::2])),
    ],
)
@pytest.mark.parametrize("head", [(), ("caption\turl",)])
def test_the_published_table_with_a_folder(
    tmp_path: Path, names: str, files: Any, head: Any
) -> None:
    for name in files:
        picture(tmp_path / "kept.png").rename(
            (tmp_path / "web" / name).parent.mkdir(parents=True, exist_ok=True)
            or tmp_path / "web" / name
        )
    index = text(tmp_path / "train.tsv", *head, *TABLE)
    data = mm.load_dataset("conceptual-captions", folder=tmp_path / "web", index=index, names=names)
    with pytest.warns(
        InputWarning, match=rf"1 of a missing file\): .*line {2 + len(head)}: picture"
    ):
        first, last = data
    assert (first.id, last.id) == ("0", "2")
    assert first.inputs == {"image": tmp_path / "web" / files[0], "text": "a x on the web"}
    assert last.tags == {"url": LINKS[2]}


def test_quotes_in_captions_are_captions_and_links_may_come_first(tmp_path: Path) -> None:
    picture(tmp_path / "0.png")
    picture(tmp_path / "1.png")
    index = text(tmp_path / "t.tsv", f'"so" he said, "a dog\t{LINKS[0]}', f"{LINKS[1]}\ta cat")
    first, second = mm.load_dataset("conceptual-captions", folder=tmp_path, index=index)
    assert first.inputs["text"] == '"so" he said, "a dog'
    assert (second.inputs["text"], second.tags["url"]) == ("a cat", LINKS[1])


def test_options_of_conceptual_captions_act_or_are_refused(tmp_path: Path) -> None:
    options = small_conceptual_captions(tmp_path)
    with pytest.raises(OptionError, match="acts with index alone"):
        mm.load_dataset("conceptual-captions", **options, names="md5")
    with pytest.raises(OptionError, match="names must be one of number, url, md5"):
        mm.load_dataset("conceptual-captions", **options, names="x")
    with pytest.raises(InputError, match="is missing"):
        mm.load_dataset("conceptual-captions", **options, index=tmp_path / "none.tsv")


def test_members_of_one_key_are_one_sample(tmp_path: Path) -> None:
    data = mm.load_dataset("webdataset", **small_webdataset(tmp_path))
    first, second, third = data
    assert [sample.id for sample in (first, second, third)] == ["a/0001", "a/0002", "b"]
    assert list(first.inputs) == ["image", "text"]
    assert list(second.inputs) == ["audio", "text"]
    assert list(third.inputs) == ["image", "audio", "text"]
    assert first.truth["image"].parts[0].region == (BoxRegion(1, 1, 9, 9),)
    assert first.tags == {"source": "web"}
    assert second.inputs["text"] == "a dog barks", "of the JSON"
    ex = mm.attribute(small_tiny(), inputs=first.inputs, method="random")
    assert first.truth["image"].on(ex["image"]).mask.sum() == 64
    one = mm.load_dataset("webdataset", path=tmp_path / "000001.tar")
    assert [sample.id for sample in one] == ["b"]


def linked(path: Path, kind: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        head = tarfile.TarInfo("x.jpg")
        head.type, head.linkname = kind, "/etc/passwd"
        tar.addfile(head)
        for name, data in (("x.txt", b"a dog"), ("y.txt", b"a dog"), ("y.png", encoded_picture())):
            head = tarfile.TarInfo(name)
            head.size = len(data)
            tar.addfile(head, io.BytesIO(data))
    return path


GOOD = (("y.txt", b"a dog"), ("y.png", encoded_picture()))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ((("../x.jpg", b"1"), ("../x.txt", b"a")), "leads out of its folder"),
        ((("/x.jpg", b"1"), ("/x.txt", b"a")), "leads out of its folder"),
        ((("x.jpg", b"1"), ("x.txt", b"\xff")), "is not UTF-8"),
        ((("x.jpg", b"1"), ("x.json", b"[")), "is no JSON"),
        ((("x.jpg", b"1"), ("x.json", b"3")), "is no JSON object"),
        ((("x.jpg", b"1"), ("x.txt", b"a" * (2**20 + 1))), "accepted: up to"),
        ((("x.jpg", b"1"), ("x.png", b"2")), "a second image of one key"),
        ((("x.jpg", b"1"), ("x.cls", b"2")), "it has image; needed: two of"),
        ((("x.jpg", encoded_picture()), ("x.txt", b"a"), ("x.json", b'{"boxes": [[0, 0, 99, 9]]}')),
         "outside of the picture"),
    ],
)  # fmt: skip
def test_a_broken_key_is_named_and_the_shard_goes_on(
    tmp_path: Path, members: Any, says: str
) -> None:
    path = shard(tmp_path / "a.tar", *members, *GOOD)
    with pytest.warns(InputWarning, match=rf"a\.tar, '[./]*x': .*{says}"):
        assert [s.id for s in mm.load_dataset("webdataset", path=path)] == ["y"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_in_shards_are_not_followed(tmp_path: Path, kind: bytes) -> None:
    data = mm.load_dataset("webdataset", path=linked(tmp_path / "a.tar", kind))
    with pytest.warns(InputWarning, match="a link or no regular file"):
        assert [sample.id for sample in data] == ["y"]


def test_what_a_header_announces_is_not_allocated(tmp_path: Path) -> None:
    whole = shard(tmp_path / "whole.tar", *GOOD, ("z.txt", b"a" * 512)).read_bytes()
    blocks = whole[: whole.rindex(b"a" * 512) + 512]
    for name, kind in (("huge.jpg", b"0"), ("./@LongLink", b"L"), ("pax", b"x")):
        head = tarfile.TarInfo(name)
        head.size, head.type = 8**11 - 1, kind
        path = tmp_path / "a.tar"
        path.write_bytes(blocks + head.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
        data = mm.load_dataset("webdataset", path=path)
        tracemalloc.start()
        with pytest.warns(InputWarning, match="left out"):
            assert [sample.id for sample in data] == ["y"]
        assert tracemalloc.get_traced_memory()[1] < 2e6
        tracemalloc.stop()


def test_a_shard_that_is_cut_short_gives_what_is_whole(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", *GOOD, ("z.txt", b"a cat"), ("z.png", encoded_picture(1)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.warns(InputWarning, match=r"the rest cannot be read as tar"):
        assert [s.id for s in mm.load_dataset("webdataset", path=path)] == ["y"]


def test_what_is_no_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no \.tar file"):
        mm.load_dataset("webdataset", path=tmp_path)
    path = shard(tmp_path / "a.tar.gz", *GOOD)
    with pytest.raises(InputError, match="is compressed"):
        mm.load_dataset("webdataset", path=path)
    for content in (b"", b"no tar at all", bytes(4096)):
        (tmp_path / "b.tar").write_bytes(content)
        with pytest.raises(InputError, match="no rows or entries"):
            mm.load_dataset("webdataset", path=tmp_path / "b.tar")


def test_a_shard_of_many_members_holds_none_of_them(tmp_path: Path) -> None:
    def peak(count: int) -> float:
        members = ((f"{n:06d}.{end}", data) for n in range(count)
                   for end, data in (("txt", b"a dog"), ("png", b"x" * 2000)))  # fmt: skip
        data = mm.load_dataset("webdataset", path=shard(tmp_path / f"{count}.tar", *members))
        tracemalloc.start()
        assert sum(1 for _ in data) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(400) - peak(100) < 0.2e6


def test_rows_of_an_object_are_samples(tmp_path: Path) -> None:
    data = mm.load_dataset("huggingface", **small_huggingface(tmp_path))
    first, second = data
    assert (first.id, second.id) == ("0", "1")
    assert first.inputs["text"] == "a dog"
    assert first.truth["image"].parts[0].region == (BoxRegion(2, 1, 10, 11),), "of left top w h"
    assert first.tags == {"source": "web"}


def test_cells_of_every_kind_are_decoded(tmp_path: Path) -> None:
    class Decoder:
        def get_all_samples(self) -> Any:
            return type("Samples", (), {"data": noise[None], "sample_rate": 16000})

    noise = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), "uint8")
    images = [pixels, Image.fromarray(pixels), encoded_picture(), str(picture(tmp_path / "a.png")),
              {"bytes": None, "path": str(tmp_path / "a.png")}]  # fmt: skip
    flac = encoded_sound()
    sounds = [{"array": noise, "sampling_rate": 16000}, Decoder(), flac,
              {"bytes": flac, "path": "x.flac"}, str(sound(tmp_path / "a.wav"))]  # fmt: skip
    rows = [{"a": image, "b": audio} for image, audio in zip(images, sounds, strict=True)]
    data = mm.load_dataset("huggingface", data=Rows(rows), image="a", audio="b")
    for sample in data:
        assert load_image(sample.inputs["image"]).pixels.shape == (24, 32, 3)
        assert load_audio(sample.inputs["audio"]).sample_rate == 16000


def test_broken_rows_of_an_object_are_named() -> None:
    class Broken(Rows):
        def __getitem__(self, number: int) -> Any:
            if number == 1:
                raise OSError("cannot identify image file")
            return super().__getitem__(number)

    good = {"image": encoded_picture(), "text": "a dog"}
    rows = [good, good, {"image": "none.png", "text": "x"}, {"image": None, "text": "x"},
            {"image": encoded_picture(), "text": 3}, good]  # fmt: skip
    data = mm.load_dataset("huggingface", data=Broken(rows))
    with pytest.warns(InputWarning, match="4 left out") as told:
        assert [sample.id for sample in data] == ["0", "5"]
    said = str(told[0].message)
    assert "row 1: it cannot be read: OSError: cannot identify image file" in said
    assert "row 2: image 'none.png' is missing" in said
    with pytest.raises(InputError, match="row 1"):
        mm.load_dataset("huggingface", data=Broken(rows), strict=True)


def test_splits_and_columns_are_named(tmp_path: Path) -> None:
    rows = Rows([{"picture": encoded_picture(), "said": "a dog", "name": 7}])
    named = {"image": "picture", "text": "said", "id": "name"}
    (only,) = mm.load_dataset("huggingface", data={"test": rows}, split="test", **named)
    assert only.id == "7"
    for given, says in (
        ({"data": rows}, "name two of them"),
        ({"data": rows, **named, "boxes": "none"}, "there is no column 'none'"),
        ({"data": {"test": rows}, **named}, "give split= one of test"),
    ):
        with pytest.raises(InputError, match=says):
            mm.load_dataset("huggingface", **given)  # type: ignore[arg-type]
    for given, says in (
        ({}, "give one of data"),
        ({"data": rows, "folder": tmp_path}, "give one of data"),
        ({"data": rows, **named, "split": "test"}, "split acts where there are several"),
        ({"data": iter(()), **named}, "no stream"),
        ({"data": rows, **named, "box_form": "sizes"}, "box_form acts with boxes alone"),
    ):
        with pytest.raises(OptionError, match=says):
            mm.load_dataset("huggingface", **given)  # type: ignore[arg-type]


def test_a_saved_folder_needs_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"mmattrib\[datasets\]"):
        mm.load_dataset("huggingface", folder=tmp_path)


def test_a_saved_folder_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    images = [{"bytes": encoded_picture(seed), "path": None} for seed in range(2)]
    kinds = datasets.Features(image=datasets.Image(), caption=datasets.Value("string"))
    rows = {"image": images, "caption": ["a dog", "a cat"]}
    made = datasets.Dataset.from_dict(rows, features=kinds)
    made.save_to_disk(tmp_path / "saved")
    for options in ({"data": made}, {"folder": tmp_path / "saved"}):
        data = mm.load_dataset("huggingface", **options)  # type: ignore[arg-type]
        check_dataset(data)
        assert [sample.inputs["text"] for sample in data] == ["a dog", "a cat"]


def test_an_object_says_its_own_fingerprint() -> None:
    rows = Rows([{"image": encoded_picture(), "text": "a dog"}])
    plain = mm.load_dataset("huggingface", data=rows).fingerprint()
    rows.rows[0]["image"] = encoded_picture(1)
    assert mm.load_dataset("huggingface", data=rows).fingerprint() != plain
    rows._fingerprint = "abc"  # type: ignore[attr-defined]
    one = mm.load_dataset("huggingface", data=rows).describe()
    assert one["fingerprint"] == "abc"


def test_encoded_files_are_decoded_as_files_are(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    same = load_image(Encoded(path.read_bytes(), "a.png"))
    assert (same.pixels == load_image(path).pixels).all()
    assert same.name == "a.png"
    wav = sound(tmp_path / "a.wav")
    heard = load_audio(Encoded(wav.read_bytes(), "a.wav"))
    assert (heard.samples == load_audio(wav).samples).all()
    for load in (load_image, load_audio):
        for data in (b"", b"no file"):
            with pytest.raises(InputError, match=r"broken\.bin"):
                load(Encoded(data, "broken.bin"))
