"""What full scale is follows from the type of a sound, and every header number is bounded."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattrib.errors import InputError, InputWarning, OptionError
from mmattrib.io import audio, load_audio, resample
from mmattrib.types import RawAudio

TONE = np.sin(np.arange(4000) / 7).astype(np.float32) / 2


def wav(path: Path, rate: int, samples: bytes, bits: int = 16, channels: int = 1) -> Path:
    """A WAV whose header says what it is told to."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, rate, (rate * block) % 2**32, block, bits)
    data = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    data += b"data" + struct.pack("<I", len(samples)) + samples
    path.write_bytes(b"RIFF" + struct.pack("<I", len(data)) + data)
    return path


# ------------------------------------------------------------------------------------------ range


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("peak", [1.2, 60.0])
def test_floats_beyond_one_come_with_a_word(tmp_path: Path, dtype: type, peak: float) -> None:
    samples = (2 * peak * TONE).astype(dtype)
    with pytest.warns(InputWarning, match=r"the recording peaks at .*dB too loud.*32768"):
        raw = load_audio((samples, 16000))
    assert np.abs(raw.samples).max() == pytest.approx(peak, rel=0.01)
    with pytest.warns(InputWarning, match="audio peaks at"):
        load_audio(raw)
    soundfile.write(tmp_path / "loud.wav", 2 * peak * TONE, 16000, subtype="FLOAT")
    with pytest.warns(InputWarning, match=r"loud\.wav peaks at"):
        load_audio(tmp_path / "loud.wav")


def test_the_overshoot_of_lossy_formats_needs_no_word(tmp_path: Path) -> None:
    square = np.sign(TONE) * 0.99
    soundfile.write(tmp_path / "square.ogg", square, 16000)
    assert np.abs(load_audio(tmp_path / "square.ogg").samples).max() > 1.001


@pytest.mark.parametrize(("dtype", "bits"), [("int16", 8), ("int32", 16), ("int32", 24)])
def test_fewer_bits_in_a_wider_type_come_with_a_word(dtype: str, bits: int) -> None:
    samples = np.round(TONE * 2 * (2 ** (bits - 1) - 1)).astype(dtype)
    divisor = 2 ** (bits - 1)
    with pytest.warns(InputWarning, match=rf"{bits} bits would hold.*samples / {divisor}\.0"):
        load_audio((samples, 16000))
    advised = load_audio((samples / divisor, 16000))
    np.testing.assert_allclose(advised.samples, 2 * TONE, atol=2.1 / divisor)


def test_eight_bits_in_32_are_silence() -> None:
    with pytest.raises(InputError, match="silent"):
        load_audio(((TONE * 200).astype(np.int32), 16000))


def test_a_file_of_24_bits_in_32_comes_with_a_word(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", TONE / 256, 16000, subtype="PCM_32")
    with pytest.warns(InputWarning, match=r"s\.wav has 32-bit samples.*24 bits"):
        load_audio(tmp_path / "s.wav")


def test_samples_scaled_twice_come_with_a_word() -> None:
    with pytest.warns(InputWarning, match="less than one step of 16 bits"):
        load_audio((TONE / 32768, 16000))


REFUSED = {
    "bool": (TONE > 0, "does not say what full scale is"),
    "uint16": (np.arange(99, dtype=np.uint16), "uint16, which does not say"),
    "uint32": (np.arange(99, dtype=np.uint32), "uint32, which does not say"),
    "int64": (np.arange(99), "int64.*32768"),
    "complex": (TONE.astype(complex), "complex128"),
    "objects": (np.array([1, None]), "object"),
    "dates": (np.zeros(9, "M8[s]"), "datetime64"),
    "constant": (np.full(99, 0.5), "0.5 throughout"),
    "constant unsigned": (np.zeros(99, np.uint8), "-1 throughout"),
    "one sample": (np.array([0.5]), "throughout"),
    "huge": (TONE.astype(np.float64) * 1e300, "peaks at"),
    "minus infinite": (np.array([-np.inf, np.inf, 0.0]), "infinite"),
    "cancelling infinities": (np.array([[-np.inf, np.inf]] * 9), "infinite"),
    "channels first": (np.ones((2, 50)) * TONE[:50], "samples.T"),
    "masked": (np.ma.masked_array(TONE, TONE > 0.4), "masked"),
    "scalar": (np.array(0.5), "shape"),
    "empty": (np.zeros((0, 2)), "no samples"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_sound_is_refused(case: str) -> None:
    samples, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        load_audio((samples, 16000))


# ----------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize(
    "rate",
    [0, -1, -16000.0, 0.5, 44100.5, 2**31 - 1, 10**400, 1e300, float("inf"), float("nan"), "16000",
     b"1", None, True, np.bool_(True), np.array([16000]), 1 + 0j, 1_000_001],
)  # fmt: skip
def test_rates_out_of_range_are_refused(rate: object) -> None:
    with pytest.raises(InputError, match="sample rate"):
        load_audio((TONE, rate))
    with pytest.raises(InputError, match="sample rate"):
        load_audio(RawAudio(TONE, rate))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="sample rate"):
        resample(RawAudio(TONE, rate), 8000)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [16000, 16000.0, np.int16(16000), np.float32(16000)])
