"""What is measured of channel and noise, and the shares that the tables tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mmattrib as mm
from examples.study import causes, why
from mmattrib.explain import explain
from mmattrib.preparing import prepare


def test_the_match_along_the_channel_ends_where_it_is_clean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(why, "RATES", (0.5, 1.0))
    monkeypatch.setattr(why, "SIGMAS", (1.0,))
    tiny, scene = mm.load_backbone("tiny"), mm.scenes(1, seed=3)[0]
    pair = prepare(tiny, {"image": scene.image, "text": scene.caption})
    (found,) = explain(tiny, [pair], why.Along(), None, ["image"])
    told = found.explanation["image"].diagnostics
    noise, half, clean, own = told["fit"]
    assert own == pytest.approx(found.explanation.similarity, abs=1e-5)
    assert clean == pytest.approx(own, abs=1e-5)
    assert noise < half < clean + 0.1
    assert len(told["slopes"]) == 2
    assert np.linalg.norm(told["clean"]) == pytest.approx(1, abs=1e-5)


def rows(behind: np.ndarray, clean: np.ndarray) -> list[dict[str, object]]:
    return [
        {"behind": [own.tolist()] * len(why.SIGMAS), "clean": other.tolist()}
        for own, other in zip(behind, clean, strict=True)
    ]


def test_noise_that_changes_nothing_tells_inputs_apart_and_one_embedding_for_all_does_not() -> None:
    clean = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    at, numbers = causes.told_apart(rows(clean, clean))
    assert [at(number) for number in numbers] == [pytest.approx((1, 1))] * len(why.SIGMAS)
    same, _ = causes.told_apart(rows(np.tile(clean.sum(0), (6, 1)), clean))
    assert same(0)[0] == pytest.approx(0, abs=1e-12)


def test_a_line_that_is_there_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    sample = mm.load_dataset("scenes", n=1).head(1)

    def work(folder: Path, count: int, known: set[tuple[str, str]]) -> list[object]:
        asked.append(known)
        return [("world", None, next(iter(sample)), "image", "text", ())]

    monkeypatch.setattr(why, "_work", work)
    monkeypatch.setattr(why, "_measured", lambda *_: {"fit": [0.0]})
    for _ in range(2):
        why.measure_why(tmp_path, tmp_path / "why.jsonl")
    assert asked == [set(), {("world", next(iter(sample)).id)}]
