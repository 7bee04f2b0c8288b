"""CLAP's audio tower, HTSAT: a Swin transformer over a spectrogram folded into a square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.errors import OptionError, WeightsError
from mmattrib.io import resample
from mmattrib.models import (
    BlockEncoder,
    EncoderInputs,
    Parts,
    expect,
    relative_layer,
)
from mmattrib.models.grids import Layout, TokenGrid
from mmattrib.models.grids.placed import AxisPlacement, PlacedGrid
from mmattrib.types import Axis, RawAudio, RawInput


@dataclass(frozen=True)
class Heard:
    """A recording as the tower hears it.

    Attributes:
        mel: ``(channels, frames, mel)`` float32; four channels with fusion, else one.
        longer: whether it is longer than the tower's input.
        samples: its length, at the tower's rate.
        start: the first sample that is heard.
        copies: how often it is heard in a row.
    """

    mel: Tensor
    longer: bool
    samples: int
    start: int = 0
    copies: int = 1


class ClapAudioEncoder(BlockEncoder):
    """One stage of the tower as layers; see the README for which, and why."""

    modality = "audio"

    def __init__(self, model: Any, extractor: Any, stage: int | None = None) -> None:
        """Wrap the audio half of a ``ClapModel``.

        Raises:
            OptionError: no such stage.
            WeightsError: the feature extractor does not fit the model.
        """
        self.module = Parts(model=model.audio_model, head=model.audio_projection)
        self.tower: Any = model.audio_model.audio_encoder
        self.extractor = extractor
        self.fusion = bool(self.tower.enable_fusion)
        if self.fusion != (extractor.truncation == "fusion"):
            raise WeightsError(
                f"the model has fusion {self.fusion}, its feature extractor truncates by "
                f"{extractor.truncation!r}; they belong to different checkpoints"
            )
        depths = [len(each.blocks) for each in self.tower.layers]
        self.stage = max(0, len(depths) - 2) if stage is None else stage
        if isinstance(self.stage, bool) or self.stage not in range(len(depths)):
            raise OptionError(f"stage must be from 0 to {len(depths) - 1}, got {stage!r}")
        self.blocks = list(self.tower.layers[self.stage].blocks)
        # At M2IB's relative depth in the whole tower, wherever the stage has it.
        wanted = relative_layer(sum(depths)) - sum(depths[: self.stage])
        self.default_layer = min(max(-1, wanted), len(self.blocks) - 1)

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        heard = [self.hear(raw) for raw in raws]
        tensors = {
            "x": torch.stack([each.mel for each in heard]),
            "longer": torch.tensor([[each.longer] for each in heard]),
            "samples": torch.tensor([each.samples for each in heard]),
            "start": torch.tensor([each.start for each in heard]),
            "copies": torch.tensor([each.copies for each in heard]),
        }
        return EncoderInputs(
            {name: value.to(self.device) for name, value in tensors.items()}, tuple(raws)
        )

    def hear(self, raw: RawInput) -> Heard:
        """Log-mel frames of one recording, always the same ones.

        Raises:
            InputError: not a recording.
        """
        wave = resample(expect(raw, RawAudio), int(self.extractor.sampling_rate)).samples
        most = int(self.extractor.nb_max_samples)
        if len(wave) <= most:
            mel = self._mel(wave, most, self.extractor.padding)
            copies = 1 if self.extractor.padding == "pad" else max(1, most // len(wave))
            return Heard(mel, False, len(wave), 0, copies)
        if not self.fusion:
            start = (len(wave) - most) // 2
            return Heard(self._mel(wave[start : start + most], most, "pad"), True, len(wave), start)
        whole = self._mel(wave, len(wave), "pad")[0]
        frames = most // int(self.extractor.hop_length) + 1
        if len(whole) <= frames:
            return Heard(whole[:frames].expand(4, -1, -1), False, len(wave))
        shrunk = nnf.interpolate(whole[None, None], (frames, whole.shape[1]), mode="bilinear")[0]
        thirds = np.array_split(np.arange(len(whole) - frames + 1), 3)
        starts = [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]
        crops = [whole[start : start + frames] for start in starts]
        return Heard(torch.cat([shrunk, torch.stack(crops)]), True, len(wave))

    def _mel(self, wave: Any, most: int, padding: str) -> Tensor:
        """``(channels, frames, mel)``. The library draws from numpy; its state is put back."""
        state = np.random.get_state()
        try:
            features = self.extractor(
                wave,
                sampling_rate=self.extractor.sampling_rate,
                max_length=most,
                padding=padding,
                return_tensors="np",
            )
        finally:
            np.random.set_state(state)
        return torch.from_numpy(np.asarray(features["input_features"][0], dtype=np.float32))

    def forward(self, inputs: EncoderInputs) -> Tensor:
        dtype = next(self.module.parameters()).dtype
        longer = inputs["longer"] if self.fusion else None
        out = self.module.model(input_features=inputs["x"].to(dtype), is_longer=longer)
        projected: Tensor = self.module.head(out.pooler_output)
        return projected

    def finish(self, tokens: Tensor, layer: int) -> Tensor:
        """``(B, n, C)``: tokens of the stage after ``layer`` to the normalised last ones."""
        tokens = tokens.to(next(self.module.parameters()).dtype)
        sizes = self.tower.input_resolutions
        for block in self.blocks[layer + 1 :]:
            tokens = block(tokens, sizes[self.stage])[0]
        for number in range(self.stage, len(self.tower.layers)):
            part = self.tower.layers[number]
            if number > self.stage:
                tokens = part(tokens, sizes[number])[0]
            elif part.downsample is not None:
                tokens = part.downsample(tokens, sizes[number])
        normed: Tensor = self.tower.norm(tokens)
        return normed

    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        self.check_layer(layer)
        pooled = self.module.head(self.finish(tokens, layer).mean(dim=1))
        return nnf.normalize(pooled.float(), dim=-1)

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        """Each last token through the head, shared by the tokens that were merged into it.

        The embedding is the mean of the last stage's tokens, so each of them means something.
        """
        last = self.finish(tokens, self.num_layers - 1)
        joint = self.module.head(last)
        rows, columns = self.tower.input_resolutions[self.stage]
        height, width = self.tower.input_resolutions[-1]
        plane = joint.view(len(joint), height, width, -1)
        spread = plane.repeat_interleave(rows // height, 1).repeat_interleave(columns // width, 2)
        return spread.flatten(1, 2)

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        chunks = int(self.tower.freq_ratio)
        rows, columns = self.tower.input_resolutions[self.stage]
        layout = Layout(
            "chunk f t", "f (chunk t)", {"chunk": chunks, "f": rows // chunks, "t": columns}
        )
        bins = inputs["x"].shape[3]
        height = self.tower.spec_size // chunks
        mel = (_stretched(np.arange(bins), bins, height) + 0.5) * (rows // chunks) / height
        down = AxisPlacement.of_views([mel], rows // chunks)
        hertz = Axis("frequency", "Hz", self.hertz(bins))
        axes, placements = [], []
        for row in range(len(inputs)):
            own = {name: int(inputs[name][row]) for name in ("samples", "start", "copies")}
            seconds, places = self._times(**own, frames=inputs["x"].shape[2])
            cells = [place * chunks * columns for place in places]
            axes.append((hertz, Axis("time", "s", seconds)))
            placements.append((down, AxisPlacement.of_views(cells, chunks * columns)))
        laid = torch.ones(len(inputs), layout.count, dtype=torch.bool)
        return PlacedGrid(layout, axes, placements, laid)

    def _times(self, samples: int, start: int, copies: int, frames: int) -> tuple[Any, list[Any]]:
        """The recording's own frames, in seconds, and where they lie in the square, from 0 to 1."""
        hop, most = int(self.extractor.hop_length), int(self.extractor.nb_max_samples)
        own = np.arange(samples // hop + 1)
        seconds = (own * hop / self.extractor.sampling_rate).astype(np.float32)
        if samples > most and self.fusion:
            heard = [(own + 0.5) * frames / len(own) - 0.5]
        else:
            heard = [own - start / hop + copy * samples / hop for copy in range(copies)]
        width = self.tower.spec_size * self.tower.freq_ratio
        places = []
        for place in heard:
            shown = np.where((place > -0.5) & (place < frames - 0.5), place, np.nan)
            places.append((_stretched(shown, frames, width) + 0.5) / width)
        return seconds, places

    def hertz(self, bins: int) -> Any:
        """``(bins,)`` centre frequency of each mel bin."""
        from transformers.audio_utils import hertz_to_mel, mel_to_hertz

        # The library uses its second filter bank wherever it does not fuse.
        scale = "htk" if self.fusion else "slaney"
        low, high = (
            hertz_to_mel(float(edge), scale)
            for edge in (self.extractor.frequency_min, self.extractor.frequency_max)
        )
        mel = np.linspace(low, high, bins + 2)[1:-1]
        return np.asarray(mel_to_hertz(mel, scale), dtype=np.float32)


def _stretched(places: Any, length: int, wanted: int) -> Any:
    """Where places go when the tower stretches its input to what it takes, corners aligned."""
    return places * (wanted - 1) / (length - 1) if length < wanted else places
