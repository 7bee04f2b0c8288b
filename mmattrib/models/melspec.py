"""A log-mel front end in plain torch, with its axes in Hz and seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from mmattrib.errors import OptionError

_CHUNK: Final = 4


def hz_to_mel(hz: float) -> float:
    """Hz -> mel, O'Shaughnessy's formula (HTK): 2595 log10(1 + f / 700)."""
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def mel_to_hz(mel: float) -> float:
    """Mel -> Hz, the inverse of `hz_to_mel`."""
    return 700.0 * (math.pow(10.0, mel / 2595.0) - 1.0)


@dataclass(frozen=True)
class MelSpec:
    """A mel spectrogram's settings; every method is a pure function of them.

    `sample_rate`, `fmin`, `fmax` in Hz; `n_fft`, `hop` in samples. Frame t is centred on sample
    t * hop; a wave of T samples gives T // hop frames (the half frame past the end is left off).
    Raises OptionError where the settings contradict each other.
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    hop: int = 320
    n_mels: int = 64
    fmin: float = 40.0
    fmax: float = 8000.0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise OptionError(
                f"fmin {self.fmin} Hz and fmax {self.fmax} Hz: accepted is "
                f"0 <= fmin < fmax <= {self.sample_rate / 2} Hz (half the sample rate)."
            )
        if min(self.n_fft, self.hop, self.n_mels) < 1:
            raise OptionError("n_fft, hop and n_mels must be at least 1.")

    def frames(self, samples: int) -> int:
        """Frames of a wave of so many samples."""
        return samples // self.hop

    def power(self, wave: Tensor) -> Tensor:
        """Wave (B, T) in [-1, 1] -> mel power (B, n_mels, T // hop), Hann window, float32."""
        # A few waves at a time: their spectra fit the cache, which is four times as quick.
        if len(wave) > _CHUNK and wave.device.type == "cpu":
            return torch.cat([self.power(part) for part in torch.split(wave, _CHUNK)])
        window = _hann(self.n_fft).to(wave.device)
        spectrum = torch.stft(
            wave.float(),
            self.n_fft,
            self.hop,
            window=window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        spectrum = spectrum[..., : self.frames(wave.shape[-1])]
        power = spectrum.real.square() + spectrum.imag.square()
        return _filters(self).to(wave.device) @ power

    def log_mel(self, power: Tensor) -> Tensor:
        """Mel power -> natural log of (power + floor), same shape."""
        return torch.log(power + self.floor)

    def edges_hz(self) -> tuple[tuple[float, float, float], ...]:
        """Per mel bin: lower edge, centre and upper edge of its triangle, in Hz."""
        low, high = hz_to_mel(self.fmin), hz_to_mel(self.fmax)
        step = (high - low) / (self.n_mels + 1)
        at = [mel_to_hz(low + i * step) for i in range(self.n_mels + 2)]
        return tuple((at[i], at[i + 1], at[i + 2]) for i in range(self.n_mels))

    def hz(self) -> tuple[float, ...]:
        """Centre of each mel bin in Hz, lowest first."""
        return tuple(centre for _, centre, _ in self.edges_hz())

    def seconds(self, frames: int) -> tuple[float, ...]:
        """Centre of each frame in seconds."""
        return tuple(t * self.hop / self.sample_rate for t in range(frames))


# Kept for every later call: made outside of inference mode, whose tensors take no gradient.


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _hann(n_fft: int) -> Tensor:
    return torch.hann_window(n_fft, dtype=torch.float32, device="cpu")


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _filters(spec: MelSpec) -> Tensor:
    """Triangular filters (n_mels, n_fft // 2 + 1) with unit peak, linear in Hz between edges."""
    hz = torch.linspace(
        0, spec.sample_rate / 2, spec.n_fft // 2 + 1, dtype=torch.float32, device="cpu"
    )
    rows = []
    for low, centre, high in spec.edges_hz():
        rise, fall = (hz - low) / (centre - low), (high - hz) / (high - centre)
        rows.append(torch.minimum(rise, fall).clamp(min=0))
    return torch.stack(rows)
