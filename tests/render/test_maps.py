from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from render_examples import audio_side, image_side, pair, seen_in_part, text_side, with_scores

from mmattrib.errors import InputError, OptionError
from mmattrib.render.audio import encode_audio
from mmattrib.render.normalise import heatmap
from mmattrib.render.overlay import (
    blend,
    colour_table,
    draw_truth,
    ink,
    outline,
    resized,
    resized_mask,
)
from mmattrib.render.panels import MAX_SIDE, PlanePanel, TextPanel, panels
from mmattrib.render.spectrum import decibel_picture, mel_power
from mmattrib.types import Explanation

MAPS = arrays(
    np.float32,
    array_shapes(min_dims=1, max_dims=2, max_side=6),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


@given(scores=MAPS, unit=st.sampled_from(["bits", "gradient"]))
def test_heatmaps_are_always_in_range(scores: np.ndarray, unit: str) -> None:
    heat = heatmap(scores, unit)
    assert heat.values.shape == scores.shape
    assert heat.values.dtype == np.float32
    assert np.isfinite(heat.values).all()
    assert heat.values.min() >= 0
    assert heat.values.max() <= 1
    said = (
        "No information",
        "next to nothing",
    )  # of nothing at all, or of less than the scale shows
    assert heat.informative or any(each in note for note in heat.notes for each in said)


def test_a_map_scaled_by_itself_keeps_order_and_reaches_both_ends() -> None:
    scores = np.array([[0.5, 2.0], [1.0, 4.5]], np.float32)
    heat = heatmap(scores, scale="map")
    assert (heat.low, heat.high, heat.signed) == (0.5, 4.5, False)
    np.testing.assert_allclose(heat.values, (scores - 0.5) / 4.0, rtol=1e-6)


def test_negative_rounding_of_bits_counts_as_zero() -> None:
    heat = heatmap(np.array([-1e-7, 0.0, 2.0], np.float32))
    assert not heat.signed
    assert heat.low == 0.0
    assert heat.values.tolist() == [0.0, 0.0, 1.0]


def test_a_map_of_next_to_nothing_is_dark_and_called_empty() -> None:
    scores = np.array([[0.0, 0.001], [0.015, 0.002]], np.float32)
    heat = heatmap(scores)
    assert (heat.low, heat.high, heat.scale) == (0.0, 1.0, "absolute")
    np.testing.assert_array_equal(heat.values, scores)
    assert not heat.informative
    assert "Empty map: its largest score, 0.015 bits" in heat.notes[0]
    assert heatmap(scores, scale="map").values.max() == 1.0
    calibrated = heatmap(np.array([1.0, 40.0]), full=80.0)
    np.testing.assert_allclose(calibrated.values, [0.0125, 0.5])
    assert calibrated.informative


def test_full_colour_reaches_as_far_as_the_largest_score() -> None:
    heat = heatmap(np.array([1.0, 200.0]), full=80.0)
    assert heat.high == 200.0
    assert not heat.clipped
    signed = heatmap(np.array([-0.001, 0.002]), "cosine", full=0.1)
    np.testing.assert_allclose(signed.values, [0.495, 0.51])
    assert not signed.informative


def test_units_without_a_scale_of_their_own_are_scaled_by_the_map() -> None:
    heat = heatmap(np.array([1e-4, 3e-4]), "none")
    assert (heat.scale, heat.high, heat.values.max()) == ("map", 3e-4, 1.0)
    with pytest.raises(OptionError, match="'map', 'page', 'absolute'"):
        heatmap(np.zeros(2), scale="log")  # type: ignore[arg-type]


def test_maps_of_one_unit_share_the_scale_of_their_page() -> None:
    image = with_scores(image_side(), lambda scores: 10.0 * scores)
    for scale, high in (("absolute", 3.0), ("page", 10.0), ("map", 3.0)):
        first, second = panels(pair(image, text_side()), scale=scale)  # type: ignore[arg-type]
        assert first.heat.high == pytest.approx(10.0, rel=1e-3)
        assert second.heat.high == pytest.approx(high, rel=1e-3)
    other = with_scores(image_side(), lambda scores: 10.0 * scores, unit="nats")
    assert panels(pair(other, text_side()))[1].heat.high == 3.0


def test_on_the_absolute_scale_a_caption_is_not_dimmed_by_its_picture() -> None:
    bright = with_scores(image_side(), lambda scores: 1000.0 * scores)
    for image in (image_side(), bright):
        (_, words) = panels(pair(image, text_side()))
        assert words.heat.high == 3.0
        assert words.heat.values.max() == 1.0
    faint = with_scores(text_side(), lambda scores: 0.01 * scores)
    (_, words) = panels(pair(image_side(), faint))
    assert words.heat.high == 1.0, "and is no brighter than its bits"


def test_two_sides_of_one_modality_share_the_absolute_scale() -> None:
    (raw, first), (_, second) = image_side(), with_scores(image_side(), lambda s: 10.0 * s)
    drawn = panels(Explanation({"image": first, "image_2": second},
                               {"image": raw, "image_2": raw}, 0.5, {}))  # fmt: skip
    assert [panel.heat.high for panel in drawn] == [pytest.approx(10.0, rel=1e-3)] * 2


def test_words_under_the_floor_are_not_coloured() -> None:
    image = with_scores(image_side(), lambda scores: 50.0 * scores)
    (_, words) = panels(pair(image, text_side()), scale="page")
    assert isinstance(words, TextPanel)
    high = words.heat.high
    scored = [piece for piece in words.pieces if piece.score is not None]
    assert [p.coloured for p in scored] == [p.score >= 0.05 * high for p in scored]  # type: ignore[operator]
    assert {p.coloured for p in scored} == {True, False}
    (_, alone) = panels(pair(image, text_side()), scale="map")
    assert isinstance(alone, TextPanel)
    assert all(piece.coloured for piece in alone.pieces)


def test_signed_scores_keep_zero_in_the_middle() -> None:
    heat = heatmap(np.array([-1.0, 0.0, 4.0], np.float32), "gradient x input")
    assert heat.signed
    assert (heat.low, heat.high) == (-4.0, 4.0)
    np.testing.assert_allclose(heat.values, [0.375, 0.5, 1.0])
    np.testing.assert_allclose(heat.weights, [0.0, 0.0, 1.0])


def test_scores_of_another_unit_without_negatives_are_not_signed() -> None:
    assert not heatmap(np.array([0.0, 1.0]), "score").signed


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (np.zeros((3, 3)), "every score is zero"),
        (np.full((3, 3), 2.5), "every score is the same"),
        (np.full((3, 3), np.nan), "no score"),
        (np.zeros((0,)), "no score"),
    ],
)
def test_maps_without_information_say_so(scores: np.ndarray, said: str) -> None:
    heat = heatmap(scores)
    assert not heat.informative
    assert not heat.values.any()
    assert said in " ".join(heat.notes)


