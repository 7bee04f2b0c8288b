"""Sound out of maps: a recording weighted by its own attribution, and players' data."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmattrib.errors import OptionError
from mmattrib.render.spectrum import bin_frequencies, window_size
from mmattrib.types import FloatArray

_BLOCK = 256


def masked_audio(
    samples: FloatArray,
    sample_rate: int,
    weights: FloatArray,
    hertz: FloatArray,
    seconds: FloatArray,
) -> FloatArray:
    """Weight a recording by a map: STFT, times the interpolated map, inverse STFT.

    A map of ones gives the recording back, a map of zeros gives silence. Between the map's cells
    the weights are interpolated linearly; beyond its ends the outermost cell holds.

    Args:
        samples: ``(T,)`` float32.
        sample_rate: in Hz.
        weights: ``(mel, frames)`` in [0, 1], row 0 the lowest frequency.
        hertz: ``(mel,)`` centre of each row.
        seconds: ``(frames,)`` centre of each column.

    Returns:
        ``(T,)`` float32.

    Raises:
        OptionError: the map is empty or its shape is not that of its axes.
    """
    if weights.shape != (len(hertz), len(seconds)) or weights.size == 0:
        raise OptionError(
            f"weights have shape {weights.shape}, their axes {(len(hertz), len(seconds))}: "
            "accepted is a map of at least one cell with one row per frequency and one column "
            "per time."
        )
    size = window_size(sample_rate)
    hop = size // 4
    window = np.hanning(size + 1)[:-1]
    bins = bin_frequencies(size, sample_rate)
    rows = _between(weights.astype(np.float64), np.asarray(hertz, dtype=np.float64), bins)
    known = np.asarray(seconds, dtype=np.float64)
    count = (len(samples) + size) // hop + 1
    padded = np.zeros((count - 1) * hop + 2 * size)
    inside = slice(size, size + len(samples))
    padded[inside] = np.nan_to_num(samples, posinf=0.0, neginf=0.0)
    out, norm = np.zeros_like(padded), np.zeros_like(padded)
    for start in range(0, count, _BLOCK):
        frames = np.arange(start, min(start + _BLOCK, count))
        times = (frames * hop + size / 2 - size) / sample_rate
        gains = _between(rows.T, known, times)
        at = frames[:, None] * hop + np.arange(size)
        weighted = np.fft.irfft(np.fft.rfft(padded[at] * window, axis=1) * gains, size, axis=1)
        np.add.at(out, at, weighted * window)
        np.add.at(norm, at, np.broadcast_to(window**2, at.shape))
    result: FloatArray = (out[inside] / np.maximum(norm[inside], 1e-9)).astype(np.float32)
    return result


def _between(
    values: npt.NDArray[np.float64],
    known: npt.NDArray[np.float64],
    wanted: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Interpolate ``(known, ...)`` linearly to ``(wanted, ...)``; the ends hold."""
    if len(known) == 1:
        return np.repeat(values, len(wanted), axis=0)
    left = np.clip(np.searchsorted(known, wanted, side="right") - 1, 0, len(known) - 2)
    gap = np.maximum(known[left + 1] - known[left], 1e-12)
    share = np.clip((wanted - known[left]) / gap, 0.0, 1.0)[:, None]
    out: npt.NDArray[np.float64] = (1.0 - share) * values[left] + share * values[left + 1]
    return out


def encode_audio(samples: FloatArray, sample_rate: int) -> tuple[str, bytes]:
    """Encode a recording for a browser's player.

    Args:
        samples: ``(T,)``; scaled down as a whole if it exceeds [-1, 1].
        sample_rate: in Hz.

    Returns:
        The media type and the file: 16-bit FLAC, or WAV for a rate that FLAC does not take.
    """
    import soundfile

    clean = np.nan_to_num(np.asarray(samples, dtype=np.float32), posinf=0.0, neginf=0.0)
    peak = float(np.abs(clean).max(initial=0.0))
    if peak > 1.0:
        clean = clean / peak
    with tempfile.TemporaryDirectory() as folder:  # as a Ctrl-C is lost in writing to a stream
        for media, container in (("audio/flac", "FLAC"), ("audio/wav", "WAV")):
            path = Path(folder, container)
            try:
                soundfile.write(path, clean, sample_rate, format=container, subtype="PCM_16")
            except soundfile.LibsndfileError:
                continue
            return media, path.read_bytes()
    raise OptionError(
        f"{sample_rate} Hz cannot be encoded: accepted is any rate that FLAC or WAV can hold."
    )
