"""Encoders whose cosine with a guide is a known function of the pixels or words that are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, permutations

import numpy as np
import torch
from torch import Tensor, nn

from mmattrib.engine import Guide
from mmattrib.errors import InputError
from mmattrib.methods import Side
from mmattrib.models.encoder import Encoder, EncoderInputs, TokenEmbeddings
from mmattrib.models.grids import (
    AxisPlacement,
    ImageGrid,
    Layout,
    PlacedGrid,
    TextGrid,
    TokenGrid,
)
from mmattrib.types import Axis, RawImage, RawInput, RawText


class KnownEncoder(Encoder):
    """The cosine with the guide (1, 0) is what ``value`` gives for an input."""

    default_layer, num_layers = 0, 2

    def __init__(self, value: Callable[[RawInput], float]) -> None:
        self.module, self.value = nn.Identity(), value
        self.asked: list[RawInput] = []

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        self.asked += raws
        values = [self.value(raw) for raw in raws]
        return EncoderInputs({"x": torch.tensor(values, dtype=torch.float64)}, tuple(raws))

    def embed(self, inputs: EncoderInputs) -> Tensor:
        x = inputs["x"]
        return torch.stack([x, (1 - x.square()).sqrt()], dim=-1)

    def prefix(self, inputs: EncoderInputs, layer: int) -> Tensor:
        raise AssertionError("methods that mask inputs read no tokens")

    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        raise AssertionError("methods that mask inputs read no tokens")

    def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        raise AssertionError("methods that mask inputs read no tokens")

    def side(self, raws: Sequence[RawInput], keys: Sequence[str] = ()) -> Side:
        """Inputs guided by (1, 0)."""
        rows = len(raws)
        goal = torch.tensor([[1.0, 0.0]], dtype=torch.float32).expand(rows, -1)
        guide = Guide(goal, goal[:, None], torch.ones(rows, 1, dtype=torch.bool))
        names = tuple(keys) or tuple(f"pair {row}" for row in range(rows))
        inputs = self.preprocess(raws)
        self.asked.clear()
        return Side(self, inputs, 0, guide, names)


class KnownImage(KnownEncoder):
    """Pictures under 4 x 4 tokens."""

    modality = "image"

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        sizes = [raw.pixels.shape[:2] for raw in inputs.raw if isinstance(raw, RawImage)]
        return ImageGrid(Layout("h w", "h w", {"h": 4, "w": 4}), sizes)


class KnownText(KnownEncoder):
    """Captions; letters are tokens between BOS and EOS, padded to 32. An empty one is refused."""

    modality = "text"

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        for raw in raws:
            if isinstance(raw, RawText) and not raw.text.strip():
                raise InputError(f"{raw.name}: nothing to read")
        return super().preprocess(raws)

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        texts = [raw.text for raw in inputs.raw if isinstance(raw, RawText)]
        spans: list[list[tuple[int, int] | None]] = [
            [None, *((i, i + 1) for i, letter in enumerate(text) if letter != " "), None]
            for text in texts
        ]
        valid = torch.zeros(len(texts), 32, dtype=torch.bool)
        for row, own in enumerate(spans):
            valid[row, : len(own)] = True
        return TextGrid.from_spans(texts, spans, valid)


class KnownReadings(KnownEncoder):
    """Arrays of three channels and 12 times, under 4 tokens."""

    modality = "imu"

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        rows = len(inputs)
        time = Axis("time", "s", np.arange(12, dtype=np.float32))
        place = AxisPlacement.of_views([(np.arange(12) + 0.5) / 3], 4)
        laid = torch.ones(rows, 4, dtype=torch.bool)
        return PlacedGrid(Layout("t", "t", {"t": 4}), [(time,)] * rows, [(place,)] * rows, laid)


def by_permutations(worth: dict[frozenset[int], float], players: int) -> np.ndarray:
    """The definition: mean marginal worth over all orders."""
    found = np.zeros(players)
    orders = list(permutations(range(players)))
    for order in orders:
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            found[player] += worth[before | {player}] - worth[before]
    return found / len(orders)


def word_values(worth: dict[str, float], pairs: float = 0.0) -> Callable[[RawInput], float]:
    """The worth of the words that are there, and ``pairs`` for each two of them that touch."""

    def value(raw: RawInput) -> float:
        assert isinstance(raw, RawText)
        there = [worth.get(word) for word in raw.text.split()]
        touching = sum(a is not None and b is not None for a, b in pairwise(there))
        return sum(each for each in there if each is not None) + pairs * touching

    return value


def pixel_values(slopes: np.ndarray) -> Callable[[RawInput], float]:
    """Linear in the red channel: ``(H, W)`` slopes for pixels from 0 to 1."""

    def value(raw: RawInput) -> float:
        assert isinstance(raw, RawImage)
        return float((raw.pixels[..., 0] / 255.0 * slopes).sum())

    return value
