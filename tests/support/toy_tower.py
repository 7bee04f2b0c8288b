"""A small random transformer of the tests' own, with CLS pooling and a padding mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.engine import (
    BottleneckOptions,
    BottleneckResult,
    Guidance,
    Guide,
    TokenStatistics,
    fit_bottleneck,
)
from mmattrib.engine.guidance import NoGuidance
from mmattrib.engine.together import Together

Suffix = Callable[[Tensor, Tensor], Tensor]


class Block(nn.Module):
    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.heads = heads

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        b, n, c = x.shape
        split = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, c // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-1, -2) / (c // self.heads) ** 0.5
        logits = logits.masked_fill(~valid[:, None, None], float("-inf"))
        x = x + self.out((logits.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))
        return x + self.down(nnf.gelu(self.up(self.norm2(x))))


class ToyTower(nn.Module):
    """``(B, N, C)`` inputs, token 0 playing CLS, to ``(B, D)`` unit vectors."""

    def __init__(self, width: int = 16, depth: int = 3, dim: int = 12, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, dim, bias=False)
            for parameter in self.parameters():  # lively enough for gradients to differ
                if parameter.dim() == 2:
                    nn.init.normal_(parameter, std=1.5 / parameter.shape[1] ** 0.5)
        self.requires_grad_(False).eval()

    def prefix(self, x: Tensor, valid: Tensor, layer: int) -> Tensor:
        for block in list(self.blocks)[: layer + 1]:
            x = block(x, valid)
        return x

    def suffix(self, x: Tensor, valid: Tensor, layer: int) -> Tensor:
        for block in list(self.blocks)[layer + 1 :]:
            x = block(x, valid)
        return nnf.normalize(self.head(self.norm(x[:, 0])), dim=-1)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return self.suffix(x, valid, -1)

    def token_embeddings(self, x: Tensor, valid: Tensor) -> Tensor:
        last = self.prefix(x, valid, len(self.blocks) - 1)
        return nnf.normalize(self.head(self.norm(last)), dim=-1)


@dataclass
class Problem:
    """Everything :func:`mmattrib.engine.fit_bottleneck` takes, for B pairs."""

    tower: ToyTower
    inputs: Tensor
    layer: int
    guide: Guide
    valid: Tensor
    keys: tuple[str, ...]

    @property
    def content(self) -> Tensor:
        content = self.valid.clone()
        content[:, 0] = False
        return content

    def tokens(self) -> Tensor:
        ones = [slice(row, row + 1) for row in range(len(self.inputs))]
        return torch.cat(
            [self.tower.prefix(self.inputs[r], self.valid[r], self.layer) for r in ones]
        )

    def own_tokens(self) -> Tensor:
        ones = [slice(row, row + 1) for row in range(len(self.inputs))]
        return torch.cat([self.tower.token_embeddings(self.inputs[r], self.valid[r]) for r in ones])

    def suffix(self, tokens: Tensor, rows: Tensor) -> Tensor:
        return self.tower.suffix(tokens, self.valid[rows], self.layer)

    def select(self, rows: list[int]) -> Problem:
        index = torch.tensor(rows)
        return Problem(
            self.tower,
            self.inputs[index],
            self.layer,
            self.guide.select(index),
            self.valid[index],
            tuple(self.keys[row] for row in rows),
        )


def make_problem(
    pairs: int = 3,
    count: int = 7,
    *,
    layer: int = 0,
    dtype: torch.dtype = torch.float32,
    lengths: tuple[int, ...] | None = None,
    width: int = 16,
    depth: int = 3,
    seed: int = 0,
) -> Problem:
    generator = torch.Generator().manual_seed(seed + 100)
    tower = ToyTower(width, depth, seed=seed).to(dtype)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    valid = torch.ones(pairs, count, dtype=torch.bool)
    for row, length in enumerate(lengths or ()):
        valid[row, length:] = False
    guide = Guide(
        nnf.normalize(draw(pairs, 12), dim=-1),
        nnf.normalize(draw(pairs, 5, 12), dim=-1),
        torch.ones(pairs, 5, dtype=torch.bool),
    )
    keys = tuple(f"pair {row}" for row in range(pairs))
    return Problem(tower, draw(pairs, count, width), layer, guide, valid, keys)


def run(
    problem: Problem,
    guidance: Guidance | None = None,
    *,
    suffix: Suffix | None = None,
    statistics: TokenStatistics | None = None,
    relevance: Tensor | None = None,
    clean: Tensor | None = None,
    deeper: Sequence[tuple[Tensor, Suffix]] = (),
    together: int = 1,
    **options: object,
) -> BottleneckResult:
    return fit_bottleneck(
        problem.tokens(),
        suffix or problem.suffix,
        problem.guide,
        problem.valid,
        problem.content,
        problem.keys,
        BottleneckOptions(**options),  # type: ignore[arg-type]
        guidance or NoGuidance(),
        explained_tokens=problem.own_tokens(),
        statistics=statistics,
        relevance=relevance,
        clean=clean,
        deeper=deeper,
        together=Together(together),
    )


def relative(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).abs() / expected.abs().clamp_min(1e-6)).max())


class Pool:
    """A suffix that does not know the order of its content tokens: CLS plus their mean."""

    def __init__(self, valid: Tensor, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.up = torch.randn(16, 24, generator=generator)
        self.down = torch.randn(24, 12, generator=generator)
        self.valid = valid

    def __call__(self, tokens: Tensor, rows: Tensor) -> Tensor:
        hidden = torch.tanh(tokens @ self.up.to(tokens)) @ self.down.to(tokens)
        weight = self.valid[rows].to(tokens)[..., None]
        return nnf.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)
