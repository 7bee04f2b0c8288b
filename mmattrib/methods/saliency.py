"""Saliency: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks: Visualising Image
Classification Models and Saliency Maps", ICLR workshop 2014 (arXiv 2013).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.methods.base import (
    Method,
    MethodOptions,
    Side,
    SideScores,
    input_or_default,
    option,
)
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from mmattrib.models.encoder import Encoder
    from mmattrib.plugins.hookspecs import Register


@dataclass(frozen=True)
class SaliencyOptions(MethodOptions):
    """Options of ``saliency``.

    Attributes:
        channels: what becomes of a token's channels: their ``"max"``, as published for the colours
            of a pixel, or their ``"sum"``.
    """

    channels: str = option("max", choices=("max", "sum"))


class Saliency(Method):
    """S_n = max_c |∂cos(f(h), e′)/∂h_nc|, section 3.1 with the cosine for the class score.

    At the preprocessed input where the encoder offers it (layer -2: pixels, cells of a spectrogram;
    words for captions), as published, else at its default layer; ``layer`` asks for another.

    captum's ``Saliency`` gives the same numbers from a function of tokens, and a test compares the
    two. It is not used: beside one call of ``autograd.grad`` it would bring a dependency and
    nothing else.

    Diagnostics: ``clean_cosine``.
    """

    name = "saliency"
    unit = "slope"
    summary = "size of the gradient of the cosine at the input or a layer (Simonyan et al. 2013)"
    Options: ClassVar[type[Any]] = SaliencyOptions
    options: SaliencyOptions

    def default_layer(self, encoder: Encoder) -> int:
        """The preprocessed input, where the encoder offers it."""
        return input_or_default(encoder)

    def explain(self, side: Side) -> SideScores:
        sizes = side.slopes().abs()
        scores = sizes.amax(-1) if self.options.channels == "max" else sizes.sum(-1)
        cosines = side.cosines(side.tokens()).tolist()
        return self.scored(scores, [{"clean_cosine": value} for value in cosines])


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``saliency``."""
    Saliency.register(register)
