"""The towers as mmattrib's encoders."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

import mmattrib as mm
from mmattrib.errors import InputError
from mmattrib.models import BlockEncoder, EncoderInputs, stretch
from mmattrib.models.grids import ImageGrid, Layout, TextGrid, TokenGrid
from mmattrib.types import RawImage, RawInput, RawText
from mmattrib_colours.towers import COLOURS, REST, SPELLINGS, ColourTower, image_tower, text_tower

SIDE = 16  # patches each way
PIXELS = 8  # a patch's side
WORDS = 64  # longest caption


class ColourEncoder(BlockEncoder):
    """What both encoders share."""

    default_layer = 0

    def __init__(self, tower: ColourTower) -> None:
        self.module = tower.eval()
        self.blocks = list(tower.blocks)

    def forward(self, inputs: EncoderInputs) -> Tensor:
        return self.module(inputs["x"], inputs["mask"])

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        return tokens  # the last block's tokens are already in the joint space


class ImageColours(ColourEncoder):
    """Pictures, squeezed to 128 x 128, as the mean colours of 16 x 16 patches."""

    modality = "image"

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        x = torch.zeros(len(raws), SIDE * SIDE, REST + 1, dtype=torch.float32)
        for row, raw in enumerate(raws):
            if not isinstance(raw, RawImage):
                raise InputError(f"{raw.name} is {raw.modality}; this encoder takes an image")
            pixels, _ = stretch(raw, (SIDE * PIXELS, SIDE * PIXELS))
            patches = pixels.reshape(SIDE, PIXELS, SIDE, PIXELS, 3).mean(axis=(1, 3)) / 255
            x[row, :, :3] = torch.from_numpy(patches.reshape(-1, 3).astype(np.float32))
        return EncoderInputs({"x": x, "mask": torch.ones_like(x[..., 0])}, tuple(raws))

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        sizes = [raw.pixels.shape[:2] for raw in inputs.raw if isinstance(raw, RawImage)]
        return ImageGrid(Layout("h w", "h w", {"h": SIDE, "w": SIDE}), sizes)


class TextColours(ColourEncoder):
    """Captions of up to 64 words; words that name no colour share one axis."""

    modality = "text"

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        rows = []
        for raw in raws:
            if not isinstance(raw, RawText):
                raise InputError(f"{raw.name} is {raw.modality}; this encoder takes text")
            words = [raw.text[start:stop].lower() for start, stop in spans(raw.text)]
            if not 0 < len(words) <= WORDS:
                raise InputError(
                    f"{raw.name} has {len(words)} words; accepted: 1 to {WORDS}. Shorten it"
                )
            rows.append([number(word) for word in words])
        x = torch.full((len(rows), max(map(len, rows))), -1)
        for row, ids in enumerate(rows):
            x[row, : len(ids)] = torch.tensor(ids)
        return EncoderInputs({"x": x.clamp(min=0), "mask": (x >= 0).float()}, tuple(raws))

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        texts = [raw.text for raw in inputs.raw if isinstance(raw, RawText)]
        return TextGrid.from_spans(texts, [spans(text) for text in texts], inputs["mask"] > 0)


def spans(text: str) -> list[tuple[int, int]]:
    """Character spans of the words."""
    return [match.span() for match in re.finditer(r"\w+", text)]


def number(word: str) -> int:
    """A word's axis."""
    names = list(COLOURS)
    word = SPELLINGS.get(word, word)
    return names.index(word) if word in names else REST


def backbone() -> mm.Backbone:
    """Both encoders, in one joint space."""
    encoders = {"image": ImageColours(image_tower()), "text": TextColours(text_tower())}
    return mm.Backbone(encoders, "colours", {"licence": "Apache-2.0"})