def test_constant_negative_map_is_no_information() -> None:
    heat = heatmap(np.full(4, -2.0), "gradient")
    assert not heat.informative
    assert (heat.values == 0.5).all()
    assert not heat.weights.any()


def test_missing_scores_are_counted_and_drawn_as_zero() -> None:
    heat = heatmap(np.array([np.nan, 1.0, 3.0, np.inf]))
    assert "2 of 4" in heat.notes[0]
    np.testing.assert_allclose(heat.values, [0.0, 1 / 3, 1.0, 0.0], rtol=1e-6)


def test_percentile_clip_keeps_an_outlier_from_hiding_the_rest() -> None:
    scores = np.append(np.linspace(0, 1, 99), 1000.0)
    assert heatmap(scores).values[98] < 0.01
    clipped = heatmap(scores, clip=98.0, scale="map")
    assert clipped.values[97] > 0.9
    assert clipped.clipped
    assert clipped.high < 1.0
    for wrong in (50.0, 0.0, 101.0, float("nan")):
        with pytest.raises(OptionError, match="percentile"):
            heatmap(scores, clip=wrong)


def test_brighter_means_more_over_any_picture() -> None:
    luminance = colour_table(False) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0).all()
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None]
    for grey in (0, 128, 255):
        picture = np.full((1, 64, 3), grey, np.uint8)
        shown = blend(picture, ramp, False).astype(float) @ np.array([0.2126, 0.7152, 0.0722])
        assert np.corrcoef(shown[0], ramp[0])[0, 1] > 0.9


def test_picture_stays_visible_under_the_map() -> None:
    checks = np.kron([[0, 1], [1, 0]], np.ones((8, 8))).astype(np.uint8)[..., None] * 255
    picture = np.repeat(checks, 3, axis=2)
    for value in (0.0, 0.5, 1.0):
        shown = blend(picture, np.full((16, 16), value, np.float32), False).astype(int)
        assert shown[0, -1].sum() - shown[0, 0].sum() > 150


