"""RISE, Kernel SHAP and leave-one-out, on models whose answer is known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from known_encoders import (
    KnownImage,
    KnownReadings,
    KnownText,
    by_permutations,
    pixel_values,
    word_values,
)
from toy_encoders import RAWS, ToyAudio, ToyEncoder, ToyImage, ToyText

import mmattrib as mm
from mmattrib.methods import Side, SideScores, guide_of
from mmattrib.methods.kernel_shap import KernelSHAP
from mmattrib.methods.leave_one_out import LeaveOneOut
from mmattrib.methods.masking import OF_TOKENS, MaskedInput, MaskOptions
from mmattrib.methods.rise import RISE, enlarged
from mmattrib.perturb.tokens import TOKEN_FILLS
from mmattrib.perturb.weights import between
from mmattrib.types import RawArray, RawImage, RawInput, RawText

WORTH = {"red": 0.1, "dogs": -0.2, "sing": 0.3, "to": 0.05, "me": 0.0}
CAPTION = RawText("red dogs sing to me")
SLOPES = np.random.default_rng(0).normal(size=(16, 16)) / 100
WHITE = RawImage(np.full((16, 16, 3), 255, dtype=np.uint8))
ONE_EACH = [RISE.build(keep=0.25), KernelSHAP(), KernelSHAP.build(samples=12), LeaveOneOut()]


def small_rise() -> dict[str, int]:
    return {"samples": 8, "cells": 3}


def small_kernel_shap() -> dict[str, int]:
    return {"samples": 12, "cells": 3}


def small_leave_one_out() -> dict[str, int]:
    return {"cells": 3}


def explain(method: mm.Method, side: Side) -> SideScores:
    with side.encoder.frozen():
        return method(side)


def on_words(found: SideScores, side: Side) -> np.ndarray:
    return side.grid().to_input(found.scores)[0]


@pytest.mark.parametrize("method", ONE_EACH, ids=lambda method: repr(method.options)[:40])
def test_words_that_add_up_get_what_they_add(method: mm.Method) -> None:
    """RISE's map of independent words is (1 - p) times that: E[f | kept] - E[f]."""
    side = KnownText(word_values(WORTH)).side([CAPTION])
    found = on_words(explain(method, side), side)
    share = 0.75 if isinstance(method, RISE) else 1.0
    np.testing.assert_allclose(found, share * np.array(list(WORTH.values())), atol=1e-6)


def test_kernel_shap_of_a_small_game_is_the_definition() -> None:
    value = word_values(WORTH, pairs=0.15)
    side = KnownText(value).side([CAPTION])
    words, worth = CAPTION.text.split(), {}
    for size in range(6):
        for members in combinations(range(5), size):
            left = (word if place in members else "#" for place, word in enumerate(words))
            worth[frozenset(members)] = value(RawText(" ".join(left)))
    found = explain(KernelSHAP(), side)
    np.testing.assert_allclose(on_words(found, side), by_permutations(worth, 5), atol=1e-6)
    assert found.diagnostics[0]["exact"]
    assert found.diagnostics[0]["model_rows"] == 32


def test_rise_as_published_is_the_mean_higher() -> None:
    side = KnownText(word_values(WORTH, pairs=0.15)).side([CAPTION])
    own, published = (explain(RISE.build(centred=c), side) for c in (True, False))
    content, lengths = side.grid().content[0], np.array([3, 4, 4, 2, 2])
    higher = np.repeat(own.diagnostics[0]["mean_cosine"] / lengths, lengths)
    gap = (published.scores - own.scores)[0][content]
    np.testing.assert_allclose(gap, higher, atol=1e-6)


def exact_rise(slopes: np.ndarray, cells: int, p: float) -> np.ndarray:
    """(1 - p) Σ_j a_j E[b_j · b_λ] over all shifts, b what a pixel takes from each cell."""
    together = []
    for length in slopes.shape:
        shifts = (np.arange(200) + 0.5) / 200
        known = (np.arange(cells) + 0.5) * (length / cells * (cells + 1) / cells)
        takes = [
            between(np.eye(cells), known - s * length / cells, np.arange(length) + 0.5)
            for s in shifts
        ]
        together.append(np.mean([each @ each.T for each in takes], axis=0))
    return (1 - p) * together[0] @ slopes @ together[1]


def test_rise_nears_the_exact_map_of_a_linear_model_with_the_root_of_its_samples() -> None:
    exact = exact_rise(SLOPES, 3, 0.4).reshape(4, 4, 4, 4).mean(axis=(1, 3)).ravel()
    encoder = KnownImage(pixel_values(SLOPES))
    side = encoder.side([WHITE] * 3)
    errors = []
    for samples in (24, 384):
        method = RISE.build(samples=samples, cells=3, keep=0.4, image_fill="black")
        found = explain(method, side).scores.numpy()
        errors.append(float(np.sqrt(((found - exact) ** 2).mean())))
    assert errors[1] < 0.1 * np.abs(exact).max()
    assert 3.0 < errors[0] / errors[1] < 5.3  # 4, for 16 times the samples


def test_masks_of_rise_cover_the_input_and_keep_p_of_it_everywhere() -> None:
    random = np.random.default_rng(0)
    mean = np.zeros((9, 14))
    for _ in range(2000):
        kept = (random.random((3, 4)) < 0.3).astype(np.float64)
        mask = enlarged(kept, (9, 14), ((0, 9), (0, 14)), random.random(2))
        assert mask.min() >= 0
        assert mask.max() <= 1
        mean += mask / 2000
    np.testing.assert_allclose(mean, 0.3, atol=0.05)
    np.testing.assert_allclose(enlarged(np.ones((3, 4)), (9, 14), ((2, 7), (0, 14)),
                                        random.random(2)), 1.0)  # fmt: skip


