"""The encoders of open_clip models: their towers, cut at any layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.backbones.open_clip.tokens import OpenClipTokenizer
from mmattrib.models.encoder import EncoderInputs, expect
from mmattrib.models.grids import TextGrid, TokenGrid
from mmattrib.models.parameters import exponential_scale
from mmattrib.models.pixels import PixelRecipe
from mmattrib.models.prenorm import PreNorm, attend_linear, causal_keys, packed_parts
from mmattrib.models.towers import (
    ImageTowerEncoder,
    Parts,
    TowerEncoder,
)
from mmattrib.types import RawInput, RawText


def pre_norm(block: Any) -> PreNorm:
    """The parts of one of open_clip's blocks."""
    attention = block.attn
    if isinstance(attention, nn.MultiheadAttention):
        query, key, value = packed_parts(attention)
        attend = attend_linear(query, key, value, attention.out_proj, attention.num_heads)
        values = partial(_through, value, attention.out_proj)  # unlike a closure, can be pickled
        return PreNorm(block.ln_1, attend, values, block.ln_2, block.mlp, block.ls_1, block.ls_2)
    return PreNorm(
        block.ln_1, None, partial(_custom_values, block), block.ln_2, block.mlp, block.ls_1,
        block.ls_2,
    )  # fmt: skip


def _through(first: Callable[[Tensor], Tensor], second: Any, tokens: Tensor) -> Tensor:
    out: Tensor = second(first(tokens))
    return out


def _custom_values(block: Any, tokens: Tensor) -> Tensor:
    """Value path of open_clip's own attention, which may scale heads and norm what it mixes."""
    attention = block.attn
    width = attention.num_heads * attention.head_dim
    bias = attention.in_proj_bias
    weight = attention.in_proj_weight[2 * width :]
    v = nnf.linear(tokens, weight, None if bias is None else bias[2 * width :])
    if attention.head_scale is not None:
        heads = v.view(*v.shape[:-1], attention.num_heads, attention.head_dim)
        v = (heads * attention.head_scale[:, 0]).flatten(-2)
    out: Tensor = block.ln_attn(attention.out_proj(attention.ln_inner(v)))
    return out


