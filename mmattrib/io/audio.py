"""Sounds: decoding to mono, and resampling."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmattrib.errors import InputError, OptionError
from mmattrib.io._files import existing_file, is_path, one_line, shown, unreadable
from mmattrib.types import FloatArray, RawAudio

MAX_SECONDS = 600.0
"""Longest recording accepted, in seconds: the models behind listen to a few seconds."""

MAX_CHANNELS = 64
"""Most channels accepted; an array with more is surely transposed."""

SILENT_PEAK = 1e-6
"""A recording whose samples all lie below this is silent: -120 dB of full scale."""

LOUD_PEAK = 100.0
"""Float samples are nominally in [-1, 1]; a peak above this is 16-bit data that was not scaled."""

MAX_KERNEL = 4_000_000
"""Largest resampling kernel, in floats (16 MB)."""

ACCEPTED = "a sound file that soundfile reads (WAV, FLAC, OGG, MP3, AIFF, ...)"
_SOURCES = f"{ACCEPTED}, a (samples, sample rate in Hz) pair, or a RawAudio"


def load_audio(source: object) -> RawAudio:
    """Decode a recording to mono float32; channels are averaged, the sample rate is kept.

    A file that was cut short is refused where its format tells (FLAC); of the others (WAV, OGG,
    AIFF, MP3), which players play too, what is left is taken.

    Args:
        source: a path; ``(samples, sample_rate)`` with samples ``(T,)`` or ``(T, channels)``,
            float in [-1, 1] or int8, uint8, int16 or int32 over its full range; or a
            :class:`RawAudio`.

    Returns:
        ``(T,)`` float32 samples, named after the file.

    Raises:
        InputError: no such file, not audio, empty, silent, longer than
            :data:`MAX_SECONDS`, or with NaN or infinite samples.
    """
    if isinstance(source, RawAudio):
        return _checked(source)
    if is_path(source):
        path = existing_file(source, "a recording", ACCEPTED)
        samples, rate = _decode_file(path)
        return RawAudio(samples, rate, name=path.name)
    if isinstance(source, tuple | list) and len(source) == 2:
        samples, rate = source
        if isinstance(rate, np.ndarray) and np.ndim(samples) == 0 and rate.ndim > 0:
            raise InputError(
                f"the recording was given as (rate, samples); accepted: {_SOURCES}. Swap the two"
            )
        rate = _checked_rate(rate, "the recording")
        return RawAudio(_from_array(samples, rate, "the recording"), rate)
    raise InputError(
        f"cannot use {type(source).__name__} as a recording; accepted: {_SOURCES}. "
        "With bare samples, say their rate: (samples, 16000)"
    )


def _checked(raw: RawAudio) -> RawAudio:
    samples = raw.samples
    if not isinstance(samples, np.ndarray) or samples.ndim != 1 or samples.dtype != np.float32:
        raise InputError(
            f"the samples of {shown(raw.name)} must be a (T,) float32 array; "
            "let load_audio make the RawAudio from (samples, rate)"
        )
    rate = _checked_rate(raw.sample_rate, raw.name)
    _check_length(len(samples), rate, raw.name)
    _check_samples(samples[:, None], samples, raw.name)
    return raw


def _checked_rate(rate: Any, name: object) -> int:
    number = isinstance(rate, int | float | np.integer | np.floating)
    if (
        not number
        or isinstance(rate, bool)
        or not (np.isfinite(rate) and rate >= 1 and rate % 1 == 0)
    ):
        raise InputError(
            f"the sample rate of {shown(name)} is {shown(rate)}; accepted: a positive whole "
            "number of Hz, e.g. (samples, 16000)"
        )
    return int(rate)


def _check_length(frames: int, rate: int, name: object) -> None:
    if frames < 1:
        raise InputError(
            f"{shown(name)} holds no samples; accepted: at least one. Record or export it again"
        )
    if frames > MAX_SECONDS * rate:
        raise InputError(
            f"{shown(name)} lasts {frames / rate:.1f} s; accepted: up to {MAX_SECONDS:.0f} s. "
            "Cut out the part that matters"
        )


def _check_samples(channels: npt.NDArray[Any], mono: FloatArray, name: object) -> None:
    """Refuse what no model can hear; ``channels`` is ``(T, channels)``, ``mono`` their mean."""
    _check_peak(float(np.abs(channels).max()), float(np.abs(mono).max()), name)


def _check_peak(loudest: float, mixed: float, name: object) -> None:
    if not np.isfinite(loudest):
        raise InputError(
            f"{shown(name)} has NaN or infinite samples; accepted: finite samples. Repair them "
            "first, e.g. with numpy.nan_to_num, or export the file again"
        )
    if loudest < SILENT_PEAK:
        raise InputError(
            f"{shown(name)} is silent (peak {loudest:.1e} of full scale); accepted: a peak of at "
            f"least {SILENT_PEAK:.0e}. Give a recording with sound in it"
        )
    if mixed < SILENT_PEAK:
        raise InputError(
            f"the channels of {shown(name)} cancel each other when mixed to mono, so it is "
            "silent; accepted: a sound that survives mixing. Give one of its channels"
        )
    if loudest > LOUD_PEAK:
        raise InputError(
            f"{shown(name)} peaks at {loudest:.4g}; accepted: float samples nominally in [-1, 1]. "
            "Scale it first: 16-bit values are divided by 32768"
        )


def _decode_file(path: Path) -> tuple[FloatArray, int]:
    """``(T,)`` float32 mono samples and the sample rate, in Hz."""
    import soundfile

    try:
        path.open("rb").close()  # says why, where it cannot be read
        # From a path: a Python stream is read through callbacks, in which a Ctrl-C is lost.
        with soundfile.SoundFile(path) as sound:
            rate, announced = _checked_rate(sound.samplerate, path), int(sound.frames)
            _check_length(announced, rate, path)
            samples = _read_mono(sound, rate, path)
            # libsndfile only estimates the length of an MPEG stream
            if len(samples) < announced and "MPEG" not in str(sound.format).upper():
                raise InputError(
                    f"{shown(path)} is cut short: {len(samples) / rate:.2f} s of "
                    f"{announced / rate:.2f} s; accepted: a whole file. Download or export it again"
                )
    except InputError:
        raise
    except PermissionError as error:
        raise unreadable(path, "a recording", error) from error
    except (soundfile.SoundFileError, OSError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"{shown(path)} cannot be decoded as a recording ({one_line(_reason(error))}); "
            f"accepted: {ACCEPTED}, whole. Convert it to WAV or FLAC first"
        ) from error
    return samples, rate


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", "") or error)


def _read_mono(sound: Any, rate: int, path: Path) -> FloatArray:
    """Read in blocks and mix as we go: many channels never stand in memory at once."""
    blocks: list[FloatArray] = []
    loudest, frames = 0.0, 0
    while len(block := sound.read(1 << 16, dtype="float32", always_2d=True)):
        frames += len(block)
        _check_length(frames, rate, path)
        peak = float(np.abs(block).max())
        loudest = peak if not peak <= loudest else loudest
        if np.isfinite(loudest):
            blocks.append(block.mean(axis=1, dtype=np.float64).astype(np.float32))
        else:
            break
    mono = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
    _check_length(frames, rate, path)
    _check_peak(loudest, float(np.abs(mono).max(initial=0.0)), path)
    return mono


_FULL_SCALE = {
    "int8": (0, 1 << 7),
    "uint8": (128, 128),
    "int16": (0, 1 << 15),
    "int32": (0, 1 << 31),
}


def _from_array(samples: object, rate: int, name: str) -> FloatArray:
    """``(T,)`` float32 of ``(T,)`` or ``(T, channels)``."""
    if not isinstance(samples, np.ndarray):
        raise InputError(
            f"the samples of {name} are a {type(samples).__name__}; accepted: a numpy array (T,) "
            "or (T, channels). Convert them first, e.g. with numpy.asarray or tensor.numpy()"
        )
    if samples.ndim not in (1, 2):
        raise InputError(
            f"the samples of {name} have shape {samples.shape}; accepted: (T,) or (T, channels). "
            "Give one recording"
        )
    channels = samples[:, None] if samples.ndim == 1 else samples
    if channels.shape[1] > MAX_CHANNELS or (channels.size and channels.shape[1] == 0):
        raise InputError(
            f"the samples of {name} have shape {samples.shape}; accepted: (T,) or (T, channels) "
            f"with up to {MAX_CHANNELS} channels. Transpose them: samples.T"
        )
    _check_length(len(channels) if channels.size else 0, rate, name)
    if np.issubdtype(channels.dtype, np.floating):
        scaled = channels
    elif channels.dtype.name in _FULL_SCALE:
        zero, scale = _FULL_SCALE[channels.dtype.name]
        scaled = (channels.astype(np.float64) - zero) / scale
    else:
        raise InputError(
            f"the samples of {name} are {channels.dtype}; accepted: floats in [-1, 1], int8, "
            "uint8, int16 or int32. Scale them to floats first"
        )
    mono: FloatArray = scaled.mean(axis=1, dtype=np.float64).astype(np.float32)
    _check_samples(scaled, mono, name)
    return mono


def resample(raw: RawAudio, rate: int) -> RawAudio:
    """The recording at another sample rate, band-limited, ``round(T * rate / old)`` samples long.

    torchaudio's windowed sinc, whose kernel has as many elements as the two rates, reduced,
    multiplied. Rates without a common divisor (44,101 to 16,000 Hz) would need gigabytes: beyond
    :data:`MAX_KERNEL` the recording is resampled in the frequency domain instead.

    Args:
        raw: the recording.
        rate: the rate wanted, in Hz.

    Raises:
        OptionError: ``rate`` is not a positive whole number.
    """
    if isinstance(rate, bool) or not isinstance(rate, int) or rate < 1:
        raise OptionError(f"the sample rate must be a positive whole number of Hz, got {rate!r}")
    if rate == raw.sample_rate:
        return raw
    ratio = Fraction(raw.sample_rate, rate)
    direct = ratio.numerator * ratio.denominator <= MAX_KERNEL
    samples = (_by_kernel if direct else _by_spectrum)(raw.samples, ratio)
    length = max(1, round(len(raw.samples) * rate / raw.sample_rate))
    samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
    return RawAudio(samples.astype(np.float32), rate, raw.name)


def _by_kernel(samples: FloatArray, ratio: Fraction) -> npt.NDArray[np.floating[Any]]:
    import torch
    from torchaudio.functional import resample as sinc_resample

    wave = torch.from_numpy(np.array(samples, dtype=np.float32))
    resampled: FloatArray = sinc_resample(wave, ratio.numerator, ratio.denominator).numpy()
    return resampled


def _by_spectrum(samples: FloatArray, ratio: Fraction) -> npt.NDArray[np.floating[Any]]:
    """Cut or pad the spectrum; zeros at the end keep the recording from wrapping into itself."""
    periods = len(samples) // ratio.numerator + 2
    padded = np.pad(samples, (0, periods * ratio.numerator - len(samples)))
    length = periods * ratio.denominator
    spectrum = np.fft.rfft(padded.astype(np.float64))[: length // 2 + 1]
    return np.fft.irfft(spectrum, length) * (length / len(padded))
