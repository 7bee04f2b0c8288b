"""`mmattrib evaluate` on a model with random weights: a table, and the same numbers as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_program import Run
from PIL import Image

QUICK = ("--pair", "image,text", "--limit", 2)


@pytest.fixture
def random_tiny(checkpoint: Path) -> tuple[str, str]:
    return "--backbone-option", f"checkpoint={checkpoint}"


def test_a_table_and_every_number(run: Run, random_tiny: tuple[str, str], tmp_path: Path) -> None:
    outs = ("--out", tmp_path / "t.txt", "--out", tmp_path / "t.json")
    given = ("--method", "random", "--metric", "auc", *QUICK)
    result = run("evaluate", *random_tiny, *given, *outs)
    assert result.code == 0, result.err
    assert "random" in result.out
    assert "auc" in result.out
    assert (tmp_path / "t.txt").read_text(encoding="utf-8") == result.out
    found = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert {column["direction"] for column in found["columns"]} == {"image|text", "text|image"}
    assert {path.name for path in tmp_path.iterdir()} == {"t.txt", "t.json"}


def test_methods_take_options_metrics_a_number_of_samples_and_seeds_are_averaged(
    run: Run, random_tiny: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "t.json"
    result = run(
        "evaluate", *random_tiny, *QUICK, "--method", "m2ib:steps=2,samples=2",
        "--methods", "random",
        "--metrics", "auc", "--metric", "iou:1", "--baseline", "random", "--seed", 0, "--seed", 1,
        "--out", out,
    )  # fmt: skip
    assert result.code == 0, result.err
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["provenance"]["seeds"] == [0, 1]
    assert found["provenance"]["methods"]["m2ib"]["options"]["steps"] == 2
    assert found["provenance"]["metrics"]["iou"]["samples"] == 1
    for column in found["columns"]:
        measured = sum(value is not None for value in column["values"])
        assert measured == (1 if column["metric"] == "iou" else 2)


def test_a_folder_of_pairs(run: Run, random_tiny: tuple[str, str], tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (20, 20), (0, 9, 0)).save(tmp_path / f"{name}.png")
    rows = "image,text,boxes\na.png,a dog,2 2 9 9\nb.png,a cat,1 1 5 9\n"
    (tmp_path / "pairs.csv").write_text(rows)
    data = ("--data", "pairs", "--data-option", f"folder={tmp_path}")
    quick = ("--method", "random", "--metric", "auc", "--pair", "image,text")
    result = run("evaluate", *random_tiny, *data, *quick)
    assert result.code == 0, result.err
    assert "pairs: 2 samples" in result.out


def test_strict_stops_at_the_first_broken_row(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), (0, 9, 0)).save(tmp_path / "a.png")
    (tmp_path / "pairs.csv").write_text("image,text\na.png,a dog\nb.png,a cat\nc.png,a bird\n")
    result = run("evaluate", "--strict", "--data", f"pairs:folder={tmp_path}", "--method", "random")
    assert (result.code, result.out) == (2, "")
    assert "line 3: image 'b.png' is missing" in result.err
    again = run("evaluate", "--strict", "--data", f"pairs:folder={tmp_path},strict=true")
    assert "give it once" in again.err
    none = run("evaluate", "--strict")
    assert "dataset 'scenes' takes no option 'strict'" in none.err


def test_resuming_measures_nothing_again(
    run: Run, random_tiny: tuple[str, str], tmp_path: Path
) -> None:
    store = tmp_path / "kept.jsonl"
    given = ("--method", "random", "--metric", "auc", *QUICK, "--resume", store)
    first = run("evaluate", *random_tiny, *given)
    kept = store.read_bytes()
    again = run("evaluate", *random_tiny, *given)
    assert (first.code, again.code) == (0, 0), again.err
    assert first.out == again.out
    assert store.read_bytes() == kept


def store_as_output(folder: Path) -> tuple[object, ...]:
    (folder / "t.json").touch()
    return "--resume", folder / "t.json", "--out", folder / "t.json"


def store_as_linked_output(folder: Path) -> tuple[object, ...]:
    (folder / "kept.json").touch()
    (folder / "t.json").symlink_to(folder / "kept.json")
    return "--resume", folder / "kept.json", "--out", folder / "t.json"


def store_as_hard_link(folder: Path) -> tuple[object, ...]:
    (folder / "kept.json").touch()
    (folder / "t.json").hardlink_to(folder / "kept.json")
    return "--resume", folder / "kept.json", "--out", folder / "t.json"


def store_that_is_a_folder(folder: Path) -> tuple[object, ...]:
    return "--resume", folder


def store_that_is_a_pipe(folder: Path) -> tuple[object, ...]:
    os.mkfifo(folder / "pipe")
    return "--resume", folder / "pipe"


def store_that_is_a_device(_: Path) -> tuple[object, ...]:
    return "--resume", "/dev/null"


def output_that_is_a_pipe(folder: Path) -> tuple[object, ...]:
    os.mkfifo(folder / "t.md")
    return "--out", folder / "t.md"


def store_of_other_bytes(folder: Path) -> tuple[object, ...]:
    (folder / "kept.json").write_bytes(b"\x00\xff" * 20)
    return "--resume", folder / "kept.json"


@pytest.mark.skipif(os.name != "posix", reason="pipes and links as in POSIX")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (store_as_output, "one of the inputs"),
        (store_as_linked_output, "one of the inputs"),
        (store_as_hard_link, "one of the inputs"),
        (store_that_is_a_folder, "is a folder"),
        (store_that_is_a_pipe, "a pipe or a device"),
        (store_that_is_a_device, "a pipe or a device"),
        (output_that_is_a_pipe, "a pipe or a device"),
        (store_of_other_bytes, "kept.json"),
    ],
)
def test_a_file_that_cannot_serve_is_refused_and_kept(
    make: object, said: str, run: Run, random_tiny: tuple[str, str], tmp_path: Path
) -> None:
    given = make(tmp_path)  # type: ignore[operator]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    quick = ("--method", "random", "--metric", "auc", *QUICK)
    result = run("evaluate", *random_tiny, *quick, *given)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert {k: v for k, v in after.items() if not k.endswith(".lock")} == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--method", "random", "--method", "random"), "random"),
        (("--metric", "auc", "--metric", "auc"), "given twice"),
        (("--seed", 1, "--seed", 1), "--seed 1 is given twice"),
        (("--pair", "image,text", "--pair", "text,image"), "--pair"),
        (("--backbone", "tiny", "--backbone", "tiny"), "--backbone tiny is given twice"),
        (("--data", "scenes", "--data", "a=scenes", "--data-option", "seed=1"), "scenes:seed=1"),
        (("--methds", "all"), "--method"),
        (("--method", "all", "--method", "random"), "--method all"),
        (("--baseline", "nib", "--layout", "paper"), "--layout paper"),
        (("--limit", 2, "--limit", 3), "--limit is given 2 times"),
        (("--baseline", "a", "--baseline", "b"), "--baseline is given 2 times"),
        (("--method", "random:"), "ends in a colon"),
        (("--method", "m2ib:steps=2,steps=3"), "'steps' again"),
        (("--method", "m2ib:steps=1000000000"), "steps"),
        (("--method", "random", "--baseline", "nib"), "--baseline nib"),
        (("--layer", "imgae=1"), "imgae"),
        (("--jobs", 0), "--jobs"),
    ],
)
def test_wrong_and_repeated_options_are_one_line(
    given: tuple[object, ...], said: str, run: Run
) -> None:
    result = run("evaluate", "--limit", 1, *given) if "--limit" not in given else run(
        "evaluate", *given
    )  # fmt: skip
    assert result.code == 2, result.out
    assert said in result.err
    assert result.err.count("\n") == 1


def test_every_table_and_a_grid_of_maps(
    run: Run, random_tiny: tuple[str, str], tmp_path: Path
) -> None:
    names = ("t.md", "t.csv", "t.tex", "n.numbers.csv")
    outs = [each for name in names for each in ("--out", tmp_path / name)]
    result = run(
        "evaluate", *random_tiny, *QUICK, "--method", "noise=random", "--metric", "auc",
        "--layout", "paper", *outs, "--grid", tmp_path / "g.png", "--grid-samples", 1,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "direction" in result.out.splitlines()[2]
    assert "noise" in result.out.splitlines()[2]
    assert "| noise |" in (tmp_path / "t.md").read_text(encoding="utf-8")
    assert "\\toprule" in (tmp_path / "t.tex").read_text(encoding="utf-8")
    assert (tmp_path / "t.csv").read_text().startswith("direction,metric,noise,noise error\n")
    head, *rows = (tmp_path / "n.numbers.csv").read_text().splitlines()
    assert head.startswith("backbone,data,sample,direction,method,seed,metric,value,problem")
    assert len(rows) == 2 * 2 * 2  # directions, metrics with seconds, samples
    with Image.open(tmp_path / "g.png") as drawn:
        assert drawn.width > 600


def test_several_models_and_data_sets_have_tables_of_their_own(run: Run, checkpoint: Path) -> None:
    result = run(
        "evaluate", *QUICK, "--method", "random", "--metric", "auc",
        "--backbone", f"one=tiny:checkpoint={checkpoint}", "--backbone", "tiny",
        "--data", "scenes", "--data", "more=scenes:seed=3",
    )  # fmt: skip
    assert result.code == 0, result.err
    for data in ("scenes", "more"):
        for model in ("one", "tiny"):
            assert f"{data}, {model}: image|text" in result.out


def test_a_grid_of_so_many_samples_needs_a_grid(run: Run) -> None:
    result = run("evaluate", "--grid-samples", 2)
    assert result.code == 2
    assert "without --grid" in result.err
