"""``ca-m2ib``: after Bourigault, Bourigault and Mandic, "Multi-Modal Information Bottleneck
Attribution with Cross-Attention Guidance", solved in closed form towards a fixed target.

``literal`` has the paper's equations as written, ``descent`` this one fitted by descent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.errors import OptionError
from mmattrib.methods.base import Method, SeededOptions, Side, SideScores, option
from mmattrib.methods.options import unset
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.engine import TokenStatistics
    from mmattrib.plugins.hookspecs import Register

ATTENDED = "attended"
POOLED = {"none": 0.0, "half": 0.5, "whole": 1.0}
"""Share of a token's slope that is averaged over similar tokens. Averaged whole, a place inside of
a thing, which resembles its neighbours, may fall behind one that resembles nothing."""

COUNTS: dict[str, Any] = {"least": 1, "most": 4096}
ROUNDING = 1e-4
"""By how much a share that was reached may fall short when measured again in a batch."""


@dataclass(frozen=True)
class CAM2IBOptions(SeededOptions):
    """Options of ``ca-m2ib``.

    Attributes:
        beta: price of information, β / γ of eq. (11): only their ratio matters. It hardly
            changes which tokens rank first, and sets how many bits a map holds and how
            concentrated it is.
        keep: in place of β: the share of the match, of the clean cosine with the guide above that
            of noise, that is kept behind the mask. The price is found for each pair; then the bits
            of a map are those that suffice for this share of the match.
        prior: what the noise looks like, per channel: ``"input"``: what the input's own
            tokens have in common, and their spread around it; ``"zero"``: zero, and their root
            mean square.
        sigma: standard deviation of the noise in units of that, eq. (5).
        guidance: ``"attended"``: the target is e′ plus the guide's embedding with its tokens
            weighted by how much each raises the match; ``"none"``: e′ alone.
        guide_points: as ``points``, for the guide's tokens.
        evidence: rise of the cosine along the guide's channel from which on the attended guide
            counts in full; below, in proportion.
        points: rates along the channel at which slopes are taken, one row of the model each.
        slope: ``"signal"``: what a token adds to the mean of the noise; ``"channel"``: that, and
            the noise that it replaces.
        rates: where along the channel slopes are taken: ``"uniform"``, evenly spread;
            ``"central"``, fewer near pure noise and near the clean tokens.
        shared_noise: at each rate, one draw of noise for all tokens instead of one for each.
        pooled: how much of each token's slope is averaged over similar tokens, by attention of the
            explained tokens among themselves: ``"none"``, ``"half"`` or ``"whole"`` of it.
        pooling: inverse temperature of that attention.
        depth: layers, from the explained one on, whose slopes are averaged.
        draws_behind: noise draws for an embedding behind a mask.
        max_rows: most rows of each pair in one call of the model; bounds memory.
    """

    beta: float = option(3.0, above=0, only={"keep": (None,)})
    keep: float | None = unset(float, above=0, most=1)
    prior: str = option("input", choices=("input", "zero"))
    sigma: float = option(1.0, above=0)
    guidance: str = option(ATTENDED, choices=("none", ATTENDED))
    guide_points: int = option(32, only={"guidance": (ATTENDED,)}, **COUNTS)
    evidence: float = option(0.2, above=0, most=2, only={"guidance": (ATTENDED,)})
    points: int = option(80, **COUNTS)
    slope: str = option("signal", choices=("signal", "channel"))
    rates: str = option("central", choices=("central", "uniform"))
    shared_noise: bool = option(True)
    pooled: str = option("half", choices=tuple(POOLED))
    pooling: float = option(10.0, above=0, most=1000, only={"pooled": ("half", "whole")})
    depth: int = option(1, **COUNTS)
    draws_behind: int = option(8, **COUNTS)
    max_rows: int = option(20, least=1, most=65_536, resource=True)


class CAM2IB(Method):
    """CA-M2IB with a fixed target and a mask in closed form: the default method.

    1. The explained embedding e attends to the guide's tokens: weights are the positive part of
       the slopes of cos(e, g_m′) along the guide's own channel
       (:func:`mmattrib.engine.rate.rectified_attention`). The guide is embedded once more with its
       tokens so weighted, to e″, and Ẽ = normalise(e′ + w e″): eq. (4) with a residual. w in
       [0, 1] grows with how much the guide's tokens raise the cosine (``evidence``): the target of
       a guide that has nothing to do with the input does not move towards the input. Nothing is
       fitted, so Ẽ cannot move towards g(Z).
    2. Slopes of cos(Ẽ, g_m) along the explained side's channel, one per token
       (:func:`mmattrib.engine.rate.channel_slopes`), averaged over similar tokens
       (:func:`mmattrib.engine.rate.pooled`).
    3. The mask that solves eq. (11) with the fit linear in λ at those slopes, in closed form
       (:func:`mmattrib.engine.rate.closed_mask`), and its capacity in bits. The price is ``beta``,
       the same for every pair; or, with ``keep``, the highest at which the embedding behind the
       mask keeps that share of the match (:func:`mmattrib.engine.price.prices_that_keep`).

    With ``keep`` the bits mean: this many suffice for the stated share of the match. They need not
    be the fewest: which tokens they are spent on follows from the linear fit; the share is measured
    under ``draws_behind`` draws of noise, and other draws give another by their chance. Where the
    clean cosine is not above noise there is no match to keep: 0 bits, and a warning.

    Diagnostics: ``clean_cosine``; ``cosine_start`` and ``cosine_end``, behind noise and behind the
    mask, and the same of the fit, cos(Ẽ, ·); ``kept``, the share of the match above noise that the
    mask keeps, None where there is none; ``price``, None where nothing is bought at any;
    ``slope_sum``; ``capacity_bits``.

    A token that does not raise the match holds exactly 0 bits, and an input that has nothing to do
    with the guide next to none.
    """

    name = "ca-m2ib"
    unit = "bits"
    summary = (
        "CA-M2IB in closed form: information bottleneck guided by cross-attention (the default)"
    )
    Options: ClassVar[type[Any]] = CAM2IBOptions
    options: CAM2IBOptions

    def explain(self, side: Side) -> SideScores:
        from mmattrib.engine import closed_mask
        from mmattrib.engine.bottleneck import capacity

        options, grid, tokens = self.options, side.grid(), side.tokens()
        target = attended_target(side, options)
        slopes = token_slopes(side, target, options.points, options)
        valid, content = grid.valid.to(tokens.device), grid.content.to(tokens.device)
        # In units of the noise, so that a shut token is the prior itself and holds 0 bits.
        scaled = prior_of(side, options).standardise(tokens.float()) / options.sigma
        power = scaled.square().mean(-1)
        prices = self._prices(side, slopes, power)
        alpha = closed_mask(slopes, power, valid, prices[:, None])
        bits = capacity(alpha, scaled, 1.0).where(content, alpha.new_zeros(())).float()
        return self.scored(bits, self._report(side, target, slopes, prices, alpha, bits))

    def _prices(self, side: Side, slopes: Tensor, power: Tensor) -> Tensor:
        """One price for each pair, ``(B,)`` float64; ∞ where nothing is bought."""
        import torch

        from mmattrib.engine import prices_that_keep

        options, grid = self.options, side.grid()
        if options.keep is None:
            return torch.full_like(slopes[:, 0], options.beta, dtype=torch.float64)
        return prices_that_keep(
            side.tokens(),
            side.suffix,
            side.guide.embedding,
            slopes,
            power,
            grid.valid.to(slopes.device),
            grid.content,
            side.keys,
            keep=options.keep,
            samples=options.draws_behind,
            sigma=options.sigma,
            prior=prior_of(side, options),
            seed=options.seed,
        )

    def _report(
        self, side: Side, target: Tensor, slopes: Tensor, prices: Tensor, alpha: Tensor,
        bits: Tensor,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Diagnostics: the cosine behind the solved mask, behind noise alone, and unmasked."""
        import torch

        clean = side.behind()
        content = side.grid().content.to(clean.device)
        kept = torch.sigmoid(alpha[..., 0]).float()
        embeddings = {"clean": clean.float()}
        for name, share in (("start", torch.zeros_like(kept)), ("end", kept)):
            mask = share.where(content, torch.ones_like(share))
            embeddings[name] = embedding_behind(side, mask, self.options)
        goals = {"cosine": side.guide.embedding.to(clean), "fit": target.to(clean)}
        columns = {
            f"{goal}_{name}": (embedding * vector).sum(-1).tolist()
            for goal, vector in goals.items()
            for name, embedding in embeddings.items()
        }
        columns["clean_cosine"] = columns.pop("cosine_clean")
        columns["slope_sum"] = slopes.sum(-1).tolist()
        columns["capacity_bits"] = bits.sum(-1).tolist()
        columns["price"] = [price if math.isfinite(price) else None for price in prices.tolist()]
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
        for row in rows:
            row["kept"] = kept_share(row)
            row["warnings"] = _warnings(row, self.options.keep)
        return rows


