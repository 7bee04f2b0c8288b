"""What the study masks by: the numbers of its results came from these formulas."""

from __future__ import annotations

import numpy as np
from render_examples import audio_side, image_side, text_side

from examples.study.confidence import masked_input
from mmattrib.perturb import keep
from mmattrib.types import RawAudio, RawImage, RawText


def unit(scores: np.ndarray) -> np.ndarray:
    low, high = float(scores.min()), float(scores.max())
    return ((scores.astype(np.float64) - low) / (high - low)).astype(np.float32)


def test_a_picture_fades_into_its_mean_colour_to_the_last_bit() -> None:
    raw, attribution = image_side()
    found = masked_input(raw, attribution)
    assert isinstance(raw, RawImage)
    assert isinstance(found, RawImage)
    weights = unit(attribution.scores)
    pixels = raw.pixels.astype(np.float32)
    mean = pixels.mean(axis=(0, 1))
    mixed = pixels * weights[..., None] + mean * (1.0 - weights[..., None])
    np.testing.assert_array_equal(found.pixels, np.rint(mixed).clip(0, 255).astype(np.uint8))


def test_a_recording_is_weighted_on_the_axes_of_its_map() -> None:
    raw, attribution = audio_side()
    found = masked_input(raw, attribution)
    assert isinstance(raw, RawAudio)
    assert isinstance(found, RawAudio)
    wanted = keep(raw, unit(attribution.scores), axes=attribution.axes, fill="silence")
    np.testing.assert_array_equal(found.samples, wanted.samples)


def test_words_up_to_the_median_become_placeholders() -> None:
    raw, attribution = text_side("a brass bell, in a field")
    found = masked_input(raw, attribution)
    assert isinstance(found, RawText)
    assert found.text == "# # ## in a field"
