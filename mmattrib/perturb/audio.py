"""Recordings: cells of the short-time spectrum fade into a fill where their weights are low."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from mmattrib.errors import OptionError
from mmattrib.lazy import np, npt
from mmattrib.perturb.fills import Fill
from mmattrib.perturb.weights import Floats, between, check_axes
from mmattrib.types import Axis, FloatArray, RawAudio

Spectra: TypeAlias = "npt.NDArray[np.complex128]"

_BLOCK = 256  # frames per block: keeps one block's spectrum below about 20 MB
_OVERLAP = 4  # frames that cover one sample


def window_size(sample_rate: int) -> int:
    """Samples per STFT window: the power of two next to 64 ms, within [256, 8192]."""
    return int(np.clip(2 ** round(np.log2(0.064 * sample_rate)), 256, 8192))


def bin_frequencies(size: int, sample_rate: int) -> Floats:
    """Centre of each bin of a real FFT of ``size`` samples, in Hz: ``(size // 2 + 1,)``."""
    return np.arange(size // 2 + 1, dtype=np.float64) * (sample_rate / size)


class ShortTimeSpectrum:
    """The STFT of one recording, and the way back.

    Hann windows of :func:`window_size` samples every quarter of it; before and behind the
    recording lies silence, so that every sample is covered by four windows.

    Attributes:
        hertz: ``(bins,)`` centre of each bin.
        seconds: ``(frames,)`` centre of each window, from the start of the recording.
        inside: ``(frames,)`` bool, windows whose centre lies in the recording.
    """

    def __init__(self, raw: RawAudio) -> None:
        """Prepare the spectrum of a recording; samples that are no number count as silent."""
        self._length = len(raw.samples)
        self._size = window_size(raw.sample_rate)
        self._hop = self._size // _OVERLAP
        self._window = np.hanning(self._size + 1)[:-1]
        self._count = (self._length + self._size) // self._hop + 1
        self._padded = np.zeros((self._count - 1) * self._hop + 2 * self._size)
        self._padded[self._own] = np.nan_to_num(raw.samples, posinf=0.0, neginf=0.0)
        self._norm = self._added((part, self._window**2) for part in self._parts())[self._own]
        self.hertz = bin_frequencies(self._size, raw.sample_rate)
        frames = np.arange(self._count)
        self.seconds = (frames * self._hop + self._size / 2 - self._size) / raw.sample_rate
        self.inside = (self.seconds >= 0) & (self.seconds <= self._length / raw.sample_rate)

    def blocks(self) -> Iterator[tuple[slice, Spectra]]:
        """The spectrum ``(frames, bins)``, some frames at a time, with which frames they are."""
        for part in self._parts():
            at = np.arange(part.start, part.stop)[:, None] * self._hop + np.arange(self._size)
            yield part, np.fft.rfft(self._padded[at] * self._window, axis=1)

    def inverse(self, blocks: Iterable[tuple[slice, Spectra]]) -> FloatArray:
        """``(T,)`` samples of a spectrum that was changed block by block."""
        back = (
            (part, np.fft.irfft(spectra, self._size, axis=1) * self._window)
            for part, spectra in blocks
        )
        samples: FloatArray = (self._added(back)[self._own] / np.maximum(self._norm, 1e-9)).astype(
            np.float32
        )
        return samples

    @property
    def _own(self) -> slice:
        return slice(self._size, self._size + self._length)

    def _parts(self) -> Iterator[slice]:
        for start in range(0, self._count, _BLOCK):
            yield slice(start, min(start + _BLOCK, self._count))

    def _added(self, blocks: Iterable[tuple[slice, Floats]]) -> Floats:
        """Overlap-add: earlier frames first at every sample."""
        out = np.zeros((len(self._padded) // self._hop, self._hop))
        for part, frames in blocks:
            pieces = frames.reshape(-1, _OVERLAP, self._hop)
            for number in reversed(range(_OVERLAP)):
                out[part.start + number : part.stop + number] += pieces[:, number]
        return out.reshape(-1)


AudioFill: TypeAlias = (
    "Callable[[ShortTimeSpectrum, np.random.Generator], Callable[[Spectra], Spectra] | None]"
)
"""A recording's spectrum and a source of noise, to what takes the place of a block of its cells;
None for nothing."""


def _silence(spectrum: ShortTimeSpectrum, random: np.random.Generator) -> None:
    return None


def _mean_spectrum(
    spectrum: ShortTimeSpectrum, random: np.random.Generator
) -> Callable[[Spectra], Spectra]:
    total = np.zeros(len(spectrum.hertz))
    for part, cells in spectrum.blocks():
        total += np.abs(cells[spectrum.inside[part]]).sum(axis=0)
    mean = total / spectrum.inside.sum()
    nothing = 1e-9 * float(mean.max())  # numerical noise of the FFT has no phase to keep

    def faded(cells: Spectra) -> Spectra:
        size = np.abs(cells)
        drawn = np.exp(2j * np.pi * random.random(cells.shape))
        heard = size > nothing
        phase: Spectra = np.where(heard, cells / np.where(heard, size, 1.0), drawn)
        filled: Spectra = mean * phase
        return filled

    return faded


AUDIO_FILLS: Final[dict[str, Fill[AudioFill]]] = {
    "silence": Fill(
        "silence: each cell's magnitude is multiplied by its weight",
        "time-frequency masking, as in source separation",
        _silence,
    ),
    "mean-spectrum": Fill(
        "the recording's own mean magnitude at each frequency, with the phase kept; cells of "
        "digital silence get a phase from the seed",
        "the channel mean of pictures, on the cells of the STFT",
        _mean_spectrum,
    ),
}


def audio_keeper(
    raw: RawAudio,
    axes: Sequence[Axis] | None,
    fill: AudioFill,
    random: np.random.Generator,
    share: bool,
) -> Callable[[FloatArray], RawAudio]:
    """Keep one recording by many weights.

    Args:
        raw: the recording.
        axes: of the weights.
        fill: what stands in.
        random: source of noise.
        share: hold the spectrum (and the fill's) between calls: 32 bytes (64) a sample.

    Returns:
        ``(rows, columns)`` or ``(columns,)`` weights -> the recording with the cells
        ``X * w + fill * (1 - w)``.
    """
    if not axes:
        raise OptionError(
            f"{raw.name}: weights of a recording need their axes, (frequency in Hz, time in s) or "
            "(time in s,): give axes=, e.g. an attribution's."
        )
    spectrum = ShortTimeSpectrum(raw)
    other = fill(spectrum, random)

    def both() -> Iterator[tuple[slice, Spectra, Spectra | None]]:
        for part, cells in spectrum.blocks():
            yield part, cells, None if other is None else other(cells)

    held = list(both()) if share else None

    def kept(weights: FloatArray) -> RawAudio:
        rows, seconds = _on_bins(weights, axes, spectrum, raw.name)
        parts = both() if held is None else held

        def changed() -> Iterator[tuple[slice, Spectra]]:
            for part, cells, filled in parts:
                gains = between(rows, seconds, spectrum.seconds[part])
                own = cells * gains
                yield part, own if filled is None else own + filled * (1.0 - gains)

        return replace(raw, samples=spectrum.inverse(changed()))

    return kept


def _on_bins(
    weights: FloatArray, axes: Sequence[Axis], spectrum: ShortTimeSpectrum, name: str
) -> tuple[Floats, Floats]:
    """Weights on the bins of the spectrum, ``(columns, bins)``, and the columns' times in s.

    A map over time alone has one bin, which holds for all.
    """
    check_axes(weights, axes, ("Hz", "s") if len(axes) == 2 else ("s",), name)
    wide = weights.astype(np.float64)
    seconds = axes[-1].values.astype(np.float64)
    if len(axes) == 1:
        return wide[:, None], seconds
    hertz = axes[0].values.astype(np.float64)
    return between(wide, hertz, spectrum.hertz).T, seconds
