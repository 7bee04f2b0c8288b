"""M2IB: Wang, Rudner and Wilson, "Visual Explanations of Image-Text Representations via
Multi-Modal Information Bottleneck Attribution", NeurIPS 2023; eq. (3) of CA-M2IB.
"""

from __future__ import annotations

from typing import Any, ClassVar

from mmattrib.engine import BottleneckOptions, Guidance, TokenStatistics, fit_bottleneck
from mmattrib.engine.guidance import NoGuidance
from mmattrib.methods.base import Method, Side, SideScores


class BottleneckMethod(Method):
    """A method whose scores are the capacity of a fitted bottleneck, in bits per token.

    A subclass says which options and which guidance.
    """

    unit = "bits"
    Options: ClassVar[type[Any]] = BottleneckOptions
    options: BottleneckOptions

    def guidance(self) -> Guidance:
        """How the other modality enters."""
        return NoGuidance()

    def statistics(self, side: Side) -> TokenStatistics | None:
        """What ``standardise`` uses; None for the input's own."""
        return None

    def explain(self, side: Side) -> SideScores:
        grid = side.grid()
        fitted = fit_bottleneck(
            side.tokens(),
            side.suffix,
            side.guide,
            grid.valid,
            grid.content,
            side.keys,
            self.options,
            self.guidance(),
            statistics=self.statistics(side) if self.options.standardise else None,
        )
        return SideScores(fitted.capacity, self.unit, fitted.diagnostics)


class M2IB(BottleneckMethod):
    """As published: a mask per token and channel, β 0.1, 10 steps, 10 samples, rate 1."""

    name = "m2ib"
