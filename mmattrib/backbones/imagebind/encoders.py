"""The encoders of ImageBind: its towers, cut at any layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeVar

import einops
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.backbones.imagebind import signals
from mmattrib.backbones.imagebind.library import Library
from mmattrib.backbones.imagebind.tokens import CONTEXT, CaptionTokenizer
from mmattrib.errors import InputError
from mmattrib.models.blocks import BlockEncoder
from mmattrib.models.capabilities import ATTENTION, INPUT_GRADIENT, INPUT_LAYER
from mmattrib.models.encoder import EncoderInputs, TokenEmbeddings
from mmattrib.models.grids import (
    Box,
    ImageGrid,
    Layout,
    TextGrid,
    TokenGrid,
)
from mmattrib.models.grids.placed import AxisPlacement, PlacedGrid
from mmattrib.models.prenorm import causal_keys, packed_parts, single_query
from mmattrib.models.resizing import centre_crop, normalise
from mmattrib.models.towers import relative_layer
from mmattrib.types import Axis, Modality, RawArray, RawAudio, RawImage, RawInput, RawText

_Raw = TypeVar("_Raw", RawImage, RawAudio, RawText, RawArray)

TOWER_OF: Final[Mapping[Modality, str]] = {
    "image": "vision",
    "video": "vision",
    "text": "text",
    "audio": "audio",
    "depth": "depth",
    "thermal": "thermal",
    "imu": "imu",
}
"""The library's name of the tower that embeds each modality."""


class Tower(nn.Module):
    """One modality of an ``ImageBindModel``: preprocessor, trunk, head and postprocessor."""

    def __init__(self, model: nn.Module, key: str) -> None:
        """Take them out of a model; they stay the model's own."""
        super().__init__()
        self.training = model.training
        self.key = key
        parts: Any = model
        self.preprocessor: nn.Module = parts.modality_preprocessors[key]
        self.trunk: nn.Module = parts.modality_trunks[key]
        self.head: nn.Module = parts.modality_heads[key]
        self.postprocessor: nn.Module = parts.modality_postprocessors[key]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, D)`` as the library gives them, scaled by the modality's temperature."""
        given = self.preprocessor(**{self.key: x})
        pooled = self.head(self.trunk(**given["trunk"]), **given["head"])
        scaled: Tensor = self.postprocessor(pooled)
        return scaled

    def project(self, tokens: Tensor) -> Tensor:
        """``(..., C)`` to ``(..., D)``: the head's norm and projection, without its pooling."""
        parts: Any = self.head.proj if self.key == "text" else self.head
        for part in parts:
            if type(part).__name__ != "SelectElement":
                tokens = part(tokens)
        return tokens


