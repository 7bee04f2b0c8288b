"""M2IB: Wang, Rudner and Wilson, "Visual Explanations of Image-Text Representations via
Multi-Modal Information Bottleneck Attribution", NeurIPS 2023; eq. (3) of CA-M2IB.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.methods.base import Method, MethodOptions, SeededOptions, Side, SideScores, option
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from mmattrib.engine import BottleneckOptions, Guidance
    from mmattrib.plugins.hookspecs import Register


@dataclass(frozen=True)
class FitOptions(MethodOptions):
    """How a bottleneck is fitted by descent; values as published in M2IB.

    Attributes:
        beta: price of information, β / γ of eq. (11): only their ratio matters.
        sigma: standard deviation of the noise that replaces a token, eq. (5).
        steps: forward passes; there is one update less.
        measure_end: whether the match behind the final mask is measured, in the last of the forward
            passes, on which no map depends. Without, that pass is left out, its diagnostics are
            None, and nothing warns of collapse or steering.
        learning_rate: Adam's rate for the mask's logits α.
        alpha_init: α at the start; at 5, 99.3 % of each token passes.
        max_rows: most rows (samples) of each pair in one call of the model; bounds memory.
    """

    beta: float = option(0.1, least=0)
    sigma: float = option(1.0, above=0)
    steps: int = option(10, least=2, most=10_000)
    learning_rate: float = option(1.0, above=0)
    alpha_init: float = option(5.0, least=-80, most=80)
    max_rows: int = option(64, least=1, most=65_536, resource=True)
    measure_end: bool = option(True)

    def engine(self, **more: Any) -> BottleneckOptions:
        """The engine's options: these and some more; what it does not know is left out."""
        from mmattrib.engine import BottleneckOptions

        known = {each.name for each in fields(BottleneckOptions)}
        own = {name: value for name, value in asdict(self).items() if name in known}
        return BottleneckOptions(**{**own, **more})


@dataclass(frozen=True)
class M2IBOptions(FitOptions, SeededOptions):
    """Options of ``m2ib``; the others as in :class:`FitOptions`.

    Attributes:
        samples: draws of noise per step.
    """

    samples: int = option(10, least=1, most=4096)


class BottleneckMethod(Method):
    """A method whose scores are the capacity of a fitted bottleneck, in bits per token.

    A subclass says which options and which guidance.
    """

    unit = "bits"
    Options: ClassVar[type[Any]] = M2IBOptions
    options: FitOptions

    def guidance(self) -> Guidance:
        """How the other modality enters."""
        from mmattrib.engine.guidance import NoGuidance

        return NoGuidance()

    def engine_options(self) -> BottleneckOptions:
        """How the engine fits."""
        return self.options.engine()

    def fit(self, side: Side, **more: Any) -> SideScores:
        """Fit the bottleneck of each pair.

        Args:
            side: the explained side.
            **more: keywords of :func:`mmattrib.engine.fit_bottleneck`; ``guide`` in place of the
                side's own.
        """
        from mmattrib.engine import fit_bottleneck

        grid = side.grid()
        fitted = fit_bottleneck(
            side.tokens(),
            side.suffix,
            more.pop("guide", side.guide),
            grid.valid,
            grid.content,
            side.keys,
            self.engine_options(),
            self.guidance(),
            clean=side.behind(),  # the check of the model has run it
            together=side.together,
            **more,
        )
        return self.scored(fitted.capacity, fitted.diagnostics)

    def explain(self, side: Side) -> SideScores:
        return self.fit(side)


class M2IB(BottleneckMethod):
    """M2IB as published: a mask per token and channel, β 0.1, 10 steps of Adam, 10 samples."""

    name = "m2ib"
    summary = "multi-modal information bottleneck as published (Wang et al., NeurIPS 2023)"


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``m2ib``."""
    M2IB.register(register)
