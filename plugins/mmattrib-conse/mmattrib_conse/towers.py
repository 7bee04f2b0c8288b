"""The two towers: EfficientNet-Lite read through class names, and MiniLM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.models import (
    CaptionTokenizer,
    ConvCells,
    ConvImageEncoder,
    EncoderInputs,
    Parts,
    PixelRecipe,
    TextTowerEncoder,
)

TEMPERATURE = 2.0
"""What logits are divided by before the softmax, so that more than one class speaks."""

SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}
"""Height and width of the image tower's input, in pixels."""


def same_padding(count: int, kernel: int, stride: int) -> tuple[int, int]:
    """Before and after, as TensorFlow's ``SAME`` pads a row of ``count`` places."""
    total = max((-(-count // stride) - 1) * stride + kernel - count, 0)
    return total // 2, total - total // 2


def cells_of(net: Any, size: int) -> list[ConvCells]:
    """Where the places of every layer's map lie: behind the stem, then behind every block."""
    convolutions = [net._conv_stem, *(block._depthwise_conv for block in net._blocks)]
    at, found = ConvCells.of_input((size, size)), []
    for each in convolutions:
        kernel, stride = each.weight.shape[-1], int(each.stride[0])
        at = at.through(kernel, stride, same_padding(at.count[0], kernel, stride))
        found.append(at)
    return found


class ClassNames(nn.Module):
    """Logits to the joint space: the expected class embedding, less the mean one.

    Norouzi et al. 2014, Zero-Shot Learning by Convex Combination of Semantic Embeddings, with all
    classes in place of the ten best and a softer softmax.
    """

    def __init__(self, embeddings: Tensor) -> None:
        """Take the embeddings of the classes, ``(classes, D)``."""
        super().__init__()
        self.embeddings: Tensor
        self.mean: Tensor
        self.register_buffer("embeddings", embeddings)
        self.register_buffer("mean", embeddings.mean(dim=0))

    def forward(self, logits: Tensor) -> Tensor:
        """``(..., classes)`` to ``(..., D)``."""
        shares = torch.softmax(logits / TEMPERATURE, dim=-1)
        return shares @ self.embeddings - self.mean


class ImageTower(nn.Module):
    """Pixels to the joint space."""

    def __init__(self, net: Any, names: ClassNames) -> None:
        """Join an EfficientNet and the embeddings of its classes."""
        super().__init__()
        self.net, self.names = net, names

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, 3, h, w)`` to ``(B, D)``, not normalised."""
        return self.names(self.net(pixels))

    def places(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` of the last block to ``(B, 1280, H, W)``, what is averaged."""
        return self.net._swish(self.net._bn1(self.net._conv_head(maps)))

    def joined(self, features: Tensor) -> Tensor:
        """``(..., 1280)`` to ``(..., D)``."""
        return self.names(self.net._fc(features))


class ImageEncoder(ConvImageEncoder):
    """Photographs, squeezed into the tower's square."""

    module: ImageTower

    def __init__(self, tower: ImageTower, size: int) -> None:
        """Wrap the image tower; ``size`` in pixels."""
        grey, spread = (127 / 255,) * 3, (128 / 255,) * 3
        recipe = PixelRecipe((size, size), grey, spread, fit="stretch")
        super().__init__(tower, list(tower.net._blocks), recipe, cells_of(tower.net, size))

    def forward(self, inputs: EncoderInputs) -> Tensor:
        return self.module(inputs["pixels"])

    def pool(self, maps: Tensor, inputs: EncoderInputs) -> Tensor:
        return self.module.joined(self.module.places(maps).mean(dim=(2, 3)))

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        """Each place as if it were the whole picture."""
        features = self.module.places(tokens.transpose(1, 2)[..., None])[..., 0]
        return self.module.joined(features.transpose(1, 2))


class TextEncoder(TextTowerEncoder):
    """Captions through MiniLM, averaged over their tokens."""

    multiple = 8

    def __init__(self, bert: Any, tokenizer: Any) -> None:
        """Wrap a ``BertModel``.

        Raises:
            WeightsError: the tokenizer lacks its vocabulary.
        """
        longest = int(bert.config.max_position_embeddings)
        blocks = bert.encoder.layer
        super().__init__(Parts(tower=bert), blocks, CaptionTokenizer(tokenizer, longest))
        self.bert = bert
        self.module.register_buffer("mean", torch.zeros(int(bert.config.hidden_size)))

    def centre(self, mean: Tensor) -> None:
        """Let the space be centred on ``mean``, ``(D,)``, as the image tower's is."""
        self.module.get_buffer("mean").copy_(mean)

    def forward(self, inputs: EncoderInputs) -> Tensor:
        real = inputs["real"]
        out = self.bert(input_ids=inputs["ids"], attention_mask=real.long())
        return self.pool(out.last_hidden_state, inputs)

    def pool(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        weights = inputs["real"].to(tokens.dtype)[..., None]
        return self.to_joint((tokens * weights).sum(dim=1) / weights.sum(dim=1))

    def to_joint(self, tokens: Tensor) -> Tensor:
        return nnf.normalize(tokens, dim=-1) - self.module.get_buffer("mean")
