"""The three encoders of `tiny`: its towers, cut at any layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import einops
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.backbones.tiny.checkpoint import CALIBRATION, WEIGHTS, load_tiny
from mmattrib.backbones.tiny.model import (
    Block,
    TinyConfig,
    TinyModel,
    Tower,
    normalise_image,
    normalise_log_mel,
)
from mmattrib.backbones.tiny.tokenizer import PAD_ID, UNK_ID, Tokens, WordTokenizer
from mmattrib.errors import EncoderError, InputError, OptionError
from mmattrib.io.audio import resample
from mmattrib.io.calibrations import load_calibration
from mmattrib.models.backbone import Backbone
from mmattrib.models.blocks import BlockEncoder
from mmattrib.models.capabilities import ATTENTION, INPUT_GRADIENT, INPUT_LAYER
from mmattrib.models.encoder import EncoderInputs, TokenEmbeddings, expect
from mmattrib.models.grids import Box, ImageGrid, Layout, SpectrogramGrid, TextGrid, TokenGrid
from mmattrib.models.melspec import MelSpec
from mmattrib.models.resizing import stretch
from mmattrib.models.weights import parse_device
from mmattrib.types import JSONValue, RawAudio, RawImage, RawInput, RawText

MAX_CLIPS: Final = 24
"""Longest recording, in clips of 2.56 s: about a minute. Bounds memory."""


class _TinyEncoder(BlockEncoder):
    """What the three towers share: a true suffix, and the value path of the last block."""

    capabilities = frozenset((ATTENTION, INPUT_GRADIENT))
    module: Tower

    def __init__(self, tower: Tower, config: TinyConfig, default_layer: int) -> None:
        self.module = tower
        self.config = config
        self.modality = tower.name
        self.default_layer = default_layer
        self.blocks: Sequence[nn.Module] = list(tower.blocks)

    def forward(self, inputs: EncoderInputs) -> Tensor:
        pooled: Tensor = self.module(inputs["x"])
        return pooled

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        projected: Tensor = self.module.head(self.module.norm(tokens))
        return projected

    def key_mask(self, inputs: EncoderInputs) -> Tensor | None:
        """``(B, N)`` bool, tokens that may be attended to, or None for all."""
        return None

    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        if self.check_layer(layer) == INPUT_LAYER:
            return self.embed_input(tokens, inputs)
        pooled = self.module.pool_from(tokens, layer + 1, self.key_mask(inputs))
        return nnf.normalize(pooled.float(), dim=-1)

    def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        """Tokens along the value path of the last block (MaskCLIP, Zhou et al. 2022, 3.2).

        The model is CLS-pooled, so that its other final tokens were never trained to mean
        anything in the joint space.
        """
        last = self.num_layers - 1
        block = self.module.blocks[last]
        if not isinstance(block, Block):
            raise EncoderError(f"block {last} of tiny's {self.modality} tower is not a Block")
        values = self.project(block.value_path(self.prefix(inputs, last - 1)), inputs)
        content = self.grid(inputs, last).content.to(values.device)
        return TokenEmbeddings(nnf.normalize(values.float(), dim=-1), content)


class TinyImageEncoder(_TinyEncoder):
    """Pictures of any size, squeezed to 96 x 96; 8 x 8 tokens behind one CLS."""

    input_name = "x"

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        size = self.config.image_size
        pixels = [stretch(expect(raw, RawImage), (size, size))[0] for raw in raws]
        x = normalise_image(torch.from_numpy(np.stack(pixels)))
        return EncoderInputs({"x": x.to(self.device)}, tuple(raws))

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        cells = layer == INPUT_LAYER
        side = self.config.image_size if cells else self.config.image_grid
        sizes = [expect(raw, RawImage).pixels.shape[:2] for raw in inputs.raw]
        layout = Layout("h w", "h w", {"h": side, "w": side})
        return ImageGrid(layout, [(int(h), int(w)) for h, w in sizes], prefix=0 if cells else 1)


_SHOWN: Final = 5
"""Words that a message names at most."""


class TinyTextEncoder(_TinyEncoder):
    """Captions of at most 23 words and punctuation marks; word 0 is CLS.

    Words that training never saw all look alike to the model. A caption that has no other is
    refused; otherwise a :class:`~mmattrib.errors.TrustWarning` names them, each once per encoder.
    """

    pad_id = PAD_ID

    def __init__(
        self, tower: Tower, config: TinyConfig, default_layer: int, tokenizer: WordTokenizer
    ):
        super().__init__(tower, config, default_layer)
        self.tokenizer = tokenizer

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        ids = []
        for raw in raws:
            tokens = self.tokenizer(expect(raw, RawText).text)
            room = self.config.max_tokens - 1
            if tokens.truncated:
                raise InputError(
                    f"{raw.name}: the caption has {room + tokens.truncated} words and punctuation "
                    f"marks, 'tiny' reads at most {room}; shorten it"
                )
            if not tokens.words:
                raise InputError(f"{raw.name}: the caption has no words; give at least one")
            self._check_known(raw.name, tokens)
            ids.append(tokens.ids)
        return EncoderInputs({"x": torch.tensor(ids, device=self.device)}, tuple(raws))

    def _check_known(self, name: str, tokens: Tokens) -> None:
        """Refuse a caption of unknown words alone.

        One with a mark beside them is let through: metrics put marks where they take words away.
        """
        unknown = unknown_words(tokens)
        if len(unknown) < len(tokens.words):
            return
        long = [word for word in self.words if len(word) > 3]  # rather "horse" than "on"
        shown = long[:: max(1, len(long) // _SHOWN)][:_SHOWN]
        raise InputError(
            f"{name}: 'tiny' knows none of its words ({_some(unknown)}). It knows "
            f"{len(self.words)}, such as {_some(shown)}; "
            'mm.load_backbone("tiny")["text"].words lists them. Use another backbone for free text'
        )

    def notes(self, raw: RawInput) -> Sequence[str]:
        unknown = dict.fromkeys(unknown_words(self.tokenizer(expect(raw, RawText).text)))
        if not unknown:
            return ()
        return (
            f"'tiny' does not know {_some(list(unknown))}: to it all unknown words are alike; "
            'mm.load_backbone("tiny")["text"].words lists those that it knows',
        )

    @property
    def words(self) -> tuple[str, ...]:
        """The words that it knows, sorted, without marks."""
        return tuple(word for word in self.tokenizer.vocabulary if word[0].isalnum())

    def key_mask(self, inputs: EncoderInputs) -> Tensor | None:
        return inputs["x"] != 0

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        valid = inputs["x"] != 0
        texts = [expect(raw, RawText).text for raw in inputs.raw]
        spans: list[list[tuple[int, int] | None]] = []
        for text in texts:
            found = self.tokenizer(text).spans
            spans.append([None, *found, *[None] * (self.config.max_tokens - 1 - len(found))])
        return TextGrid.from_spans(texts, spans, valid)


def unknown_words(tokens: Tokens) -> list[str]:
    """The words of a caption that are not in the vocabulary, lower-cased; marks are no words."""
    ids = tokens.ids[1 : 1 + len(tokens.words)]
    return [
        word.lower()
        for word, token in zip(tokens.words, ids, strict=True)
        if token == UNK_ID and word[0].isalnum()
    ]


def _some(words: Sequence[str]) -> str:
    """At most :data:`_SHOWN` of some words, and how many more there are."""
    named = ", ".join(repr(word) for word in words[:_SHOWN])
    more = len(words) - _SHOWN
    return f"{named} and {more} more" if more > 0 else named


class TinyAudioEncoder(_TinyEncoder):
    """Recordings of up to about a minute, as clips of 2.56 s whose embeddings are averaged.

    Clips follow each other without overlap; the last is padded with silence. Their tokens stand
    one clip after the other on the token axis, each behind a CLS of its own; recordings with fewer
    clips than the longest of their batch are padded, and the padding is not valid.
    """

    input_name = "x"
    input_pattern = "b k f t -> b (k f t) 1"
    spec: Final = MelSpec()

    @property
    def clip_samples(self) -> int:
        """Samples in a clip."""
        return self.config.frames * self.spec.hop

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        waves = []
        for raw in raws:
            wave = resample(expect(raw, RawAudio), self.spec.sample_rate).samples
            if len(wave) > MAX_CLIPS * self.clip_samples:
                limit = MAX_CLIPS * self.clip_samples / self.spec.sample_rate
                raise InputError(
                    f"{raw.name}: {len(wave) / self.spec.sample_rate:.1f} s of sound, 'tiny' takes "
                    f"at most {limit:.0f} s; cut the recording"
                )
            waves.append(wave)
        counts = [max(1, math.ceil(len(wave) / self.clip_samples)) for wave in waves]
        shape = (len(waves), max(counts), self.config.mel_bins, self.config.frames)
        x = torch.zeros(shape, dtype=torch.float32, device="cpu")
        for row, (wave, count) in enumerate(zip(waves, counts, strict=True)):
            padded = np.zeros(count * self.clip_samples, dtype=np.float32)
            padded[: len(wave)] = wave
            power = self.spec.power(torch.from_numpy(padded).view(count, -1))
            x[row, :count] = normalise_log_mel(self.spec.log_mel(power))
        clips = torch.tensor(counts, device="cpu")
        return EncoderInputs({"x": x.to(self.device), "clips": clips.to(self.device)}, tuple(raws))

    def embed(self, inputs: EncoderInputs) -> Tensor:
        x = inputs["x"]
        pooled = self.module(x.flatten(0, 1)).view(len(x), x.shape[1], -1)
        return self._average(pooled, inputs)

    def forward(self, inputs: EncoderInputs) -> Tensor:
        pooled: Tensor = self.module(inputs["x"].flatten(0, 1))
        return pooled

    def prefix(self, inputs: EncoderInputs, layer: int) -> Tensor:
        tokens = super().prefix(inputs, layer)
        if layer == INPUT_LAYER:
            return tokens
        return einops.rearrange(tokens, "(b k) n c -> b (k n) c", b=len(inputs))

    def with_tokens(self, output: Any, tokens: Tensor) -> Any:
        return super().with_tokens(output, self._folded(tokens))

    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        if self.check_layer(layer) == INPUT_LAYER:
            return self.embed_input(tokens, inputs)
        clips = tokens.shape[1] // self._per_clip
        pooled = self.module.pool_from(self._folded(tokens), layer + 1, None)
        return self._average(pooled.view(len(tokens), clips, -1), inputs)

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        batch, clips = inputs["x"].shape[:2]
        frames = [self.frames(expect(raw, RawAudio)) for raw in inputs.raw]
        if layer == INPUT_LAYER:
            rows, columns = self.config.mel_bins, self.config.frames
            laid = torch.ones(batch, clips, rows * columns, dtype=torch.bool, device="cpu")
        else:
            rows, columns = self.config.audio_grid
            laid = torch.ones(batch, clips, self._per_clip, dtype=torch.bool, device="cpu")
            laid[:, :, 0] = False
        used = torch.arange(clips, device="cpu")[None] < inputs["clips"].cpu()[:, None]
        return SpectrogramGrid(
            Layout("clip f t", "f (clip t)", {"clip": clips, "f": rows, "t": columns}),
            np.asarray(self.spec.hz(), dtype=np.float32),
            [np.asarray(self.spec.seconds(count), dtype=np.float32) for count in frames],
            boxes=[Box(0, 0, self.config.mel_bins, clips * self.config.frames)] * batch,
            laid=laid.flatten(1),
            valid=used[:, :, None].expand_as(laid).flatten(1),
        )

    def frames(self, raw: RawAudio) -> int:
        """Columns of a recording's own map: its duration in hops of 20 ms, rounded up."""
        return max(1, math.ceil(raw.seconds * self.spec.sample_rate / self.spec.hop))

    def _folded(self, tokens: Tensor) -> Tensor:
        """``(B, K * n, C)`` to ``(B * K, n, C)``, each clip by itself."""
        return einops.rearrange(tokens, "b (k n) c -> (b k) n c", n=self._per_clip)

    @property
    def _per_clip(self) -> int:
        rows, columns = self.config.audio_grid
        return 1 + rows * columns

    @staticmethod
    def _average(pooled: Tensor, inputs: EncoderInputs) -> Tensor:
        """Mean of the clips' unit embeddings, normalised again: ``(B, K, D)`` to ``(B, D)``."""
        units = nnf.normalize(pooled.float(), dim=-1)
        used = torch.arange(units.shape[1], device=units.device)[None] < inputs["clips"][:, None]
        return nnf.normalize((units * used[..., None]).sum(1), dim=-1)


