"""The bottleneck in closed form: slopes of the fit along the channel, and the best mask for them.

Eq. (11) asks for the mask that maximises γ · fit(λ) − β · KL(λ). Descending it from one start sees
the fit's slope where the descent happens to be. Here the slope of each token is averaged over every
rate of the channel, from pure noise to the clean tokens, and the objective with the fit replaced by
``const + Σ λ_n slope_n`` is solved exactly: it is strictly concave and separates over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.engine.guidance import attend
from mmattrib.engine.noise import PairNoise
from mmattrib.engine.objective import cosine_gradient
from mmattrib.engine.optimise import Suffix
from mmattrib.engine.statistics import TokenStatistics, mean_token
from mmattrib.engine.together import ALONE, Together


def channel_rates(points: int, *, central: bool = False) -> Tensor:
    """Rates of the channel at which slopes are taken, ``(points,)`` in (0, 1), rising.

    Args:
        points: how many.
        central: quantiles of the density 6 t (1 − t) in place of evenly spread ones: fewer near
            pure noise, where a slope is mostly noise, and near the clean tokens, where the fit is
            saturated.
    """
    share = (torch.arange(points, dtype=torch.float32, device="cpu") + 0.5) / points
    # The distribution function 3 t² − 2 t³ of that density, turned round.
    return 0.5 - (torch.asin(1 - 2 * share) / 3).sin() if central else share


def channel_slopes(
    tokens: Tensor,
    suffix: Suffix,
    target: Tensor,
    valid: Tensor,
    keys: Sequence[str],
    *,
    points: int,
    sigma: float = 1.0,
    prior: TokenStatistics | None = None,
    seed: int = 0,
    shared_noise: bool = True,
    noise_too: bool = False,
    central: bool = False,
    max_rows: int = 20,
    together: Together = ALONE,
) -> Tensor:
    """The slope of the fit in each token's λ, averaged over the rates of the channel.

    At rate t every token is Z_n = t r_n + (1 − t) (m + σ s ⊙ ε_n), eq. (5) with one λ = t for all,
    where m and s are the prior's mean and spread of each channel. The slope is
    E_t E_ε [⟨∂cos(target, g(Z)) / ∂Z_n, ∂Z_n/∂λ_n⟩], with ∂Z_n/∂λ_n = r_n − m, what the signal
    adds, or r_n − m − σ s ⊙ ε_n, which also counts the noise that goes: the fit's own slope in λ_n.

    With ``shared_noise`` every token gets the same ε. Each token's channel is then still that of
    eq. (5), but the noise does not change which tokens attend to which: what all keys have in
    common cancels in a softmax. The slopes vary less from draw to draw (maps: docs/method.md).

    With ``noise_too`` and evenly spread rates the slopes sum to fit(clean) − fit(noise) as
    ``points`` grows: integrated gradients (Sundararajan et al. 2017) along the channel, from noise.

    Args:
        tokens: R, ``(B, N, C)``.
        suffix: ``(R, N, C)`` tokens and ``(R,)`` row numbers -> ``(R, D)`` embeddings.
        target: ``(B, D)``.
        valid: ``(B, N)`` bool.
        keys: one name per pair; the noise follows from it and ``seed``.
        points: rates, one row of the suffix each.
        sigma: σ_m.
        prior: m and s; those of :meth:`TokenStatistics.of_inputs` if None.
        seed: the user's.
        shared_noise, noise_too, central: see above, and :func:`channel_rates`.
        max_rows: most rows of each pair in one call of the suffix; bounds memory.
        together: how many pairs go into one call.

    Returns:
        ``(B, N)`` float32, in units of the cosine; 0 at padding.
    """
    prior = TokenStatistics.of_inputs(tokens, valid) if prior is None else prior
    drawn = sigma * _draws(tokens, valid, keys, points, seed, shared_noise)
    rates = _paired(channel_rates(points, central=central))

    def some(pairs: Tensor, most: int) -> Tensor:
        goals, own = target[pairs.to(target.device)], (drawn[pairs], prior.select(pairs))
        return _slopes_of_pairs(tokens[pairs], suffix, pairs, goals, rates, *own, noise_too, most)

    most = min(max_rows, points)
    every = together.over(len(tokens), some, rows=most, kind=("channel", tokens.shape[1:], most))
    found = torch.cat(list(every))
    return found.where(valid.to(found.device), found.new_zeros(()))


def _draws(
    tokens: Tensor, valid: Tensor, keys: Sequence[str], points: int, seed: int, shared: bool
) -> Tensor:
    """``(B, points, N, C)`` draws of ε, or ``(B, points, 1, C)`` shared by all tokens."""
    drawn_for = valid.new_ones(len(valid), 1) if shared else valid
    return PairNoise(keys, drawn_for, tokens.shape[-1], points, seed=seed, antithetic=True,
                     purpose="slopes").draw()  # fmt: skip


def _paired(rates: Tensor) -> Tensor:
    """In the order of the draws, so that neighbours share one: ε at one, −ε at the other."""
    return torch.cat([rates[0::2], rates[1::2]])


def _slopes_of_pairs(
    tokens: Tensor,
    suffix: Suffix,
    pairs: Tensor,
    target: Tensor,
    rates: Tensor,
    drawn: Tensor,
    prior: TokenStatistics,
    noise_too: bool,
    max_rows: int,
) -> Tensor:
    """``(b, N)`` slopes from ``(b, N, C)`` tokens: the mean over ``(S,)`` rates, one draw each.

    ``drawn`` is ``(b, S, ..., C)``; ``pairs`` are the numbers of these pairs in their batch.
    """
    signal = tokens.detach().float()
    goals, prior = target.to(signal.device), prior.per_draw()
    total = signal.new_zeros(signal.shape[:2])

    def add(part: Tensor) -> None:  # what it makes is free before the next rows
        rate = rates[part].to(signal)[:, None, None]
        noise = prior.restore(drawn[:, part].to(signal))
        channel = (rate * signal[:, None] + (1 - rate) * noise).to(tokens.dtype)
        rows, goal = (x.repeat_interleave(len(part), 0) for x in (pairs, goals))
        gradient = cosine_gradient(channel.flatten(0, 1), suffix, rows, goal)
        direction = signal[:, None] - (noise if noise_too else prior.mean)
        total.add_((gradient.view(channel.shape) * direction).sum(-1).sum(1))

    for part in torch.split(torch.arange(len(rates), device="cpu"), max_rows):
        add(part)
    return total / len(rates)


def closed_mask(slopes: Tensor, power: Tensor, valid: Tensor, price: Tensor | float) -> Tensor:
    """The mask that maximises Σ_n λ_n slope_n − price · mean KL, in closed form.

    Per token, with u = N · slope / price and ρ the token's mean squared channel, the stationary
    point of u λ − KL(λ), KL = ½ (λ² ρ + (1 − λ)² − 1) − log(1 − λ), solves
    (1 + ρ) s² + (u − ρ) s − 1 = 0 for s = 1 − λ. KL is strictly convex with slope 0 at λ = 0, so
    this is the maximum, λ grows with u, and λ = 0 exactly where u ≤ 0.

    Args:
        slopes: ``(B, N)``, units of the cosine.
        power: ρ, ``(B, N)``, of tokens in units of the noise.
        valid: ``(B, N)`` bool; N counts these.
        price: β / γ, a number or ``(B, N)``.

    Returns:
        α = logit λ, ``(B, N, 1)`` float64, −∞ where a token is shut.
    """
    count = valid.sum(-1, keepdim=True).to(torch.float64).clamp_min(1.0)
    worth = (slopes.double() * count / price).clamp_min(0.0)
    rho = power.double()
    gap = worth - rho
    root = (gap.square() + 4 * (1 + rho)).sqrt()
    # 1 − λ in the two forms of one root, and λ in a third, each without cancellation.
    noise = torch.where(gap > 0, 2 / (root + gap.clamp_min(0.0)), (root - gap) / (2 * (1 + rho)))
    kept = torch.where(valid, 2 * worth / (2 + rho + worth + root), torch.zeros_like(worth))
    return (kept.log() - noise.log())[..., None]


def pooled(
    scores: Tensor,
    token_embeddings: Tensor,
    content: Tensor,
    temperature: float,
    share: float = 1.0,
    together: Together = ALONE,
) -> Tensor:
    """Scores averaged over similar tokens, weighted by attention among one side's own tokens.

    softmax(temperature · cos(x_n, x_k)) over content tokens k, with token embeddings x less their
    mean; as affinity refines class activation maps in CLIP-ES (Lin et al., CVPR 2023). Rows sum to
    one. An infinite temperature changes nothing; other tokens keep their scores.

    Args:
        scores: ``(B, N)``.
        token_embeddings: ``(B, N, D)`` in the joint space.
        content: ``(B, N)`` bool.
        temperature: above 0.
        share: of each score that is averaged; the rest stays the token's own.
        together: how many pairs are averaged in one product.
    """
    content, scores = content.to(scores.device), scores.float()
    own = token_embeddings.to(scores.device, torch.float32)

    def some(pairs: Tensor, _rows: int) -> Tensor:
        alike = nnf.normalize(own[pairs] - mean_token(own[pairs], content[pairs]), dim=-1)
        return attend(alike, alike, scores[pairs, :, None], content[pairs], temperature)

    spread = together.over(len(scores), some, kind=("pooled", own.shape[1:]))
    averaged = share * torch.cat(list(spread))[..., 0] + (1 - share) * scores
    return averaged.where(content, scores)


def rectified_attention(slopes: Tensor, content: Tensor) -> Tensor:
    """Weights in [0, 1] with which an embedding attends to the other side's tokens.

    The positive part of the slopes, divided by the largest: tokens that raise the match are
    weighted by how much they do, tokens that lower it get 0. 1 for tokens that stand for no part of
    the input (CLS, end of text), and 1 for all tokens of an input where none raises the match.

    Args:
        slopes: ``(B, M)``, units of the cosine.
        content: ``(B, M)`` bool.

    Returns:
        ``(B, M)``.
    """
    content = content.to(slopes.device)
    raised = slopes.clamp_min(0.0).where(content, slopes.new_zeros(()))
    top = raised.amax(-1, keepdim=True)
    weights = raised / top.clamp_min(torch.finfo(raised.dtype).tiny)
    return torch.where(content & (top > 0), weights, torch.ones_like(weights))


def channel_noise(
    tokens: Tensor, valid: Tensor, keys: Sequence[str], *, samples: int, sigma: float, seed: int,
    prior: TokenStatistics | None = None,
) -> Tensor:  # fmt: skip
    """The noise that stands behind a mask, m + σ s ⊙ ε, ``(B, S, N, C)`` on the CPU.

    The same for any mask, so that what is kept behind one mask can be compared with another.

    Args:
        tokens: ``(B, N, C)``.
        valid: ``(B, N)`` bool.
        keys: one name per pair.
        samples: S, draws of ε in antithetic pairs.
        sigma: σ_m.
        seed: the user's.
        prior: as in :func:`channel_slopes`.
    """
    prior = TokenStatistics.of_inputs(tokens, valid) if prior is None else prior
    drawn = PairNoise(keys, valid, tokens.shape[-1], samples, seed=seed, antithetic=True,
                      purpose="embedding").draw()  # fmt: skip
    return prior.per_draw().restore(sigma * drawn.to(tokens.device)).to(drawn.device)


def embeddings_behind_noise(
    tokens: Tensor, noise: Tensor, suffix: Suffix, kept: Tensor, pairs: Tensor
) -> Tensor:
    """The mean embedding of some pairs behind their masks, ``(b, D)`` float32.

    Costs S rows of the suffix for each, all in one call.

    Args:
        tokens: of all pairs, ``(B, N, C)``.
        noise: of all pairs, from :func:`channel_noise`.
        suffix: as in :func:`channel_slopes`.
        kept: λ of these pairs, ``(b, N)``.
        pairs: which of the B, ``(b,)`` long on the CPU.
    """
    share = kept[:, None, :, None].to(tokens.device, torch.float32)
    with torch.no_grad():
        behind = noise[pairs].to(tokens.device)
        z = share * tokens[pairs, None].float() + (1 - share) * behind
        rows = pairs.repeat_interleave(z.shape[1])
        found = suffix(z.flatten(0, 1).to(tokens.dtype), rows).float()
        return found.view(len(pairs), -1, found.shape[-1]).mean(1)


def expected_embedding(
    tokens: Tensor,
    suffix: Suffix,
    kept: Tensor,
    valid: Tensor,
    keys: Sequence[str],
    *,
    samples: int,
    sigma: float = 1.0,
    prior: TokenStatistics | None = None,
    seed: int = 0,
    together: Together = ALONE,
) -> Tensor:
    """The mean embedding behind the channel at mask λ, ``(B, D)``.

    A mean of unit vectors: its norm is 1 where noise changes nothing, and falls with what the mask
    leaves to noise. Its product with a unit vector is the mean cosine.

    Args:
        tokens: ``(B, N, C)``.
        suffix: as in :func:`channel_slopes`.
        kept: λ, ``(B, N)``.
        valid: ``(B, N)`` bool.
        keys: one name per pair.
        samples: draws of noise, in antithetic pairs.
        sigma: σ_m.
        prior: as in :func:`channel_slopes`.
        seed: the user's.
        together: how many pairs go into one call, with ``samples`` rows each.
    """
    noise = channel_noise(tokens, valid, keys, samples=samples, sigma=sigma, seed=seed, prior=prior)

    def some(pairs: Tensor, _rows: int) -> Tensor:
        share = kept[pairs.to(kept.device)]
        return embeddings_behind_noise(tokens, noise, suffix, share, pairs)

    kind = ("behind noise", tokens.shape[1:], samples)
    return torch.cat(list(together.over(len(tokens), some, kind=kind)))
