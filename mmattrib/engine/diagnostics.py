"""Diagnostics of a fitted bottleneck, and the warnings that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmattrib.errors import repr_of

COLLAPSE_RISE = 0.2
"""A fit that rises by less than this (a cosine) cannot have collapsed."""

COLLAPSE_SHARE = 0.5
"""Least share of the fit's rise that cos(g(Z), e′) must make too. With a fixed target it makes
all of it; where Θ_A carries the target to g(Z) it makes next to none."""

STEERING_MARGIN = 0.25
"""Most that cos(g(Z), e′) may exceed the clean cosine. Shutting out what does not match raises it
a little; a rise as large as this comes from picking channels, whatever the guide."""


@dataclass(frozen=True)
class Step:
    """One forward pass of b pairs; every field is ``(b,)`` on the CPU.

    Attributes:
        fit: mean over noise samples of cos(Ẽ_m′, g(Z)).
        cosine: mean over noise samples of cos(e′, g(Z)).
        nats: mean KL over valid tokens and channels, without any factor per token.
        loss: what the optimiser minimises, β · KL − γ · fit, where the fit is capped and less the
            contrast if the options ask for it.
    """

    fit: Tensor
    cosine: Tensor
    nats: Tensor
    loss: Tensor

    __repr__ = repr_of()


def summarise(
    trace: Sequence[Step], pair: int, clean_cosine: float, capacity_bits: float, ended: bool = True
) -> dict[str, Any]:
    """Diagnostics of one pair, JSON values only.

    Args:
        trace: every step, in order.
        pair: which of the b pairs.
        clean_cosine: cosine of the two embeddings without a bottleneck.
        capacity_bits: sum over valid tokens.
        ended: whether the last step is that of the final mask; if not, what it would tell is None.
    """
    first, last = trace[0], trace[-1] if ended else None
    numbers = {
        "clean_cosine": clean_cosine,
        "cosine_start": float(first.cosine[pair]),
        "cosine_end": None if last is None else float(last.cosine[pair]),
        "fit_start": float(first.fit[pair]),
        "fit_end": None if last is None else float(last.fit[pair]),
        "capacity_bits": capacity_bits,
    }
    losses = [float(step.loss[pair]) for step in trace]
    return {**numbers, "losses": losses, "warnings": warnings_for(numbers, losses)}


def warnings_for(numbers: Mapping[str, float | None], losses: Sequence[float]) -> list[str]:
    """Sentences that say why a map should not be trusted; empty if nothing is wrong.

    Without ``cosine_end`` and ``fit_end`` there is nothing to see of collapse and of steering.
    """
    known = {name: value for name, value in numbers.items() if value is not None}
    if not all(math.isfinite(value) for value in (*known.values(), *losses)):
        return [
            "the loss became infinite or not a number, so the map is that of the last finite step; "
            "try standardise=True, or float32 weights"
        ]
    if not {"cosine_end", "fit_end"} <= known.keys():
        return []
    found = []
    rise = known["fit_end"] - known["fit_start"]
    gain = known["cosine_end"] - known["cosine_start"]
    if rise >= COLLAPSE_RISE and gain < COLLAPSE_SHARE * rise:
        found.append(
            f"the guidance changed its own target (collapse): the fit rose by {rise:.2f} while the "
            f"cosine with the guide's embedding changed by {gain:+.2f}; the map need not depend on "
            "the guide"
        )
    return found + steering_warnings(known)


def steering_warnings(numbers: Mapping[str, float]) -> list[str]:
    """The warning that a mask steers the embedding, if it does: see :data:`STEERING_MARGIN`."""
    excess = numbers["cosine_end"] - numbers["clean_cosine"]
    # Where noise alone is above the clean cosine, it is not the mask that put it there.
    gain = numbers["cosine_end"] - numbers["cosine_start"]
    if min(excess, gain) <= STEERING_MARGIN:
        return []
    return [
        f"the bottleneck steered the embedding: its cosine with the guide ended {excess:.2f} "
        f"above the clean {numbers['clean_cosine']:.2f}; the map need not depend on the guide"
    ]
