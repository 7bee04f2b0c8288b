"""Measuring: the same numbers as the benchmark, and probes that say what they mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mmattrib as mm
from examples.study.confidence import PLACEHOLDER, confidence, masked_input
from examples.study.measure import (
    Variant,
    capacity_bits,
    measure,
    measure_chunk,
    rank_correlation,
    ranks,
    wrong_guide,
)
from examples.study.oracle import reference_rows
from examples.study.protocol import METRICS, RANKED, REPORTED, protocol_scene, protocol_scenes
from examples.tiny.retrieval import occlusion_oracle
from mmattrib.backbones.tiny.checkpoint import load_tiny
from mmattrib.backbones.tiny.encoders import wrap
from mmattrib.backbones.tiny.tokenizer import WordTokenizer
from mmattrib.datasets.scenes.generator import Scene, generate, part_names
from mmattrib.errors import InputError
from mmattrib.evaluation.benchmark import PAIRS, raw_input
from mmattrib.methods import Method, Side, SideScores
from mmattrib.placement import EvenCells, PlanePlacement, from_map
from mmattrib.types import Attribution, Axis, Explanation, RawText

PAIR = ("image", "text")


class Fixed(Method):
    """The same scores for every input, guide and seed."""

    name = "fixed"
    unit = "bits"
    flat = False

    def explain(self, side: Side) -> SideScores:
        valid = side.grid().valid
        row = torch.linspace(-1, 1, valid.shape[1]) * (0 if self.flat else 1)
        return SideScores(row.expand(valid.shape), self.unit, tuple({} for _ in side.keys))


class Flat(Fixed):
    flat = True


@pytest.fixture(scope="module")
def tiny() -> mm.Backbone:
    return mm.load_backbone("tiny")


def source(index: int) -> Scene:
    return protocol_scene("search", "one", index)


def test_metrics_are_those_of_the_benchmark(tiny: mm.Backbone) -> None:
    scenes = protocol_scenes("search", "one", 3)
    method = mm.load_method("nib", steps=2)
    rows = measure(tiny, lambda _: method, PAIR, scenes)
    found = mm.evaluate(tiny, scenes, methods=[method], pairs=[PAIR], progress=False)
    for direction in found.directions:
        for metric in RANKED:
            own = [row[direction][metric] for row in rows]
            np.testing.assert_allclose(found.values[direction, "nib", metric], own, atol=1e-6)
        assert all(set(row[direction]) == {*RANKED, *REPORTED} for row in rows)
        assert all(np.isnan(row[direction]["capacity_bits"]) for row in rows), "nib has no bits"


def test_a_chunk_is_its_scenes_one_by_one(tiny: mm.Backbone) -> None:
    variant = Variant("v", "random", {})
    whole = measure_chunk(tiny, variant, PAIR, "search", "one", 1, 2, probes=1)
    parts = [
        measure_chunk(tiny, variant, PAIR, "search", "one", 1, 1, probes=1),
        measure_chunk(tiny, variant, PAIR, "search", "one", 2, 1),
    ]
    for row, (alone,) in zip(whole, parts, strict=True):
        for direction, numbers in alone.items():
            assert set(numbers) == set(row[direction])
            for name in set(numbers) - {"seconds"}:
                np.testing.assert_allclose(row[direction][name], numbers[name], atol=1e-6)
    assert set(whole[0]["image|text"]) == set(METRICS)
    assert "tsens" not in whole[1]["image|text"]


def test_a_map_that_never_changes_is_stable_and_deaf(tiny: mm.Backbone) -> None:
    scenes = protocol_scenes("search", "one", 2)
    for row in measure(tiny, lambda _: Fixed(), PAIR, scenes, probes=2, following=source):
        for numbers in row.values():
            assert numbers["tsens"] == pytest.approx(0.0, abs=1e-12)
            assert numbers["stability"] == pytest.approx(1.0)
            assert numbers["capacity_bits"] > 0


def test_a_constant_map_has_no_probes_and_no_confidence(tiny: mm.Backbone) -> None:
    scenes = protocol_scenes("search", "one", 1)
    (row,) = measure(tiny, lambda _: Flat(), PAIR, scenes, probes=1, following=source)
    for numbers in row.values():
        for name in ("tsens", "stability", "confidence_drop", "confidence_increase"):
            assert np.isnan(numbers[name])
        assert numbers["capacity_bits"] == 0


def test_probes_tell_the_seed_and_the_guide_apart(tiny: mm.Backbone) -> None:
    for row in measure_chunk(tiny, Variant("v", "nib", {"steps": 2}), PAIR, "search", "one", 0, 2,
                             probes=2):  # fmt: skip
        assert row["image|text"]["stability"] == pytest.approx(1.0), "nib draws nothing"
        assert row["image|text"]["tsens"] > 0.05, "nib listens to its guide"
    rows = measure_chunk(tiny, Variant("v", "random", {}), PAIR, "search", "one", 0, 2, probes=2)
    for row in rows:
        assert abs(row["image|text"]["stability"]) < 0.5


def test_without_anything_shared_there_is_nothing_to_find(tiny: mm.Backbone) -> None:
    (row,) = measure_chunk(tiny, Variant("v", "random", {}), PAIR, "search", "none", 0, 1)
    for numbers in row.values():
        assert all(np.isnan(numbers[name]) for name in RANKED)
        assert np.isfinite(numbers["cosine"])


def test_probes_need_wrong_guides(untrained: mm.Backbone) -> None:
    with pytest.raises(InputError, match="following"):
        measure(untrained, lambda _: Fixed(), PAIR, protocol_scenes("search", "one", 1), probes=1)


def test_a_wrong_guide_is_the_first_that_shares_no_class() -> None:
    for place in range(4):
        held = set(part_names(source(place), "image")) - {None}
        found = wrong_guide(place, source, "image", "text")
        assert found.index > place
        assert not held & set(part_names(found, "text"))
        for index in range(place + 1, found.index):
            assert held & set(part_names(source(index), "text"))


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=12), st.randoms())
def test_rank_correlation(values: list[int], random: object) -> None:
    a = np.array(values, dtype=float)
    shuffled = np.array(random.sample(values, len(values)), dtype=float)  # type: ignore[attr-defined]
    assert ranks(a).sum() == pytest.approx(len(a) * (len(a) + 1) / 2)
    if len(set(values)) == 1:
        assert np.isnan(rank_correlation(a, shuffled))
        return
    assert rank_correlation(a, a) == pytest.approx(1.0)
    assert rank_correlation(a, -a) == pytest.approx(-1.0)
    assert rank_correlation(np.exp(a), shuffled) == pytest.approx(rank_correlation(a, shuffled))
    assert rank_correlation(a, shuffled) == pytest.approx(rank_correlation(shuffled, a))


def test_ties_get_mean_ranks() -> None:
    np.testing.assert_array_equal(ranks(np.array([5.0, 1.0, 5.0, 9.0])), [2.5, 1.0, 2.5, 4.0])


def test_capacity_ignores_what_is_no_content() -> None:
    scores = np.array([9.0, 1.0, -2.0, 3.0, np.nan], dtype=np.float32)
    content = np.array([False, True, True, True, False])
    axis = Axis("x", "px", np.arange(3, dtype=np.float32))
    line = PlanePlacement((axis,), (EvenCells(3, 3, 0, 3),), np.arange(1, 4, dtype=np.int32))
    found = Attribution("image", "bits", scores, content, line, 0)
    assert capacity_bits(found, content) == 4.0
    other = replace(found, unit="cosine")
    assert np.isnan(capacity_bits(other, content))


def test_the_oracle_is_that_of_the_model_card() -> None:
    model, info = load_tiny()
    expected = occlusion_oracle(model.eval(), WordTokenizer(info.vocabulary), n=6, seed=2)
    backbone, scenes = wrap(model, info.vocabulary), [generate(2, i, "heldout") for i in range(6)]
    for pair in PAIRS:
        rows = reference_rows(backbone, pair, scenes)
        for direction in (f"{pair[0]}|{pair[1]}", f"{pair[1]}|{pair[0]}"):
            found = np.nanmean([row[direction]["oracle"] for row in rows])
            assert found == pytest.approx(expected[direction])


def test_chance_is_the_share_of_what_is_shared(tiny: mm.Backbone) -> None:
    scenes = protocol_scenes("search", "two", 2)
    for scene, row in zip(scenes, reference_rows(tiny, PAIR, scenes), strict=True):
        for direction, numbers in row.items():
            names = part_names(scene, direction.partition("|")[0])
            shared = sum(name in scene.shared for name in names)
            if shared == len(names):
                assert np.isnan(numbers["chance"])
                assert np.isnan(numbers["oracle"])
            else:
                assert numbers["chance"] == shared / len(names)
    (none,) = reference_rows(tiny, PAIR, protocol_scenes("search", "none", 1))
    assert all(np.isnan(v) for numbers in none.values() for v in numbers.values())


def explained(tiny: mm.Backbone, scene: Scene, pair: tuple[str, str]) -> Explanation:
    inputs = {m: raw_input(scene, m) for m in pair}
    return mm.attribute(tiny, inputs=inputs, method="nib", steps=2)


def with_scores(attribution: Attribution, scores: np.ndarray) -> Attribution:
    axes = () if attribution.words else attribution.axes
    return from_map(attribution.modality, scores, attribution.unit, axes, words=attribution.words)


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_what_the_map_calls_important_stays(tiny: mm.Backbone, modality: str) -> None:
    found = explained(tiny, source(0), (modality, "text"))
    raw, attribution = found.inputs[modality], found[modality]
    almost_all = np.ones(attribution.scores.shape)
    almost_all[0, 0] = 0.0
    kept = masked_input(raw, with_scores(attribution, almost_all))
    only_one = masked_input(raw, with_scores(attribution, 1.0 - almost_all))
    assert kept is not None
    assert only_one is not None
    if modality == "image":
        changed = (kept.pixels != raw.pixels).any(-1)  # type: ignore[union-attr]
        assert not changed.ravel()[1:].any()
        mean = np.rint(raw.pixels.astype(np.float32).mean((0, 1)))  # type: ignore[union-attr]
        assert (only_one.pixels.reshape(-1, 3)[1:] == mean).all()  # type: ignore[union-attr]
    else:
        loud = np.abs(raw.samples).max()  # type: ignore[union-attr]
        assert np.abs(only_one.samples).max() < 0.2 * loud  # type: ignore[union-attr]
        assert np.abs(kept.samples).max() > 0.5 * loud  # type: ignore[union-attr]


def test_words_below_the_median_become_placeholders(tiny: mm.Backbone) -> None:
    attribution = explained(tiny, source(0), PAIR)["text"]
    raw = RawText(source(0).caption)
    scores = np.arange(len(attribution.words), dtype=np.float32)
    found = masked_input(raw, with_scores(attribution, scores))
    assert isinstance(found, RawText)
    gone = (len(scores) + 1) // 2
    words = [word.text for word in attribution.words]
    assert found.text.count(PLACEHOLDER) == gone
    tail = raw.text[attribution.words[gone].start :]
    assert found.text.endswith(tail), "words that stay keep their place and spelling"
    assert not set(words[:gone]) & set(found.text[: -len(tail)].split())
    inputs = tiny["text"].preprocess([found])
    assert int(tiny["text"].grid(inputs, -1).content.sum()) == len(words)


def test_confidence_follows_its_definition(tiny: mm.Backbone) -> None:
    found = explained(tiny, source(1), PAIR)
    encoder, attribution, raw = tiny["image"], found["image"], found.inputs["image"]
    guide = tiny["text"].embed(tiny["text"].preprocess([found.inputs["text"]]))[0].detach()
    masked = masked_input(raw, attribution)
    assert masked is not None
    with torch.no_grad():
        left = float(encoder.embed(encoder.preprocess([masked]))[0] @ guide)
    for clean in (left - 0.1, left, left + 0.1):
        drop, increase = confidence(encoder, raw, attribution, guide, clean)
        assert drop == pytest.approx(max(0.0, clean - left), abs=1e-6)
        if clean != left:
            assert increase == (left > clean)
