"""CLAP's text tower, a RoBERTa read from its first token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.errors import InputError, WeightsError
from mmattrib.models.blocks import BlockEncoder
from mmattrib.models.encoder import EncoderInputs, TokenEmbeddings
from mmattrib.models.grids import TextGrid, TokenGrid
from mmattrib.types import RawInput, RawText


class ClapTextEncoder(BlockEncoder):
    """Captions; padding is masked, and the first token holds the embedding."""

    modality = "text"

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Wrap the text half of a ``ClapModel``.

        Raises:
            WeightsError: the tokenizer cannot tell where its tokens lie.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise WeightsError(
                f"{type(tokenizer).__name__} cannot tell where its tokens lie in a caption; "
                "accepted: a fast tokenizer, i.e. a checkpoint with tokenizer.json"
            )
        self.module = nn.ModuleDict({"model": model.text_model, "head": model.text_projection})
        self.tower: Any = model.text_model
        self.tokenizer = tokenizer
        self.blocks = list(self.tower.encoder.layer)
        count = len(self.blocks)
        self.default_layer = max(-1, min(count - 2, round(9 * count / 12)))
        config = model.config.text_config
        self.pad = int(config.pad_token_id)
        positions = int(config.max_position_embeddings) - self.pad - 1
        self.longest = min(positions, int(tokenizer.model_max_length))

    def tokens(self, raw: RawInput) -> tuple[list[int], list[tuple[int, int] | None]]:
        """Ids and character spans of a caption, special tokens included.

        Raises:
            InputError: not a caption, without a word, or too long.
        """
        if not isinstance(raw, RawText):
            raise InputError(f"{raw.name}: got {raw.modality}, this encoder takes captions")
        found = self.tokenizer(
            raw.text, return_offsets_mapping=True, return_special_tokens_mask=True
        )
        ids = [int(token) for token in found["input_ids"]]
        if len(ids) > self.longest:
            raise InputError(
                f"{raw.name}: the caption has {len(ids)} tokens, this model reads at most "
                f"{self.longest}; shorten it"
            )
        spans: list[tuple[int, int] | None] = []
        for (start, end), special in zip(
            found["offset_mapping"], found["special_tokens_mask"], strict=True
        ):
            while start < end and raw.text[start].isspace():  # a token may start with its space
                start += 1
            spans.append(None if special or start >= end else (start, end))
        if not any(spans):
            raise InputError(f"{raw.name}: the caption has no tokens; give at least one word")
        return ids, spans

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        rows = [self.tokens(raw)[0] for raw in raws]
        # Few lengths batch better; padding is masked.
        length = min(self.longest, -(-max(map(len, rows)) // 8) * 8)
        ids = torch.full((len(rows), length), self.pad)
        for row, found in enumerate(rows):
            ids[row, : len(found)] = torch.tensor(found)
        mask = torch.arange(length)[None] < torch.tensor([[len(found)] for found in rows])
        tensors = {"ids": ids, "mask": mask.long()}
        return EncoderInputs(
            {name: value.to(self.device) for name, value in tensors.items()}, tuple(raws)
        )

    def forward(self, inputs: EncoderInputs) -> Tensor:
        out = self.tower(input_ids=inputs["ids"], attention_mask=inputs["mask"])
        projected: Tensor = self.module["head"](out.pooler_output)
        return projected

    def with_tokens(self, output: Any, tokens: Tensor) -> Any:
        return super().with_tokens(output, tokens.to(next(self.module.parameters()).dtype))

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        pooler = self.tower.pooler
        projected: Tensor = self.module["head"](pooler.activation(pooler.dense(tokens)))
        return projected

    def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        """The last block with every token attending to itself alone, then the head.

        The embedding is read from the first token, so that the other final tokens were never
        trained to mean anything in the joint space.
        """
        last = self.num_layers - 1
        block: Any = self.blocks[last]
        before = self.prefix(inputs, last - 1)
        attended = block.attention.output(block.attention.self.value(before), before)
        joint = self.project(block.feed_forward_chunk(attended), inputs)
        content = self.grid(inputs, last).content.to(joint.device)
        return TokenEmbeddings(nnf.normalize(joint.float(), dim=-1), content)

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        length = inputs["ids"].shape[1]
        texts, spans = [], []
        for raw in inputs.raw:
            found = self.tokens(raw)[1]
            texts.append(raw.text if isinstance(raw, RawText) else "")
            spans.append([*found, *[None] * (length - len(found))])
        return TextGrid.from_spans(texts, spans, inputs["mask"].bool().cpu())
