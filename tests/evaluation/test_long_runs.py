"""Long runs take little memory: what is collected is small, and says the same as before."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattrib.evaluation import Store, bootstrap_interval, compare, statistics
from mmattrib.evaluation.measure import SampleRow
from mmattrib.evaluation.results import Collector, Numbered

ROOT = Path(__file__).parents[2]
METRICS = ("auc", "iou", "energy", "seconds")


@given(st.lists(st.tuples(st.integers(0, 2**40) | st.integers(0, 70), st.text(max_size=3))))
def test_numbered_ids_are_a_mapping_in_the_order_of_the_numbers(
    pairs: list[tuple[int, str]],
) -> None:
    found, expected = Numbered(), dict[int, str]()
    places = {}
    for number, name in pairs:
        places[number] = found.put(number, name)
        expected[number] = name
    assert found == expected
    assert list(found) == sorted(expected)
    assert len(found) == len(expected)
    assert found.places().tolist() == [places[number] for number in sorted(expected)]
    assert all(number in found for number in expected)
    assert -1 not in found


def entries(count: int, size: int = 16) -> Iterator[dict[str, Any]]:
    task = {"candidate": "c", "weights": "w", "version": "1", "seed": None}
    for start in range(0, count, size):
        rows = [
            {
                "sample": f"sample-{start + at}",
                "values": {
                    direction: dict.fromkeys(METRICS, (start + at) / 7)
                    for direction in ("image|text", "text|image")
                },
            }
            for at in range(size)
        ]
        stamp = {"backbone": "b", "dataset": "d"}
        yield {"task": {**task, "start": start}, "stamp": stamp, "rows": rows}


def test_a_sample_takes_its_numbers_its_id_and_little_more() -> None:
    count, columns = 8_000, 2 * len(METRICS)
    tracemalloc.start()
    try:
        collector = Collector()
        for entry in entries(count):
            collector.add(entry)
        found = collector.results({"m": "c"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.columns) == columns
    np.testing.assert_allclose(found.values("m", "image|text", "auc"), np.arange(count) / 7)
    # Eight bytes a number while it is collected and again in the results, with room to grow.
    assert peak / count < 3 * 8 * columns + 250


def test_a_store_keeps_entries_in_its_file(tmp_path: Path) -> None:
    rows = [SampleRow(f"s{n}", {"image|text": dict.fromkeys(METRICS, 0.5)}) for n in range(16)]
    task = {"candidate": "abc", "weights": "123", "version": "1", "start": 0, "seed": None}
    stamp = {"backbone": "tiny", "dataset": "scenes"}
    tracemalloc.start()
    try:
        with Store(tmp_path / "run.jsonl", {}) as store:
            for number in range(300):
                store.put(f"{number:016x}", task, stamp, rows)
            held, _ = tracemalloc.get_traced_memory()
        with Store(tmp_path / "run.jsonl", {}) as store:
            read, _ = tracemalloc.get_traced_memory()
            assert store.find(f"{7:016x}")[0]["rows"][3]["sample"] == "s3"
    finally:
        tracemalloc.stop()
    size = (tmp_path / "run.jsonl").stat().st_size
    assert size > 300 * 1000
    assert held < size / 3
    assert read < size / 3


def test_resamples_that_are_not_kept_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 50)), rng.normal(size=(2, 50))
    kept = compare(first, second, comparisons=5, draws=300), bootstrap_interval(first[0], draws=99)
    monkeypatch.setattr(statistics, "MOST_KEPT", 0)
    made = compare(first, second, comparisons=5, draws=300), bootstrap_interval(first[0], draws=99)
    for name in ("mean", "low", "high", "corrected_low", "corrected_high"):
        assert getattr(made[0], name) == pytest.approx(getattr(kept[0], name), abs=1e-12)
    assert made[1] == pytest.approx(kept[1], abs=1e-12)


@pytest.mark.slow
def test_six_times_the_samples_take_hardly_more_memory() -> None:
    command = [sys.executable, "-m", "examples.flat_memory", "500", "3000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    small, large = (json.loads(line) for line in done.stdout.splitlines())
    assert (small["samples"], large["samples"]) == (500, 3000)
    assert large["store_MB"] > 5 * small["store_MB"]
    assert large["peak_MB"] < small["peak_MB"] + 15