class OpenClipImageEncoder(ImageTowerEncoder):
    """open_clip's ``VisionTransformer``: row-major patches behind CLS.

    The embedding is read from CLS, from the mean of the patches, or by an attention pooler.
    """

    def __init__(self, model: Any, recipe: PixelRecipe, default_layer: int | None = None) -> None:
        visual = model.visual
        blocks = visual.transformer.resblocks
        height, width = visual.patch_size
        super().__init__(
            Parts(tower=visual), blocks, recipe, (height, width), default_layer=default_layer
        )
        self.model, self.visual = model, visual
        self.reads_cls = visual.pool_type == "tok" and visual.attn_pool is None
        self.last = pre_norm(blocks[-1])

    @property
    def logit_scale(self) -> float | None:
        return exponential_scale(self.model)

    def forward(self, inputs: EncoderInputs) -> Tensor:
        embedding: Tensor = self.model.encode_image(inputs["pixels"])
        return embedding

    def pooled_index(self, inputs: EncoderInputs) -> Tensor | None:
        if not self.reads_cls:
            return None
        return torch.zeros(len(inputs), dtype=torch.long, device="cpu")

    def pool(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        if self.reads_cls:
            return super().pool(tokens, inputs)
        return self._head(self.visual._pool(tokens)[0])

    def to_joint(self, tokens: Tensor) -> Tensor:
        if self.visual.attn_pool is not None:
            tokens = self._pooler_values(tokens)
        return self._head(self.visual.ln_post(tokens))

    def value_tokens(self, inputs: EncoderInputs) -> Tensor:
        if self.visual.attn_pool is not None:  # the pooler is the last attention
            return self.to_joint(self.prefix(inputs, self.num_layers - 1))
        return super().value_tokens(inputs)

    def _head(self, pooled: Tensor) -> Tensor:
        return pooled if self.visual.proj is None else pooled @ self.visual.proj

    def _pooler_values(self, tokens: Tensor) -> Tensor:
        pooler = self.visual.attn_pool
        value = packed_parts(pooler.attn)[2]
        mixed: Tensor = pooler.attn.out_proj(value(pooler.ln_k(tokens)))
        return mixed


class OpenClipTextEncoder(TowerEncoder):
    """open_clip's text transformer, inside the model or a tower of its own.

    Captions are padded to the full length, and a suffix takes no more of it than reaches the
    embedding. Where the pooled token reads no padding (causal towers
    read at the end of the text), padding is not valid; everywhere else it carries information and
    is valid, but stands for no word.
    """

    modality = "text"

    def __init__(
        self, model: Any, tokenizer: OpenClipTokenizer, default_layer: int | None = None
    ) -> None:
        host = model.text if hasattr(model, "text") else model
        blocks = host.transformer.resblocks
        projection = host.text_projection
        module = Parts(
            tokens=host.token_embedding,
            positions=host.positional_embedding,
            cls=getattr(host, "cls_emb", None),
            blocks=host.transformer,
            norm=host.ln_final,
            head=projection,
        )
        super().__init__(module, blocks, default_layer)
        self.model, self.host, self.tokenizer = model, host, tokenizer
        self.pool_type = str(getattr(host, "text_pool_type", getattr(host, "pool_type", "")))
        self.end: Any = getattr(host, "text_eos_id", getattr(host, "eos_id", None))
        self.extra = 0 if getattr(host, "cls_emb", None) is None else 1
        self.causal = host.attn_mask is not None
        masked = bool(self.extra) or bool(getattr(host, "use_pad_mask", False))
        self.stops_at_end = (
            self.causal and not masked and self.pool_type in ("argmax", "eos", "first")
        )
        self.pad_id = tokenizer.pad
        last = pre_norm(blocks[-1])
        simple = self.stops_at_end or not (self.causal or masked)
        self.last = last if simple else replace(last, attend=None)

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        captions = [self.tokenizer(expect(raw, RawText)) for raw in raws]
        ids = torch.tensor([caption.ids for caption in captions], device="cpu")
        tensors = {"ids": ids.to(self.device)}
        if self.stops_at_end:  # kept where asking for them waits for no card
            tensors["ends"] = self.pooled_index(EncoderInputs({"ids": ids}, tuple(raws)))
        return EncoderInputs(tensors, tuple(raws))

    def reach(self, inputs: EncoderInputs) -> int | None:
        ends = inputs.tensors.get("ends")
        return None if ends is None else int(ends.max()) + 1

    @property
    def logit_scale(self) -> float | None:
        return exponential_scale(self.model)

    def forward(self, inputs: EncoderInputs) -> Tensor:
        embedding: Tensor = self.model.encode_text(inputs["ids"])
        return embedding

    def pooled_index(self, inputs: EncoderInputs) -> Tensor:
        ids = inputs["ids"]
        if self.extra or self.pool_type == "last":
            return torch.full((len(ids),), ids.shape[1] + self.extra - 1, device="cpu")
        if self.pool_type == "argmax":
            return ids.argmax(dim=-1)
        if self.pool_type == "eos":
            first: Tensor = (ids == self.end).int().argmax(dim=-1)
            return first
        return torch.zeros(len(ids), dtype=torch.long, device="cpu")

    def readable(self, inputs: EncoderInputs, index: Tensor, count: int) -> Tensor | None:
        return causal_keys(index, count) if self.causal else None

    def to_joint(self, tokens: Tensor) -> Tensor:
        tokens = self.host.ln_final(tokens)
        projection = self.host.text_projection
        if projection is None:
            return tokens
        joint: Tensor = (
            projection(tokens) if isinstance(projection, nn.Linear) else tokens @ projection
        )
        return joint

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        captions = [self.tokenizer(expect(raw, RawText)) for raw in inputs.raw]
        count = inputs["ids"].shape[1] + self.extra
        spans = [[*found.spans, *[None] * self.extra] for found in captions]
        if self.stops_at_end:
            valid = causal_keys(self.pooled_index(inputs).cpu(), count)
        else:
            valid = torch.ones(len(captions), count, dtype=torch.bool, device="cpu")
        return TextGrid.from_spans([expect(raw, RawText).text for raw in inputs.raw], spans, valid)