def load(checkpoint: str | Path | None = None, device: str = "cpu") -> Backbone:
    """Load `tiny`; see :func:`mmattrib.backbones.tiny.load`."""
    place = parse_device(device)
    if not isinstance(checkpoint, str | Path | None):
        raise OptionError(f"checkpoint must be a path or None, got {type(checkpoint).__name__}")
    path = WEIGHTS if checkpoint is None else Path(checkpoint)
    model, info = load_tiny(path)
    provenance: dict[str, JSONValue] = {"checkpoint": path.name, "training": info.training}
    if checkpoint is None:  # what others trained is theirs to license
        provenance["licence"] = "Apache-2.0"
    backbone = wrap(model.to(place), info.vocabulary, provenance)
    if checkpoint is None and CALIBRATION.exists():
        backbone.calibration = load_calibration(CALIBRATION)
    return backbone


DEFAULT_LAYERS: Final = {"image": 0, "audio": 0, "text": -1}


def wrap(
    model: TinyModel, vocabulary: Sequence[str], provenance: Mapping[str, JSONValue] | None = None
) -> Backbone:
    """A backbone around a live model, e.g. one in training."""
    config = model.config
    layers = DEFAULT_LAYERS
    image = TinyImageEncoder(model.tower("image"), config, layers["image"])
    audio = TinyAudioEncoder(model.tower("audio"), config, layers["audio"])
    text = TinyTextEncoder(
        model.tower("text"), config, layers["text"], WordTokenizer(vocabulary, config.max_tokens)
    )
    encoders = {"image": image, "audio": audio, "text": text}
    return Backbone(encoders, "tiny", provenance)
