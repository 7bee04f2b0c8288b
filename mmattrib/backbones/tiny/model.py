"""The `tiny` tri-modal model: three pre-norm transformer towers and one joint space.

A demonstration and measuring model: small enough to ship and to run on one core, with the
anatomy of the large joint-embedding models (CLS-pooled towers, a linear embedding head, cosine
similarity), so that every attribution method meets the same shapes here as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattrib.models.prenorm import single_query

TowerName = Literal["image", "audio", "text"]
TOWERS: Final[tuple[TowerName, ...]] = ("image", "audio", "text")

#: Pixels in [0, 1] are shifted and divided by these (measured on training scenes).
IMAGE_MEAN: Final = 0.5
IMAGE_STD: Final = 0.28
#: log-mel (natural log of power + 1e-3) is shifted and divided by these (training scenes).
LOG_MEL_MEAN: Final = -2.0
LOG_MEL_STD: Final = 3.0

_MASKED: Final = -1e4  # a finite "minus infinity": exact zeros after softmax in bf16 and fp32


#: Pixels across one image token: the strides of ConvStem multiplied.
STRIDE: Final = 12
_DIVIDES: Final = (("width", "heads"), ("mel_bins", "patch_mel"), ("frames", "patch_frames"))


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of the three towers; what a checkpoint needs to be rebuilt.

    `image_size` in pixels, `mel_bins` x `frames` the log-mel plane, `patch_mel` x `patch_frames`
    one audio token, `max_tokens` the text length with `<cls>`, `vocabulary` its words.
    """

    width: int = 128
    depth: int = 6
    heads: int = 4
    embed_dim: int = 128
    image_size: int = 96
    image_grid: int = 8
    mel_bins: int = 64
    frames: int = 128
    patch_mel: int = 16
    patch_frames: int = 8
    max_tokens: int = 24
    vocabulary: int = 256

    def __post_init__(self) -> None:
        """Refuses sizes that build a model which then fails in use; ValueError."""
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1, got {value!r}")
        for whole, part in _DIVIDES:
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{whole} {getattr(self, whole)} must be a multiple of {part} "
                    f"{getattr(self, part)}"
                )
        if self.image_size != STRIDE * self.image_grid:
            raise ValueError(
                f"image_size {self.image_size} must be {STRIDE} times image_grid {self.image_grid}"
            )

    @property
    def audio_grid(self) -> tuple[int, int]:
        """Audio tokens along frequency and along time."""
        return self.mel_bins // self.patch_mel, self.frames // self.patch_frames


class Attention(nn.Module):
    """Multi-head self-attention, written out so that its backward is quick in bf16 on a CPU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def weights(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Attention weights (B, heads, N, N) of normalised tokens `x` (B, N, C)."""
        q, k, _ = self._project(x)
        return self._softmax(q, k, key_mask)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C); `key_mask` (B, N) is True where a key may be attended to."""
        b, n, c = x.shape
        q, k, v = self._project(x)
        mixed = self._softmax(q, k, key_mask).to(v.dtype) @ v
        return self._out(mixed.transpose(1, 2).reshape(b, n, c))

    def first(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """What `forward` gives for token 0 alone, (B, N, C) -> (B, 1, C): one query, all keys."""
        c = x.shape[-1]
        query, key, value = zip(
            torch.split(self.qkv.weight, c), torch.split(self.qkv.bias, c), strict=True
        )
        mixed = single_query(F.linear(x[:, 0], *query), x, key_mask, key, value, self.heads)
        return self._out(mixed[:, None])

    def value_path(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C): values through the output projection, no mixing of tokens."""
        width = x.shape[-1]
        v = F.linear(x, self.qkv.weight[2 * width :], self.qkv.bias[2 * width :])
        return self._out(v)

    def _out(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x)
        return out

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return q, k, v

    def _softmax(self, q: Tensor, k: Tensor, key_mask: Tensor | None) -> Tensor:
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if key_mask is not None:
            logits = logits.masked_fill(~key_mask[:, None, None, :], _MASKED)
        weights: Tensor = logits.softmax(-1)
        return weights


