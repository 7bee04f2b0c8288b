"""Recordings kept by weights on time x frequency."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmattrib.errors import OptionError
from mmattrib.perturb import FILLS, keep
from mmattrib.perturb.audio import ShortTimeSpectrum, bin_frequencies, window_size
from mmattrib.types import Axis, RawAudio

RATE = 16000


def plane(hertz: np.ndarray, seconds: np.ndarray) -> tuple[Axis, Axis]:
    return (
        Axis("frequency", "Hz", np.asarray(hertz, np.float32)),
        Axis("time", "s", np.asarray(seconds, np.float32)),
    )


def noise(seconds: float = 1.0, rate: int = RATE) -> RawAudio:
    random = np.random.default_rng(0)
    return RawAudio(random.uniform(-1, 1, int(seconds * rate)).astype(np.float32), rate)


def naive(raw: RawAudio, weights: np.ndarray, axes: tuple[Axis, Axis]) -> np.ndarray:
    """The STFT times the interpolated map and back, one frame after the other."""
    size = window_size(raw.sample_rate)
    hop, window = size // 4, np.hanning(size + 1)[:-1]
    bins = bin_frequencies(size, raw.sample_rate)
    hertz, seconds = (axis.values.astype(np.float64) for axis in axes)

    def line(values: np.ndarray, known: np.ndarray, at: float) -> np.ndarray:
        left = int(np.clip(np.searchsorted(known, at, side="right") - 1, 0, len(known) - 2))
        share = float(np.clip((at - known[left]) / (known[left + 1] - known[left]), 0, 1))
        return (1 - share) * values[left] + share * values[left + 1]

    rows = np.stack([line(weights.astype(np.float64), hertz, at) for at in bins])
    count = (len(raw.samples) + size) // hop + 1
    padded = np.zeros((count - 1) * hop + 2 * size)
    padded[size : size + len(raw.samples)] = raw.samples
    out, norm = np.zeros_like(padded), np.zeros_like(padded)
    for frame in range(count):
        at = slice(frame * hop, frame * hop + size)
        gain = line(rows.T, seconds, (frame * hop + size / 2 - size) / raw.sample_rate)
        out[at] += np.fft.irfft(np.fft.rfft(padded[at] * window) * gain, size) * window
        norm[at] += window**2
    own = slice(size, size + len(raw.samples))
    return (out[own] / np.maximum(norm[own], 1e-9)).astype(np.float32)


@pytest.mark.parametrize(("rate", "seconds"), [(8000, 0.3), (16000, 9.0), (44100, 0.7)])
def test_silence_gives_the_numbers_of_masking_frame_by_frame(rate: int, seconds: float) -> None:
    raw = noise(seconds, rate)
    axes = plane(np.geomspace(60, rate / 2.1, 12), np.linspace(0.01, seconds, 25))
    weights = np.random.default_rng(1).random((12, 25)).astype(np.float32)
    found = keep(raw, weights, axes=axes, fill="silence").samples
    np.testing.assert_array_equal(found, naive(raw, weights, axes))


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 192000])
@pytest.mark.parametrize("length", [0, 1, 100, 30001])
@pytest.mark.parametrize("fill", list(FILLS["audio"]))
def test_ones_give_the_recording_and_zeros_of_silence_nothing(
    rate: int, length: int, fill: str
) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, length).astype(np.float32)
    raw = RawAudio(samples, rate)
    axes = plane(np.geomspace(50, rate / 2.2, 20), np.linspace(0, max(length / rate, 0.01), 30))
    kept = keep(raw, np.ones((20, 30)), axes=axes, fill=fill).samples
    np.testing.assert_allclose(kept, samples, atol=1e-4)
    gone = keep(raw, np.zeros((20, 30)), axes=axes, fill=fill).samples
    assert gone.shape == samples.shape
    assert np.isfinite(gone).all()
    if fill == "silence":
        assert not gone.any()


def test_the_band_and_the_time_that_the_map_marks_stay_and_the_rest_is_silent() -> None:
    time = np.arange(2 * RATE) / RATE
    low, high = np.sin(2 * np.pi * 300 * time), np.sin(2 * np.pi * 4000 * time)
    axes = plane(np.linspace(50, 7950, 80), np.linspace(0, 2, 100))
    weights = np.zeros((80, 100), bool)
    weights[axes[0].values > 2000, :50] = True
    raw = RawAudio((low + high).astype(np.float32), RATE)
    out = keep(raw, weights, axes=axes).samples
    first, second = slice(2000, 12000), slice(20000, 30000)
    np.testing.assert_allclose(out[first], high[first], atol=0.02)
    assert np.abs(out[second]).max() < 0.02


@pytest.mark.parametrize("fill", list(FILLS["audio"]))
def test_weights_over_time_alone_are_weights_that_all_frequencies_share(fill: str) -> None:
    raw = noise()
    axes = plane(np.linspace(50, 7900, 9), np.linspace(0, 1, 20))
    over_time = np.random.default_rng(1).random(20)
    alone = keep(raw, over_time, axes=axes[1:], fill=fill).samples
    both = keep(raw, np.tile(over_time, (9, 1)), axes=axes, fill=fill).samples
    np.testing.assert_allclose(alone, both, atol=1e-6)


@pytest.mark.parametrize("fill", list(FILLS["audio"]))
def test_soft_weights_mix_recording_and_fill_linearly(fill: str) -> None:
    raw = noise()
    axes = plane(np.linspace(50, 7900, 9), np.linspace(0, 1, 20))
    weights = np.random.default_rng(1).random((9, 20))
    found = keep(raw, weights, axes=axes, fill=fill).samples
    rest = keep(raw, 1.0 - weights, axes=axes, fill=fill).samples
    nothing = keep(raw, np.zeros((9, 20)), axes=axes, fill=fill).samples
    np.testing.assert_allclose(found + rest, raw.samples + nothing, atol=1e-5)


def spectrum(raw: RawAudio) -> np.ndarray:
    """``(frames, bins)`` of the windows that lie on the recording whole."""
    found = np.concatenate([cells for _, cells in ShortTimeSpectrum(raw).blocks()])
    return found[8:-8]


def test_the_mean_spectrum_levels_magnitudes_over_time_and_keeps_the_phase() -> None:
    time = np.arange(2 * RATE) / RATE
    loud = 0.1 + 0.9 * (time > 1)
    raw = RawAudio((loud * noise(2.0).samples).astype(np.float32), RATE)
    axes = plane(np.array([50.0, 7000.0]), np.array([0.0, 2.0]))
    found = keep(raw, np.zeros((2, 2)), axes=axes, fill="mean-spectrum")
    half = len(time) // 2
    before = raw.samples[:half].std() / raw.samples[half:].std()
    after = found.samples[:half].std() / found.samples[half:].std()
    assert before < 0.15
    assert after == pytest.approx(1.0, abs=0.1)
    own, left = spectrum(raw), spectrum(found)
    wanted = np.abs(own).mean(axis=0)
    np.testing.assert_allclose(
        np.abs(left).mean(axis=0)[5:-5].mean(), wanted[5:-5].mean(), rtol=0.25
    )
    heavy = np.abs(own) > np.median(np.abs(own))
    turned = np.cos(np.angle(left) - np.angle(own))
    assert turned[heavy].mean() > 0.9


def test_the_mean_spectrum_of_a_steady_sound_is_the_sound() -> None:
    time = np.arange(2 * RATE) / RATE
    raw = RawAudio((0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32), RATE)
    axes = plane(np.array([50.0, 7000.0]), np.array([0.0, 2.0]))
    found = keep(raw, np.zeros((2, 2)), axes=axes, fill="mean-spectrum").samples
    inside = slice(3000, -3000)
    scale = (found[inside] @ raw.samples[inside]) / (raw.samples[inside] @ raw.samples[inside])
    assert scale == pytest.approx(1.0, abs=0.1), "the ends are heard in part, so the mean is lower"
    np.testing.assert_allclose(found[inside], scale * raw.samples[inside], atol=0.02)


def test_a_seed_decides_the_phase_where_there_is_none() -> None:
    raw = noise(2.0)
    raw = replace(raw, samples=np.where(np.arange(2 * RATE) < RATE, 0, raw.samples))
    axes = plane(np.array([50.0, 7000.0]), np.array([0.0, 2.0]))
    first, again, other = (
        keep(raw, np.zeros((2, 2)), axes=axes, fill="mean-spectrum", seed=seed).samples
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    silent, heard = slice(2000, RATE - 2000), slice(RATE + 2000, -2000)
    assert first[silent].std() > 0.1 * first[heard].std()
    assert np.abs(first - other)[silent].max() > 0.01
    assert np.abs(first - other)[heard].max() < 1e-6


def test_samples_that_are_no_numbers_count_as_silent() -> None:
    raw = noise(0.2)
    broken = raw.samples.copy()
    broken[100] = np.nan
    axes = plane(np.array([50.0]), np.array([0.0]))
    found = keep(replace(raw, samples=broken), np.ones((1, 1)), axes=axes).samples
    assert np.isfinite(found).all()
    assert found[100] == pytest.approx(0.0, abs=1e-4)


def test_one_cell_holds_for_the_whole_recording() -> None:
    raw = RawAudio(np.ones(1000, np.float32), 8000)
    half = keep(raw, [[0.5]], axes=plane(np.array([100.0]), np.array([100.0])))
    np.testing.assert_allclose(half.samples, 0.5, atol=1e-4)


def test_axes_are_needed_and_must_fit() -> None:
    raw, (hertz, seconds) = noise(0.1), plane(np.array([100.0, 200.0]), np.array([0.0]))
    with pytest.raises(OptionError, match="axes="):
        keep(raw, np.ones((2, 1)))
    for axes in ((hertz, hertz), (seconds, hertz), (hertz,), ()):
        with pytest.raises(OptionError, match="axes"):
            keep(raw, np.ones(tuple(len(axis.values) for axis in axes)), axes=axes)
    falling = replace(hertz, values=hertz.values[::-1])
    with pytest.raises(OptionError, match="rise"):
        keep(raw, np.ones((2, 1)), axes=(falling, seconds))
    with pytest.raises(OptionError, match="shape"):
        keep(raw, np.ones((1, 2)), axes=(hertz, seconds))
