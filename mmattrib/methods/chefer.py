"""Chefer, Gur and Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and
Encoder-Decoder Transformers", ICCV 2021, for one tower of a joint-embedding model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.methods.base import option
from mmattrib.methods.blockwise import AttentionMethod, BlockOptions, Reading
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.plugins.hookspecs import Register


@dataclass(frozen=True)
class CheferOptions(BlockOptions):
    """Options of ``chefer``; ``start`` as in every method that reads attention.

    Attributes:
        scale: y = scale · cosine is what is differentiated: the logit, with CLIP's usual scale. R
            is a polynomial in it, so where several blocks count it weighs paths through many of
            them against paths through one.
    """

    scale: float = option(100.0, above=0)


class Chefer(AttentionMethod):
    """Ā = E_h((∇A ⊙ A)⁺), R ← R + Ā R from the identity; the row of the pooled token.

    Eqs. (5) and (6) with y = scale · cos(f(x), e′) for the class score. The embedding's row is that
    of the token it is read from, CLS or the end of a text; where it is read from all of them, the
    mean of their rows. The identity is taken off, which changes no score of a token that is not
    itself read.

    Beside the authors' notebook for CLIP (hila-chefer/Transformer-MM-Explainability, 58eaea8), on
    two small CLIPs with random weights: the same maps to 6e-7 of the largest score, of pictures and
    captions, from the last block and from all. There ``scale`` is the model's own (exp of its
    ``logit_scale``) and the default is the last block alone, ``start=-1``, where the scale changes
    no more than the unit. Over all four or five blocks, 100 in the place of 14.3 changes a map by
    up to a tenth of its largest score (rank correlation 0.98).
    """

    name = "chefer"
    summary = "relevance through attention and its gradients (Chefer et al., ICCV 2021)"
    Options: ClassVar[type[Any]] = CheferOptions
    options: CheferOptions

    def relevance(self, reading: Reading) -> Tensor:
        from mmattrib.engine.relevance import propagated

        value = self.options.scale * reading.match(reading.found.embedding)
        slopes = reading.slopes(value, reading.blocks)
        return propagated(reading.weights, slopes, reading.rows)


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``chefer``."""
    Chefer.register(register)
