"""NIB, "Narrowing Information Bottleneck" (ICLR 2025), and its one-step case.

As its authors code it, NIB is integrated gradients at a layer with a zero baseline: no noise, no
fitting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.methods.base import Method, MethodOptions, Side, SideScores, option
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.engine.path import Rule
    from mmattrib.plugins.hookspecs import Register


@dataclass(frozen=True)
class NIBOptions(MethodOptions):
    """Options of ``nib``.

    Attributes:
        steps: points on the path from zero to the tokens (NIB's code: 10).
        max_rows: most of them in one call of the suffix, for each pair; bounds memory.
    """

    steps: int = option(10, least=1, most=10_000)
    max_rows: int = option(64, least=1, most=65_536, resource=True)


class NIB(Method):
    """A = mean_i h ⊙ ∂cos(f(i/n · h), e′)/∂(i/n · h), summed over channels; signed, in cosine.

    Diagnostics: ``clean_cosine``, ``cosine_at_zero`` and ``completeness_gap``, the sum of the map
    minus their difference, which tends to zero with more steps.
    """

    name = "nib"
    unit = "cosine"
    summary = "NIB (ICLR 2025): integrated gradients of the cosine at a layer, from zero tokens"
    Options: ClassVar[type[Any]] = NIBOptions
    options: NIBOptions

    def explain(self, side: Side) -> SideScores:
        return self.scored(*along_path(side, self.options.steps, self.options.max_rows))


class GradientTimesInput(Method):
    """The gradient of the cosine at the tokens, times the tokens: NIB with one step."""

    name = "gradient-x-input"
    unit = "cosine"
    summary = "gradient of the cosine times the tokens of a layer"

    def explain(self, side: Side) -> SideScores:
        return self.scored(*along_path(side, 1, 1))


def along_path(
    side: Side,
    steps: int,
    max_rows: int,
    *,
    baseline: Tensor | None = None,
    rule: Rule = "right",
    at: str = "zero",
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Integrated gradients of a side, with what they must add up to.

    Args:
        side: the explained side.
        steps: points on the path.
        max_rows: most of them in one call of the suffix.
        baseline: ``(B, N, C)``, where the path starts; zero if None.
        rule: as for :func:`mmattrib.engine.path_attribution`.
        at: what the diagnostics call the start, as in ``cosine_at_zero``.

    Returns:
        Scores ``(B, N)`` in cosine, 0 at padding, and diagnostics.
    """
    import torch

    from mmattrib.engine import path_attribution

    tokens, target = side.tokens(), side.guide.embedding
    scores = path_attribution(
        tokens, side.suffix, target, steps=steps, max_rows=max_rows, baseline=baseline, rule=rule,
        together=side.together,
    )  # fmt: skip
    valid = side.grid().valid.to(scores.device)
    scores = scores.where(valid, scores.new_zeros(()))
    start = torch.zeros_like(tokens) if baseline is None else baseline.to(tokens)
    clean, first = side.cosines(tokens), side.cosines(start)
    diagnostics = [
        {
            "clean_cosine": float(clean[row]),
            f"cosine_at_{at}": float(first[row]),
            "completeness_gap": float(scores[row].sum() - (clean[row] - first[row])),
            "warnings": [],
        }
        for row in range(len(scores))
    ]
    return scores, diagnostics


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``nib`` and its one-step case."""
    NIB.register(register)
    GradientTimesInput.register(register)
