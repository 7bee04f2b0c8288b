"""Decode recordings to mono, and resample them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from mmattrib.errors import InputError, OptionError
from mmattrib.files import temporary_folder
from mmattrib.io.files import (
    Encoded,
    existing_file,
    is_path,
    note,
    one_line,
    shown,
    unreadable,
)
from mmattrib.lazy import np, npt
from mmattrib.plugins.contained import hushed
from mmattrib.types import FloatArray, RawAudio

MAX_SECONDS = 600.0
"""Longest recording accepted, in seconds: the models behind listen to a few seconds."""

MAX_RATE = 1_000_000
"""Highest sample rate accepted, in Hz: above every sound card and ultrasound recorder. A header may
announce any number, and what is allocated later is proportional to it."""

MAX_SAMPLES = 60_000_000
"""Most samples accepted, before and after resampling: ten minutes at 96 kHz, 240 MB in float32."""

MAX_CHANNELS = 64
"""Most channels accepted; an array with more is surely transposed."""

SILENT_PEAK = 1e-6
"""A recording whose samples all lie below this is silent: -120 dB of full scale."""

LOUD_PEAK = 100.0
"""Float samples are nominally in [-1, 1]; a peak above this is 16-bit data that was not scaled."""

FULL_PEAK, FULL_PEAK_LOSSY = 1.001, 2.0
"""Peaks up to here need no word: rounding, and what lossy formats overshoot."""

QUIET_PEAK = 2.0**-15
"""A peak below one step of 16 bits comes with a warning: it was probably scaled twice."""

MAX_KERNEL = 4_000_000
"""Largest resampling kernel, in floats (16 MB)."""

ACCEPTED = "a sound file that soundfile reads (WAV, FLAC, OGG, MP3, AIFF, ...)"
_SOURCES = f"{ACCEPTED}, a (samples, sample rate in Hz) pair, or a RawAudio"


def load_audio(source: object) -> RawAudio:
    """Decode a recording to mono float32; channels are averaged, the sample rate is kept.

    A file that was cut short is refused where its format tells (FLAC); of the others (WAV, OGG,
    AIFF, MP3), which players play too, what is left is taken.

    Args:
    Full scale follows from the type alone, never from the values:

    ==========================  ===========  ====================================================
    samples                     silence      full scale
    ==========================  ===========  ====================================================
    float16, float32, float64   0.0          1.0; more is taken as it is up to :data:`LOUD_PEAK`,
                                             with a warning, and refused beyond
    int8, int16, int32          0            128, 32768, 2147483648
    uint8                       128          128 from there
    other whole numbers, bool   refused: the type does not say what full scale is
    a file                      as its format says; floats as above
    ==========================  ===========  ====================================================

    An :class:`~mmattrib.errors.InputWarning` comes where the values suggest another full scale:
    floats beyond [-1, 1], 16- or 32-bit numbers that fewer bits would hold, and a peak below one
    step of 16 bits.

    Args:
        source: a path; ``(samples, sample_rate)`` with samples ``(T,)`` or ``(T, channels)``; an
            :class:`Encoded`; or a :class:`RawAudio`.

    Returns:
        ``(T,)`` float32 samples, named after the file.

    Raises:
        InputError: no such file, not audio, empty, silent, of one value throughout, longer than
            :data:`MAX_SECONDS` or :data:`MAX_SAMPLES`, of a rate beyond 1 to :data:`MAX_RATE` Hz,
            with more channels than samples, or with NaN or infinite samples.
    """
    if isinstance(source, RawAudio):
        return _checked(source)
    if isinstance(source, Encoded):
        with temporary_folder(f"decoding {shown(source.name)}") as folder:  # as a Python stream
            file = folder / "sound"  # would lose a Ctrl-C
            file.write_bytes(source.data)
            samples, rate = _decode_file(file, source.name)
        return RawAudio(samples, rate, name=shown(source.name))
    if is_path(source):
        path = existing_file(source, "a recording", ACCEPTED)
        samples, rate = _decode_file(path, path)
        return RawAudio(samples, rate, name=shown(path.name))
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
    note(_check_peak(_peak(samples), samples, FULL_PEAK, raw.name))
    return raw


def _checked_rate(rate: Any, name: object) -> int:
    number = isinstance(rate, int | float | np.integer | np.floating)
    if not number or isinstance(rate, bool) or not 1 <= rate <= MAX_RATE or rate % 1 != 0:
        raise InputError(
            f"the sample rate of {shown(name)} is {shown(rate)}; accepted: a whole number of Hz "
            f"from 1 to {MAX_RATE:,}, e.g. (samples, 16000)"
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
    if frames > MAX_SAMPLES:
        raise InputError(
            f"{shown(name)} has {frames:,} samples at {rate:,} Hz; accepted: up to "
            f"{MAX_SAMPLES:,}. Cut out the part that matters, or bring it to a lower rate"
        )


def _peak(samples: npt.NDArray[Any], zero: float = 0.0) -> float:
    """The largest distance from silence; NaN where a sample is NaN."""
    low, high = float(samples.min()), float(samples.max())
    return high - low if np.isnan(high - low) else max(zero - low, high - zero)


def _check_finite(loudest: float, name: object) -> None:
    if not np.isfinite(loudest):
        raise InputError(
            f"{shown(name)} has NaN or infinite samples; accepted: finite samples. Repair them "
            "first, e.g. with numpy.nan_to_num, or export the file again"
        )


def _check_peak(loudest: float, mono: FloatArray, full: float, name: object) -> list[str]:
    """Refuse what no model can hear; sentences on what only looks wrong.

    Args:
        loudest: peak over all channels, of full scale.
        mono: ``(T,)``, their mean.
        full: highest peak that needs no word.
        name: of the recording.
    """
    _check_finite(loudest, name)
    if loudest < SILENT_PEAK:
        raise InputError(
            f"{shown(name)} is silent (peak {loudest:.1e} of full scale); accepted: a peak of at "
            f"least {SILENT_PEAK:.0e}. Give a recording with sound in it"
        )
    if loudest > LOUD_PEAK:
        raise InputError(
            f"{shown(name)} peaks at {loudest:.4g}; accepted: float samples nominally in [-1, 1]. "
            "Scale it first: 16-bit values are divided by 32768"
        )
    if _peak(mono) < SILENT_PEAK:
        raise InputError(
            f"the channels of {shown(name)} cancel each other when mixed to mono, so it is "
            "silent; accepted: a sound that survives mixing. Give one of its channels"
        )
    if float(mono.max()) - float(mono.min()) < SILENT_PEAK:
        raise InputError(
            f"{shown(name)} is {mono[0]:.3g} throughout, which is no sound; accepted: samples that "
            "vary. Give a recording with sound in it"
        )
    if loudest > full:
        return [
            f"{shown(name)} peaks at {loudest:.4g}, and floats have their full scale at 1; taken "
            f"as it is, {20 * np.log10(loudest):.0f} dB too loud. If another full scale is meant, "
            "divide the samples by it: 128 for 8-bit values, 32768 for 16-bit ones"
        ]
    if loudest < QUIET_PEAK:
        return [
            f"{shown(name)} peaks at {loudest:.1e} of full scale, less than one step of 16 bits; "
            "taken as it is, nearly silent. If it was scaled twice, multiply the samples by what "
            "they were divided by"
        ]
    return []


def _decode_file(path: Path, name: object) -> tuple[FloatArray, int]:
    """``(T,)`` float32 mono samples and the sample rate, in Hz; messages call it ``name``."""
    import soundfile

    try:
        path.open("rb").close()  # says why, where it cannot be read
        # From a path: a Python stream is read through callbacks, in which a Ctrl-C is lost. An
        # absolute one: libsndfile takes a file that is named "-" for standard input.
        with hushed():
            opened = soundfile.SoundFile(path.absolute())
        with opened as sound:
            rate, announced = _checked_rate(sound.samplerate, name), int(sound.frames)
            _check_length(announced, rate, name)
            samples = _read_mono(sound, rate, name)
            # libsndfile only estimates the length of an MPEG stream
            if len(samples) < announced and "MPEG" not in str(sound.format).upper():
                raise InputError(
                    f"{shown(name)} is cut short: {len(samples) / rate:.2f} s of "
                    f"{announced / rate:.2f} s; accepted: a whole file. Download or export it again"
                )
    except InputError:
        raise
    except PermissionError as error:
        raise unreadable(name, "a recording", error) from error
    except (soundfile.SoundFileError, OSError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"{shown(name)} cannot be decoded as a recording ({one_line(_reason(error))}); "
            f"accepted: {ACCEPTED}, whole. Convert it to WAV or FLAC first"
        ) from error
    return samples, rate


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", "") or error)


def _read_mono(sound: Any, rate: int, name: object) -> FloatArray:
    """Read and mix block by block, so that the channels are never all in memory."""
    blocks: list[FloatArray] = []
    loudest, frames = 0.0, 0
    size = max(1, (1 << 20) // sound.channels)
    while len(block := _read(sound, size)):
        frames += len(block)
        _check_length(frames, rate, name)
        loudest = max(loudest, peak := _peak(block))
        _check_finite(peak, name)
        blocks.append(block.mean(axis=1, dtype=np.float64).astype(np.float32))
    _check_length(frames, rate, name)
    mono = np.concatenate(blocks)
    exact = str(sound.subtype) in ("FLOAT", "DOUBLE")
    notes = _check_peak(loudest, mono, FULL_PEAK if exact else FULL_PEAK_LOSSY, name)
    if str(sound.subtype) == "PCM_32":
        notes += _check_depth(round(loudest * 2**31), 32, name)
    note(notes)
    return mono


def _read(sound: Any, frames: int) -> FloatArray:
    """``(T, channels)`` float32, the next frames."""
    with hushed():
        block: FloatArray = sound.read(frames, dtype="float32", always_2d=True)
    return block


def _check_depth(loudest: int, bits: int, name: object) -> list[str]:
    """A sentence where whole numbers of so many bits would fit into fewer."""
    fewer = next((few for few in (8, 16, 24) if few < bits and loudest <= 2 ** (few - 1)), None)
    if fewer is None:
        return []
    return [
        f"{shown(name)} has {bits}-bit samples up to {loudest}, which {fewer} bits would hold; "
        f"taken as it says, {2 ** (bits - 1)} is full scale, so that it is {6 * (bits - fewer)} dB "
        f"quieter than if {2 ** (fewer - 1)} were. If that is meant, give samples / "
        f"{2 ** (fewer - 1)}.0"
    ]


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
    if isinstance(samples, np.ma.MaskedArray) and np.ma.is_masked(samples):
        raise InputError(
            f"the samples of {name} have masked values; accepted: an array in which every value "
            "counts. Fill them first, with array.filled(0)"
        )
    samples = np.asarray(samples)
    channels = samples[:, None] if samples.ndim == 1 else samples
    count = channels.shape[1]
    if count > MAX_CHANNELS or count > len(channels) > 0:
        raise InputError(
            f"the samples of {name} have shape {samples.shape}; accepted: (T,) or (T, channels) "
            f"with up to {MAX_CHANNELS} channels, fewer than samples. Transpose them: samples.T"
        )
    _check_length(len(channels) if channels.size else 0, rate, name)
    return _mixed(channels, name)


def _mixed(channels: npt.NDArray[Any], name: str) -> FloatArray:
    """``(T,)`` float32 of ``(T, channels)`` of a type whose full scale is known."""
    notes: list[str] = []
    zero, scale = 0, 1
    if channels.dtype.name in _FULL_SCALE:
        zero, scale = _FULL_SCALE[channels.dtype.name]
    elif not np.issubdtype(channels.dtype, np.floating):
        raise InputError(
            f"the samples of {name} are {channels.dtype}, which does not say what full scale is; "
            "accepted: floats in [-1, 1], int8, uint8, int16 or int32. Divide them by it first: "
            "32768.0 for 16-bit values, 8388608.0 for 24-bit ones"
        )
    peak = _peak(channels, zero)
    _check_finite(peak, name)
    if peak > LOUD_PEAK * scale:
        _check_peak(peak, np.zeros(1, dtype=np.float32), FULL_PEAK, name)
    mixed = channels.mean(axis=1, dtype=np.float64)
    mono: FloatArray = ((mixed - zero) / scale).astype(np.float32)
    notes = _check_peak(peak / scale, mono, FULL_PEAK, name)
    if channels.dtype.name in ("int16", "int32"):
        deep = _check_depth(round(peak), 8 * channels.dtype.itemsize, name)
        notes = deep or notes
    note(notes)
    return mono


def resample(raw: RawAudio, rate: int) -> RawAudio:
    """The recording at another sample rate, band-limited, ``round(T * rate / old)`` samples long.

    torchaudio's windowed sinc, whose kernel has as many elements as the two rates, reduced,
    multiplied. Rates without a common divisor (44,101 to 16,000 Hz) would need gigabytes: beyond
    :data:`MAX_KERNEL` the recording is brought near the rate by a simple ratio, oversampled, and
    interpolated at the exact times. Time and memory are proportional to the samples in and out.

    Args:
        raw: the recording.
        rate: the rate wanted, in Hz.

    Raises:
        OptionError: ``rate`` is not a whole number from 1 to :data:`MAX_RATE`.
        InputError: the recording has no samples, a rate out of range, or is too long before or
            after.
    """
    if isinstance(rate, bool) or not isinstance(rate, int) or not 1 <= rate <= MAX_RATE:
        raise OptionError(
            f"the sample rate must be a positive whole number of Hz, up to {MAX_RATE:,}, "
            f"got {shown(rate)}"
        )
    old = _checked_rate(raw.sample_rate, raw.name)
    _check_length(len(raw.samples), old, raw.name)
    if rate == old:
        return raw
    length = max(1, round(len(raw.samples) * rate / old))
    _check_length(length, rate, raw.name)
    ratio = Fraction(old, rate)
    if ratio.numerator * ratio.denominator <= MAX_KERNEL:
        samples = _by_kernel(raw.samples, ratio)
    else:
        samples = _by_interpolation(raw.samples, ratio, length)
    samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
    return RawAudio(samples.astype(np.float32), rate, raw.name)


def _by_kernel(samples: FloatArray, ratio: Fraction) -> FloatArray:
    import torch
    from torchaudio.functional import resample as sinc_resample

    wave = torch.from_numpy(np.array(samples, dtype=np.float32))
    # torchaudio makes its filter where torch's defaults say, and autocast would round with it.
    with torch.device("cpu"), torch.autocast("cpu", enabled=False):
        resampled: FloatArray = sinc_resample(wave, ratio.numerator, ratio.denominator).numpy()
    return resampled


_OVER, _BLOCK, _MARGIN = 8, 1 << 17, 16


def _by_interpolation(samples: FloatArray, ratio: Fraction, length: int) -> FloatArray:
    """``(length,)`` samples at the times ``n * ratio``, for any ratio.

    A low-pass by a simple ratio near it, where the rate falls; then, block by block, eightfold
    oversampling and Lagrange's cubic through the four samples around each time. What is left of
    its error, at most (pi / 8)^4 * 3 / 128 at the highest frequency, is below 0.06 %.
    """
    if ratio > 1:
        simple = ratio.limit_denominator(32)
        samples, ratio = _by_kernel(samples, simple), ratio / simple
    step = float(ratio)
    padded = np.pad(samples, (_MARGIN, _MARGIN + 2))
    out = np.zeros(length, dtype=np.float32)
    for first in range(0, len(samples), _BLOCK):
        low = int(np.ceil(first / step))
        high = min(length, int(np.ceil((first + _BLOCK) / step)))
        if low >= high:
            continue
        dense = _by_kernel(padded[first : first + _BLOCK + 2 * _MARGIN + 2], Fraction(1, _OVER))
        at = (np.arange(low, high) * step - first + _MARGIN) * _OVER
        whole = np.floor(at).astype(np.int64)
        out[low:high] = _cubic(dense, np.minimum(whole, len(dense) - 3), at - whole)
    return out


def _cubic(dense: FloatArray, whole: npt.NDArray[np.int64], t: npt.NDArray[Any]) -> FloatArray:
    """Lagrange's polynomial through ``dense[whole - 1 : whole + 3]`` at ``whole + t``."""
    before, here, after, last = (dense[whole + shift] for shift in (-1, 0, 1, 2))
    value: FloatArray = (
        here * (t + 1) * (t - 1) * (t - 2) / 2
        - before * t * (t - 1) * (t - 2) / 6
        - after * t * (t + 1) * (t - 2) / 2
        + last * t * (t + 1) * (t - 1) / 6
    ).astype(np.float32)
    return value
