"""LeGrad: Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature
Formation Sensitivity", ICCV 2025 (arXiv 2404.03214), on the towers of any modality.
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
class LeGradOptions(BlockOptions):
    """Options of ``legrad``.

    Attributes:
        start: as in every method that reads attention; -2, the last two blocks, is the default of
            the authors' code.
        pooling: how a block's output becomes one token for the final norm and the embedding head:
            ``"mean"`` of the tokens that are no padding, as in the authors' code for CLIP, or
            ``"own"``, as the encoder itself reads its last block.
    """

    start: int = option(-2, least=-MOST_BLOCKS, most=MOST_BLOCKS)
    pooling: str = option("mean", choices=("mean", "own"))


class LeGrad(AttentionMethod):
    """The mean over blocks, heads and queries of (∂s_l/∂A_l)⁺, s_l the match of block l's output.

    s_l = cos(head(pool(Z_l)), e′): the output Z_l of block l is put in the place of the last
    block's, so that ``suffix`` gives it the encoder's own norm and head, whatever these are. Only
    A_l is between s_l and the block's input, so each block costs the backward of one block.

    Beside the authors' code (WalBouss/LeGrad, a9edb03), on two small CLIPs with random weights: the
    same maps of pictures to 7e-7 of the largest score, from the last two blocks and from all, up to
    a factor. It adds the blocks where we take their mean, brings the map to 0 to 1, and has no map
    of captions. ``pooling="own"`` gives another map: rank correlations of 0.80 to 0.98 with it.
    """

    name = "legrad"
    unit = "slope"
    summary = "slope of each block's own match along its attention (LeGrad, ICCV 2025)"
    Options: ClassVar[type[Any]] = LeGradOptions
    options: LeGradOptions

    def relevance(self, reading: Reading) -> Tensor:
        from mmattrib.engine.relevance import formed

        slopes = []
        last = reading.encoder.num_layers - 1
        for block in reading.blocks:
            embedding = reading.encoder.suffix(self.pooled(reading, block), last, reading.inputs)
            slopes += reading.slopes(reading.match(embedding), [block])
        return formed(slopes, reading.valid)

    def pooled(self, reading: Reading, block: int) -> Tensor:
        """``(b, N, C)``: what a block gave, ready for :attr:`LeGradOptions.pooling`.

        Raises:
            EncoderError: the encoder's attention comes without the tokens of its blocks.
        """
        found = reading.found
        if len(found.tokens) != len(found.weights):
            raise EncoderError(
                f"method {self.name!r} reads what every block gave, and the attention pass of the "
                f"{reading.encoder.modality} encoder ({type(reading.encoder).__name__}) has no "
                "tokens; let embed_with_attention fill AttentionPass.tokens, as BlockEncoder does"
            )
        tokens = found.tokens[block]
        if self.options.pooling == "own":
            return tokens
        views = tokens.view(*reading.valid.shape, -1)
        weight = reading.valid.to(views)[..., None]
        mean = (views * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1.0)
        return mean.expand_as(views).reshape(tokens.shape)  # however they are read: the mean


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``legrad``."""
    LeGrad.register(register)