def test_leaving_out_cells_of_a_linear_model_gives_their_sums() -> None:
    side = KnownImage(pixel_values(SLOPES)).side([WHITE])
    for method in (
        LeaveOneOut.build(cells=4, image_fill="black"),
        KernelSHAP.build(cells=4, samples=60, image_fill="black"),
    ):
        found = explain(method, side).scores[0].numpy()
        expected = SLOPES.reshape(4, 4, 4, 4).sum(axis=(1, 3)).ravel()
        np.testing.assert_allclose(found, expected, atol=1e-6)


TOYS: dict[str, type[ToyEncoder]] = {"image": ToyImage, "audio": ToyAudio, "text": ToyText}


@pytest.mark.parametrize("modality", TOYS)
@pytest.mark.parametrize("cells", [2, 5])
def test_kernel_shap_is_complete(modality: str, cells: int) -> None:
    """Cells and tokens need not fit: toys have 4 x 3 tokens, 8 x 8 and pieces of words."""
    encoder, guide = TOYS[modality](), ToyText()
    inputs, others = encoder.preprocess(RAWS[modality]()), guide.preprocess(RAWS["text"]())
    with encoder.frozen(), guide.frozen():
        goal = guide_of(guide, [others.select([row]) for row in range(3)])
        side = Side(encoder, inputs, 0, goal, ("a", "b", "c"))
        found = KernelSHAP.build(samples=10, cells=cells)(side)
        cosines = side.cosines(side.tokens())
        zeros = [MaskedInput(side, row, MaskOptions()) for row in range(3)]
        empty = [each.cosine(np.zeros(each.parts(cells))) for each in zeros]
    bound = 1e-4 if modality == "audio" else 2e-6  # a spectrum's round trip
    for row, entry in enumerate(found.diagnostics):
        total = float(found.scores[row].sum())
        assert total == pytest.approx(float(cosines[row]) - empty[row], abs=bound)
        assert abs(entry["completeness_gap"]) < bound
        assert entry["clean_cosine"] == pytest.approx(float(cosines[row]), abs=1e-6)
        assert entry["empty_cosine"] == pytest.approx(empty[row], abs=1e-6)


def test_too_few_samples_for_the_parts_are_said() -> None:
    side = KnownImage(pixel_values(SLOPES)).side([WHITE])
    few = explain(KernelSHAP.build(cells=4, samples=10), side).diagnostics[0]
    enough = explain(KernelSHAP.build(cells=4, samples=40), side).diagnostics[0]
    assert "10 masked inputs cannot tell 16 parts apart" in few["warnings"][0]
    assert enough["warnings"] == []


@pytest.mark.parametrize("method", [RISE.build(samples=6), KernelSHAP.build(samples=8)])
def test_masks_are_the_same_alone_and_beside_another_pair(method: mm.Method) -> None:
    encoder = KnownText(word_values(WORTH))
    other = RawText("me to me to me")
    asked = []
    for raws, keys in (([CAPTION], ["a"]), ([other, CAPTION], ["b", "a"])):
        side = encoder.side(raws, keys)
        explain(method, side)
        asked.append([raw.text for raw in encoder.asked if isinstance(raw, RawText)])
    assert len(asked[0]) > 5
    assert asked[1][-len(asked[0]) :] == asked[0]
    again = encoder.side([CAPTION], ["another"])
    explain(method, again)
    assert [raw.text for raw in encoder.asked if isinstance(raw, RawText)] != asked[0]


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_masks_do_not_depend_on_how_many_go_at_once(batch: int) -> None:
    encoder = KnownText(word_values(WORTH, pairs=0.1))
    side = encoder.side([CAPTION])
    for method in (RISE, KernelSHAP):
        one, many = (
            explain(method.build(samples=14, batch=size), side).scores for size in (batch, 32)
        )
        assert torch.allclose(one, many, atol=1e-7)


def test_words_are_taken_whole_and_the_fill_stands_in() -> None:
    for fill, empty in (("blank", "# # # # #"), ("delete", "# # # # #")):
        encoder = KnownText(word_values(WORTH))
        side = encoder.side([CAPTION])
        found = explain(LeaveOneOut.build(text_fill=fill), side)
        texts = [raw.text for raw in encoder.asked if isinstance(raw, RawText)]
        assert empty in texts  # a caption of nothing is refused, and placeholders stand in
        assert ("red dogs sing to #" in texts) == (fill == "blank")
        assert ("red dogs sing to" in texts) == (fill == "delete")
        assert found.diagnostics[0]["fill"] == fill


def test_fills_of_tokens_are_those_that_there_are() -> None:
    assert set(OF_TOKENS) == set(TOKEN_FILLS)


def test_an_array_is_masked_along_the_axes_of_its_map() -> None:
    """Its values have channels that the map has not."""
    readings = RawArray(np.random.default_rng(1).normal(size=(3, 12)).astype(np.float32), "imu")

    def value(raw: RawInput) -> float:
        assert isinstance(raw, RawArray)
        return float(raw.values[0].astype(np.float64) @ np.arange(12)) / 100

    side = KnownReadings(value).side([readings])
    own = (readings.values[0] - readings.values[0].mean()) * np.arange(12) / 100
    for method in (LeaveOneOut.build(cells=4), KernelSHAP.build(cells=4)):
        found = explain(method, side)
        np.testing.assert_allclose(found.scores[0], own.reshape(4, 3).sum(axis=1), atol=1e-5)
        assert found.diagnostics[0]["fill"] == "mean"