def kept_share(numbers: Mapping[str, Any]) -> float | None:
    """Share of the clean cosine above noise that is kept behind the mask; may exceed 1.

    Args:
        numbers: ``clean_cosine``, ``cosine_start`` and ``cosine_end``.

    Returns:
        None where the clean cosine is not above that of noise.
    """
    clean, noise = numbers["clean_cosine"], numbers["cosine_start"]
    return (numbers["cosine_end"] - noise) / (clean - noise) if clean > noise else None


def attended_target(side: Side, options: CAM2IBOptions) -> Tensor:
    """Ẽ, ``(B, D)``: e′, or e′ and the guide's embedding as the explained input attends to it.

    Without ``side.other`` there is no guide to look into, and Ẽ = e′.
    """
    from torch.nn import functional as nnf

    from mmattrib.engine import rectified_attention

    other = side.other
    if options.guidance != ATTENDED or other is None:
        return side.guide.embedding
    slopes = token_slopes(other, other.guide.embedding, options.guide_points, options)
    attended = embedding_behind(other, rectified_attention(slopes, other.grid().content), options)
    # Grows with how much the guide's tokens raise the match; a wrong guide's target stays e′.
    weight = (slopes.sum(-1, keepdim=True) / options.evidence).clamp(0.0, 1.0)
    added = weight * nnf.normalize(attended, dim=-1)
    return nnf.normalize(side.guide.embedding.to(attended) + added, dim=-1)


