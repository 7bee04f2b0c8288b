"""The encoders of CLIP-like transformers models: their towers, cut at any layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmattrib.errors import EncoderError
from mmattrib.models.captions import CaptionTokenizer
from mmattrib.models.encoder import EncoderInputs
from mmattrib.models.parameters import exponential_scale
from mmattrib.models.pixels import PixelRecipe
from mmattrib.models.prenorm import PreNorm, attend_linear, causal_keys, packed_parts
from mmattrib.models.towers import (
    ImageTowerEncoder,
    Parts,
    TextTowerEncoder,
)


def pooled_output(output: Any) -> Tensor:
    """The embedding in what ``get_image_features`` and ``get_text_features`` return.

    transformers 5 returns an object, other releases a tensor.
    """
    pooled = output if isinstance(output, Tensor) else getattr(output, "pooler_output", None)
    if not isinstance(pooled, Tensor):
        raise EncoderError(
            f"the model gave {type(output).__name__} in place of its embedding; has its "
            "configuration return_dict=False? Set model.config.return_dict = True"
        )
    return pooled


def pre_norm(block: Any) -> PreNorm:
    """The parts of a block of a CLIP, MetaCLIP 2 or SigLIP tower."""
    attention = block.self_attn
    return PreNorm(
        norm1=block.layer_norm1,
        attend=attend_linear(
            attention.q_proj,
            attention.k_proj,
            attention.v_proj,
            attention.out_proj,
            attention.num_heads,
        ),
        values=nn.Sequential(attention.v_proj, attention.out_proj),
        norm2=block.layer_norm2,
        mlp=block.mlp,
    )


class _ImageEncoder(ImageTowerEncoder):
    """What the image towers share."""

    def __init__(
        self, model: Any, module: nn.Module, recipe: PixelRecipe, prefix_tokens: int = 1
    ) -> None:
        tower = model.vision_model
        blocks = tower.encoder.layers
        side = int(model.config.vision_config.patch_size)
        super().__init__(module, blocks, recipe, (side, side), prefix_tokens)
        self.model, self.tower = model, tower
        self.last = pre_norm(blocks[-1])

    @property
    def logit_scale(self) -> float | None:
        return exponential_scale(self.model)

    def forward(self, inputs: EncoderInputs) -> Tensor:
        return pooled_output(self.model.get_image_features(pixel_values=inputs["pixels"]))


class ClipImageEncoder(_ImageEncoder):
    """CLIP, MetaCLIP 2, AltCLIP, Chinese-CLIP: the embedding is read from CLS, token 0."""

    def __init__(self, model: Any, recipe: PixelRecipe) -> None:
        module = Parts(tower=model.vision_model, head=model.visual_projection)
        super().__init__(model, module, recipe)

    def pooled_index(self, inputs: EncoderInputs) -> Tensor:
        return torch.zeros(len(inputs), dtype=torch.long, device="cpu")

    def to_joint(self, tokens: Tensor) -> Tensor:
        joint: Tensor = self.model.visual_projection(self.tower.post_layernorm(tokens))
        return joint


class SiglipImageEncoder(_ImageEncoder):
    """SigLIP: no CLS; a learned query attends to every token behind the last block."""

    def __init__(self, model: Any, recipe: PixelRecipe) -> None:
        super().__init__(model, Parts(tower=model.vision_model), recipe, prefix_tokens=0)

    def pool(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        pooled: Tensor = self.tower.head(self.tower.post_layernorm(tokens))
        return pooled

    def to_joint(self, tokens: Tensor) -> Tensor:
        """What the pooling head gives if its query reads one token alone: its value path."""
        head = self.tower.head
        value = packed_parts(head.attention)[2]
        mixed: Tensor = head.attention.out_proj(value(self.tower.post_layernorm(tokens)))
        joint: Tensor = mixed + head.mlp(head.layernorm(mixed))
        return joint

    def value_tokens(self, inputs: EncoderInputs) -> Tensor:
        return self.to_joint(self.prefix(inputs, self.num_layers - 1))


class _TextEncoder(TextTowerEncoder):
    """What the text towers share."""

    def __init__(
        self,
        model: Any,
        module: nn.Module,
        blocks: Sequence[nn.Module],
        tokenizer: CaptionTokenizer,
    ) -> None:
        super().__init__(module, blocks, tokenizer)
        self.model, self.tower = model, model.text_model

    @property
    def logit_scale(self) -> float | None:
        return exponential_scale(self.model)

    def forward(self, inputs: EncoderInputs) -> Tensor:
        return pooled_output(self.model.get_text_features(input_ids=inputs["ids"]))


class ClipTextEncoder(_TextEncoder):
    """CLIP and MetaCLIP 2: causal, read from the first end-of-text token."""

    bucket = 8

    def __init__(self, model: Any, tokenizer: CaptionTokenizer) -> None:
        tower = model.text_model
        module = Parts(tower=tower, head=model.text_projection)
        super().__init__(model, module, tower.encoder.layers, tokenizer)
        self.last = pre_norm(self.blocks[-1])
        self.pad_id = tokenizer.pad = self._harmless(tokenizer)

    def _harmless(self, tokenizer: CaptionTokenizer) -> int:
        """What to pad with: the end once more where the model does not know the tokenizer's id.

        Or where it would read from there, its highest id.
        """
        end = getattr(tokenizer.tokenizer, "eos_token_id", None)
        known = self.tower.embeddings.token_embedding.num_embeddings
        ids = torch.tensor([[0, end or 0, tokenizer.pad]], device="cpu")
        read = int(self.pooled_index(EncoderInputs({"ids": ids}, ()))) == 2
        return end if isinstance(end, int) and (read or tokenizer.pad >= known) else tokenizer.pad

    def pooled_index(self, inputs: EncoderInputs) -> Tensor:
        """Where the text ends, as the model finds it: the highest id if its configuration has 2."""
        ids, end = inputs["ids"].int(), self.model.config.text_config.eos_token_id
        if end == 2 and self.model.config.model_type == "clip":
            return ids.argmax(dim=-1)
        first: Tensor = (ids == end).int().argmax(dim=-1)
        return first

    def readable(self, inputs: EncoderInputs, index: Tensor, count: int) -> Tensor:
        return causal_keys(index, count)

    def to_joint(self, tokens: Tensor) -> Tensor:
        joint: Tensor = self.model.text_projection(self.tower.final_layer_norm(tokens))
        return joint


class SiglipTextEncoder(_TextEncoder):
    """SigLIP: every token reads every other, padding included; read from the last token.

    Captions are padded to the full length and no mask is given, as in training. Padding therefore
    carries information and counts as valid, but it stands for no word.
    """

    def __init__(self, model: Any, tokenizer: CaptionTokenizer) -> None:
        tower = model.text_model
        super().__init__(model, Parts(tower=tower), tower.encoder.layers, tokenizer)
        self.last = pre_norm(self.blocks[-1])

    def pooled_index(self, inputs: EncoderInputs) -> Tensor:
        ids = inputs["ids"]
        return torch.full((len(ids),), ids.shape[1] - 1, device="cpu")

    def valid(self, inputs: EncoderInputs) -> Tensor:
        return torch.ones_like(inputs["real"])

    def to_joint(self, tokens: Tensor) -> Tensor:
        joint: Tensor = self.tower.head(self.tower.final_layer_norm(tokens))
        return joint


class BertTextEncoder(_TextEncoder):
    """AltCLIP and Chinese-CLIP: post-norm blocks as in BERT, read from CLS, token 0.

    Padding is masked.
    """

    bucket = 8

    def __init__(self, model: Any, tokenizer: CaptionTokenizer) -> None:
        tower = model.text_model
        self._body = getattr(tower, "roberta", tower)
        encoder = self._body.encoder
        blocks = encoder.layers if hasattr(encoder, "layers") else encoder.layer
        super().__init__(model, Parts(tower=tower, head=model.text_projection), blocks, tokenizer)

    def forward(self, inputs: EncoderInputs) -> Tensor:
        return pooled_output(
            self.model.get_text_features(
                input_ids=inputs["ids"], attention_mask=inputs["real"].long()
            )
        )

    def pooled_index(self, inputs: EncoderInputs) -> Tensor:
        return torch.zeros(len(inputs), dtype=torch.long, device="cpu")

    def to_joint(self, tokens: Tensor) -> Tensor:
        if hasattr(self.tower, "transformation"):  # AltCLIP's own, in front of CLIP's
            tokens = self.tower.transformation(self.tower.pre_LN(tokens))
        joint: Tensor = self.model.text_projection(tokens)
        return joint

    def value_tokens(self, inputs: EncoderInputs) -> Tensor:
        """The last block for a token that attends to itself alone and has no residual.

        The head follows a norm that is a part of the block, so that the MLP stays in.
        """
        block: Any = self.blocks[-1]
        tokens = self.prefix(inputs, self.num_layers - 2)
        attention, output = block.attention.self, block.attention.output
        mixed = output.LayerNorm(output.dense(attention.value(tokens)))
        return self.to_joint(block.output(block.intermediate(mixed), mixed))
