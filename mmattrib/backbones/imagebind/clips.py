"""ImageBind's encoders of recordings and videos, which it sees as several clips or crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from mmattrib.backbones.imagebind import signals
from mmattrib.backbones.imagebind.encoders import (
    DepthEncoder,
    ImageBindEncoder,
    ImageEncoder,
    ImuEncoder,
    TextEncoder,
    ThermalEncoder,
    Tower,
    of_kind,
)
from mmattrib.backbones.imagebind.library import Library
from mmattrib.errors import InputError
from mmattrib.models.capabilities import INPUT_LAYER
from mmattrib.models.encoder import EncoderInputs
from mmattrib.models.grids import Layout, TokenGrid
from mmattrib.models.grids.placed import AxisPlacement, PlacedGrid
from mmattrib.types import Axis, Modality, RawArray, RawAudio, RawInput


class AudioEncoder(ImageBindEncoder):
    """Recordings of any length, as clips of two seconds whose embeddings are averaged.

    The clips are explained together. Each is put back where it was in the recording; where clips
    overlap, their scores are averaged; where there is no clip, the score is zero.
    """

    modality = "audio"
    input_pattern = "b v c f t -> b (v f t) c"
    views = True

    def __init__(
        self, tower: Tower, library: Library, audio_clips: int | Literal["cover"] = 3
    ) -> None:
        super().__init__(tower, library, audio_clips)
        self.audio_clips = audio_clips

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        found = [signals.audio_clips(of_kind(raw, RawAudio), self.audio_clips) for raw in raws]
        most = max(len(clips.starts) for clips in found)
        x = found[0].mel.new_zeros(len(raws), most, *found[0].mel.shape[1:])
        starts = torch.full((len(raws), most), -1, device="cpu")
        for row, clips in enumerate(found):
            x[row, : len(clips.starts)] = clips.mel
            starts[row, : len(clips.starts)] = clips.starts
        samples = torch.tensor([clips.samples for clips in found], device="cpu")
        tensors = {"x": x, "starts": starts, "samples": samples}
        return EncoderInputs(
            {name: value.to(self.device) for name, value in tensors.items()}, tuple(raws)
        )

    def used(self, inputs: EncoderInputs) -> Tensor:
        return inputs["starts"] >= 0

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        rows, columns = self.plane(inputs, layer)
        preprocessor: Any = self.module.preprocessor
        convolution = preprocessor.rgbt_stem.proj
        kernel, stride = convolution.kernel_size[0], convolution.stride[0]
        if layer == INPUT_LAYER:
            kernel = stride = 1
        starts, samples = inputs["starts"].cpu(), inputs["samples"].tolist()
        clips = starts.shape[1]

        def cells(places: Any) -> Any:
            """Cells as wide as the stride, centred where the kernels are."""
            return (places + 0.5 - (kernel - stride) / 2) / stride

        mel = AxisPlacement.of_views([cells(np.arange(signals.MEL_BINS))], rows)
        hertz = Axis("frequency", "Hz", signals.mel_hertz())
        axes, placements = [], []
        for own, length in zip(starts.tolist(), samples, strict=True):
            frames = np.arange(signals.frame_count(length))
            positions, bounds = [], []
            for clip, start in enumerate(own):
                if start < 0:
                    continue
                heard = signals.frame_count(min(length - start, signals.CLIP_SAMPLES))
                inside = frames - start / signals.HOP
                shown = (inside >= -0.5) & (inside < heard - 0.5)
                place = np.clip(cells(inside), 0, columns - 1e-3) + clip * columns
                positions.append(np.where(shown, place, np.nan))
                bounds.append((clip * columns, (clip + 1) * columns))
            seconds = (frames * signals.HOP + signals.WINDOW / 2) / signals.RATE
            axes.append((hertz, Axis("time", "s", seconds.astype(np.float32))))
            placements.append((mel, AxisPlacement.of_views(positions, clips * columns, bounds)))
        layout = Layout("clip f t", "f (clip t)", {"clip": clips, "f": rows, "t": columns})
        laid, used = self.laid(self.used(inputs), layer, rows * columns)
        return PlacedGrid(layout, axes, placements, laid, used)


class VideoEncoder(ImageBindEncoder):
    """Videos ``(T, H, W, 3)``: five clips of two frames, each cropped three times, averaged.

    A map is ``(F, H, W)``: the F frames that the model saw, on the video's own pixels. Both frames
    of a clip share its tokens, and so its scores.
    """

    modality = "video"
    input_pattern = "b v c s h w -> b (v h w) (c s)"
    views = True

    def used(self, inputs: EncoderInputs) -> Tensor:
        views = signals.VIDEO_CLIPS * signals.VIDEO_CROPS
        return torch.ones(len(inputs), views, dtype=torch.bool, device="cpu")

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        found = [signals.video_views(of_kind(raw, RawArray)) for raw in raws]
        if len({views.upright for views in found}) > 1:
            raise InputError(
                "upright and other videos do not fit into one batch; give them one after the other"
            )
        # The name keeps videos apart whose crops lie along different sides.
        side = "down" if found[0].upright else "across"
        tensors = {
            "x": torch.stack([views.pixels for views in found]),
            "frames": torch.stack([views.frames for views in found]),
            side: torch.stack([views.offsets for views in found]),
            "size": torch.tensor([views.size for views in found], device="cpu"),
        }
        return EncoderInputs(
            {name: value.to(self.device) for name, value in tensors.items()}, tuple(raws)
        )

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        rows, columns = self.plane(inputs, layer)
        upright = "down" in inputs.tensors
        offsets = inputs["down" if upright else "across"].tolist()
        axes, placements = [], []
        for row, raw in enumerate(inputs.raw):
            video = of_kind(raw, RawArray)
            height, width = video.values.shape[1:3]
            size = inputs["size"][row].tolist()
            frames = inputs["frames"][row].tolist()
            seen = np.unique(np.array(frames))
            when = Axis("time", "s", ((seen + 0.5) / (video.rate or 1.0)).astype(np.float32))
            axes.append((when, _pixels("y", height), _pixels("x", width)))
            down = _crops(height, size[0], rows, offsets[row] if upright else [0])
            across = _crops(width, size[1], columns, [0] if upright else offsets[row])
            placements.append((_sampled(seen, frames), down, across))
        crops = "(crop h) w" if upright else "h (crop w)"
        sizes = {
            "clip": signals.VIDEO_CLIPS,
            "crop": signals.VIDEO_CROPS,
            "h": rows,
            "w": columns,
        }
        laid, _ = self.laid(self.used(inputs), layer, rows * columns)
        layout = Layout("clip crop h w", f"clip {crops}", sizes)
        return PlacedGrid(layout, axes, placements, laid)


def _pixels(name: str, count: int) -> Axis:
    return Axis(name, "px", np.arange(count, dtype=np.float32) + 0.5)


def _sampled(seen: Any, frames: Sequence[Sequence[int]]) -> AxisPlacement:
    """The clips' frames among those that were seen."""
    positions = [
        np.where(np.isin(seen, own), clip + 0.5, np.nan) for clip, own in enumerate(frames)
    ]
    bounds = [(clip, clip + 1) for clip in range(len(frames))]
    return AxisPlacement.of_views(positions, len(frames), bounds)


def _crops(length: int, scaled: int, cells: int, offsets: Sequence[int]) -> AxisPlacement:
    """Crops of 224 pixels along a side that was resized from ``length`` to ``scaled`` pixels."""
    places = (np.arange(length) + 0.5) * scaled / length
    positions, bounds = [], []
    for crop, offset in enumerate(offsets):
        inside = places - offset
        shown = (inside >= 0) & (inside < signals.SIDE)
        place = inside * cells / signals.SIDE + crop * cells
        positions.append(np.where(shown, place, np.nan))
        bounds.append((crop * cells, (crop + 1) * cells))
    return AxisPlacement.of_views(positions, cells * len(offsets), bounds)


ENCODERS: Final[Mapping[Modality, type[ImageBindEncoder]]] = {
    kind.modality: kind
    for kind in (
        ImageEncoder,
        TextEncoder,
        AudioEncoder,
        VideoEncoder,
        DepthEncoder,
        ThermalEncoder,
        ImuEncoder,
    )
}
"""The encoder of each modality."""
