"""FLAVA's towers, pre-norm transformers read from their first token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmattrib.models import (
    CaptionTokenizer,
    EncoderInputs,
    ImageTowerEncoder,
    Parts,
    PixelRecipe,
    PreNorm,
    TextTowerEncoder,
    attend_linear,
)


def pre_norm(block: Any) -> PreNorm:
    """The parts of one of FLAVA's blocks."""
    attention, out = block.attention.attention, block.attention.output.dense
    return PreNorm(
        norm1=block.layernorm_before,
        attend=attend_linear(
            attention.query, attention.key, attention.value, out, attention.num_attention_heads
        ),
        values=nn.Sequential(attention.value, out),
        norm2=block.layernorm_after,
        mlp=nn.Sequential(block.intermediate, block.output.dense),
    )


class FlavaImageEncoder(ImageTowerEncoder):
    """Pictures, squeezed into the tower's square; patches run along rows after the first token."""

    def __init__(self, model: Any, processor: Any) -> None:
        """Wrap the image half of a ``FlavaModel``.

        Raises:
            WeightsError: the image processor does not fit the tower.
        """
        self.tower, self.head = model.image_model, model.image_projection
        patches = self.tower.embeddings.patch_embeddings
        height, width = patches.image_size
        rows, columns = patches.patch_size
        blocks = self.tower.encoder.layer
        super().__init__(
            Parts(tower=self.tower, head=self.head),
            blocks,
            PixelRecipe.from_processor(processor, (int(height), int(width))),
            (int(rows), int(columns)),
        )
        self.last = pre_norm(blocks[-1])

    def forward(self, inputs: EncoderInputs) -> Tensor:
        out = self.tower(pixel_values=inputs["pixels"])
        projected: Tensor = self.head(out.last_hidden_state[:, 0])
        return projected

    def pooled_index(self, inputs: EncoderInputs) -> Tensor:
        return torch.zeros(len(inputs), dtype=torch.long)

    def to_joint(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.head(self.tower.layernorm(tokens))
        return projected


class FlavaTextEncoder(TextTowerEncoder):
    """Captions; padding is masked."""

    multiple = 8

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Wrap the text half of a ``FlavaModel``.

        Raises:
            WeightsError: the tokenizer lacks its vocabulary.
        """
        self.tower, self.head = model.text_model, model.text_projection
        positions = int(self.tower.config.max_position_embeddings)
        words = CaptionTokenizer(tokenizer, min(positions, int(tokenizer.model_max_length)))
        blocks = self.tower.encoder.layer
        super().__init__(Parts(tower=self.tower, head=self.head), blocks, words)
        self.last = pre_norm(blocks[-1])

    def forward(self, inputs: EncoderInputs) -> Tensor:
        out = self.tower(input_ids=inputs["ids"], attention_mask=inputs["real"].long())
        projected: Tensor = self.head(out.last_hidden_state[:, 0])
        return projected

    def pooled_index(self, inputs: EncoderInputs) -> Tensor:
        return torch.zeros(len(inputs), dtype=torch.long)

    def readable(self, inputs: EncoderInputs, index: Tensor, count: int) -> Tensor:
        return inputs["real"]

    def to_joint(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.head(self.tower.layernorm(tokens))
        return projected