class ImageBindEncoder(BlockEncoder):
    """What the towers share: tokens first inside the blocks, a true suffix, the value path.

    An input of several views (the clips of a recording, the crops of a video) has their tokens one
    view after the other on the token axis, each behind a CLS of its own. The library averages the
    views' embeddings, which all have one length; so does this, and normalises.

    Attributes:
        views: whether inputs have several views, on an axis after the batch.
    """

    capabilities = frozenset((ATTENTION, INPUT_GRADIENT))
    input_name: ClassVar[str | None] = "x"
    views = False
    module: Tower

    def __init__(
        self, tower: Tower, library: Library, audio_clips: int | Literal["cover"] = 3
    ) -> None:
        """Wrap a tower."""
        self.module = tower
        trunk: Any = tower.trunk
        self.blocks: list[nn.Module] = list(trunk.blocks)
        self.default_layer = relative_layer(len(self.blocks))

    @property
    def dtype(self) -> torch.dtype:
        """What the tower computes in."""
        return next(self.module.parameters()).dtype

    def tower_input(self, inputs: EncoderInputs) -> Tensor:
        """What the tower takes, views on the batch axis."""
        x = inputs["x"].to(self.dtype)
        return x.flatten(0, 1) if self.views else x

    def forward(self, inputs: EncoderInputs) -> Tensor:
        scaled: Tensor = self.module(self.tower_input(inputs))
        return scaled

    def embed(self, inputs: EncoderInputs) -> Tensor:
        return self.average(self.forward(inputs), inputs)

    def average(self, pooled: Tensor, inputs: EncoderInputs) -> Tensor:
        """``(B * views, D)`` to ``(B, D)``: the mean of the views' directions, L2-normalised."""
        units = nnf.normalize(pooled.float(), dim=-1)
        if not self.views:
            return units
        units = units.view(len(inputs), -1, units.shape[-1])
        used = self.used(inputs).to(units.device)
        return nnf.normalize((units * used[..., None]).sum(1), dim=-1)

    def used(self, inputs: EncoderInputs) -> Tensor:
        """``(B, views)`` bool, views that are not padding."""
        return torch.ones(len(inputs), 1, dtype=torch.bool, device="cpu")

    def tokens_from(self, output: Any) -> Tensor:
        return super().tokens_from(output).transpose(0, 1)

    def with_tokens(self, output: Any, tokens: Tensor) -> Any:
        return super().with_tokens(output, self.split(tokens).to(self.dtype).transpose(0, 1))

    def prefix(self, inputs: EncoderInputs, layer: int) -> Tensor:
        tokens = super().prefix(inputs, layer)
        if layer == INPUT_LAYER:
            return tokens
        return einops.rearrange(tokens, "(b v) n c -> b (v n) c", b=len(inputs))

    def split(self, tokens: Tensor) -> Tensor:
        """``(B, views * n, C)`` to ``(B * views, n, C)``."""
        if not self.views:
            return tokens
        return einops.rearrange(tokens, "b (v n) c -> (b v) n c", n=self.per_view)

    @property
    def per_view(self) -> int:
        """Tokens of one view, CLS included."""
        preprocessor: Any = self.module.preprocessor
        return 1 + int(np.prod(preprocessor.patches_layout))

    def plane(self, inputs: EncoderInputs, layer: int) -> tuple[int, int]:
        """Rows and columns of a view's cells: patches, or the input's own at layer -2."""
        preprocessor: Any = self.module.preprocessor
        shape = inputs["x"].shape if layer == INPUT_LAYER else preprocessor.patches_layout
        return int(shape[-2]), int(shape[-1])

    def laid(self, used: Tensor, layer: int, cells: int) -> tuple[Tensor, Tensor]:
        """``(B, N)`` bool of ``used`` views ``(B, views)``: tokens on the input, tokens in use."""
        count = cells if layer == INPUT_LAYER else self.per_view
        valid = used.cpu()[:, :, None].repeat(1, 1, count)
        laid = torch.ones_like(valid)
        if layer != INPUT_LAYER:
            laid[:, :, 0] = False  # each view's CLS
        return laid.flatten(1), valid.flatten(1)

    def pooled_at(self, inputs: EncoderInputs) -> Tensor | None:
        """``(B,)`` long, the token that each embedding is read from; None for CLS."""
        return None

    def mask(self, inputs: EncoderInputs) -> Tensor | None:
        """What the trunk gives its blocks as ``attn_mask``."""
        return None

    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        if self.check_layer(layer) == INPUT_LAYER:
            return self.embed_input(tokens, inputs)
        x = self.split(tokens).to(self.dtype).transpose(0, 1)
        rest = self.blocks[layer + 1 :]
        mask = self.mask(inputs)
        for block in rest[:-1]:
            x = block(x, attn_mask=mask)
        index = self.pooled_at(inputs)
        pooled = _last_block(rest[-1], x, index) if rest else _pick(x, index)
        return self.average(self.module.project(pooled), inputs)

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        return self.module.project(tokens)

    def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        """Tokens along the value path of the last block (MaskCLIP, Zhou et al. 2022, 3.2).

        The towers read their embedding from one token, so that the other final tokens were never
        trained to mean anything in the joint space.
        """
        last = self.num_layers - 1
        block: Any = self.blocks[last]
        normed = block.norm_1(self.prefix(inputs, last - 1))
        width = normed.shape[-1]
        weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
        values = nnf.linear(normed, weight[2 * width :], bias[2 * width :])
        joint = self.module.project(block.attn.out_proj(values))
        content = self.grid(inputs, last).content.to(joint.device)
        return TokenEmbeddings(nnf.normalize(joint.float(), dim=-1), content)


