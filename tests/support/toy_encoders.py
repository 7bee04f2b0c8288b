"""Small encoders with random weights, made to be broken in one place at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.errors import InputError
from mmattrib.io import resample
from mmattrib.models.blocks import BlockEncoder
from mmattrib.models.encoder import EncoderInputs
from mmattrib.models.grids import ImageGrid, Layout, SpectrogramGrid, TextGrid, TokenGrid
from mmattrib.models.resizing import pixels_to_tensor
from mmattrib.types import RawAudio, RawImage, RawInput, RawText

WIDTH = 16


class Block(nn.Module):
    """Attention and a perceptron; gives a tensor or a tuple, batch first or tokens first."""

    def __init__(self, tuples: bool, tokens_first: bool) -> None:
        super().__init__()
        self.tuples, self.tokens_first = tuples, tokens_first
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.drop = nn.Dropout(0.5)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Tanh())

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        if self.tokens_first:
            x = x.transpose(0, 1)
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        scores = q @ k.mT / WIDTH**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        weights = scores.softmax(dim=-1)
        x = x + self.drop(weights @ v)
        x = x + self.mlp(x)
        if self.tokens_first:
            x = x.transpose(0, 1)
        return (x, weights) if self.tuples else x


class Tower(nn.Module):
    """Cells ``(B, N, K)`` or ids ``(B, N)`` to pooled embeddings ``(B, 8)``."""

    def __init__(
        self,
        first: nn.Module,
        tokens: int,
        cls: bool = False,
        layers: int = 3,
        tuples: bool = False,
        tokens_first: bool = False,
    ) -> None:
        super().__init__()
        self.first, self.tokens_first = first, tokens_first
        self.cls = nn.Parameter(torch.randn(1, 1, WIDTH)) if cls else None
        self.position = nn.Parameter(0.3 * torch.randn(1, tokens + cls, WIDTH))
        self.blocks = nn.ModuleList(Block(tuples, tokens_first) for _ in range(layers))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 8)

    def forward(self, x: Tensor, mask: Tensor | None = None, pool: Tensor | None = None) -> Tensor:
        x = self.first(x)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        x = x + self.position
        if self.tokens_first:
            x = x.transpose(0, 1)
        for block in self.blocks:
            x = block(x, mask)
            x = x[0] if isinstance(x, tuple) else x
        if self.tokens_first:
            x = x.transpose(0, 1)
        place = torch.zeros(len(x), dtype=torch.long) if pool is None else pool
        return self.head(self.norm(x[torch.arange(len(x)), place]))


class ToyEncoder(BlockEncoder):
    """What the toys share."""

    default_layer = 0

    def __init__(self, first: nn.Module, tokens: int, **options: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            for parameter in first.parameters():
                nn.init.normal_(parameter, std=0.5)
            self.module = Tower(first, tokens, **options).train()
        self.blocks = list(self.module.blocks)
        self.tokens_first = self.module.tokens_first

    def forward(self, inputs: EncoderInputs) -> Tensor:
        names = inputs.tensors
        rest = {name: inputs[name] for name in ("mask", "pool") if name in names}
        return self.module(inputs["x"], **rest)

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        return self.module.head(self.module.norm(tokens))


class TokensFirst:
    """Mixed in: turns the (L, B, D) tokens of a tower that wants them so."""

    def tokens_from(self, output: Any) -> Tensor:
        return super().tokens_from(output).transpose(0, 1)

    def with_tokens(self, output: Any, tokens: Tensor) -> Any:
        return super().with_tokens(output, tokens.transpose(0, 1))


class ToyImage(ToyEncoder):
    """A centre crop of 32 x 24 pixels; 4 x 3 patches behind a CLS."""

    modality = "image"
    size = (32, 24)
    layout = Layout("h w", "h w", {"h": 4, "w": 3})
    prefix_tokens, suffix_tokens = 1, 0

    def __init__(self, **options: Any) -> None:
        super().__init__(nn.Linear(192, WIDTH), 12, cls=True, **options)

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        cells = []
        for raw in raws:
            if not isinstance(raw, RawImage):
                raise InputError("a picture is needed")
            pixels, _ = pixels_to_tensor(raw, self.size)
            patches = pixels.unfold(1, 8, 8).unfold(2, 8, 8)
            cells.append(patches.permute(1, 2, 0, 3, 4).reshape(12, 192))
        return EncoderInputs({"x": torch.stack(cells)}, tuple(raws))

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        shapes = [raw.pixels.shape[:2] for raw in inputs.raw]
        boxes = [self.box(raw) for raw in inputs.raw]
        return ImageGrid(self.layout, shapes, boxes, self.prefix_tokens, self.suffix_tokens)

    def box(self, raw: RawImage) -> Any:
        return pixels_to_tensor(raw, self.size)[1]


class ToyAudio(ToyEncoder):
    """Two seconds at 8 kHz in two chunks; per chunk 8 bands x 4 times, bands first."""

    modality = "audio"
    layout = Layout("chunk f t", "f (chunk t)", {"chunk": 2, "f": 8, "t": 4})
    prefix_tokens = 0
    rising = True
    hop = 400

    def __init__(self, **options: Any) -> None:
        super().__init__(nn.Linear(10, WIDTH), 64, **options)

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        cells = []
        for raw in raws:
            wave = torch.from_numpy(resample(raw, 8000).samples[:16000])
            frames = nnf.pad(wave, (0, 16000 - len(wave))).view(40, self.hop)
            power = (
                torch.fft.rfft(frames * torch.hann_window(self.hop, dtype=torch.float32))
                .abs()
                .square()
            )
            bands = torch.log(power[:, 1:193].view(40, 16, 12).mean(-1) + 1e-3)
            # (chunk, t, frame, f, band) to (chunk, f, t) cells of 5 frames x 2 bands
            laid = bands.view(2, 4, 5, 8, 2).permute(0, 3, 1, 2, 4)
            cells.append(laid.reshape(64, 10) / 4)
        return EncoderInputs({"x": torch.stack(cells)}, tuple(raws))

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        hertz = ((np.arange(16) + 0.5) * 240 + 10).astype(np.float32)
        seconds = ((np.arange(40) + 0.5) * self.hop / 8000).astype(np.float32)
        return SpectrogramGrid(self.layout, hertz, [seconds] * len(inputs))


class ToyText(ToyEncoder):
    """Lower-case words cut into pieces of four letters; BOS, EOS and padding to 20 tokens."""

    modality = "text"
    pad_id = 0
    shift = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(nn.Embedding(503, WIDTH), 20, **options)

    def pieces(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w{1,4}|[^\w\s]", text)]

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        ids = torch.zeros(len(raws), 20, dtype=torch.long)
        pool = torch.zeros(len(raws), dtype=torch.long)
        for row, raw in enumerate(raws):
            spans = self.pieces(raw.text)
            if len(spans) > 18:
                raise InputError(f"{raw.name} has {len(spans)} pieces; accepted: up to 18")
            codes = [hash_of(raw.text[a:b].lower()) for a, b in spans]
            ids[row, : len(codes) + 2] = torch.tensor([1, *codes, 2])
            pool[row] = len(codes) + 1
        return EncoderInputs({"x": ids, "mask": ids != 0, "pool": pool}, tuple(raws))

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        texts = [raw.text for raw in inputs.raw]
        spans: list[list[tuple[int, int] | None]] = []
        for text in texts:
            found = [None, *self.pieces(text), None]
            shifted = [None] * self.shift + found
            spans.append((shifted + [None] * 20)[:20])
        return TextGrid.from_spans(texts, spans, inputs["x"] != 0)


def hash_of(piece: str) -> int:
    """A code from 3 to 502, the same in every process."""
    code = 0
    for char in piece:
        code = (code * 31 + ord(char)) % 500
    return code + 3


def pictures(count: int = 3, height: int = 48, width: int = 60) -> list[RawInput]:
    random = np.random.default_rng(3)
    shape = (count, height, width, 3)
    return [RawImage(pixels) for pixels in random.integers(0, 256, shape).astype(np.uint8)]


def recordings(count: int = 3, rate: int = 11025, seconds: float = 2.0) -> list[RawInput]:
    random = np.random.default_rng(4)
    size = (count, int(rate * seconds))
    return [RawAudio(wave, rate) for wave in random.normal(0, 0.1, size).astype(np.float32)]


def captions() -> list[RawInput]:
    texts = ("a small dog barks, loudly", "rain", "two blue elephants by the sea")
    return [RawText(text) for text in texts]


RAWS: dict[str, Callable[[], list[RawInput]]] = {
    "image": pictures,
    "audio": recordings,
    "text": captions,
}
