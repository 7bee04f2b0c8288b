"""Grad-ECLIP: Zhao et al., "Gradient-based Visual Explanation for Transformer-based CLIP", ICML
2024, on the towers of any modality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.errors import EncoderError
from mmattrib.methods.base import option
from mmattrib.methods.blockwise import MOST_BLOCKS, AttentionMethod, BlockOptions, Reading
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.plugins.hookspecs import Register


@dataclass(frozen=True)
class GradECLIPOptions(BlockOptions):
    """Options of ``grad-eclip``.

    Attributes:
        start: as in every method that reads attention; -1, the last block alone, as published for
            pictures. The authors' notebook for captions takes the last 8 of 12.
    """

    start: int = option(-1, least=-MOST_BLOCKS, most=MOST_BLOCKS)


class GradECLIP(AttentionMethod):
    """H_n = Σ_blocks (Σ_c w_c λ_n v_nc)⁺, w the gradient of the match at the attention's output.

    w and the spatial weight λ are those of the token that the embedding is read from, CLS or the
    end of a text; where it is read from all of them, their sum. λ_n is the cosine of its query
    with token n's key over all heads, stretched to 0 to 1 over the content tokens.

    Beside the authors' notebooks (Cyang-Zhao/Grad-Eclip, 5c1b5cc), on two small CLIPs with random
    weights: with towers of one head the same maps of pictures to 7e-7 of the largest score, from
    the last block and the last two, and of captions from the last block, once these sum to 1 as
    there. Otherwise:

    - They run the blocks that count with one head as wide as the tower, whatever the model has, so
      their w belong to another embedding. With two heads the cosine was 0.0960 in place of 0.0929,
      and maps differ by 0.8 % of the largest score for the last block of the picture, 4 % for the
      last two. Here the model is as it is.
    - For captions they stretch the cosines over all places, padding included, and take the positive
      part of the sum of blocks; here, as in their code for pictures, of each block. With one head
      the last two blocks differ by 14 %, and their sum can be negative everywhere, so that the map
      is not a number.
    """

    name = "grad-eclip"
    summary = "values weighted by channel gradients and q-k likeness (Grad-ECLIP, ICML 2024)"
    Options: ClassVar[type[Any]] = GradECLIPOptions
    options: GradECLIPOptions

    def relevance(self, reading: Reading) -> Tensor:
        import torch

        from mmattrib.engine.relevance import channel_weighted, loosened

        slopes = reading.slopes(reading.match(reading.found.embedding), reading.blocks)
        maps = []
        for block, slope in zip(reading.blocks, slopes, strict=True):
            spatial = loosened(*self.factors(reading, block), reading.content)
            maps.append(channel_weighted(slope, spatial, reading.rows).clamp_min(0.0))
        return torch.stack(maps).sum(0)

    def factors(self, reading: Reading, block: int) -> tuple[Tensor, Tensor]:
        """Queries and keys of a block.

        Raises:
            EncoderError: the block does not show them.
        """
        found = reading.found
        if found.queries and found.keys:
            query, key = found.queries[block], found.keys[block]
            if query is not None and key is not None:
                return query.detach(), key.detach()
        raise EncoderError(
            f"method {self.name!r} reads queries and keys, and block {block} of the "
            f"{reading.encoder.modality} encoder ({type(reading.encoder).__name__}) shows only its "
            "attention weights; it fits blocks that attend through scaled_dot_product_attention, "
            "MultiheadAttention, or the softmax of one product of queries and keys. Take chefer or "
            "legrad, or let embed_with_attention fill AttentionPass.queries and keys"
        )


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``grad-eclip``."""
    GradECLIP.register(register)