def _pick(x: Tensor, index: Tensor | None) -> Tensor:
    """``(B, C)`` of ``(N, B, C)``: token ``index[b]`` of each row, CLS if None."""
    return x[0] if index is None else x[index, torch.arange(x.shape[1], device=x.device)]


def _last_block(block: Any, x: Tensor, index: Tensor | None) -> Tensor:
    """``(B, C)``: what a block gives for the one token that is pooled: one query, all keys.

    Args:
        block: the library's block.
        x: ``(N, B, C)``.
        index: ``(B,)``, the pooled token, which reads itself and what comes before it; CLS, which
            reads everything, if None.
    """
    attention, tokens = block.attn, block.norm_1(x).transpose(0, 1)
    query, key, value = packed_parts(attention)
    extra = None
    if attention.bias_k is not None:
        extra = attention.bias_k[0, 0], attention.bias_v[0, 0]
    attended = single_query(
        query(_pick(tokens.transpose(0, 1), index)),
        tokens,
        None if index is None else causal_keys(index, len(x)),
        key.affine(),
        value.affine(),
        attention.num_heads,
        extra,
    )
    attended = nnf.linear(attended, attention.out_proj.weight, attention.out_proj.bias)[None]
    one = _pick(x, index)[None] + block.drop_path(attended)
    one = one + block.drop_path(block.mlp(block.norm_2(one)))
    pooled: Tensor = one[0]
    return pooled


class PatchEncoder(ImageBindEncoder):
    """A picture of any kind: patches behind one CLS, on the part that the model sees."""

    @abstractmethod
    def see(self, raw: RawInput) -> tuple[Tensor, Box, tuple[int, int]]:
        """What the tower takes, the part of the input that it shows, and the input's size."""

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        seen = [self.see(raw) for raw in raws]
        places = [(b.top, b.left, b.bottom, b.right, *size) for _, b, size in seen]
        tensors = {
            "x": torch.stack([x for x, _, _ in seen]),
            "places": torch.tensor(places, device="cpu"),
        }
        return EncoderInputs(
            {name: value.to(self.device) for name, value in tensors.items()}, tuple(raws)
        )

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        rows, columns = self.plane(inputs, layer)
        places = inputs["places"].tolist()
        return ImageGrid(
            Layout("h w", "h w", {"h": rows, "w": columns}),
            [(height, width) for *_, height, width in places],
            boxes=[Box(*place[:4]) for place in places],
            prefix=0 if layer == INPUT_LAYER else 1,
        )


class ImageEncoder(PatchEncoder):
    """Pictures: the shorter side resized to 224, the centre cropped; 16 x 16 patches."""

    modality = "image"

    def see(self, raw: RawInput) -> tuple[Tensor, Box, tuple[int, int]]:
        picture = of_kind(raw, RawImage)
        pixels, box = centre_crop(picture, (signals.SIDE, signals.SIDE))
        height, width = picture.pixels.shape[:2]
        return normalise(pixels, signals.MEAN, signals.STD), box, (height, width)


class DepthEncoder(PatchEncoder):
    """Disparities ``(H, W)`` in pixels; 14 x 14 patches."""

    modality = "depth"

    def see(self, raw: RawInput) -> tuple[Tensor, Box, tuple[int, int]]:
        array = of_kind(raw, RawArray)
        x, box = signals.depth_image(array)
        height, width = array.values.shape
        return x, box, (height, width)


class ThermalEncoder(PatchEncoder):
    """Grey levels ``(H, W)`` in [0, 1]; 14 x 14 patches."""

    modality = "thermal"

    def see(self, raw: RawInput) -> tuple[Tensor, Box, tuple[int, int]]:
        array = of_kind(raw, RawArray)
        x, box = signals.thermal_image(array)
        height, width = array.values.shape
        return x, box, (height, width)


