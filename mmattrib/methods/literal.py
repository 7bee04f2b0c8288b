"""CA-M2IB as written: Bourigault, Bourigault and Mandic, "Multi-Modal Information Bottleneck
Attribution with Cross-Attention Guidance".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.methods.base import option
from mmattrib.methods.m2ib import BottleneckMethod, M2IBOptions
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from mmattrib.engine import Guidance
    from mmattrib.plugins.hookspecs import Register


@dataclass(frozen=True)
class LiteralOptions(M2IBOptions):
    """Options of ``ca-m2ib-literal``; the others as in M2IB.

    Attributes:
        attention_learning_rate: Adam's rate for the attention's weights. The paper gives none; at
            a rate of 1 the first step would overwrite weights of scale 1/√D.
    """

    attention_learning_rate: float = option(0.01, above=0)


class CAM2IBLiteral(BottleneckMethod):
    """Eqs. (4), (5) and (11) as written; see :class:`mmattrib.engine.guidance.LiteralAttention`.

    Kept to reproduce the paper. Its target can move, and the diagnostics say when it has.
    """

    name = "ca-m2ib-literal"
    summary = "CA-M2IB as its paper writes it: M2IB with a cross-attention fitted for each input"
    Options: ClassVar[type[Any]] = LiteralOptions
    options: LiteralOptions

    def guidance(self) -> Guidance:
        from mmattrib.engine.guidance import LiteralAttention

        return LiteralAttention()


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``ca-m2ib-literal``."""
    CAM2IBLiteral.register(register)
