"""Options of the bottleneck, with their defaults' sources."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from mmattrib.engine.bottleneck import mask_shape
from mmattrib.errors import OptionError, brief

NOISES = ("sampled", "mean")
TARGETS = ("embedding", "capped")


@dataclass(frozen=True)
class BottleneckOptions:
    """How a bottleneck is fitted. Defaults are M2IB's (Wang et al. 2023) unless said otherwise.

    Attributes:
        beta: β_m of eq. (11), weight of the compression (M2IB: 0.1 on natural images).
        gamma: γ_m of eq. (11), weight of the fit (M2IB has none: 1).
        sigma: σ_m of eq. (5), standard deviation of the noise (M2IB: 1).
        steps: forward passes; the capacity is read in the last one, so there are ``steps − 1``
            updates, as in M2IB's code (10). The last is left out if not ``measure_end``.
        learning_rate: Adam's rate for α (M2IB, CA-M2IB section 4: 1).
        attention_learning_rate: Adam's rate for Θ_A. The papers give none; at a rate of 1 the
            first step would overwrite weights of scale 1/√D, so 0.01.
        samples: S, noise samples per step (M2IB: 10 copies of the input).
        alpha_init: α at the start (IBA, Schulz et al. 2020: 5, λ = 0.993).
        mask: a name in :data:`mmattrib.engine.bottleneck.MASKS` (published: one per token and
            channel).
        standardise: scale tokens before noise is mixed in (IBA does; M2IB does not).
        antithetic: draw noise in pairs ε, −ε.
        seed: of the noise and of Θ_A's start.
        max_rows: most rows (samples) of each pair in one call of the suffix; bounds memory.
        noise: ``"sampled"``, or ``"mean"``: the suffix sees E[Z] = λ ⊙ R, which is exact to zeroth
            order in the noise, in one row per step whatever ``samples`` says. The compression is
            that of the noisy bottleneck all the same.
        target: ``"embedding"``, the guidance's own, or ``"capped"``: a pair's mean fit counts up to
            that of its clean embedding, so that exceeding it brings no gain.
        contrast: weight of cos(g(Z), ē), subtracted from the fit; ē is the embedding of a guide
            that says nothing (:attr:`mmattrib.engine.guidance.Guide.neutral`).
        measure_end: whether the fit behind the final mask is measured, a forward pass that no map
            depends on. Without, the diagnostics have None for what it would tell, and the warnings
            that follow from it cannot be given.
    """

    beta: float = 0.1
    gamma: float = 1.0
    sigma: float = 1.0
    steps: int = 10
    learning_rate: float = 1.0
    attention_learning_rate: float = 0.01
    samples: int = 10
    alpha_init: float = 5.0
    mask: str = "token_channel"
    standardise: bool = False
    antithetic: bool = False
    seed: int = 0
    max_rows: int = 64
    noise: str = "sampled"
    target: str = "embedding"
    contrast: float = 0.0
    measure_end: bool = True

    def __post_init__(self) -> None:
        mask_shape(self.mask)
        for name in ("sigma", "learning_rate", "attention_learning_rate"):
            value = _number(self, name)
            _require(value > 0, name, "above 0", value)
        for name in ("beta", "gamma", "contrast"):
            value = _number(self, name)
            _require(value >= 0, name, "0 or more", value)
        value = _number(self, "alpha_init")
        _require(abs(value) <= 80, "alpha_init", "from -80 to 80", value)
        _whole(self, "seed")
        for name in ("steps", "samples", "max_rows"):
            count = _whole(self, name)
            _require(count >= 1, name, "1 or more", count)
        _require(
            isinstance(self.measure_end, bool), "measure_end", "True or False", self.measure_end
        )
        for name, accepted in (("noise", NOISES), ("target", TARGETS)):
            value = getattr(self, name)
            _require(value in accepted, name, " or ".join(map(repr, accepted)), value)

    @property
    def draws(self) -> int:
        """Rows per pair and step."""
        return 1 if self.noise == "mean" else self.samples


def _number(options: BottleneckOptions, name: str) -> float:
    value = getattr(options, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    good = number and abs(value) <= sys.float_info.max
    _require(good, name, "a finite number", value)
    return float(value)


def _whole(options: BottleneckOptions, name: str) -> int:
    value = getattr(options, name)
    good = isinstance(value, int) and not isinstance(value, bool)
    _require(good, name, "a whole number", value)
    return int(value)


def _require(good: bool, name: str, accepted: str, value: object) -> None:
    if not good:
        raise OptionError(f"{name} must be {accepted}, got {brief(value)}")
