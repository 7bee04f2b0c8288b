"""Tensors from a seed."""

from __future__ import annotations

import torch
from torch import Tensor


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def all_valid(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)
