"""Spectrograms for display in plain numpy, on any list of frequencies and times."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmattrib.perturb.audio import bin_frequencies, window_size
from mmattrib.types import FloatArray

Floats = npt.NDArray[np.float64]

_BLOCK = 256  # frames per block: keeps one block's spectrum below about 20 MB
_RANGE_DB = 70.0  # quieter than this below the loudest cell is drawn black


def mel_power(samples: FloatArray, sample_rate: int, hertz: Floats, seconds: Floats) -> Floats:
    """Power around given frequencies at given times.

    Args:
        samples: ``(T,)``; beyond its ends the recording counts as silent.
        sample_rate: in Hz.
        hertz: ``(F,)`` rising centre frequencies; each gets a triangle that reaches to its
            neighbours, and is at least one STFT bin wide.
        seconds: ``(N,)`` centre times of the windows (Hann).

    Returns:
        ``(F, N)`` mean power under each triangle.
    """
    size = window_size(sample_rate)
    window = np.hanning(size + 1)[:-1]
    filters = _triangles(hertz, bin_frequencies(size, sample_rate))
    centres = np.rint(np.asarray(seconds, dtype=np.float64) * sample_rate)
    centres = np.clip(centres, -(2**53), 2**53).astype(np.int64)  # beyond any recording
    offsets = np.arange(size, dtype=np.int64) - size // 2
    clean = np.nan_to_num(np.asarray(samples, dtype=np.float64), posinf=0.0, neginf=0.0)
    power = np.zeros((len(hertz), len(centres)))
    if len(clean) == 0:
        return power
    for start in range(0, len(centres), _BLOCK):
        at = centres[start : start + _BLOCK, None] + offsets
        inside = (at >= 0) & (at < len(clean))
        frames = np.where(inside, clean[np.clip(at, 0, len(clean) - 1)], 0.0)
        spectrum = np.fft.rfft(frames * window, axis=1)
        power[:, start : start + _BLOCK] = filters @ (np.abs(spectrum) ** 2).T
    return power


def decibel_picture(power: Floats) -> npt.NDArray[np.uint8]:
    """``(F, N)`` power -> ``(F, N, 3)`` grey picture, top row the highest frequency.

    White is the loudest cell, black is 70 dB below it; silence is black.
    """
    top = float(power.max(initial=0.0))
    if top <= 0.0:
        level = np.zeros(power.shape)
    else:
        level = 10.0 * np.log10(np.maximum(power / top, 1e-12)) / _RANGE_DB + 1.0
    grey = np.rint(np.clip(level, 0.0, 1.0)[::-1] * 255.0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _triangles(hertz: Floats, bins: Floats) -> Floats:
    centres = np.asarray(hertz, dtype=np.float64)
    step = float(bins[1] - bins[0])
    gaps = np.diff(centres) if len(centres) > 1 else np.array([step])
    lower = np.maximum(np.concatenate([gaps[:1], gaps]), step)[:, None]
    upper = np.maximum(np.concatenate([gaps, gaps[-1:]]), step)[:, None]
    distance = bins[None, :] - centres[:, None]
    weights = np.maximum(0.0, 1.0 - np.where(distance < 0, -distance / lower, distance / upper))
    total = weights.sum(axis=1, keepdims=True)
    filters: Floats = weights / np.where(total > 0, total, 1.0)
    return filters