def embedding_behind(side: Side, kept: Tensor, options: CAM2IBOptions) -> Tensor:
    """The side's embedding behind a mask λ ``(B, N)``, averaged over noise, ``(B, D)``."""
    from mmattrib.engine import expected_embedding

    return expected_embedding(
        side.tokens(),
        side.suffix,
        kept,
        side.grid().valid,
        side.keys,
        samples=options.draws_behind,
        sigma=options.sigma,
        prior=prior_of(side, options),
        seed=options.seed,
        together=side.together,
    )


def prior_of(side: Side, options: CAM2IBOptions) -> TokenStatistics:
    """Mean and spread of the noise at a side's layer, before ``sigma``."""
    from mmattrib.engine import TokenStatistics

    make = TokenStatistics.of_common if options.prior == "input" else TokenStatistics.of_inputs
    return make(side.tokens(), side.grid().valid)


def token_slopes(side: Side, target: Tensor, points: int, options: CAM2IBOptions) -> Tensor:
    """Slopes per token, ``(B, N)``, of ``depth`` layers, pooled; 0 outside the content."""
    import torch

    from mmattrib.engine import channel_slopes, pooled

    grid = side.grid()
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
                prior=prior_of(at, options),
                seed=options.seed,
                shared_noise=options.shared_noise,
                noise_too=options.slope == "channel",
                central=options.rates == "central",
                max_rows=options.max_rows,
                together=at.together,
            )
            for at in layers_from(side, options.depth)
        ]
    ).mean(0)
    share = POOLED[options.pooled]
    if share > 0:
        own = side.token_embeddings()
        found = pooled(found, own, grid.content, options.pooling, share, side.together)
    return found.where(grid.content.to(found.device), found.new_zeros(()))


def layers_from(side: Side, depth: int) -> list[Side]:
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


def _warnings(numbers: dict[str, Any], keep: float | None) -> list[str]:
    """Sentences that say why a map should not be trusted; empty if nothing is wrong."""
    from mmattrib.engine.diagnostics import steering_warnings

    found, kept = steering_warnings(numbers), numbers["kept"]
    if keep is not None and kept is None:
        found.append(
            f"there is no match to keep: the cosine with the guide, {numbers['clean_cosine']:.3f}, "
            f"is not above the {numbers['cosine_start']:.3f} that noise alone has, so that the map "
            "is 0 bits everywhere"
        )
    elif numbers["capacity_bits"] == 0:
        found.append(
            "no part of the input raises its match with the guide, so the map is 0 bits everywhere"
        )
    elif keep is not None and kept < keep - ROUNDING:
        found.append(
            f"no mask that was tried keeps {keep:.0%} of the match (the cosine with the guide "
            f"above that of noise): the map is that of the mask that keeps most, {kept:.0%}"
        )
    return found


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``ca-m2ib``."""
    CAM2IB.register(register)
