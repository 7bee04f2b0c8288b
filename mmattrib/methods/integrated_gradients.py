"""Integrated gradients: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML
2017, of the cosine with the guide.
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
from mmattrib.methods.nib import along_path
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.models.encoder import Encoder
    from mmattrib.plugins.hookspecs import Register


_GAP, _LEAST_GAP = 0.1, 0.01
"""A gap of the sum is worth a warning beyond this share of what the cosine gains, and this size."""


@dataclass(frozen=True)
class IntegratedGradientsOptions(MethodOptions):
    """Options of ``integrated-gradients``.

    Attributes:
        steps: points on the path, in the middle of equal parts (midpoint rule).
        baseline: where the path starts: ``"mean"``, the input without its parts: each content token
            becomes the mean of the content tokens, and the others (CLS, the marks of a text's start
            and end) stay, so that they score 0; or ``"zero"``, tokens of 0: at a picture's input
            the grey that its normalisation takes off, at a caption's no word and no place.
        max_rows: most points in one call of the suffix, for each pair; bounds memory.
    """

    steps: int = option(50, least=1, most=10_000)
    baseline: str = option("mean", choices=("mean", "zero"))
    max_rows: int = option(16, least=1, most=65_536, resource=True)


class IntegratedGradients(Method):
    """A_n = Σ_c (h − b)_nc · mean_i ∂cos(f(z_i), e′)/∂z_i,nc on the straight path from b to h.

    Eq. (3) with the cosine for the class score; signed, in cosine. ``nib`` is the same at a layer,
    with a zero baseline and the right end of each part of the path in place of its middle.

    At the preprocessed input where the encoder offers it (layer -2), as published, else at its
    default layer; ``layer`` asks for another.

    Where a norm of each token comes next, as at a caption's input and at the layers of a pre-norm
    tower, it has no limit at zero tokens: most of the cosine then changes within the first part of
    a path from ``"zero"``, and the sum closes slowly. A map that misses a tenth of it says so.

    captum's ``IntegratedGradients`` with ``method="riemann_middle"`` gives the same numbers from a
    function of tokens, and a test compares the two. It is not used: the path is a dozen lines that
    ``nib`` needs as well, and captum would be a dependency of every installation.

    Diagnostics: ``clean_cosine``, ``cosine_at_baseline`` and ``completeness_gap``, the sum of the
    map minus their difference, which falls as 1/steps².
    """

    name = "integrated-gradients"
    unit = "cosine"
    summary = "gradients integrated on the path from a baseline (Sundararajan et al., ICML 2017)"
    Options: ClassVar[type[Any]] = IntegratedGradientsOptions
    options: IntegratedGradientsOptions

    def default_layer(self, encoder: Encoder) -> int:
        """The preprocessed input, where the encoder offers it."""
        return input_or_default(encoder)

    def explain(self, side: Side) -> SideScores:
        options = self.options
        found = along_path(
            side,
            options.steps,
            options.max_rows,
            baseline=_mean_baseline(side) if options.baseline == "mean" else None,
            rule="midpoint",
            at="baseline",
        )
        scores, diagnostics = found
        return self.scored(scores, [_warned(entry) for entry in diagnostics])


def _warned(entry: dict[str, Any]) -> dict[str, Any]:
    """The diagnostics of a pair, with a warning where the sum is far from closed."""
    gained, gap = entry["clean_cosine"] - entry["cosine_at_baseline"], entry["completeness_gap"]
    if abs(gap) <= max(_GAP * abs(gained), _LEAST_GAP):
        return entry
    warning = (
        f"the map adds up to {gained + gap:.3g}, and the cosine changes by {gained:.3g} on the "
        "path; more steps= bring them together, sooner from baseline='mean' than from 'zero'"
    )
    return {**entry, "warnings": [*entry["warnings"], warning]}


def _mean_baseline(side: Side) -> Tensor:
    """``(B, N, C)``: the tokens, with the mean of the content tokens in the place of each."""
    import torch

    tokens = side.tokens()
    content = side.grid().content.to(tokens.device)
    rows = [one[own].float().mean(0).to(one) for one, own in zip(tokens, content, strict=True)]
    return torch.where(content[..., None], torch.stack(rows)[:, None], tokens)


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``integrated-gradients``."""
    IntegratedGradients.register(register)
