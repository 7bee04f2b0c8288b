"""The fuzzing command: it finds no fault, goes on where it stopped, and would find one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mmattrib as mm
from examples.fuzz import targets, worker
from examples.fuzz.__main__ import Report, fuzz, main
from examples.fuzz.corpus import build
from examples.fuzz.targets import INDICES, TARGETS, Bench
from examples.fuzz.worker import CRASH, HANG, MEMORY, OK, REFUSED, UNTYPED
from mmattrib.evaluation.plans import read_plan
from mmattrib.evaluation.results import load_results


@pytest.fixture(scope="module")
def corpus() -> dict[str, bytes]:
    return build()


def test_the_corpus_has_every_form(corpus: dict[str, bytes]) -> None:
    assert {Path(name).suffix for name in corpus} >= {
        ".png", ".jpg", ".tiff", ".gif", ".webp", ".wav", ".flac", ".ogg", ".npy", ".npz", ".json",
        ".txt", ".csv", ".toml", ".safetensors", ".jsonl", ".tsv", ".xml", ".tar",
    }  # fmt: skip


def test_the_texts_of_the_corpus_are_sound(corpus: dict[str, bytes], tmp_path: Path) -> None:
    """Mutations of what is refused as it stands try nothing behind the first check."""
    for name in ("plan.toml", "store.jsonl", "pairs.csv", "a.png", "seen.json"):
        (tmp_path / name).write_bytes(corpus["picture.png" if name == "a.png" else name])
    assert [variant.label for variant in read_plan(tmp_path / "plan.toml")] == [
        "plain", "cheap/points=4", "cheap/points=6"
    ]  # fmt: skip
    assert load_results(tmp_path / "store.jsonl").methods == ("random",)
    assert [s.id for s in mm.load_dataset("pairs", folder=tmp_path)] == ["a", "b"]
    assert mm.load(tmp_path / "seen.json").similarity is not None


@pytest.mark.parametrize("kind", TARGETS)
def test_a_few_cases_of_every_kind(
    kind: str, corpus: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker, "kind_of", lambda number: kind)
    bench = Bench(corpus, tmp_path)
    outcomes = set()
    for number in range(6):
        found = worker.run_case(bench, 7, number)
        outcomes.add(found["outcome"])
        assert found["outcome"] in (OK, REFUSED), found
    assert outcomes


@pytest.mark.parametrize("name", INDICES)
def test_the_indices_of_the_corpus_are_sound(
    name: str, corpus: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "INDICES", {name: INDICES[name]})
    monkeypatch.setattr(Bench, "file", written_as_it_is)
    targets.indices(Bench(corpus, tmp_path), np.random.default_rng(0))


def written_as_it_is(bench: Bench, names: Callable[[str], bool], rng: np.random.Generator) -> Path:
    (name,) = filter(names, bench.corpus)
    (bench.folder / name).write_bytes(bench.corpus[name])
    return bench.folder / name


def fails(bench: Bench, rng: np.random.Generator) -> None:
    raise ZeroDivisionError("found")


def test_a_case_is_the_same_again(corpus: dict[str, bytes], tmp_path: Path) -> None:
    bench = Bench(corpus, tmp_path)
    kinds = list(TARGETS)
    number = kinds.index("caption files")
    first = worker.run_case(bench, 3, number), (tmp_path / "caption.txt").read_bytes()
    assert (worker.run_case(bench, 3, number), (tmp_path / "caption.txt").read_bytes()) == first


def test_an_untyped_error_is_a_fault_with_its_place(
    corpus: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "captions", fails)
    number = list(TARGETS).index("captions")
    found = worker.run_case(Bench(corpus, tmp_path), 0, number)
    assert found["outcome"] == UNTYPED
    assert found["error"] == "ZeroDivisionError: found"
    assert "fails" in found["trace"]
    report = Report(tmp_path / "out", 0)
    report.add(number, found, str(tmp_path / "none"))
    kept = tmp_path / "out" / "faults" / str(number) / "case.json"
    assert json.loads(kept.read_text())["number"] == number
    assert "untyped, captions, ZeroDivisionError" in report.text()


def test_faults_of_one_kind_are_counted_and_a_few_are_kept(tmp_path: Path) -> None:
    report = Report(tmp_path, 0)
    for number in range(9):
        said = {"kind": "arrays", "outcome": HANG, "error": "", "where": ""}
        report.add(number, said, None)
    (fault,) = report.faults.values()
    assert fault == {"count": 9, "numbers": [0, 1, 2]}
    report.write()
    again = Report(tmp_path, 0)
    assert (again.counts, again.faults) == (report.counts, report.faults)


@pytest.mark.slow
def test_the_command_runs_cases_in_a_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--seed", "11", "--out", str(tmp_path), "--minutes", "3"]
    assert main([*given, "--cases", "7"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["next"] == 7
    assert sum(sum(row.values()) for row in report["counts"].values()) == 7
    assert capsys.readouterr().out.splitlines()[0].split()[-4:] == [UNTYPED, HANG, MEMORY, CRASH]
    assert main(["--seed", "12", "--out", str(tmp_path)]) == 2


@pytest.mark.slow
def test_a_minute_finds_nothing(tmp_path: Path) -> None:
    report = fuzz(tmp_path, seed=int(time.time()), seconds=60)
    assert report.faults == {}, report.text()
    assert report.next > 100
