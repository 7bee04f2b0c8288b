"""What `tiny` is trained for: class directions shared by all towers, then matching pairs."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattrib.evaluation.retraining import contrastive_loss as infonce

_PROTOTYPE_SEED: Final = 20


def class_prototypes(classes: int, dim: int) -> Tensor:
    """(classes, dim) fixed orthonormal rows, the same in every process and run."""
    generator = torch.Generator().manual_seed(_PROTOTYPE_SEED)
    q, _ = torch.linalg.qr(torch.randn(dim, dim, generator=generator))
    rows: Tensor = q[:classes].contiguous()
    return rows


class PrototypeLoss(nn.Module):
    """Recognise every class of a scene by the cosine to its fixed direction.

    Binary cross-entropy with a learned scale and bias (does the scene hold it?) and softmax
    cross-entropy against an even share per class present (a dense signal from the first step).
    All towers share the directions, so that they agree before they ever meet.
    """

    def __init__(self, prototypes: Tensor) -> None:
        super().__init__()
        self.prototypes: Tensor
        self.register_buffer("prototypes", prototypes)
        self.log_scale = nn.Parameter(torch.tensor(2.8))
        self.bias = nn.Parameter(torch.tensor(-5.0))

    def forward(self, embedding: Tensor, present: Tensor) -> Tensor:
        """L2-normalised (B, D), multi-hot (B, classes) -> scalar, mean over the batch."""
        cosine = embedding @ self.prototypes.T
        scaled = cosine * self.log_scale.clamp(max=4.0).exp()
        positive = torch.tensor(3.0)
        yes_no = F.binary_cross_entropy_with_logits(
            scaled + self.bias, present, pos_weight=positive, reduction="none"
        )
        share = present / present.sum(1, keepdim=True).clamp(min=1)
        which = -(share * scaled.log_softmax(1)).sum(1)
        return yes_no.sum(1).mean() * 0.5 + which.mean()


def contrastive_loss(a: Tensor, b: Tensor, log_scale: Tensor, overlap: Tensor) -> Tensor:
    """Symmetric InfoNCE of matching rows (B, D); a scalar.

    `overlap` (B, B) counts the classes that row i of `a` and row j of `b` share: a negative that
    shares as many as the match is no negative, and is left out.
    """
    return infonce(a, b, log_scale.clamp(max=4.0).exp(), overlap)