def test_whole_rates_of_any_type_are_taken(rate: object) -> None:
    assert load_audio((TONE, rate)).sample_rate == 16000


@pytest.mark.parametrize("rate", [2**31 - 1, 2**32 - 1, 1_000_003, 0])
def test_a_header_with_an_absurd_rate_is_refused_at_once(tmp_path: Path, rate: int) -> None:
    path = wav(tmp_path / "rate.wav", rate, b"\x00\x40\x00\x20" * 5)
    assert path.stat().st_size < 70
    started = time.monotonic()
    with pytest.raises(InputError, match=r"rate\.wav"):
        load_audio(path)
    assert time.monotonic() - started < 1


def test_many_samples_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "MAX_SAMPLES", 3000)
    soundfile.write(tmp_path / "many.wav", TONE, 16000)
    for source in (tmp_path / "many.wav", (TONE, 16000), RawAudio(TONE, 16000)):
        with pytest.raises(InputError, match=r"4,000 samples at 16,000 Hz; accepted: up to 3,000"):
            load_audio(source)
    with pytest.raises(InputError, match="5,000 samples"):
        resample(RawAudio(TONE[:1000], 8000), 40000)
    with pytest.raises(OptionError, match=r"up to 1,000,000"):
        resample(RawAudio(TONE[:1000], 8000), 2**31)


@settings(max_examples=40, deadline=5000)
@given(
    st.integers(1, 1_000_000), st.sampled_from([8000, 16000, 44100, 48000, 191999]),
    st.integers(1, 3000),
)  # fmt: skip
def test_resampling_is_quick_at_any_rate(old: int, new: int, count: int) -> None:
    """Few samples in and a bounded number out take no longer because the rates are odd."""
    count = max(1, min(count, int(300_000 * old / new)))
    raw = RawAudio(np.resize(TONE, count), old)
    found = resample(raw, new)
    assert len(found.samples) == max(1, round(count * new / old))
    assert np.isfinite(found.samples).all()
    assert np.abs(found.samples).max() < 1


def test_a_long_recording_at_an_odd_rate_is_the_tone_that_it_was() -> None:
    old, new, hertz = 44101, 16000, 500.0
    times = np.arange(15 * old) / old
    found = resample(RawAudio(np.sin(2 * np.pi * hertz * times).astype(np.float32), old), new)
    expected = np.sin(2 * np.pi * hertz * np.arange(len(found.samples)) / new)
    np.testing.assert_allclose(found.samples[500:-500], expected[500:-500], atol=0.005)


def test_a_file_named_dash_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, 16000)
    (tmp_path / "a.wav").rename(tmp_path / "-")
    monkeypatch.chdir(tmp_path)
    assert len(load_audio("-").samples) == len(TONE)
