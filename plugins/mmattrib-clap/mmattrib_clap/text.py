"""CLAP's text tower, a RoBERTa read from its first token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmattrib.models import CaptionTokenizer, EncoderInputs, Parts, TextTowerEncoder


class ClapTextEncoder(TextTowerEncoder):
    """Captions; padding is masked, and the first token holds the embedding."""

    multiple = 8

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Wrap the text half of a ``ClapModel``.

        Raises:
            WeightsError: the tokenizer lacks its vocabulary.
        """
        self.tower, self.head = model.text_model, model.text_projection
        config = model.config.text_config
        # RoBERTa counts positions from behind the padding's id.
        positions = int(config.max_position_embeddings) - int(config.pad_token_id) - 1
        words = CaptionTokenizer(tokenizer, min(positions, int(tokenizer.model_max_length)))
        module = Parts(tower=self.tower, head=self.head)
        super().__init__(module, self.tower.encoder.layer, words)

    def forward(self, inputs: EncoderInputs) -> Tensor:
        out = self.tower(input_ids=inputs["ids"], attention_mask=inputs["real"].long())
        projected: Tensor = self.head(out.pooler_output)
        return projected

    def pooled_index(self, inputs: EncoderInputs) -> Tensor:
        return torch.zeros(len(inputs), dtype=torch.long)

    def to_joint(self, tokens: Tensor) -> Tensor:
        pooler = self.tower.pooler
        projected: Tensor = self.head(pooler.activation(pooler.dense(tokens)))
        return projected

    def value_tokens(self, inputs: EncoderInputs) -> Tensor:
        """The last block with every token attending to itself alone, then the head.

        The embedding is read from the first token, so that the other final tokens were never
        trained to mean anything in the joint space.
        """
        block: Any = self.blocks[-1]
        before = self.prefix(inputs, self.num_layers - 2)
        attended = block.attention.output(block.attention.self.value(before), before)
        return self.to_joint(block.feed_forward_chunk(attended))
