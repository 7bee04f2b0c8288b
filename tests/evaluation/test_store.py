"""The store: what is finished is kept, by one writer, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_tiny import small_tiny

import mmattrib as mm
from mmattrib.errors import OptionError
from mmattrib.evaluation import Store
from mmattrib.evaluation.measure import SampleRow
from mmattrib.evaluation.results import collect
from mmattrib.evaluation.store import differences, read_entries

PLAN = {"methods": {"nib": {"steps": 1}}, "seeds": [0]}
TASK = {"candidate": "abc", "weights": "123", "version": "1", "start": 0, "seed": None}
STAMP = {"backbone": "tiny", "dataset": "scenes"}


def rows(value: float = 0.25) -> list[SampleRow]:
    return [SampleRow("s", {"image|text": {"auc": value, "iou": float("nan")}}, "told")]


def test_what_is_put_is_found_by_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.jsonl"
    with Store(path, PLAN) as store:
        assert not store.find("x")
        store.put("x", TASK, STAMP, rows())
        store.name({"nib": "abc"})
    with Store(path, PLAN) as store:
        (entry,) = store.find("x")
        assert entry["rows"][0] == {
            "sample": "s", "values": {"image|text": {"auc": 0.25, "iou": None}}, "problem": "told",
        }  # fmt: skip
        before = path.read_bytes()
        store.name({"nib": "abc"})
        assert path.read_bytes() == before, "what is known is not written again"


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with Store(path, PLAN) as store:
        store.put("x", TASK, STAMP, rows())
        store.put("y", TASK, STAMP, rows())
    whole = path.read_bytes()
    for cut in range(len(whole) - len(whole.splitlines()[-1]), len(whole) - 1, 7):
        path.write_bytes(whole[:cut])
        with Store(path, PLAN) as store:
            assert store.find("x")
            assert not store.find("y")
            store.put("z", TASK, STAMP, rows())
        with Store(path, PLAN) as store:
            assert store.find("z")


def test_a_second_writer_is_refused_and_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    code = (
        "import sys, time; from mmattrib.evaluation import Store\n"
        f"with Store({str(path)!r}, {PLAN!r}):\n print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    with pytest.raises(OptionError, match="another process"), Store(path, PLAN):
        pass
    assert list(read_entries(path, PLAN)) == [], "reading needs no lock"
    other.kill()
    other.wait()
    other.stdout.close()
    with Store(path, PLAN) as store:
        store.put("x", TASK, STAMP, rows())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\x00binary", "no store"),
        (b'{"tag": 1}\n', "no store"),
        (b"[1, 2]\n", "no store"),
        (b"[" * 100_000, "no store"),
        (b'{"format": "mmattrib-evaluation", "version": 99, "plan": {}}\n', "version 99"),
        (b'{"format": "mmattrib-evaluation", "version": 1}\n', "another evaluation"),
    ],
)
def test_another_file_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(OptionError, match=says), Store(path, PLAN):
        pass
    assert path.read_bytes() == content


def test_entries_of_another_shape_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with Store(path, PLAN) as store:
        store.put("x", TASK, STAMP, rows())
    odd = ["3", "null", "[]", '{"id": 3}', '{"id": "y", "task": {}, "stamp": {}, "rows": [3]}',
           '{"labels": 4}', '{"labels": {"a": 4}}']  # fmt: skip
    path.write_text(path.read_text() + "\n".join(odd) + "\n")
    with Store(path, PLAN) as store:
        assert store.find("x")
        assert not store.find("y")


def test_an_entry_that_lacks_or_mistypes_anything_that_is_read_is_passed_over(
    tmp_path: Path,
) -> None:
    """Every value of a sound entry is left out, and replaced by values of other kinds."""
    tiny, data = small_tiny(), mm.load_dataset("scenes", n=1)
    path = tmp_path / "a.jsonl"

    def measure() -> mm.evaluation.Results:
        return mm.evaluate(tiny, data, methods=["random"], metrics=["auc"], resume=path,
                           pairs=[("image", "text")], progress=False)  # fmt: skip

    expected = measure().values("random", "image|text", "auc").tolist()
    *before, sound = path.read_text().splitlines()
    for holder, key in list(places(json.loads(sound))):
        for value in (LEFT_OUT, None, "x", [], {}, -1, 1.5, 10**400, True):
            entry = json.loads(sound)
            inner = entry
            for step in holder:
                inner = inner[step]
            if value is LEFT_OUT:
                del inner[key]
            else:
                inner[key] = value
            path.write_text("\n".join([*before, json.dumps(entry)]) + "\n")
            with contextlib.suppress(OptionError):  # other rows than samples: refused by line
                collect(read_entries(path))
    path.write_text("\n".join([*before, sound.replace('"weights"', '"we4ghts"')]) + "\n")
    assert measure().values("random", "image|text", "auc").tolist() == expected


LEFT_OUT = object()


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every key of a tree, with the way to what holds it."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield at, key
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


def test_devices_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), Path("/dev/full")):
        with pytest.raises(OptionError, match="no regular file"), Store(path, PLAN):
            pass


def test_a_full_disk_is_said_and_costs_nothing_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Store(path, PLAN) as store:
        store.put("x", TASK, STAMP, rows())
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OptionError, match="No space left"):
                store.put("y", TASK, STAMP, rows())
    with Store(path, PLAN) as store:
        assert store.find("x")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="cannot be used"), Store(tmp_path / "file" / "x", PLAN):
        pass


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


@given(_values, _values)
def test_plans_differ_exactly_where_a_difference_is_told(one: Any, two: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    if same:
        assert differences(one, two) == []
    elif one != two:
        assert differences(one, two)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=200))
def test_any_bytes_behind_the_head_end_in_no_other_error(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "run.jsonl"
    path.unlink(missing_ok=True)
    with Store(path, PLAN) as store:
        store.put("x", TASK, STAMP, rows())
    path.write_bytes(path.read_bytes() + tail)
    with Store(path, PLAN) as store:
        assert store.find("x")
        store.put("y", TASK, STAMP, rows())
    with Store(path, PLAN) as store:
        assert store.find("y")
