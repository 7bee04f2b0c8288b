"""Preprocessing for ImageBind: what its towers take, and where each part of it came from.

Constants are those of the library's ``data.py``, which cannot be imported, unless another source
is named.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.errors import InputError, repr_of
from mmattrib.io.audio import resample
from mmattrib.models.grids import Box
from mmattrib.types import FloatArray, RawArray, RawAudio

SIDE: Final = 224
"""Height and width of what the picture, video, depth and thermal towers take, in pixels."""

MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""Per channel, for pixels in [0, 1]; of pictures and videos."""

RATE: Final = 16_000
CLIP_SAMPLES: Final = 2 * RATE
MEL_BINS: Final = 128
FRAMES: Final = 204
"""Columns of the audio tower's input. Two seconds give 198 frames; the rest is padding."""
HOP: Final = 160
WINDOW: Final = 400
"""Samples between frames, and in one: 10 and 25 ms."""
AUDIO_MEAN: Final = -4.268
AUDIO_STD: Final = 9.138

MOST_CLIPS: Final = 60
"""Most clips of one recording, two minutes of sound end to end. Bounds memory."""

VIDEO_CLIPS: Final = 5
VIDEO_CROPS: Final = 3
CLIP_SECONDS: Final = 2.0

DEPTH_MOST: Final = 75.0
DEPTH_MEAN: Final = 0.0418
DEPTH_STD: Final = 0.0295
"""Disparity is cut at 75, divided by 75 and normalised so: Omnivore's released transform, to which
ImageBind's authors point (github.com/facebookresearch/omnivore issue 12, ImageBind issue 134)."""

IMU_SHAPE: Final = (6, 2000)
"""Three axes of the accelerometer, three of the gyroscope; time steps."""


@dataclass(frozen=True)
class Clips:
    """The clips of one recording.

    Attributes:
        mel: ``(K, 1, 128, 204)`` float32, normalised.
        starts: ``(K,)`` long, the sample at 16 kHz at which each clip starts.
        samples: length of the recording at 16 kHz.
    """

    mel: Tensor
    starts: Tensor
    samples: int

    __repr__ = repr_of()


def audio_clips(raw: RawAudio, count: int | Literal["cover"]) -> Clips:
    """Clips of two seconds spread evenly over a recording, as log-mel spectrograms.

    A recording of at most two seconds is one clip: the published three would be three times the
    same, whose mean is the one. What is missing of the 204 frames is padded with zeros before
    normalising, as published.

    Args:
        raw: the recording.
        count: clips of a longer one; ``"cover"`` for the fewest that leave no gap.

    Raises:
        InputError: shorter than one analysis window, or too long to be covered.

    Warns:
        UserWarning: shorter than the two seconds that the model was trained on.
    """
    wave = resample(raw, RATE).samples
    if len(wave) < WINDOW:
        raise InputError(
            f"{raw.name}: {raw.seconds * 1000:.1f} ms of sound; ImageBind needs at least one "
            f"analysis window of {1000 * WINDOW / RATE:.0f} ms. Give a longer recording"
        )
    if len(wave) < CLIP_SAMPLES:
        warnings.warn(
            f"{raw.name}: {raw.seconds:.2f} s of sound, ImageBind was trained on clips of 2 s; the "
            "rest of the clip is padded, as in its published preprocessing. Expect a weaker match",
            stacklevel=2,
        )
    room = max(0, len(wave) - CLIP_SAMPLES)
    wanted = math.ceil(len(wave) / CLIP_SAMPLES) if count == "cover" else count
    if wanted > MOST_CLIPS:
        raise InputError(
            f"{raw.name}: {raw.seconds:.0f} s of sound take {wanted} clips to cover; at most "
            f"{MOST_CLIPS} are explained together. Cut the recording, or give audio_clips a number"
        )
    clips = wanted if room else 1
    starts = [int(room * clip / max(1, clips - 1)) for clip in range(clips)]
    mel = [_log_mel(wave[start : start + CLIP_SAMPLES]) for start in starts]
    return Clips(torch.stack(mel)[:, None], torch.tensor(starts, device="cpu"), len(wave))


def _log_mel(wave: FloatArray) -> Tensor:
    """``(T,)`` samples to ``(128, 204)``."""
    from torchaudio.compliance.kaldi import fbank

    samples = torch.from_numpy(np.array(wave, dtype=np.float32))[None]
    frames = fbank(
        samples - samples.mean(),
        htk_compat=True,
        sample_frequency=RATE,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=MEL_BINS,
        dither=0.0,
        frame_length=25,
        frame_shift=10,
    )
    padded = nnf.pad(frames.T, (0, max(0, FRAMES - len(frames))))[:, :FRAMES]
    return (padded - AUDIO_MEAN) / AUDIO_STD


def frame_count(samples: int) -> int:
    """Analysis windows that fit into so many samples at 16 kHz."""
    return 1 + (samples - WINDOW) // HOP


def mel_hertz() -> FloatArray:
    """``(128,)`` centre frequency of each mel bin, as Kaldi spaces them from 20 Hz to 8 kHz."""
    low, high = (1127.0 * math.log(1 + hertz / 700.0) for hertz in (20.0, RATE / 2))
    mel = low + (high - low) / (MEL_BINS + 1) * np.arange(1, MEL_BINS + 1)
    return np.asarray(700.0 * np.expm1(mel / 1127.0), dtype=np.float32)


