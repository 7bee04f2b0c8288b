"""Tables of samples: four formats of one thing, broken rows counted, and memory that stays flat."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_folders import picture, sound, text
from PIL import Image
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.datasets import reading, tables
from mmattrib.datasets.ids import Ids
from mmattrib.datasets.regions import MaskFile
from mmattrib.errors import InputError, InputWarning, OptionError
from mmattrib.samples import BoxRegion, SpanRegion, TimeRegion
from mmattrib.testing import check_dataset


def small_manifest(folder: Path) -> dict[str, Any]:
    picture(folder / "one.png")
    sound(folder / "one.wav")
    rows = [
        {"image": "one.png", "text": "a dog barks", "boxes": [[1, 2, 9, 9]], "spans": [[2, 5]]},
        {"audio": "one.wav", "text": "a dog barks", "times": [[0.2, 0.6]], "id": 7,
         "tags": {"source": "mine"}},
    ]  # fmt: skip
    return {"path": text(folder / "rows.jsonl", *map(json.dumps, rows))}


ROWS: list[dict[str, Any]] = [
    {"id": "a", "image": "one.png", "text": "a dog, asleep", "boxes": [[1, 2, 9, 9], [3, 3, 5, 7]],
     "kind": "pet"},
    {"id": "b", "image": "one.png", "audio": "one.wav", "mask": "mask.png", "times": [[0.1, 0.4]]},
    {"id": "c", "audio": "one.wav", "text": "a dog", "spans": [[2, 5]]},
]  # fmt: skip
COLUMNS = ("id", "image", "audio", "text", "boxes", "mask", "times", "spans", "kind")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "one.png")
    sound(tmp_path / "one.wav")
    Image.fromarray(np.full((24, 32), 255, np.uint8)).save(tmp_path / "mask.png")
    return tmp_path


def separated(delimiter: str) -> list[str]:
    def cell(value: Any) -> str:
        if isinstance(value, list):
            return ";".join(" ".join(map(str, each)) for each in value)
        return f'"{value}"' if isinstance(value, str) else ""

    rows = [delimiter.join(cell(row.get(name)) for name in COLUMNS) for row in ROWS]
    return [delimiter.join(COLUMNS), *rows]


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"rows{suffix}"
    if suffix == ".parquet":
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        rows = {name: [row.get(name) for row in ROWS] for name in COLUMNS}
        parquet.write_table(arrow.table(rows), path)
        return path
    lines = [json.dumps(row) for row in ROWS]
    return text(
        path, *(lines if suffix == ".jsonl" else separated({".csv": ","}.get(suffix, "\t")))
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_says_the_same_in_every_format(folder: Path, suffix: str) -> None:
    data = mm.load_dataset("manifest", path=write(folder, suffix))
    a, b, c = data
    assert [sample.id for sample in (a, b, c)] == ["a", "b", "c"]
    assert dict(a.inputs) == {"image": folder / "one.png", "text": "a dog, asleep"}
    assert list(b.inputs) == ["image", "audio"]
    assert a.truth["image"].parts[0].region == (BoxRegion(2, 1, 9, 9), BoxRegion(3, 3, 7, 5))
    assert b.truth["image"].parts[0].region == (MaskFile(folder / "mask.png"),)
    assert b.truth["audio"].parts[0].region == (TimeRegion(0.1, 0.4),)
    assert c.truth["text"].parts[0].region == (SpanRegion(2, 5),)
    assert a.tags["kind"] == "pet"
    check_dataset(data)


def test_truth_lands_on_the_axes_of_its_side(folder: Path) -> None:
    _, b, c = mm.load_dataset("manifest", path=write(folder, ".jsonl"))
    tiny = small_tiny()
    ex = mm.attribute(tiny, inputs=b.inputs, method="random")
    heard = b.truth["audio"].on(ex["audio"]).mask.any(0)
    seconds = ex["audio"].axes[1].values[heard]
    assert 0.1 <= seconds.min() <= seconds.max() < 0.4
    ex = mm.attribute(tiny, inputs=c.inputs, method="random")
    words = [word.text for word in ex["text"].words]
    assert [
        w for w, yes in zip(words, c.truth["text"].on(ex["text"]).mask, strict=True) if yes
    ] == ["dog"]


def broken(folder: Path, *more: str) -> Path:
    return text(
        folder / "rows.csv", "id,image,text,boxes", "a,one.png,a dog,1 1 9 9", "b,none.png,a dog,",
        "c,one.png,,", "a,one.png,a dog,", "d,one.png,a cat,1 1 99 9", 'e,one.png,a "cat" "x,',
        'f,one.png,"a "cat,', "g,one.png,a bird,1 1 4 4", *more,
    )  # fmt: skip


def test_broken_rows_are_left_out_and_told_with_file_and_line(folder: Path) -> None:
    data = mm.load_dataset("manifest", path=broken(folder))
    assert isinstance(data, reading.Reader)
    with pytest.warns(
        InputWarning, match=r"5 left out \(1 of a missing file, 3 broken, 1 of an id"
    ):
        found = [sample.id for sample in data]
    assert found == ["a", "e", "g"]
    told = [line.removeprefix(f"{folder / 'rows.csv'}, ") for line in data.problems.told]
    assert [line.partition(":")[0] for line in told] == [f"line {n}" for n in (3, 4, 5, 6, 8)]
    assert told[0] == "line 3: image 'none.png' is missing"
    assert told[2] == "line 5: id 'a' stands in line 2 too"
    assert "outside of the picture of 32 x 24" in told[3]
    assert data.size() == 3
    assert len(list(data)) == 3, "and it is told once"


def test_what_the_first_samples_left_out_is_told_too(folder: Path) -> None:
    with pytest.warns(InputWarning, match="4 left out"):
        assert [s.id for s in mm.load_dataset("manifest", path=broken(folder)).head(2)] == [
            "a",
            "e",
        ]


def test_an_evaluation_goes_on_without_broken_rows(folder: Path) -> None:
    tiny, data = small_tiny(), mm.load_dataset("manifest", path=broken(folder))
    with pytest.warns(InputWarning, match="5 left out"):
        found = mm.evaluate(tiny, data, methods=["random"], progress=False)
    assert np.isfinite(found.values("random", "image|text", "auc")).tolist() == [True, False, True]


def test_strict_stops_at_the_first(folder: Path) -> None:
    with pytest.raises(InputError, match=r"rows\.csv, line 3: image 'none\.png' is missing"):
        mm.load_dataset("manifest", path=broken(folder), strict=True)
    assert len(list(mm.load_dataset("manifest", path=write(folder, ".csv"), strict=True))) == 3
    with pytest.raises(OptionError, match="strict must be true or false"):
        mm.load_dataset("manifest", path=write(folder, ".csv"), strict="yes")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("no json", "line 2: it is no JSON"),
        ("[1]", "line 2: it is no JSON object"),
        ("[" * 100_000, "line 2: it is no JSON"),
        ('{"image": 3, "text": "x"}', "line 2: image is int"),
        ('{"image": "one.png", "text": "x", "boxes": 3}', "line 2: boxes are int"),
        ('{"image": "one.png", "text": "x", "boxes": [[1, 2, 3, null]]}', "line 2: box .* four"),
        (
            '{"image": "one.png", "text": "x", "boxes": [[0, 0, 1e999, 2]]}',
            "line 2: box .* no area",
        ),
        ('{"image": "one.png", "text": "x", "times": [[0, 1]]}', "line 2: times are given without"),
        ('{"audio": "one.wav", "text": "x", "times": "1 0"}', "line 2: time '1 0' has no length"),
        ('{"image": "one.png", "text": "x y", "spans": "1 2"}', "line 2: span 1 2 holds no word"),
        ('{"image": "one.png", "text": "x y", "spans": "0 9"}', "line 2: span 0 9 holds no word"),
        ('{"image": "one.png", "text": "' + "x" * 2**20 + '"}', "line 2: a row of more than"),
        ('{"image": "one.png", "text": "\udcff"}', "line 2: it is not UTF-8"),
    ],
)
def test_a_broken_line_of_json_is_named(folder: Path, line: str, says: str) -> None:
    path = folder / "rows.jsonl"
    good, other = json.dumps(ROWS[0]), json.dumps({**ROWS[0], "id": "z"})
    path.write_bytes(f"{good}\n{line}\n{other}\n".encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=says):
        mm.load_dataset("manifest", path=path, strict=True)
    with pytest.warns(InputWarning, match=says):
        assert [s.id for s in mm.load_dataset("manifest", path=path)] == ["a", "z"]


@pytest.mark.parametrize("line", ["x" * (2**20 + 9), '"' + "a,\n" * 50_000, '"' + "x" * 200_000])
def test_a_line_of_any_length_is_passed_over(folder: Path, line: str) -> None:
    path = text(folder / "rows.csv", "id,image,text", "a,one.png,dog", line, "b,one.png,dog")
    data = mm.load_dataset("manifest", path=path)
    with pytest.warns(InputWarning, match="line 3"):
        found = [sample.id for sample in data]
    assert found[0] == "a"
    assert len(found) == 2 or line.startswith('"')


def test_cells_of_parquet_are_measured_before_they_are_read(folder: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = folder / "rows.parquet"
    long = "x" * (tables.MAX_CELL + 1)
    texts = ["a dog"] * 256 + [long] * 256
    parquet.write_table(arrow.table({"image": ["one.png"] * 512, "text": texts}), path)
    assert path.stat().st_size < 20_000
    data = mm.load_dataset("manifest", path=path)
    tracemalloc.start()
    with pytest.warns(InputWarning, match="cell of more than"):
        assert len(list(data)) == 256
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        mm.load_dataset("manifest", path=path)


def test_what_is_no_table_is_refused(folder: Path) -> None:
    for path, says in ((folder / "none.csv", "is missing"), (folder / "one.png", "accepted: .csv")):
        with pytest.raises(InputError, match=says):
            mm.load_dataset("manifest", path=path)
    with pytest.raises(OptionError, match="must be text or a path"):
        mm.load_dataset("manifest", path=3)


def test_the_fingerprint_is_that_of_the_samples(folder: Path, monkeypatch: Any) -> None:
    path = write(folder, ".jsonl")
    before = mm.load_dataset("manifest", path=path).fingerprint()
    path.write_text(path.read_text() + "no json\n")
    assert mm.load_dataset("manifest", path=path).fingerprint() == before
    sizes = len((folder / "one.png").read_bytes())
    (folder / "one.png").write_bytes(picture(folder / "other.png", seed=5).read_bytes()[:sizes])
    assert mm.load_dataset("manifest", path=path).fingerprint() != before
    monkeypatch.setattr(reading, "HASHED", 0)
    by_size = mm.load_dataset("manifest", path=path).fingerprint()
    (folder / "one.wav").write_bytes(bytes((folder / "one.wav").stat().st_size))
    assert mm.load_dataset("manifest", path=path).fingerprint() == by_size
    (folder / "one.wav").write_bytes(b"RIFF")
    assert mm.load_dataset("manifest", path=path).fingerprint() != by_size


def test_every_id_that_was_seen_is_seen_again_and_no_other() -> None:
    ids = Ids()
    assert not any(ids.add(f"id {n}", f"line {n}") for n in range(20_000))
    assert ids.add("id 5", "line 0") == "in line 5"
    assert all(ids.add(f"id {n}", "line 0") == "further up" for n in range(3000, 20_000, 500))
    assert ids.add("id 20000", "") is None


def test_unrelated_inputs_are_found_in_one_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking for each sample's in turn would read the table from its start for each."""
    lines = [f"row-{n},one.png,caption {n}" for n in range(200)]
    data = mm.load_dataset("manifest", path=text(folder / "rows.csv", "id,image,text", *lines))
    samples, made, real = list(data), [0], Ids.add

    def counted(self: Ids, *given: str) -> str | None:
        made[0] += 1
        return real(self, *given)

    monkeypatch.setattr(Ids, "add", counted)
    for number, sample in enumerate(samples):
        for side, guide in (("image", "text"), ("text", "image"), ("image", "text")):
            found = data.unrelated(number, sample, side, guide)
            after = samples[(number + 1) % 200].inputs[guide]
            assert found == after
    assert made[0] <= 2 * 200
    assert [s.id for s in data.following(2)] == [s.id for s in (*samples[3:], *samples[:2])]


def peak_of(folder: Path, count: int) -> float:
    """Most bytes that one pass over so many rows allocates."""
    lines = (f"row-{n},one.png,caption number {n} of a thing" for n in range(count))
    data = mm.load_dataset("manifest", path=text(folder / "rows.csv", "id,image,text", *lines))
    tracemalloc.start()
    seen = sum(1 for _ in data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == count
    return peak


def test_a_stream_holds_no_rows(folder: Path) -> None:
    """Rows that are kept would take a thousand bytes each."""
    assert peak_of(folder, 2500) - peak_of(folder, 500) < 0.5e6


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_the_memory_of_ten_thousand(folder: Path) -> None:
    assert peak_of(folder, 100_000) - peak_of(folder, 10_000) < 1.5e6
