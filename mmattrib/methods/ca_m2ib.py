"""CA-M2IB: Bourigault, Bourigault and Mandic, "Multi-Modal Information Bottleneck Attribution
with Cross-Attention Guidance": as written, and as a variant that cannot degenerate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.engine import (
    GUIDANCES,
    BottleneckOptions,
    Guidance,
    TokenStatistics,
    fit_bottleneck,
)
from mmattrib.engine.bottleneck import capacity
from mmattrib.engine.diagnostics import steering_warnings
from mmattrib.engine.guidance import LiteralAttention, RelevanceGate, StartGuidance
from mmattrib.engine.rate import (
    channel_slopes,
    closed_mask,
    expected_embedding,
    pooled,
    rectified_attention,
)
from mmattrib.errors import OptionError
from mmattrib.methods.base import Side, SideScores
from mmattrib.methods.m2ib import BottleneckMethod

SOLVERS = ("closed", "descent")
SLOPES = ("signal", "channel")
RATES = ("central", "uniform")
ATTENDED = "attended"


@dataclass(frozen=True)
class CAM2IBOptions(BottleneckOptions):
    """Options of ``ca-m2ib``; those not named here are as in :class:`BottleneckOptions`.

    The default solver is ``"closed"``; steps, rates, samples, the start of α, mask, noise, target
    and contrast belong to ``"descent"``, which fits eq. (11) by Adam as the papers do and is kept
    for comparison.

    Attributes:
        beta: price of information. It ranks nothing in a map of the closed solver, and sets how
            many bits are bought and how far they gather on the best tokens.
        sigma: at 1.5 rather than the published 1, maps vary less with the seed.
        mask: one λ per token. A mask per channel too lets the optimiser steer the embedding far
            above the clean cosine by picking channels, and the map then ignores the guide.
        standardise: scale tokens by the input's own root mean square per channel; the closed
            solver always does.
        antithetic: draw noise in pairs; the closed solver always does.
        guidance: ``"attended"``: the target is e′ and the guide's embedding with what does not
            match attended away; ``"none"``: e′ alone; for descent also a name in
            :data:`mmattrib.engine.GUIDANCES`.
        solver: ``"closed"`` or ``"descent"``.
        points: rates along the channel at which slopes are taken, one suffix row each.
        guide_points: the same for the guide's tokens, under ``"attended"``.
        evidence: rise of the cosine along the guide's channel from which on the attended guide
            counts in full; below, in proportion.
        draws_behind: noise draws for an embedding behind a mask.
        shared_noise: at each rate, one draw of noise for all tokens instead of one for each.
        slope: ``"channel"``: what a token adds and the noise it replaces; ``"signal"``: the
            former alone.
        rates: where along the channel slopes are taken; ``"central"`` or ``"uniform"``, see
            :func:`mmattrib.engine.rate.channel_rates`.
        pooling: inverse temperature of the attention of the explained tokens among themselves
            that averages slopes over look-alike tokens; 0 for none.
        depth: layers, from the explained one on, whose slopes are averaged (descent: whose fits
            are, with one mask).
        relevance: for descent with ``"gate"`` or ``"start"``: ``"attention"`` between token
            embeddings, or ``"slopes"``.
        strength: of the gate; 0 is M2IB with a mask per token.
    """

    beta: float = 3.0
    sigma: float = 1.5
    mask: str = "token"
    standardise: bool = True
    antithetic: bool = True
    guidance: str = ATTENDED
    solver: str = "closed"
    points: int = 80
    guide_points: int = 32
    evidence: float = 0.2
    draws_behind: int = 8
    shared_noise: bool = True
    slope: str = "channel"
    rates: str = "central"
    pooling: float = 20.0
    depth: int = 1
    relevance: str = "attention"
    strength: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        closed = ("none", ATTENDED)
        descent = tuple(dict.fromkeys((*closed, *GUIDANCES)))
        accepted = closed if self.solver == "closed" else descent
        for name, among in (
            ("solver", SOLVERS),
            ("guidance", accepted),
            ("slope", SLOPES),
            ("rates", RATES),
            ("relevance", ("attention", "slopes")),
        ):
            value = getattr(self, name)
            if value not in among:
                raise OptionError(f"unknown {name} {value!r}; accepted: {', '.join(among)}")
        for name in ("points", "guide_points", "draws_behind", "depth"):
            if not 1 <= getattr(self, name) <= 4096:
                raise OptionError(f"{name} must be from 1 to 4096, got {getattr(self, name)!r}")
        if not 0 <= self.strength <= 10:
            raise OptionError(f"strength must be from 0 to 10, got {self.strength!r}")
        if not 0 < self.evidence <= 2:
            raise OptionError(f"evidence must be above 0 and at most 2, got {self.evidence!r}")
        if not 0 <= self.pooling <= 1000:
            raise OptionError(f"pooling must be from 0 to 1000, got {self.pooling!r}")
        if self.solver == "closed" and (self.beta == 0 or self.gamma == 0):
            raise OptionError(
                "the closed solver needs beta and gamma above 0; use solver='descent'"
            )


class CAM2IB(BottleneckMethod):
    """The working variant: slopes along the channel, cross-attention, and a mask in closed form.

    1. The explained embedding e attends to the guide's tokens: weights are the positive part of
       the slopes of cos(e, g_m′) along the guide's own channel
       (:func:`mmattrib.engine.rate.rectified_attention`). The guide is embedded once more with its
       tokens so weighted, to e″, and Ẽ = normalise(e′ + w e″): eq. (4) with a residual. w in
       [0, 1] is the share of the cosine that the guide's tokens earn (``evidence``), so that a
       guide that has nothing to do with the input is not bent towards it. Nothing is fitted, so
       that Ẽ cannot move towards g(Z).
    2. Slopes of cos(Ẽ, g_m) along the explained side's channel, one per token
       (:func:`mmattrib.engine.rate.channel_slopes`), averaged over look-alike tokens
       (:func:`mmattrib.engine.rate.pooled`).
    3. The mask that solves eq. (11) with the fit linear in λ at those slopes, in closed form
       (:func:`mmattrib.engine.rate.closed_mask`), and its capacity in bits.

    A token that does not raise the match holds exactly 0 bits, and an input that has nothing to do
    with the guide next to none.
    """

    name = "ca-m2ib"
    Options: ClassVar[type[Any]] = CAM2IBOptions
    options: CAM2IBOptions

    def explain(self, side: Side) -> SideScores:
        target = self._target(side)
        if self.options.solver == "descent":
            return self._descend(side, target)
        return self._solve(side, target)

    def guidance(self) -> Guidance:
        """The descent's guidance."""
        options, source = self.options, self._source()
        if options.guidance == RelevanceGate.name:
            return RelevanceGate(options.strength, source=source)
        if options.guidance == StartGuidance.name:
            return StartGuidance(options.alpha_init, source=source)
        return GUIDANCES["none" if options.guidance == ATTENDED else options.guidance]()

    def _source(self) -> str:
        return "given" if self.options.relevance == "slopes" else "attention"

    def _target(self, side: Side) -> Tensor:
        """Ẽ, ``(B, D)``: e′, or e′ and the guide's embedding as the explained input attends to it.

        Without ``side.other`` there is no guide to look into, and Ẽ = e′.
        """
        options, other = self.options, side.other
        if options.guidance != ATTENDED or other is None:
            return side.guide.embedding
        slopes = self._slopes(other, other.guide.embedding, options.guide_points)
        attended = self._behind(other, rectified_attention(slopes, other.grid().content))
        # As much as the guide speaks of the input at all; a wrong guide must not be bent to fit.
        weight = (slopes.sum(-1, keepdim=True) / options.evidence).clamp(0.0, 1.0)
        added = weight * nnf.normalize(attended, dim=-1)
        return nnf.normalize(side.guide.embedding.to(attended) + added, dim=-1)

    def _behind(self, side: Side, kept: Tensor) -> Tensor:
        """The side's embedding behind a mask λ ``(B, N)``, averaged over noise, ``(B, D)``."""
        options = self.options
        return expected_embedding(
            side.tokens(),
            side.suffix,
            kept,
            side.grid().valid,
            side.keys,
            samples=options.draws_behind,
            sigma=options.sigma,
            seed=options.seed,
        )

    def _slopes(self, side: Side, target: Tensor, points: int) -> Tensor:
        """Slopes per token, ``(B, N)``, of ``depth`` layers, pooled; 0 outside the content."""
        options, grid = self.options, side.grid()
        found = torch.stack(
            [
                channel_slopes(
                    at.tokens(),
                    at.suffix,
                    target,
                    grid.valid,
                    side.keys,
                    points=points,
                    sigma=options.sigma,
                    seed=options.seed,
                    shared_noise=options.shared_noise,
                    noise_too=options.slope == "channel",
                    central=options.rates == "central",
                    max_rows=options.max_rows,
                )
                for at in _layers(side, options.depth)
            ]
        ).mean(0)
        if options.pooling > 0:
            found = pooled(found, side.token_embeddings(), grid.content, options.pooling)
        return found.where(grid.content.to(found.device), found.new_zeros(()))

    def _solve(self, side: Side, target: Tensor) -> SideScores:
        options, grid, tokens = self.options, side.grid(), side.tokens()
        valid, content = grid.valid.to(tokens.device), grid.content.to(tokens.device)
        slopes = self._slopes(side, target, options.points)
        # In units of the noise, so that a shut token is the prior itself and holds 0 bits.
        scaled = TokenStatistics.of_inputs(tokens, valid).standardise(tokens.float())
        scaled = scaled / options.sigma
        power = scaled.square().mean(-1)
        alpha = closed_mask(slopes, power, valid, options.beta / options.gamma)
        bits = capacity(alpha, scaled, 1.0).where(content, alpha.new_zeros(())).float()
        return SideScores(bits, self.unit, self._report(side, target, slopes, alpha, bits))

    def _report(
        self, side: Side, target: Tensor, slopes: Tensor, alpha: Tensor, bits: Tensor
    ) -> tuple[dict[str, Any], ...]:
        """Diagnostics: what the solved mask lets the embedding keep, against noise and clean."""
        grid, tokens = side.grid(), side.tokens()
        content = grid.content.to(tokens.device)
        kept = torch.sigmoid(alpha[..., 0]).float()
        with torch.no_grad():
            clean = torch.cat(
                [side.suffix(tokens[i : i + 1], torch.tensor([i])) for i in range(len(side))]
            )
        embeddings = {"clean": clean.float()}
        for name, share in (("start", torch.zeros_like(kept)), ("end", kept)):
            embeddings[name] = self._behind(side, share.where(content, torch.ones_like(share)))
        goals = {"cosine": side.guide.embedding.to(clean), "fit": target.to(clean)}
        columns = {
            f"{goal}_{name}": (embedding * vector).sum(-1).tolist()
            for goal, vector in goals.items()
            for name, embedding in embeddings.items()
        }
        columns["clean_cosine"] = columns.pop("cosine_clean")
        columns["slope_sum"] = slopes.sum(-1).tolist()
        columns["capacity_bits"] = bits.sum(-1).tolist()
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
        return tuple({**row, "warnings": _closed_warnings(row)} for row in rows)

    def _descend(self, side: Side, target: Tensor) -> SideScores:
        """Eq. (11) by Adam, as the papers fit it."""
        options, grid = self.options, side.grid()
        first, *deeper = _layers(side, options.depth)
        guide = replace(side.guide, attended=target)
        if options.contrast > 0 and side.other is not None:
            shut = ~side.other.grid().content  # the guide with nothing in it
            guide = replace(guide, neutral=nnf.normalize(self._behind(side.other, shut), dim=-1))
        given = None
        if (
            options.guidance in (RelevanceGate.name, StartGuidance.name)
            and self._source() == "given"
        ):
            given = self._slopes(side, target, options.points)
        fitted = fit_bottleneck(
            first.tokens(),
            first.suffix,
            guide,
            grid.valid,
            grid.content,
            side.keys,
            options,
            self.guidance(),
            explained_tokens=side.token_embeddings(),
            relevance=given,
            deeper=[(at.tokens(), at.suffix) for at in deeper],
        )
        return SideScores(fitted.capacity, self.unit, fitted.diagnostics)


