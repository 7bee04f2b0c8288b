"""Research methods: a bottleneck with one λ per token, fitted by descent, under each guidance.

What ``ca-m2ib`` was compared with; `mmattrib methods --all` lists them. A method's options are
those that act under its guidance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.errors import OptionError
from mmattrib.methods.base import SeededOptions, Side, SideScores, option
from mmattrib.methods.ca_m2ib import (
    COUNTS,
    CAM2IBOptions,
    attended_target,
    embedding_behind,
    layers_from,
    token_slopes,
)
from mmattrib.methods.m2ib import BottleneckMethod, FitOptions
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from mmattrib.engine import BottleneckOptions, Guidance
    from mmattrib.plugins.hookspecs import Register

SLOPES = "slopes"


@dataclass(frozen=True)
class MaskOptions(FitOptions):
    """Options that every descent has; the others as in :class:`FitOptions`.

    Attributes:
        mask: one λ per ``"token"``, per ``"group"`` of channels or per ``"token_channel"``, as
            published.
        standardise: scale tokens by the input's own root mean square per channel before noise is
            mixed in.
        target: ``"embedding"``, or ``"capped"``: the fit counts up to that of the clean embedding,
            so that steering above it earns nothing.
    """

    beta: float = option(1.0, least=0)
    mask: str = option("token", choices=("token", "group", "token_channel"))
    standardise: bool = option(True)
    target: str = option("embedding", choices=("embedding", "capped"))


@dataclass(frozen=True)
class MeanOptions(MaskOptions):
    """Options of ``descent-mean``; the others as in :class:`MaskOptions`.

    Attributes:
        depth: layers, from the explained one on, whose fits are averaged with one mask; more than
            one needs a mask per token.
    """

    depth: int = option(1, **COUNTS)


@dataclass(frozen=True)
class SampledOptions(MaskOptions, SeededOptions):
    """Options of a descent that draws noise; the others as in :class:`MaskOptions`.

    Attributes:
        samples: draws of noise per step.
        antithetic: draw noise in pairs ε, −ε; needs two samples or more.
        contrast: weight of the cosine with the empty guide (every part of it replaced by noise),
            subtracted from the fit.
    """

    samples: int = option(10, least=1, most=4096)
    antithetic: bool = option(True)
    contrast: float = option(0.0, least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.antithetic and self.samples == 1:
            raise OptionError(
                "antithetic=True draws noise in pairs and needs samples of 2 or more, got 1; "
                "set antithetic=False"
            )


@dataclass(frozen=True)
class DescentOptions(SampledOptions):
    """Options of ``descent``; the others as in :class:`SampledOptions`.

    Attributes:
        depth: layers, from the explained one on, whose fits are averaged with one mask; more than
            one needs a mask per token.
    """

    depth: int = option(1, **COUNTS)


@dataclass(frozen=True)
class LiteralDescentOptions(SampledOptions):
    """Options of ``descent-literal``; the others as in :class:`SampledOptions`.

    Attributes:
        attention_learning_rate: Adam's rate for the attention's weights.
    """

    attention_learning_rate: float = option(0.01, above=0)


@dataclass(frozen=True)
class ResidualOptions(DescentOptions):
    """Options of ``descent-residual``; the others as in :class:`DescentOptions`.

    Attributes:
        weight: of the attended tokens beside the guide's embedding; 0 is ``descent``.
    """

    weight: float = option(1.0, least=0)


@dataclass(frozen=True)
class RelevanceOptions(DescentOptions):
    """Options of what takes relevance from the guide; the others as in :class:`DescentOptions`.

    Attributes:
        relevance: ``"attention"`` between token embeddings, or ``"slopes"``, as ``ca-m2ib`` takes
            them by default.
    """

    relevance: str = option("attention", choices=("attention", SLOPES))


@dataclass(frozen=True)
class GateOptions(RelevanceOptions):
    """Options of ``descent-gate``; the others as in :class:`RelevanceOptions`.

    Attributes:
        strength: nats of log β per standard deviation of relevance; 0 is ``descent``.
    """

    strength: float = option(0.8, least=0, most=10)


@dataclass(frozen=True)
class StartOptions(RelevanceOptions):
    """Options of ``descent-start``; the others as in :class:`RelevanceOptions`.

    Attributes:
        alpha_init: largest magnitude of α at the start.
        steepness: how fast α at the start rises with relevance; at 1.5, one standard deviation
            starts at 0.64 of ``alpha_init``.
    """

    steepness: float = option(1.5, least=0)


class Descent(BottleneckMethod):
    """Eq. (11) by Adam towards the guide's embedding, with a mask per token."""

    name = "descent"
    research = True
    summary = "bottleneck fitted by gradient descent, one mask value per token"
    Options: ClassVar[type[Any]] = DescentOptions
    options: Any

    def explain(self, side: Side) -> SideScores:
        return self.fit(side, **self.extras(side))

    def extras(self, side: Side) -> dict[str, Any]:
        """Keywords of the fit: further layers, and the guide beside an empty one."""
        found: dict[str, Any] = {}
        if (depth := getattr(self.options, "depth", 1)) > 1:
            found["deeper"] = [(at.tokens(), at.suffix) for at in layers_from(side, depth)[1:]]
        if getattr(self.options, "contrast", 0.0) > 0 and side.other is not None:
            from torch.nn import functional as nnf

            shut = ~side.other.grid().content  # the guide with nothing in it
            empty = embedding_behind(side.other, shut, self.closed())
            found["guide"] = side.guide.against(nnf.normalize(empty, dim=-1))
        return found

    def closed(self) -> CAM2IBOptions:
        """How ``ca-m2ib`` takes what this method borrows from it: at this noise, around zero."""
        own = self.options
        return CAM2IBOptions(
            seed=own.seed,
            prior="zero",
            sigma=own.sigma,
            slope="channel",
            pooled="whole",
            pooling=20.0,
            max_rows=own.max_rows,
            depth=getattr(own, "depth", 1),
        )