class TextEncoder(ImageBindEncoder):
    """Captions of at most 75 tokens, causal, read from their end token."""

    modality = "text"
    input_name = None
    pad_id = 0

    def __init__(
        self, tower: Tower, library: Library, audio_clips: int | Literal["cover"] = 3
    ) -> None:
        super().__init__(tower, library, audio_clips)
        self.tokenizer = CaptionTokenizer(library.tokenizer())

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        captions = [self.tokenizer(of_kind(raw, RawText)) for raw in raws]
        # Nothing after the end token is read, so it is left out; few lengths batch better.
        longest = max(len(caption.ids) for caption in captions)
        length = min(CONTEXT, -(-longest // 8) * 8)
        ids = torch.zeros(len(raws), length, dtype=torch.long, device="cpu")
        for row, caption in enumerate(captions):
            ids[row, : len(caption.ids)] = torch.tensor(caption.ids, device="cpu")
        return EncoderInputs({"x": ids.to(self.device)}, tuple(raws))

    def forward(self, inputs: EncoderInputs) -> Tensor:
        ids, tower = inputs["x"], self.module
        length = ids.shape[1]
        given = tower.preprocessor(text=nnf.pad(ids, (0, CONTEXT - length)))
        tokens = given["trunk"]["tokens"][:, :length]
        pooled = tower.head(tower.trunk(tokens, attn_mask=self.mask(inputs)), **given["head"])
        scaled: Tensor = tower.postprocessor(pooled)
        return scaled

    def mask(self, inputs: EncoderInputs) -> Tensor | None:
        length = inputs["x"].shape[1]
        preprocessor: Any = self.module.preprocessor
        mask: Tensor = preprocessor.mask[:length, :length]
        return mask

    def pooled_at(self, inputs: EncoderInputs) -> Tensor | None:
        return inputs["x"].argmax(dim=-1)

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        length = inputs["x"].shape[1]
        captions = [self.tokenizer(of_kind(raw, RawText)) for raw in inputs.raw]
        texts = [of_kind(raw, RawText).text for raw in inputs.raw]
        spans = [[*found.spans, *[None] * (length - len(found.spans))] for found in captions]
        counts = torch.tensor([len(found.ids) for found in captions], device="cpu")
        real = torch.arange(length, device="cpu")[None] < counts[:, None]
        return TextGrid.from_spans(texts, spans, real)


class ImuEncoder(ImageBindEncoder):
    """Inertial readings ``(6, 2000)``: accelerometer x, y, z, gyroscope x, y, z; 250 tokens.

    Every token covers eight time steps of all six channels, so a map has one axis, time. The
    authors published no scaling; values go in as they are.
    """

    modality = "imu"
    input_pattern = "b c t -> b t c"

    @property
    def per_view(self) -> int:
        preprocessor: Any = self.module.preprocessor
        return int(preprocessor.pos_embed.shape[1])

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        rows = []
        for raw in raws:
            values = of_kind(raw, RawArray).values
            if values.shape != signals.IMU_SHAPE:
                raise InputError(
                    f"{raw.name}: inertial readings of shape {values.shape}; accepted: "
                    f"{signals.IMU_SHAPE}, that is, accelerometer x, y, z and gyroscope x, y, z at "
                    "2000 time steps (5 s in training). Resample them"
                )
            rows.append(torch.from_numpy(np.array(values, dtype=np.float32)))
        return EncoderInputs({"x": torch.stack(rows).to(self.device)}, tuple(raws))

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        steps = np.arange(signals.IMU_SHAPE[1])
        cells = len(steps) if layer == INPUT_LAYER else self.per_view - 1
        place = AxisPlacement.of_views([(steps + 0.5) * cells / len(steps)], cells)
        axes = []
        for raw in inputs.raw:
            rate = of_kind(raw, RawArray).rate
            values = steps if rate is None else (steps + 0.5) / rate
            axes.append((Axis("time", "" if rate is None else "s", values.astype(np.float32)),))
        laid, _ = self.laid(self.used(inputs), layer, cells)
        layout = Layout("t", "t", {"t": cells})
        return PlacedGrid(layout, axes, [(place,)] * len(inputs), laid)


def of_kind(raw: RawInput, kind: type[_Raw]) -> _Raw:
    """``raw`` as the kind that an encoder takes.

    Raises:
        InputError: it is another one.
    """
    if not isinstance(raw, kind):
        raise InputError(
            f"{raw.name}: got {type(raw).__name__}, this encoder takes {kind.__name__}"
        )
    return raw