def _closed_warnings(numbers: dict[str, float]) -> list[str]:
    """Reasons not to trust a map of the closed solver, whose target cannot move."""
    found = steering_warnings(numbers)
    if numbers["capacity_bits"] == 0:
        found.append(
            "no part of the input raises its match with the guide, so that the map is 0 bits "
            "everywhere"
        )
    return found


def _layers(side: Side, depth: int) -> list[Side]:
    """The side at its own layer and the next ``depth − 1``, short of the last block's output.

    Raises:
        OptionError: a further layer has other tokens.
    """
    last = max(side.layer, side.encoder.num_layers - 2)
    sides = [side.at(layer) for layer in range(side.layer, min(side.layer + depth - 1, last) + 1)]
    counts = {at.grid().valid.shape[1] for at in sides}
    if len(counts) > 1:
        raise OptionError(
            f"depth {depth} spans layers with {' and '.join(map(str, sorted(counts)))} tokens; one "
            "mask needs the same tokens in all: use depth=1"
        )
    return sides


class CAM2IBLiteral(BottleneckMethod):
    """Eqs. (4), (5) and (11) as written; see :class:`mmattrib.engine.guidance.LiteralAttention`.

    Kept to reproduce the paper. Its target can move, and the diagnostics say when it has.
    """

    name = "ca-m2ib-literal"

    def guidance(self) -> Guidance:
        return LiteralAttention()