def test_signed_colours_are_dark_at_zero_and_differ_in_hue() -> None:
    table = colour_table(True)
    assert table[127].sum() < 0.4
    assert table[0, 2] > table[0, 0]
    assert table[-1, 0] > table[-1, 2]


def test_ink_contrasts_with_every_colour() -> None:
    for signed in (False, True):
        for rgb in colour_table(signed):
            linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
            ground = float(linear @ [0.2126, 0.7152, 0.0722])
            text = 0.0 if ink(rgb) == "#000000" else 1.0
            bright, dark = max(ground, text), min(ground, text)
            assert (bright + 0.05) / (dark + 0.05) > 4.5  # WCAG 2, level AA


def test_outline_lies_on_the_border_only() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    border = outline(mask)
    assert border.sum() == 16
    assert not border[4, 4]
    assert not outline(np.ones((5, 5), bool)).any()
    drawn = draw_truth(np.full((9, 9, 3), 100, np.uint8), mask, width=1)
    assert (drawn[4, 4] == 100).all()
    assert (drawn[2, 2] != 100).any()


def test_drawn_masks_keep_their_place_and_never_vanish() -> None:
    mask = np.zeros((64, 128), bool)
    mask[16:48, 32:96] = True
    grown = resized_mask(mask, (256, 512))
    assert (grown != np.kron(mask, np.ones((4, 4), bool))).mean() < 0.005
    dot = np.zeros((64, 128), bool)
    dot[3, 5] = True
    assert resized_mask(dot, (256, 960))[12:16, 37:45].any()
    assert resized_mask(mask, (32, 64)).sum() == pytest.approx(mask.sum() / 4, rel=0.1)


def test_shrinking_averages_so_that_small_spots_survive() -> None:
    spot = np.zeros((1000, 1000), np.float32)
    spot[501:505, 501:505] = 1.0
    assert resized(spot, (50, 50)).max() > 0.005
    assert resized(spot, (50, 50)).mean() == pytest.approx(spot.mean(), rel=0.05)


def test_large_pictures_are_bounded() -> None:
    for height, width in ((3000, 4000), (5, 5000), (5000, 5)):
        (panel, _) = panels(pair(image_side(height, width), text_side()))
        assert isinstance(panel, PlanePanel)
        assert max(panel.mapped.shape) <= MAX_SIDE
        assert min(panel.mapped.shape) >= 1
        assert f"{width} × {height}" in panel.size_note