class Block(nn.Module):
    """A pre-norm transformer block: `block(tokens, key_mask) -> tokens`, both (B, N, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C); `key_mask` (B, N) bool, True for valid tokens, or None."""
        tokens = tokens + self.attn(self.norm1(tokens), key_mask)
        return tokens + self._mlp(self.norm2(tokens))

    def first(self, tokens: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """What `forward` gives for token 0 alone: (B, N, C) -> (B, 1, C)."""
        first = tokens[:, :1] + self.attn.first(self.norm1(tokens), key_mask)
        return first + self._mlp(self.norm2(first))

    def _mlp(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out

    def value_path(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C): this block's value path, without residual, mixing or MLP.

        The last block's value path keeps each token's own meaning where its attention would pool
        it into CLS (MaskCLIP, Zhou et al. 2022, section 3.2).
        """
        return self.attn.value_path(self.norm1(tokens))


class ConvStem(nn.Module):
    """(B, 3, 96, 96) -> (B, 64, C): an 8x8 grid, row-major, of 12x12-pixel tokens.

    Convolutions with small strides learn local patterns far sooner than a linear patch embedding
    (Xiao et al. 2021, "Early convolutions help transformers see better").
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 6, stride=3, padding=2)
        self.norm1 = nn.GroupNorm(4, 32)
        self.conv2 = nn.Conv2d(32, 64, 4, stride=2, padding=1)
        self.norm2 = nn.GroupNorm(8, 64)
        self.conv3 = nn.Conv2d(64, width, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H/12 * W/12, C)."""
        x = F.gelu(self.norm1(self.conv1(x)))
        x = F.gelu(self.norm2(self.conv2(x)))
        out: Tensor = self.conv3(x).flatten(2).transpose(1, 2)
        return out


class MelPatches(nn.Module):
    """(B, mel, frames) -> (B, F*T, C): linear patches, frequency-major (f then t)."""

    def __init__(self, width: int, patch_mel: int, patch_frames: int) -> None:
        super().__init__()
        self.patch = (patch_mel, patch_frames)
        self.proj = nn.Linear(patch_mel * patch_frames, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, mel, frames) -> (B, F*T, C)."""
        pm, pf = self.patch
        b, mel, frames = x.shape
        patches = x.reshape(b, mel // pm, pm, frames // pf, pf).permute(0, 1, 3, 2, 4)
        out: Tensor = self.proj(patches.reshape(b, (mel // pm) * (frames // pf), pm * pf))
        return out


def _unfilled() -> bool:
    """Whether what is made holds no numbers: a draw on the meta device draws nothing, and imports a
    compiler to do so, which takes longer than all else that loads `tiny`.
    """
    return torch.empty(0).is_meta


def _drawn(*shape: int) -> Tensor:
    """First values of learned tokens and positions."""
    return torch.empty(shape) if _unfilled() else torch.randn(shape) * 0.02


def _words(count: int, width: int) -> nn.Embedding:
    """A table of words, with its first values."""
    if _unfilled():
        return nn.Embedding(count, width, _weight=torch.empty(count, width))
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=0.05)
    return table


class Tower(nn.Module):
    """One modality's encoder: inputs -> tokens -> `blocks` -> `norm` -> `head` on CLS."""

    def __init__(self, config: TinyConfig, name: TowerName) -> None:
        super().__init__()
        self.name = name
        width = config.width
        self.stem: nn.Module
        if name == "image":
            self.stem = ConvStem(width)
            count = config.image_grid**2
        elif name == "audio":
            self.stem = MelPatches(width, config.patch_mel, config.patch_frames)
            count = config.audio_grid[0] * config.audio_grid[1]
        else:
            self.stem = _words(config.vocabulary, width)
            count = config.max_tokens - 1
        # Text carries its <cls> as a word; the other towers prepend a learned one.
        self.cls = nn.Parameter(_drawn(1, 1, width)) if name != "text" else None
        self.pos = nn.Parameter(_drawn(1, count + 1, width))
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.embed_dim, bias=False)

    def embed_inputs(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Model inputs -> (tokens (B, N, C), key_mask (B, N) bool or None).

        Inputs: image (B, 3, 96, 96) normalised, audio (B, 64, 128) normalised log-mel, text
        (B, L) ids with L <= 24 and 0 for padding. Token 0 is CLS.
        """
        tokens: Tensor = self.stem(x)
        if self.cls is None:
            return tokens + self.pos[:, : x.shape[1]], x != 0
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1)
        return tokens + self.pos, None

    def pool(self, tokens: Tensor) -> Tensor:
        """Final tokens (B, N, C) -> embedding (B, D), not normalised."""
        out: Tensor = self.head(self.norm(tokens[:, 0]))
        return out

    def pool_from(self, tokens: Tensor, start: int, key_mask: Tensor | None) -> Tensor:
        """Tokens (B, N, C) before block `start` -> embedding (B, D), not normalised.

        The last block runs for the CLS query alone, the only one that is pooled.
        """
        blocks = list(self.blocks)[start:]
        for block in blocks[:-1]:
            tokens = block(tokens, key_mask)
        if blocks:
            tokens = blocks[-1].first(tokens, key_mask)  # type: ignore[operator]
        return self.pool(tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Model inputs -> embedding (B, D), not normalised."""
        tokens, key_mask = self.embed_inputs(x)
        for block in self.blocks:
            tokens = block(tokens, key_mask)
        return self.pool(tokens)


class TinyModel(nn.Module):
    """The three towers, as `model.towers["image" | "audio" | "text"]`."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.towers = nn.ModuleDict({name: Tower(config, name) for name in TOWERS})

    def tower(self, name: str) -> Tower:
        """The tower of a modality; KeyError where there is none."""
        tower = self.towers[name]
        if not isinstance(tower, Tower):
            raise TypeError(f"towers[{name!r}] is not a Tower")
        return tower

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs by modality -> L2-normalised embeddings (B, D) by modality."""
        return {k: F.normalize(self.tower(k)(x).float(), dim=-1) for k, x in inputs.items()}


def normalise_image(pixels: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> model input (B, 3, H, W) float32."""
    return (pixels.permute(0, 3, 1, 2).float() / 255 - IMAGE_MEAN) / IMAGE_STD


def normalise_log_mel(log_mel: Tensor) -> Tensor:
    """log-mel (B, mel, frames), natural log -> model input of the same shape."""
    return (log_mel - LOG_MEL_MEAN) / LOG_MEL_STD
