"""CA-M2IB: Bourigault, Bourigault and Mandic, "Multi-Modal Information Bottleneck Attribution
with Cross-Attention Guidance": as written, and as a variant that cannot degenerate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mmattrib.engine import GUIDANCES, BottleneckOptions, Guidance
from mmattrib.engine.guidance import TEMPERATURE, LiteralAttention, RelevanceGate
from mmattrib.errors import OptionError
from mmattrib.methods.m2ib import BottleneckMethod


@dataclass(frozen=True)
class CAM2IBOptions(BottleneckOptions):
    """Options of ``ca-m2ib``; those not named here are as in :class:`BottleneckOptions`.

    Attributes:
        beta: 1, as M2IB's published demonstration on radiographs. At M2IB's other value, 0.1, one λ
            per token shuts out too little of what does not match.
        mask: one λ per token. A mask per channel too lets the optimiser steer the embedding far
            above the clean cosine by picking channels, and the map then ignores the guide.
        standardise: scale tokens by the input's own root mean square per channel, so that noise
            of σ is as large as what it replaces at any layer, embedding output included.
        antithetic: draw noise in pairs; maps vary less from seed to seed at the same cost.
        guidance: a name in :data:`mmattrib.engine.GUIDANCES`.
        strength: of the gate; 0 is M2IB with a mask per token.
        temperature: of the attention between token embeddings.
    """

    beta: float = 1.0
    mask: str = "token"
    standardise: bool = True
    antithetic: bool = True
    guidance: str = "gate"
    strength: float = 0.8
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance not in GUIDANCES:
            raise OptionError(
                f"unknown guidance {self.guidance!r}; accepted: {', '.join(GUIDANCES)}"
            )
        if not 0 <= self.strength <= 10:
            raise OptionError(f"strength must be from 0 to 10, got {self.strength!r}")
        if not 0 < self.temperature <= 1000:
            raise OptionError(
                f"temperature must be above 0 and at most 1000, got {self.temperature!r}"
            )


class CAM2IB(BottleneckMethod):
    """The working variant: a mask per token, a target that stands still, attention as a gate.

    See :class:`mmattrib.engine.guidance.RelevanceGate`. It costs what M2IB costs as published, 10
    steps of 10 samples.
    """

    name = "ca-m2ib"
    Options: ClassVar[type[Any]] = CAM2IBOptions
    options: CAM2IBOptions
    needs_token_embeddings = True

    def guidance(self) -> Guidance:
        if self.options.guidance == RelevanceGate.name:
            return RelevanceGate(self.options.strength, self.options.temperature)
        return GUIDANCES[self.options.guidance]()


class CAM2IBLiteral(BottleneckMethod):
    """Eqs. (4), (5) and (11) as written; see :class:`mmattrib.engine.guidance.LiteralAttention`.

    Kept to reproduce the paper. Its target can move, and the diagnostics say when it has.
    """

    name = "ca-m2ib-literal"

    def guidance(self) -> Guidance:
        return LiteralAttention()
