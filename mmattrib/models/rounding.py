"""Whether two embeddings are one: equal but for how sums of their type round."""

from __future__ import annotations

import torch
from torch import Tensor


def agrees(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether embeddings ``(B, D)`` of length 1 are equal up to the rounding of ``dtype``.

    The limit is a distance: 1e-3 in float32, where rounding gives some 1e-6, and 0.06 in half
    precision, where it gives some 1e-2.
    """
    limit = 0.06 if dtype in (torch.bfloat16, torch.float16) else 1e-3
    return bool(((found.float() - expected.to(found.device).float()).norm(dim=-1) <= limit).all())