def plane(raw: RawArray, what: str) -> Tensor:
    """``(H, W)`` of a depth or thermal image.

    Raises:
        InputError: of another shape.
    """
    values = raw.values
    if values.ndim != 2:
        raise InputError(f"{raw.name}: {what} of shape {values.shape}; accepted: (height, width)")
    return torch.from_numpy(np.array(values, dtype=np.float32))


def depth_image(raw: RawArray) -> tuple[Tensor, Box]:
    """``(1, 224, 224)`` of disparities, and the part of the input that it shows.

    Args:
        raw: ``(H, W)`` disparity in pixels: baseline times focal length, by the depth in metres.

    Raises:
        InputError: of another shape, or negative.
    """
    values = plane(raw, "depth")
    if float(values.min()) < 0:
        raise InputError(
            f"{raw.name}: disparities from {float(values.min()):.4g}; accepted: zero and above. "
            "Give baseline (m) x focal length (px) / depth (m)"
        )
    seen, box = cover(values.clamp(max=DEPTH_MOST)[None] / DEPTH_MOST)
    return (seen - DEPTH_MEAN) / DEPTH_STD, box


def thermal_image(raw: RawArray) -> tuple[Tensor, Box]:
    """``(1, 224, 224)`` of grey levels, and the part of the input that it shows.

    The authors published no normalisation for thermal images; users who tried found that none
    fits best (ImageBind pull request 73).

    Raises:
        InputError: not ``(H, W)`` in [0, 1].
    """
    values = plane(raw, "thermal")
    check_unit(values.numpy(), raw.name, "grey levels")
    return cover(values[None])


def check_unit(values: FloatArray, name: str, what: str) -> None:
    """Refuse values outside [0, 1].

    Raises:
        InputError: with the range that was given.
    """
    low, high = float(values.min()), float(values.max())
    if low < -1e-6 or high > 1 + 1e-6:
        raise InputError(
            f"{name}: {what} from {low:.4g} to {high:.4g}; accepted: [0, 1]. Divide 8-bit values "
            "by 255"
        )


def cover(values: Tensor) -> tuple[Tensor, Box]:
    """Resize the shorter side to 224, bicubic and antialiased, and crop the centre.

    Args:
        values: ``(C, H, W)``.

    Returns:
        ``(C, 224, 224)``, and the part of the input it shows, in the input's own pixels.
    """
    height, width = values.shape[-2:]
    short = min(height, width)
    size = (SIDE * height // short, SIDE * width // short)
    scaled = nnf.interpolate(values[None], size, mode="bicubic", antialias=True)[0]
    top, left = round((size[0] - SIDE) / 2), round((size[1] - SIDE) / 2)
    down, across = height / size[0], width / size[1]
    box = Box(
        round(top * down),
        round(left * across),
        round((top + SIDE) * down),
        round((left + SIDE) * across),
    )
    return scaled[:, top : top + SIDE, left : left + SIDE], box


@dataclass(frozen=True)
class Views:
    """The views of one video: clips of two frames, each cropped three times.

    Attributes:
        pixels: ``(clips * crops, 3, 2, 224, 224)`` float32, normalised.
        frames: ``(clips, 2)`` long, the frames of each clip.
        offsets: ``(crops,)`` long, where each crop starts along the longer side, in pixels of the
            resized video.
        size: height and width of the resized video.
    """

    pixels: Tensor
    frames: Tensor
    offsets: Tensor
    size: tuple[int, int]

    __repr__ = repr_of()

    @property
    def upright(self) -> bool:
        """Whether the crops lie along the height."""
        return self.size[0] > self.size[1]


def video_views(raw: RawArray) -> Views:
    """Five clips of two seconds, of each the first and the last frame, each cropped three times.

    Args:
        raw: ``(T, H, W, 3)`` frames in [0, 1], and ``rate`` in frames a second.

    Raises:
        InputError: of another shape or range, or without a rate.
    """
    values = raw.values
    if values.ndim != 4 or values.shape[3] != 3:
        raise InputError(
            f"{raw.name}: a video of shape {values.shape}; accepted: (frames, height, width, 3)"
        )
    if raw.rate is None:
        raise InputError(
            f"{raw.name}: how many frames a second is not said; give (frames, 25.0) or a RawArray "
            "with a rate"
        )
    check_unit(values, raw.name, "colours")
    frames = _clip_frames(len(values), raw.rate)
    height, width = values.shape[1:3]
    short = min(height, width)
    size = (height * SIDE // short, width * SIDE // short)
    room = max(size) - SIDE
    offsets = torch.tensor([0, math.ceil(room / 2), room], device="cpu")
    mean, std = (
        torch.tensor(each, dtype=torch.float32, device="cpu").view(3, 1, 1) for each in (MEAN, STD)
    )
    views = []
    for pair in frames.tolist():
        chosen = torch.from_numpy(np.ascontiguousarray(values[pair])).permute(0, 3, 1, 2)
        scaled = nnf.interpolate(chosen, size, mode="bilinear", align_corners=False)
        scaled = ((scaled - mean) / std).transpose(0, 1)
        for offset in offsets.tolist():
            upright = size[0] > size[1]
            views.append(scaled.narrow(2 if upright else 3, offset, SIDE))
    return Views(torch.stack(views), frames, offsets, size)


def _clip_frames(count: int, rate: float) -> Tensor:
    """``(clips, 2)``: the first and the last frame of each of five clips of two seconds."""
    length = min(count, max(1, round(CLIP_SECONDS * rate)))
    room = count - length
    starts = [int(room * clip / (VIDEO_CLIPS - 1)) for clip in range(VIDEO_CLIPS)]
    return torch.tensor([(start, start + length - 1) for start in starts], device="cpu")