def test_the_bright_spot_is_where_the_score_is() -> None:
    def corner(scores: np.ndarray) -> np.ndarray:
        out = np.zeros_like(scores)
        out[: len(out) // 4, : out.shape[1] // 4] = 1.0
        return out

    drawn = panels(
        pair(with_scores(image_side(), corner), with_scores(audio_side(), corner)), clip=None
    )
    image, audio = (panel.mapped.astype(float).mean(axis=2) for panel in drawn)  # type: ignore[union-attr]
    rows, columns = image.shape
    assert image[: rows // 5, : columns // 5].mean() > image[rows // 2 :].mean() + 30
    rows, columns = audio.shape  # low frequencies are drawn at the bottom
    assert audio[-rows // 5 :, : columns // 5].mean() > audio[: rows // 2].mean() + 30


def test_spectrogram_shows_a_tone_at_its_frequency_and_time() -> None:
    rate = 16000
    time = np.arange(rate) / rate
    wave = np.where(time > 0.5, np.sin(2 * np.pi * 2000 * time), 0.0).astype(np.float32)
    hertz, seconds = np.geomspace(100, 7000, 60), np.linspace(0, 1, 50)
    power = mel_power(wave, rate, hertz, seconds)
    assert hertz[power[:, 40].argmax()] == pytest.approx(2000, rel=0.08)
    assert power[:, 40].sum() > 1e3 * power[:, 10].sum()
    picture = decibel_picture(power)
    assert picture.shape == (60, 50, 3)
    assert picture[59 - power[:, 40].argmax(), 40, 0] > 240
    assert not decibel_picture(np.zeros((3, 4))).any()
    assert not mel_power(wave[:0], rate, hertz, seconds).any()


def test_axis_ticks_lie_where_their_values_are() -> None:
    (panel, _) = panels(pair(audio_side(2.0), text_side()))
    assert isinstance(panel, PlanePanel)
    start, end = panel.span
    for at, label in panel.xticks:
        assert start + at * (end - start) == pytest.approx(float(label), abs=1e-6)
    labels = [label for _, label in panel.yticks]
    assert {"125", "1k", "4k"} <= set(labels)
    places = [at for at, _ in panel.yticks]
    assert places == sorted(places)
    assert 0 < places[0] < places[-1] < 1


def test_words_and_what_lies_between_give_the_caption_back() -> None:
    text = "  A bell,\trung — twice!  "
    (_, panel) = panels(pair(image_side(), text_side(text)))
    assert isinstance(panel, TextPanel)
    assert "".join(piece.text for piece in panel.pieces) == text
    bars = [piece.bar for piece in panel.pieces if piece.score is not None]
    assert max(bars) == 1.0
    assert min(bars) == 0.0


def test_truth_must_fit() -> None:
    example = pair(image_side(), text_side())
    with pytest.raises(OptionError, match="shape"):
        panels(example, {"image": np.zeros((2, 2), bool)})
    with pytest.raises(OptionError, match="'audio'"):
        panels(example, {"audio": np.zeros((2, 2), bool)})


def test_a_side_without_its_input_is_refused() -> None:
    example = pair(image_side(), text_side())
    broken = type(example)(example.attributions, {"text": example.inputs["text"]}, 0.1, {})
    with pytest.raises(InputError, match="'image'"):
        panels(broken)


@pytest.mark.parametrize("rate", [1000, 8000, 22050, 96000, 384000])
def test_encoded_audio_decodes_to_the_same_sound(rate: int) -> None:
    samples = (0.9 * np.sin(np.arange(2000) / 10)).astype(np.float32)
    media, data = encode_audio(samples, rate)
    assert media in {"audio/flac", "audio/wav"}
    decoded, found = soundfile.read(io.BytesIO(data), dtype="float32")
    assert found == rate
    np.testing.assert_allclose(decoded, samples, atol=1e-4)


def test_encoded_audio_scales_down_what_would_clip() -> None:
    _, data = encode_audio(np.array([0.0, 4.0, -2.0, np.nan], np.float32), 8000)
    decoded, _ = soundfile.read(io.BytesIO(data))
    np.testing.assert_allclose(decoded, [0.0, 1.0, -0.5, 0.0], atol=1e-3)


def test_what_the_model_never_saw_is_hatched_and_does_not_set_the_range() -> None:
    (panel, _) = panels(pair(seen_in_part((0, 40, 40, 80)), text_side()))
    assert isinstance(panel, PlanePanel)
    third = panel.mapped.shape[1] // 3
    hidden = panel.mapped[:, : third - 4].astype(int)
    lines = hidden.mean(axis=2) > 135
    assert 0.1 < lines.mean() < 0.3
    assert (np.roll(lines[1:], 1, axis=1)[:, 5:] == lines[:-1, 5:]).mean() > 0.97  # diagonal
    assert np.ptp(hidden, axis=2).max() <= 1  # no colour, so that it is not taken for a score
    _, attribution = seen_in_part((0, 40, 40, 80))
    (alone, _) = panels(pair(seen_in_part((0, 40, 40, 80)), text_side()), scale="map")
    assert alone.heat.low == pytest.approx(float(attribution.scores[attribution.seen].min()))
    assert alone.heat.low > 0


def test_unseen_cells_do_not_count() -> None:
    seen = np.array([True, True, True, False])
    heat = heatmap(np.array([1.0, 2.0, 3.0, 0.0]), seen=seen, scale="map")
    assert (heat.low, heat.high, heat.notes) == (1.0, 3.0, ())
    assert heat.values.tolist() == [0.0, 0.5, 1.0, 0.0]
    signed = heatmap(np.array([-1.0, 0.0, 1.0, 9.0]), "cosine", seen=seen)
    assert signed.values.tolist() == [0.0, 0.5, 1.0, 0.5]
    assert "no score" in heatmap(np.ones(4), seen=np.zeros(4, bool)).notes[0]


def test_a_large_picture_is_laid_at_the_size_it_is_drawn() -> None:
    side = seen_in_part((0, 0, 3000, 4000), 3000, 4000)
    (panel, _) = panels(pair(side, text_side()), scale="map")
    assert "scores" not in vars(side[1])
    assert panel.heat.values.shape == (768, 1024)
    assert panel.heat.high == pytest.approx(float(side[1].scores.max()), rel=1e-3)
