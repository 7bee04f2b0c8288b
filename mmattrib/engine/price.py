"""The price at which the mask keeps a stated share of the match.

The mask in closed form is bought at a price, and what the embedding behind it keeps of the match is
then whatever it is: the linear fit says what each token is worth, not what they are worth together.
Here the price is found instead, by trying prices and measuring the match behind each mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from mmattrib.engine.optimise import Suffix
from mmattrib.engine.rate import channel_noise, closed_mask, embeddings_behind_noise
from mmattrib.engine.statistics import TokenStatistics
from mmattrib.errors import repr_of

STEP: Final = 4.0
"""Ratio of neighbouring prices of the first pass."""

WORTHS: Final = tuple(STEP**power for power in range(-1, 5))
"""The first pass: what the dearest token is worth, N · slope / price (u of :func:`closed_mask`). At
a quarter its λ is about 0.1; at 256 it is 0.996, and more bits change next to nothing."""

HALVINGS: Final = 6
"""Halvings of the last step, in the logarithm: prices are found to 4^(1/64), 2.2 %."""


def dearest_price(share_at: Callable[[float], float], unit: float, keep: float) -> float:
    """The highest price tried at which at least a share ``keep`` of the match is kept.

    From dear to cheap in steps of four, until the share is reached; then the step before is halved.
    At most ``len(WORTHS) + HALVINGS`` calls, most often nine or ten. Since every call's answer is
    only compared with ``keep``, a larger ``keep`` never finds a higher price.

    Args:
        share_at: price -> share of the match that the mask bought there keeps.
        unit: the price at which the dearest token is worth 1; above 0.
        keep: in (0, 1].

    Returns:
        The price. Where no price of the first pass reaches the share, the one that kept most; ∞,
        at which nothing is bought, where none keeps more than nothing.
    """
    most, best = 0.0, math.inf
    for worth in WORTHS:
        price = unit / worth
        share = share_at(price)
        if share >= keep:
            return _halved(share_at, price, keep)
        if share > most:
            most, best = share, price
    return best


def _halved(share_at: Callable[[float], float], reached: float, keep: float) -> float:
    missed = reached * STEP
    for _ in range(HALVINGS):
        middle = math.sqrt(reached * missed)
        if share_at(middle) >= keep:
            reached = middle
        else:
            missed = middle
    return reached


@dataclass(frozen=True)
class Match:
    """One pair's cosine with its guide, clean and behind masks, under noise that stays the same.

    Attributes:
        tokens: R of all pairs, ``(B, N, C)``.
        noise: of all pairs, from :func:`mmattrib.engine.rate.channel_noise`.
        suffix: as in :func:`mmattrib.engine.rate.channel_slopes`.
        guide: e′ of this pair, ``(D,)``, of norm 1.
        content: of this pair, ``(N,)`` bool; other tokens stay open.
        pair: which of the B.
    """

    tokens: Tensor
    noise: Tensor
    suffix: Suffix
    guide: Tensor
    content: Tensor
    pair: int

    __repr__ = repr_of("tokens", "noise", "guide", "content", "pair")

    def clean(self) -> float:
        """The cosine without a bottleneck: one row of the suffix."""
        with torch.no_grad():
            own = self.tokens[self.pair : self.pair + 1]
            return self._cosine(
                self.suffix(own, torch.tensor([self.pair], device="cpu"))[0].float()
            )

    def behind(self, kept: Tensor) -> float:
        """The mean cosine behind a mask λ, ``(N,)``: a row of the suffix for each draw."""
        mask = kept.float().where(
            self.content.to(kept.device), kept.new_ones((), dtype=torch.float)
        )
        one = torch.tensor([self.pair], device="cpu")
        return self._cosine(
            embeddings_behind_noise(self.tokens, self.noise, self.suffix, mask[None], one)[0]
        )

    def _cosine(self, embedding: Tensor) -> float:
        return float((embedding * self.guide.to(embedding)).sum())


def prices_that_keep(
    tokens: Tensor,
    suffix: Suffix,
    guide: Tensor,
    slopes: Tensor,
    power: Tensor,
    valid: Tensor,
    content: Tensor,
    keys: Sequence[str],
    *,
    keep: float,
    samples: int,
    sigma: float = 1.0,
    prior: TokenStatistics | None = None,
    seed: int = 0,
) -> Tensor:
    """For each pair the price at which its mask keeps a share of the match.

    The match is the cosine with the guide; the share is (behind the mask − noise) / (clean −
    noise), where noise is the cosine behind a mask that shuts all content. Means are over the same
    draws of noise at every price, so that the share is smooth in the price. Other draws give
    another share: what is kept is kept to the accuracy of so many draws.

    Costs ``samples`` rows of the suffix without a gradient for each price tried, and for noise.

    Args:
        tokens: R, ``(B, N, C)``.
        suffix: as in :func:`mmattrib.engine.rate.channel_slopes`.
        guide: e′, ``(B, D)``, of norm 1.
        slopes: ``(B, N)``, as for :func:`mmattrib.engine.rate.closed_mask`.
        power: ρ, ``(B, N)``.
        valid: ``(B, N)`` bool.
        content: ``(B, N)`` bool; other tokens stay open.
        keys: one name per pair.
        keep: the share, in (0, 1].
        samples: draws of noise behind a mask.
        sigma: σ_m.
        prior: as in :func:`mmattrib.engine.rate.channel_slopes`.
        seed: the user's.

    Returns:
        ``(B,)`` float64 on the device of the slopes; ∞, which shuts every token, where the clean
        cosine is not above noise's, no token raises the match, or no mask keeps any of it.
    """
    noise = channel_noise(tokens, valid, keys, samples=samples, sigma=sigma, seed=seed, prior=prior)
    units = slopes.double().clamp_min(0.0).amax(-1) * valid.to(slopes.device).sum(-1)
    found = []
    for pair, unit in enumerate(units.tolist()):
        match = Match(tokens, noise, suffix, guide[pair], content[pair], pair)
        clean = match.clean()
        shut = match.behind(torch.zeros_like(slopes[pair]))

        def share_at(price: float, match: Match = match, clean: float = clean, shut: float = shut
                     ) -> float:  # fmt: skip
            one = slice(match.pair, match.pair + 1)
            alpha = closed_mask(slopes[one], power[one], valid[one], price)
            behind = match.behind(torch.sigmoid(alpha[0, :, 0]))
            return (behind - shut) / (clean - shut)

        some = clean > shut and unit > 0
        found.append(dearest_price(share_at, unit, keep) if some else math.inf)
    return torch.tensor(found, dtype=torch.float64, device=slopes.device)
