"""Convolutional encoders: a toy as ResNets are padded, and open_clip's CLIP ResNet."""

from __future__ import annotations

from typing import Any

import torch
from checkpoints import livelier
from torch import Tensor, nn

from mmattrib.models import ConvCells, ConvImageEncoder, EncoderInputs, PixelRecipe

SIZE = (96, 64)


class _Residual(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(out)
        self.skip = nn.Conv2d(width, out, 1, stride) if stride > 1 or out != width else None

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.skip is None else self.skip(x)
        return torch.relu_(kept + 0.5 * self.norm(self.conv(x)))


class ConvTower(nn.Module):
    """A stem of stride 4, then blocks of stride 4, 8 and 8; padded as ResNets are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        self.blocks = nn.ModuleList([_Residual(8, 8, 1), _Residual(8, 16, 2), _Residual(16, 16, 1)])
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x.mean(dim=(2, 3))))


class ToyConv(ConvImageEncoder):
    """The toy; its tokens are centred half a cell beside an even grid's."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            tower = ConvTower()
        stem = ConvCells.of_input(SIZE).through(7, 2, 3).through(3, 2, 1)
        half = stem.through(3, 2, 1)
        cells = [stem, stem.through(3, 1, 1), half, half.through(3, 1, 1)]
        super().__init__(tower, list(tower.blocks), PixelRecipe(SIZE), cells)

    def forward(self, inputs: EncoderInputs) -> Tensor:
        return self.module(inputs["pixels"])

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        return self.module.head(self.module.norm(tokens))


class ResNetClip(ConvImageEncoder):
    """open_clip's ``ModifiedResNet``, whose embedding an attention pooler reads."""

    def __init__(self, model: Any) -> None:
        visual = model.visual
        side = visual.image_size
        size = (side, side) if isinstance(side, int) else tuple(side)
        at = ConvCells.of_input(size).through(3, 2, 1).through(3, 1, 1).through(3, 1, 1)
        cells = [at := at.through(2, 2)]
        blocks = [*visual.layer1, *visual.layer2, *visual.layer3, *visual.layer4]
        for block in blocks:
            at = at.through(3, 1, 1)
            if isinstance(block.avgpool, nn.AvgPool2d):
                at = at.through(2, 2)
            cells.append(at)
        super().__init__(visual, blocks, PixelRecipe(size), cells)

    def forward(self, inputs: EncoderInputs) -> Tensor:
        return self.module(inputs["pixels"])

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        """What the pooler gives if it reads one token alone: its value path."""
        pooler = self.module.attnpool
        placed = tokens + pooler.positional_embedding[1:]
        return pooler.c_proj(pooler.v_proj(placed))


def resnet_clip(width: int, layers: tuple[int, ...], side: int) -> Any:
    """open_clip's CLIP with a ResNet and lively random weights."""
    import open_clip

    text = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    vision = {"image_size": side, "layers": layers, "width": width, "head_width": width // 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        made = open_clip.CLIP(embed_dim=8, vision_cfg=vision, text_cfg=text).eval()
        livelier(made)
        with torch.no_grad():  # an attention pooler that cannot tell inputs apart tests nothing
            made.visual.attnpool.positional_embedding.mul_(0.1)
    return made
