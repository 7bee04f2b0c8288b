"""FLAVA's towers, pre-norm transformers read from their first token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.errors import InputError, WeightsError
from mmattrib.models.blocks import BlockEncoder
from mmattrib.models.encoder import EncoderInputs, TokenEmbeddings
from mmattrib.models.grids import ImageGrid, Layout, TextGrid, TokenGrid
from mmattrib.models.resizing import pixels_to_tensor
from mmattrib.types import RawImage, RawInput, RawText


class FlavaEncoder(BlockEncoder):
    """What both towers share: the projected first token, as in FLAVA's global contrastive loss."""

    def __init__(self, tower: Any, head: nn.Module) -> None:
        self.module = nn.ModuleDict({"tower": tower, "head": head})
        self.tower: Any = tower
        self.head: Any = head
        self.blocks = list(tower.encoder.layer)
        count = len(self.blocks)
        # M2IB's block 9 of 12, never the last one.
        self.default_layer = max(-1, min(count - 2, round(9 * count / 12)))

    @property
    def dtype(self) -> torch.dtype:
        """What the tower computes in."""
        return next(self.module.parameters()).dtype

    def mask(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor | None:
        """What the tower gives its blocks beside ``(B, N, C)`` tokens; None where all is read."""
        return None

    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        self.check_layer(layer)
        tokens = tokens.to(self.dtype)
        mask = self.mask(tokens, inputs)
        for block in self.blocks[layer + 1 :]:
            tokens = self.tokens_from(block(tokens, mask))
        return nnf.normalize(self.project(tokens[:, :1], inputs)[:, 0].float(), dim=-1)

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        projected: Tensor = self.head(self.tower.layernorm(tokens))
        return projected

    def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        """Every token along the last attention's value path (MaskCLIP, Zhou et al. 2022, 3.2).

        The embedding is read from the first token, so that the other final tokens were never
        trained to mean anything in the joint space.
        """
        last = self.num_layers - 1
        block: Any = self.blocks[last]
        before = block.layernorm_before(self.prefix(inputs, last - 1))
        values = block.attention.output(block.attention.attention.value(before), before)
        joint = self.project(values, inputs)
        content = self.grid(inputs, last).content.to(joint.device)
        return TokenEmbeddings(nnf.normalize(joint.float(), dim=-1), content)


class FlavaImageEncoder(FlavaEncoder):
    """Pictures, squeezed into the tower's square; patches run along rows after the first token."""

    modality = "image"

    def __init__(self, model: Any, processor: Any) -> None:
        """Wrap the image half of a ``FlavaModel``.

        Raises:
            WeightsError: the image processor is not one that squeezes pictures to the tower's size.
        """
        super().__init__(model.image_model, model.image_projection)
        patches = self.tower.embeddings.patch_embeddings
        self.size = (int(patches.image_size[0]), int(patches.image_size[1]))
        self.patch = (int(patches.patch_size[0]), int(patches.patch_size[1]))
        wanted = [processor.size] + [processor.crop_size] * bool(processor.do_center_crop)
        sizes = {(each["height"], each["width"]) for each in wanted}
        steps = processor.do_resize and processor.do_rescale and processor.do_normalize
        if sizes != {self.size} or not steps or int(processor.resample) != 3:
            raise WeightsError(
                f"the image processor gives {sorted(sizes)} with filter {processor.resample}; "
                f"accepted: resize, rescale and normalise, bicubic (3), to {self.size}, which the "
                "image tower takes. Correct preprocessor_config.json"
            )
        self.mean, self.std = tuple(processor.image_mean), tuple(processor.image_std)

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        pixels = []
        for raw in raws:
            if not isinstance(raw, RawImage):
                raise InputError(f"{raw.name}: got {raw.modality}, this encoder takes pictures")
            pixels.append(pixels_to_tensor(raw, self.size, self.mean, self.std, "stretch")[0])
        return EncoderInputs({"pixels": torch.stack(pixels).to(self.device)}, tuple(raws))

    def forward(self, inputs: EncoderInputs) -> Tensor:
        out = self.tower(pixel_values=inputs["pixels"].to(self.dtype))
        projected: Tensor = self.head(out.last_hidden_state[:, 0])
        return projected

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        sides = {"h": self.size[0] // self.patch[0], "w": self.size[1] // self.patch[1]}
        pictures = [raw for raw in inputs.raw if isinstance(raw, RawImage)]
        sizes = [(int(raw.pixels.shape[0]), int(raw.pixels.shape[1])) for raw in pictures]
        return ImageGrid(Layout("h w", "h w", sides), sizes, prefix=1)


class FlavaTextEncoder(FlavaEncoder):
    """Captions; padding is masked."""

    modality = "text"

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Wrap the text half of a ``FlavaModel``.

        Raises:
            WeightsError: the tokenizer cannot tell where its tokens lie.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise WeightsError(
                f"{type(tokenizer).__name__} cannot tell where its tokens lie in a caption; "
                "accepted: a fast tokenizer, i.e. a checkpoint with tokenizer.json"
            )
        super().__init__(model.text_model, model.text_projection)
        self.tokenizer = tokenizer
        positions = int(self.tower.config.max_position_embeddings)
        self.longest = min(positions, int(tokenizer.model_max_length))

    def tokens(self, raw: RawInput) -> tuple[list[int], list[tuple[int, int] | None]]:
        """Ids and character spans of a caption, special tokens included.

        Raises:
            InputError: not a caption, without a word, or too long.
        """
        if not isinstance(raw, RawText):
            raise InputError(f"{raw.name}: got {raw.modality}, this encoder takes captions")
        found = self.tokenizer(
            raw.text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
        )
        ids = [int(token) for token in found["input_ids"]]
        if len(ids) > self.longest:
            raise InputError(
                f"{raw.name}: the caption has {len(ids)} tokens, this model reads at most "
                f"{self.longest}; shorten it"
            )
        pairs = zip(found["offset_mapping"], found["special_tokens_mask"], strict=True)
        spans = [None if special or lo >= hi else (int(lo), int(hi)) for (lo, hi), special in pairs]
        if not any(spans):
            raise InputError(f"{raw.name}: the caption has no tokens; give at least one word")
        return ids, spans

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        rows = [self.tokens(raw)[0] for raw in raws]
        # Few lengths batch better; padding is masked.
        length = min(self.longest, -(-max(map(len, rows)) // 8) * 8)
        ids = torch.full((len(rows), length), int(self.tokenizer.pad_token_id))
        for row, found in enumerate(rows):
            ids[row, : len(found)] = torch.tensor(found)
        mask = torch.arange(length)[None] < torch.tensor([[len(found)] for found in rows])
        tensors = {"ids": ids.to(self.device), "mask": mask.long().to(self.device)}
        return EncoderInputs(tensors, tuple(raws))

    def mask(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor | None:
        from transformers.masking_utils import create_bidirectional_mask

        made: Tensor | None = create_bidirectional_mask(self.tower.config, tokens, inputs["mask"])
        return made

    def forward(self, inputs: EncoderInputs) -> Tensor:
        out = self.tower(input_ids=inputs["ids"], attention_mask=inputs["mask"])
        projected: Tensor = self.head(out.last_hidden_state[:, 0])
        return projected

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        length = inputs["ids"].shape[1]
        texts, spans = [], []
        for raw in inputs.raw:
            found = self.tokens(raw)[1]
            texts.append(raw.text if isinstance(raw, RawText) else "")
            spans.append([*found, *[None] * (length - len(found))])
        return TextGrid.from_spans(texts, spans, inputs["mask"].bool().cpu())
