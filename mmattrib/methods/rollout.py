"""Attention rollout: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmattrib.methods.blockwise import AttentionMethod, Reading
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.plugins.hookspecs import Register


class AttentionRollout(AttentionMethod):
    """The product over blocks of ½A + ½I, rows normalised; the row of the pooled token.

    A is the mean over heads. The share of every token in what the embedding is read from, if
    nothing but attention and the residual mixed tokens: it depends on the input alone, so the map
    is the same for every guide.

    Beside the rollout in Cyang-Zhao/Grad-Eclip (5c1b5cc), which is that of Chefer's repository, on
    two small CLIPs with random weights: the same maps to 4e-7 of the largest score.
    """

    name = "attention-rollout"
    unit = "share"
    summary = "product of the blocks' attention (Abnar & Zuidema 2020); the guide has no say in it"

    def relevance(self, reading: Reading) -> Tensor:
        from mmattrib.engine.relevance import rolled_out

        return rolled_out(reading.weights, reading.rows)


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``attention-rollout``."""
    AttentionRollout.register(register)
