"""The model: two towers into a space with one axis for each basic colour and one for the rest.

Nothing is learned. The colours are the eleven basic terms of Berlin and Kay, Basic Color Terms
(1969), each at one point of sRGB.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

COLOURS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "red": (220, 30, 30),
    "green": (40, 160, 60),
    "yellow": (250, 220, 40),
    "blue": (40, 80, 210),
    "brown": (120, 75, 40),
    "purple": (130, 50, 160),
    "pink": (250, 150, 190),
    "orange": (250, 140, 30),
}
SPELLINGS = {"gray": "grey", "violet": "purple", "crimson": "red", "scarlet": "red"}
REST = len(COLOURS)
"""The axis of words that name no colour."""


class NameColours(nn.Module):
    """Block of the image tower: ``(B, N, 12)`` RGB, padded by zeros, to shares of the colours."""

    def __init__(self, sharpness: float = 30.0) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.register_buffer("points", torch.tensor(list(COLOURS.values())) / 255.0)

    def forward(self, tokens: Tensor) -> Tensor:
        """Softmax over the squared distances to the colours' points."""
        distance = (tokens[:, :, None, :3] - self.points).square().sum(-1)
        shares = (-self.sharpness * distance).softmax(dim=-1)
        return nn.functional.pad(shares, (0, tokens.shape[-1] - len(self.points)))


class Emphasise(nn.Module):
    """Block of both towers: colourful axes count more, since white and grey are often ground."""

    def __init__(self) -> None:
        super().__init__()
        plain = {"black": 0.3, "white": 0.2, "grey": 0.2}
        weights = [plain.get(name, 1.0) for name in COLOURS]
        self.register_buffer("weights", torch.tensor([*weights, 0.1]))

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, N, 12)`` to ``(B, N, 12)``."""
        return tokens * self.weights


class ColourTower(nn.Module):
    """First tokens through the blocks, then the mean over valid tokens."""

    def __init__(self, blocks: list[nn.Module], table: Tensor | None = None) -> None:
        super().__init__()
        self.embedding = None if table is None else nn.Embedding.from_pretrained(table)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens ``(B, N, 12)`` or ids ``(B, N)``, and the valid ones, to ``(B, 12)``."""
        if self.embedding is not None:
            x = self.embedding(x)
        for block in self.blocks:
            x = block(x)
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def image_tower() -> ColourTower:
    """The tower for patches."""
    return ColourTower([NameColours(), Emphasise()])


def text_tower() -> ColourTower:
    """The tower for ids: 0 to 10 are colours, 11 is any other word."""
    return ColourTower([Emphasise()], torch.eye(REST + 1))