class DescentMean(Descent):
    """The mean of the noisy tokens goes through the model: no noise is drawn."""

    name = "descent-mean"
    summary = (
        "bottleneck fitted by gradient descent, with the mean of the noisy tokens for drawn noise"
    )
    Options: ClassVar[type[Any]] = MeanOptions

    def engine_options(self) -> BottleneckOptions:
        return self.options.engine(noise="mean")  # type: ignore[no-any-return]


class DescentLiteral(Descent):
    """The paper's learned attention, with a mask per token."""

    name = "descent-literal"
    summary = "bottleneck fitted by gradient descent towards a learned attention to the other input"
    Options: ClassVar[type[Any]] = LiteralDescentOptions

    def guidance(self) -> Guidance:
        from mmattrib.engine.guidance import LiteralAttention

        return LiteralAttention()


class DescentResidual(Descent):
    """See :class:`mmattrib.engine.guidance.ResidualAttention`."""

    name = "descent-residual"
    summary = (
        "bottleneck fitted by gradient descent towards the other input and its matching tokens"
    )
    Options: ClassVar[type[Any]] = ResidualOptions

    def guidance(self) -> Guidance:
        from mmattrib.engine.guidance import ResidualAttention

        return ResidualAttention(self.options.weight)


class DescentSelfQuery(Descent):
    """See :class:`mmattrib.engine.guidance.SelfQuery`."""

    name = "descent-self-query"
    summary = (
        "bottleneck fitted by gradient descent towards what the masked input finds in the other"
    )

    def guidance(self) -> Guidance:
        from mmattrib.engine.guidance import SelfQuery

        return SelfQuery()


class DescentAttended(Descent):
    """Towards the target of ``ca-m2ib``, taken with its defaults."""

    name = "descent-attended"
    summary = "bottleneck fitted by gradient descent towards the fixed target of ca-m2ib"

    def extras(self, side: Side) -> dict[str, Any]:
        found = super().extras(side)
        guide = found.get("guide", side.guide)
        return {**found, "guide": guide.towards(attended_target(side, self.closed()))}


class DescentGate(Descent):
    """See :class:`mmattrib.engine.guidance.RelevanceGate`."""

    name = "descent-gate"
    summary = "bottleneck fitted by gradient descent, cheap where tokens resemble the other input"
    Options: ClassVar[type[Any]] = GateOptions

    def guidance(self) -> Guidance:
        from mmattrib.engine.guidance import RelevanceGate

        return RelevanceGate(self.options.strength, source=self.source())

    def source(self) -> str:
        """Where the engine takes relevance from."""
        return "given" if self.options.relevance == SLOPES else "attention"

    def extras(self, side: Side) -> dict[str, Any]:
        found = super().extras(side)
        if self.options.relevance != SLOPES:
            return {**found, "explained_tokens": side.token_embeddings()}
        closed = self.closed()
        slopes = token_slopes(side, side.guide.embedding, closed.points, closed)
        return {**found, "relevance": slopes}


class DescentStart(DescentGate):
    """See :class:`mmattrib.engine.guidance.StartGuidance`."""

    name = "descent-start"
    summary = "bottleneck fitted by gradient descent, from a mask open where tokens match the other"
    Options: ClassVar[type[Any]] = StartOptions

    def guidance(self) -> Guidance:
        from mmattrib.engine.guidance import StartGuidance

        return StartGuidance(self.options.alpha_init, self.options.steepness, source=self.source())


@hookimpl
def register_methods(register: Register) -> None:
    """Register the descents."""
    for method in (
        Descent,
        DescentMean,
        DescentLiteral,
        DescentResidual,
        DescentSelfQuery,
        DescentAttended,
        DescentGate,
        DescentStart,
    ):
        method.register(register)
