"""Confidence drop and increase: each published convention is what its code does, restated here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from metric_cases import LinearCase
from torch import Tensor

from mmattrib.metrics import Case, confidence_drop, confidence_increase
from mmattrib.metrics.reduction import CONVENTIONS, kept_cosine, removed_cosine
from mmattrib.plugins import default_plugins


def drop(case: Case, convention: str) -> float:
    name = "confidence_drop" if convention == "paper" else f"confidence_drop_{convention}"
    return default_plugins().registry.create("metric", name)(case)


def increase(case: Case, convention: str) -> float:
    name = "confidence_increase" if convention == "paper" else f"confidence_increase_{convention}"
    return default_plugins().registry.create("metric", name)(case)


def scaled(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return ((values.astype(np.float64) - low) / (high - low)).astype(np.float32)


def cosine(case: Case, embedding: Tensor) -> float:
    return float((embedding[0] * case.model.guide_embedding()).sum())


def embedded(case: Case, **tensors: Tensor) -> float:
    """The cosine with another preprocessed tensor in the place of the case's own."""
    encoder, inputs = case.encoder, case.model.inputs
    for name, value in tensors.items():
        inputs = inputs.with_tensor(name, value)
    with torch.no_grad(), encoder.frozen():
        return cosine(case, encoder.embed(inputs))


def agrees(case: Case, convention: str, left: float) -> None:
    """Drop and increase follow from s0 and s1 alone, undivided."""
    assert left != pytest.approx(case.clean, abs=1e-3), "the test would show nothing"
    assert drop(case, convention) == pytest.approx(max(0.0, case.clean - left), abs=1e-6)
    assert increase(case, convention) == float(left > case.clean)


def test_drop_and_increase_are_not_divided_by_the_clean_cosine() -> None:
    assert confidence_drop(0.5, 0.2) == pytest.approx(0.3)
    assert confidence_drop(-0.5, -0.6) == pytest.approx(0.1)
    assert confidence_drop(0.2, 0.5) == 0
    assert [confidence_increase(0.2, 0.5), confidence_increase(0.2, 0.2)] == [1, 0]
    assert np.isnan([confidence_drop(0.2, np.nan), confidence_increase(0.2, np.nan)]).all()


@pytest.mark.parametrize("convention", ["gradcam", "nib"])
def test_a_picture_by_gradcam_is_the_normalised_tensor_times_the_map(
    cases: dict[str, Case], convention: str
) -> None:
    case = cases["image|text"]
    x, cam = case.model.inputs["x"], torch.from_numpy(scaled(case.attribution.scores))
    assert x.shape[-2:] == cam.shape
    agrees(case, convention, embedded(case, x=x * cam))


def test_a_recording_by_gradcam_is_the_normalised_mel_times_the_map(
    cases: dict[str, Case],
) -> None:
    case = cases["audio|text"]
    x = case.model.inputs["x"]  # (1, clips, mel, frames), clips one after the other
    laid = case.encoder.grid(case.model.inputs, -2).to_tokens([case.attribution.scores])
    cam = torch.from_numpy(scaled(laid.numpy())).view(x.shape)
    agrees(case, "gradcam", embedded(case, x=x * cam))


def test_a_picture_by_m2ib_has_row_0_of_the_map_on_every_row(cases: dict[str, Case]) -> None:
    case = cases["image|text"]
    x, cam = case.model.inputs["x"], torch.from_numpy(scaled(case.attribution.scores))
    broadcast = x[0] * cam[0]  # (3, h, w) times (w,)
    agrees(case, "m2ib", embedded(case, x=broadcast[None]))
    assert drop(case, "m2ib") != drop(case, "gradcam")


def test_a_caption_by_m2ib_has_id_0_for_words_that_are_not_above_the_median(
    cases: dict[str, Case],
) -> None:
    case = cases["text|image"]
    encoder, inputs, scores = case.encoder, case.model.inputs, case.content_scores()
    mask = np.ones(len(case.content), dtype=np.int64)
    mask[case.content] = scores > np.percentile(scores, 50)
    ids = inputs["x"] * torch.from_numpy(mask)
    with torch.no_grad(), encoder.frozen():
        tokens = encoder.prefix(inputs.with_tensor("x", ids), -1)
        left = cosine(case, encoder.suffix(tokens, -1, inputs))
    agrees(case, "m2ib", left)


def test_a_caption_by_nib_has_its_token_embeddings_times_the_map(cases: dict[str, Case]) -> None:
    case = cases["text|image"]
    encoder, inputs = case.encoder, case.model.inputs
    weights = torch.ones(len(case.content))
    weights[torch.from_numpy(case.content.copy())] = torch.from_numpy(scaled(case.content_scores()))
    with torch.no_grad(), encoder.frozen():
        tokens = encoder.prefix(inputs, -1) * weights[:, None]
        left = cosine(case, encoder.suffix(tokens, -1, inputs))
    agrees(case, "nib", left)


def test_what_a_convention_does_not_say_is_nan(cases: dict[str, Case]) -> None:
    silent = {"gradcam": ["text|image"], "m2ib": ["audio|text"], "nib": ["audio|text"]}
    for convention, directions in silent.items():
        for direction in ("image|text", "audio|text", "text|image"):
            found = kept_cosine(cases[direction], convention)  # type: ignore[arg-type]
            assert np.isnan(found) == (direction in directions)


def test_conventions_are_not_comparable(cases: dict[str, Case]) -> None:
    left = [kept_cosine(cases["text|image"], name) for name in ("paper", "m2ib", "nib")]
    assert len({round(value, 4) for value in left}) == 3
    assert set(CONVENTIONS) == {"paper", "gradcam", "m2ib", "nib"}


@pytest.mark.parametrize("convention", ["paper", "gradcam", "nib"])
def test_a_map_that_keeps_all_but_one_place_loses_next_to_nothing(
    cases: dict[str, Case], convention: str
) -> None:
    """docs/metrics.md: the drop rewards broad maps."""
    case = cases["image|text"]
    own = case.explanation["image"]
    broad = np.ones(own.token_scores.shape, np.float32)
    broad[np.flatnonzero(own.content)[0]] = 0.0
    sides = {**case.explanation, "image": replace(own, token_scores=broad)}
    ex = replace(case.explanation, attributions=sides)
    found = Case(case.sample, ex, "image", "text", case.model)
    assert drop(found, convention) < drop(case, convention) / 3


def test_a_constant_map_has_no_drop_by_any_convention() -> None:
    flat = LinearCase("image", np.zeros((48, 64)))
    assert np.isnan(kept_cosine(flat)) & np.isnan(removed_cosine(flat))
    assert np.isnan(drop(flat, "paper")) & np.isnan(increase(flat, "paper"))
