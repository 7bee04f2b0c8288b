"""Decoding and resampling sounds: every form that is accepted, and an error for every other."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from decoding_inputs import (
    decoded_or_refused,
    picture,
    sound,
    tone,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattrib.errors import InputError, OptionError
from mmattrib.io import (
    Encoded,
    audio,
    load_audio,
    resample,
)
from mmattrib.render.audio import encode_audio
from mmattrib.types import RawAudio


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        ("wav", "PCM_16"),
        ("wav", "PCM_U8"),
        ("wav", "PCM_24"),
        ("wav", "FLOAT"),
        ("wav", "DOUBLE"),
        ("flac", "PCM_16"),
        ("ogg", "VORBIS"),
        ("mp3", "MPEG_LAYER_III"),
        ("aiff", "PCM_16"),
        ("au", "PCM_16"),
        ("w64", "PCM_16"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_audio_formats(tmp_path: Path, suffix: str, subtype: str, channels: int) -> None:
    path = tmp_path / f"tone.{suffix}"
    stereo = np.stack([tone()] * channels, axis=1)
    soundfile.write(path, stereo, 16000, subtype=subtype)
    raw = load_audio(str(path))
    assert raw.name == path.name
    assert raw.sample_rate == 16000
    assert raw.samples.dtype == np.float32
    assert raw.samples.ndim == 1
    assert raw.seconds == pytest.approx(0.5, abs=0.15 if suffix == "mp3" else 1e-3)
    spectrum = np.abs(np.fft.rfft(raw.samples))
    peak = np.argmax(spectrum) * 16000 / len(raw.samples)
    assert peak == pytest.approx(440, abs=3)
    assert np.abs(raw.samples).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 12345])
def test_any_sample_rate_and_channel_count(tmp_path: Path, rate: int) -> None:
    channels = np.stack([tone(rate), 0 * tone(rate), tone(rate) / 2], axis=1)
    soundfile.write(tmp_path / "three.wav", channels, rate, subtype="FLOAT")
    raw = load_audio(tmp_path / "three.wav")
    assert raw.sample_rate == rate
    np.testing.assert_allclose(raw.samples, tone(rate) / 2, atol=1e-6)
    again = resample(raw, 16000)
    assert again.sample_rate == 16000
    assert len(again.samples) == round(len(raw.samples) * 16000 / rate)
    middle = slice(800, -800)
    length = len(again.samples)
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(length) / 16000)
    np.testing.assert_allclose(again.samples[middle], expected[middle], atol=0.01)


def test_longer_than_one_block(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (200_001, 2)).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", samples, 8000, subtype="FLOAT")
    raw = load_audio(tmp_path / "long.wav")
    np.testing.assert_allclose(raw.samples, samples.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero"),
    [("int16", 32768, 0), ("int32", 2**31, 0), ("int8", 128, 0), ("uint8", 128, 128)],
)
def test_integer_arrays_are_scaled(dtype: str, scale: int, zero: int) -> None:
    values = (tone() * scale + zero).astype(dtype)
    raw = load_audio((values, 16000))
    np.testing.assert_allclose(raw.samples, tone(), atol=1.5 / scale + 1e-6)
    both = load_audio((np.stack([values, values], axis=1), np.int64(16000)))
    np.testing.assert_array_equal(raw.samples, both.samples)
    assert both.sample_rate == 16000


def test_audio_arrays_and_raw() -> None:
    raw = load_audio((tone().astype(np.float64), 16000))
    assert raw.samples.dtype == np.float32
    assert load_audio(raw) is raw


BAD_AUDIO = {
    "missing": (lambda d: d / "no.wav", "no.wav does not exist"),
    "folder": (lambda d: d, "is a folder"),
    "text as wav": (lambda d: write(d / "t.wav", b"just some text"), "t.wav cannot be decoded"),
    "text as raw": (lambda d: write(d / "t.raw", b"just some text"), "t.raw cannot be decoded"),
    "image": (lambda d: picture(d / "p.wav"), "p.wav cannot be decoded"),
    "empty file": (lambda d: write(d / "e.wav", b""), "is empty"),
    "no samples": (lambda d: sound(d / "n.wav", np.zeros(0)), "n.wav holds no samples"),
    "silent": (lambda d: sound(d / "s.wav", np.zeros(99)), "s.wav is silent"),
    "nan": (lambda d: sound(d / "x.wav", np.array([0.1, np.nan])), "x.wav has NaN"),
    "infinite": (lambda d: sound(d / "i.wav", np.array([0.1, np.inf])), "i.wav has NaN or inf"),
    "loud": (lambda d: sound(d / "l.wav", 9000 * tone()), "divided by 32768"),
    "cancels": (lambda d: (np.stack([tone(), -tone()], axis=1), 16000), "cancel each other"),
    "long": (lambda d: sound(d / "h.wav", np.ones(6101), 10), "h.wav lasts 610.1 s.*600 s"),
    "long array": (lambda d: (np.ones(6101), 10), "lasts 610.1 s"),
    "bare": (lambda d: tone(), "say their rate"),
    "bytes": (lambda d: b"RIFF", "cannot use bytes"),
    "none": (lambda d: None, "cannot use NoneType"),
    "swapped": (lambda d: (16000, tone()), "Swap"),
    "rate zero": (lambda d: (tone(), 0), "sample rate"),
    "rate text": (lambda d: (tone(), "16k"), "sample rate"),
    "rate nan": (lambda d: (tone(), float("nan")), "sample rate"),
    "rate half": (lambda d: (tone(), 0.5), "sample rate"),
    "tensor": (lambda d: (torch.zeros(5), 16000), "are a Tensor"),
    "list": (lambda d: ([0.1, 0.2], 16000), "are a list"),
    "three axes": (lambda d: (np.ones((2, 3, 4)), 16000), "shape"),
    "transposed": (lambda d: (np.ones((2, 9000)), 16000), "samples.T"),
    "no channels": (lambda d: (np.ones((5, 0)), 16000), "holds no samples"),
    "wide integers": (lambda d: (np.ones(9, np.int64), 16000), "int64"),
    "array silent": (lambda d: (np.zeros(9, np.float32), 16000), "silent"),
    "array nan": (lambda d: (np.array([np.nan, 1.0]), 16000), "NaN"),
    "raw wrong": (lambda d: RawAudio(np.ones((2, 2), np.float32), 16000), "must be a .T,."),
    "raw silent": (lambda d: RawAudio(np.zeros(5, np.float32), 16000), "silent"),
    "raw empty": (lambda d: RawAudio(np.zeros(0, np.float32), 16000), "no samples"),
    "raw rate": (lambda d: RawAudio(tone(), 0), "sample rate"),
}


@pytest.mark.parametrize("case", BAD_AUDIO)
def test_bad_audio(tmp_path: Path, case: str) -> None:
    make, message = BAD_AUDIO[case]
    with pytest.raises(InputError, match=message) as caught:
        load_audio(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["flac", "wav", "ogg", "aiff"])
def test_audio_that_was_cut_short(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48000)
    whole = tmp_path / f"whole.{suffix}"
    soundfile.write(whole, noise, 16000)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    if suffix == "flac":
        with pytest.raises(InputError, match=r"cut\.flac"):
            load_audio(cut)
    else:
        assert 0.2 < load_audio(cut).seconds / load_audio(whole).seconds < 0.7


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([("wav", "PCM_16"), ("flac", "PCM_16"), ("ogg", "VORBIS")]), st.data())
def test_damaged_audio_decodes_or_says_so(kind: tuple[str, str], data: st.DataObject) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds=0.1), 16000, format=kind[0], subtype=kind[1])
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    raw = decoded_or_refused(load_audio, bytes(content), f"damaged.{kind[0]}")
    assert raw is None or (raw.samples.ndim == 1 and np.isfinite(raw.samples).all())


@pytest.mark.parametrize(("old", "new"), [(44101, 16000), (383_983, 16000), (7919, 48017)])
def test_rates_without_a_common_divisor(old: int, new: int) -> None:
    assert old * new > audio.MAX_KERNEL
    raw = resample(RawAudio(tone(old, 0.4, 300), old), new)
    expected = tone(new, 0.4, 300)
    assert len(raw.samples) == round(int(0.4 * old) * new / old)
    count = min(len(expected), len(raw.samples))
    inside = slice(count // 10, -count // 10)
    np.testing.assert_allclose(raw.samples[:count][inside], expected[:count][inside], atol=0.01)


def test_both_ways_of_resampling_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).standard_normal(22050).astype(np.float32)
    smooth = np.convolve(noise, np.hanning(41) / 20, "same").astype(np.float32)
    by_kernel = resample(RawAudio(smooth, 22050), 16000).samples
    monkeypatch.setattr(audio, "MAX_KERNEL", 0)
    by_interpolation = resample(RawAudio(smooth, 22050), 16000).samples
    np.testing.assert_allclose(by_kernel[500:-500], by_interpolation[500:-500], atol=0.01)
    assert np.abs(by_kernel).max() > 0.3


def test_resample_keeps_or_refuses() -> None:
    raw = RawAudio(tone(), 16000)
    assert resample(raw, 16000) is raw
    assert resample(RawAudio(tone()[:1] + 0.1, 16000), 8000).samples.shape == (1,)
    with pytest.raises(OptionError, match="whole number"):
        resample(raw, 0)
    with pytest.raises(OptionError, match="whole number"):
        resample(raw, 8000.0)  # type: ignore[arg-type]


NOISE = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)


def flac() -> Encoded:
    soundfile.write(buffer := io.BytesIO(), NOISE, 16000, format="FLAC")
    return Encoded(buffer.getvalue(), "x.flac")


@pytest.mark.parametrize(
    "use",
    [
        lambda data: load_audio(data),
        lambda _: encode_audio(NOISE, 16000),
    ],
    ids=["decoding", "encoding"],
)
@pytest.mark.parametrize("fault", ["full", "missing"])
def test_a_folder_for_temporary_files_that_takes_none_is_named(
    use: Callable[[Encoded], object], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no rate or file is blamed for it."""
    resource = pytest.importorskip("resource")
    data = flac()
    use(data)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if fault == "missing":
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    try:
        if fault == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OptionError, match=r"folder for temporary files.*TMPDIR"):
            use(data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
