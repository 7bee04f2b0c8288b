"""Fitting bottlenecks: Adam over α and Θ_A, pair by pair, with bounded memory.

Pairs are independent problems. By default each is optimised in calls of its own: a suffix that
gets the same shapes gives the same bits, whereas another batch size changes the order of its sums.
Such noise is near 1e-7, but Adam's first update is the rate times the gradient's sign, which
carries it over to α wherever a gradient nearly vanishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmattrib.engine.bottleneck import blend, capacity, kl, mask_shape
from mmattrib.engine.diagnostics import Step, summarise
from mmattrib.engine.guidance import Context, Guidance, Guide, Steering
from mmattrib.engine.noise import PairNoise
from mmattrib.engine.objective import compression, fit
from mmattrib.engine.options import BottleneckOptions
from mmattrib.engine.statistics import TokenStatistics
from mmattrib.errors import EncoderError, OptionError

Suffix = Callable[[Tensor, Tensor], Tensor]
"""``(R, N, C)`` tokens and ``(R,)`` long row numbers -> ``(R, D)`` L2-normalised embeddings. A row
number says which of the B inputs a row belongs to."""


@dataclass(frozen=True)
class BottleneckResult:
    """Fitted bottlenecks.

    Attributes:
        capacity: ``(B, N)`` float32 bits per token, summed over channels; 0 at padding.
        alpha: ``(B, N, C)`` or ``(B, N, 1)`` float32, as the capacity was read.
        diagnostics: one mapping of JSON values per pair: ``clean_cosine``, ``cosine_start``,
            ``cosine_end``, ``fit_start``, ``fit_end``, ``capacity_bits`` (over valid tokens),
            ``losses`` (one per step) and ``warnings`` (sentences).
    """

    capacity: Tensor
    alpha: Tensor
    diagnostics: tuple[dict[str, Any], ...]


def fit_bottleneck(
    tokens: Tensor,
    suffix: Suffix,
    guide: Guide,
    valid: Tensor,
    content: Tensor,
    keys: Sequence[str],
    options: BottleneckOptions,
    guidance: Guidance,
    *,
    explained_tokens: Tensor | None = None,
    statistics: TokenStatistics | None = None,
) -> BottleneckResult:
    """Fit one bottleneck per pair, eq. (11), and read off its capacity.

    Only α and Θ_A get gradients; no parameter of the suffix does, and its ``.grad`` stays as it
    is. The global random state is not touched.

    Args:
        tokens: R, ``(B, N, C)`` at the explained layer.
        suffix: the rest of the tower; see :data:`Suffix`.
        guide: the other side of each pair.
        valid: ``(B, N)`` bool, tokens that are not padding.
        content: ``(B, N)`` bool, tokens that stand for a part of the input.
        keys: one name per pair; the noise follows from it and ``options.seed``.
        options: see :class:`BottleneckOptions`.
        guidance: see :mod:`mmattrib.engine.guidance`.
        explained_tokens: the explained inputs' own tokens in the joint space, ``(B, N, D)``;
            some guidances need them.
        statistics: used when ``options.standardise``; by default
            :meth:`TokenStatistics.of_inputs`.

    Raises:
        OptionError: shapes do not fit each other, or the guidance lacks what it needs.
        EncoderError: tokens or guides are not finite.
        torch.OutOfMemoryError: not even one row fits.
    """
    _check(tokens, guide, valid, content, keys)

    def fit_rows(rows: Tensor, limit: int) -> _Fitted:
        group = _Group(
            rows=rows,
            tokens=tokens[rows],
            suffix=suffix,
            guide=guide.select(rows).to(tokens.device),
            valid=valid[rows],
            content=content[rows],
            keys=tuple(keys[row] for row in rows.tolist()),
            explained=None if own is None else own[rows],
            statistics=scaling.select(rows),
            limit=limit,
        )
        return _fit_group(group, options, guidance)

    # Tensors made under inference_mode cannot be saved for a gradient: copies are made outside.
    with torch.inference_mode(False):
        tokens = tokens.detach().clone()
        valid, content = valid.to(tokens.device), content.to(tokens.device)
        own = None if explained_tokens is None else explained_tokens.detach().to(tokens.device)
        scaling = _scaling(tokens, valid, options, statistics)
        parts = list(_with_backoff(len(tokens), options, fit_rows))
    return BottleneckResult(
        torch.cat([part.capacity for part in parts]),
        torch.cat([part.alpha for part in parts]),
        tuple(entry for part in parts for entry in part.diagnostics),
    )


@dataclass(frozen=True)
class _Fitted:
    """The result of one group."""

    capacity: Tensor
    alpha: Tensor
    diagnostics: list[dict[str, Any]]


@dataclass(frozen=True)
class _Group:
    """b pairs that are optimised together; fields as in :func:`fit_bottleneck`."""

    rows: Tensor
    tokens: Tensor
    suffix: Suffix
    guide: Guide
    valid: Tensor
    content: Tensor
    keys: tuple[str, ...]
    explained: Tensor | None
    statistics: TokenStatistics
    limit: int

    def embed(self, z: Tensor) -> Tensor:
        """``(b, s, N, C)`` tokens, in the encoder's scale -> ``(b, s, D)``, float32 or wider."""
        rows = self.rows.repeat_interleave(z.shape[1])
        flat = z.flatten(0, 1).to(self.tokens.dtype)
        return _wide(self.suffix(flat, rows)).reshape(*z.shape[:2], -1)

    def restore(self, z: Tensor) -> Tensor:
        """Standardised ``(b, s, N, C)`` tokens back to the encoder's scale."""
        mean, std = (
            x[:, None] if x.dim() == 3 else x for x in (self.statistics.mean, self.statistics.std)
        )
        return TokenStatistics(mean, std).restore(z)


def _scaling(
    tokens: Tensor, valid: Tensor, options: BottleneckOptions, given: TokenStatistics | None
) -> TokenStatistics:
    """The statistics that the options ask for."""
    if not options.standardise:
        return TokenStatistics.identity(tokens)
    if given is None:
        return TokenStatistics.of_inputs(tokens, valid)
    return TokenStatistics(given.mean.to(tokens).clone(), given.std.to(tokens).clone())


def _wide(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is where that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _with_backoff(
    count: int, options: BottleneckOptions, fit_rows: Callable[[Tensor, int], _Fitted]
) -> Iterator[_Fitted]:
    """Go through ``count`` pairs in groups; halve the group, then the chunk, when memory is out."""
    size = max(1, min(options.pairs_at_once, options.max_rows // options.samples))
    limit, start = options.max_rows, 0
    while start < count:
        rows = torch.arange(start, min(start + size, count))
        fitted = None
        try:
            fitted = fit_rows(rows, limit)
        except torch.OutOfMemoryError:
            if len(rows) == 1 and limit == 1:
                raise
        if fitted is not None:
            start += len(rows)
            yield fitted
            continue
        # Outside the handler, so that the failed attempt's tensors are free by now.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(rows) > 1:
            size = len(rows) // 2
        else:
            limit = max(1, min(limit, options.samples) // 2)


def _fit_group(group: _Group, options: BottleneckOptions, guidance: Guidance) -> _Fitted:
    """Optimise the pairs of one group from the start."""
    tokens = group.statistics.standardise(_wide(group.tokens))
    with torch.no_grad():
        clean = group.embed(group.tokens[:, None])[:, 0]
        steering = guidance.prepare(
            Context(
                tokens=group.tokens,
                embedding=clean,
                token_embeddings=group.explained,
                valid=group.valid,
                content=group.content,
                guide=group.guide,
                keys=group.keys,
                seed=options.seed,
                embed=group.embed,
            )
        )
        clean_cosine = fit(clean[:, None], group.guide.embedding[:, None])[:, 0]
    alpha = _start(tokens, options, steering).requires_grad_()
    optimiser = torch.optim.Adam(
        [
            {"params": [alpha], "lr": options.learning_rate},
            {"params": list(steering.parameters), "lr": options.attention_learning_rate},
        ]
    )
    noise = PairNoise(
        group.keys,
        group.valid,
        tokens.shape[-1],
        options.samples,
        seed=options.seed,
        antithetic=options.antithetic,
    )
    trace: list[Step] = []
    for number in range(options.steps):
        learn = number < options.steps - 1
        step, gradients = _evaluate(
            group, tokens, alpha, noise.draw().to(tokens), options, steering, learn
        )
        trace.append(step)
        if learn:
            _update(optimiser, alpha, steering.parameters, gradients, step.loss)
    with torch.no_grad():
        bits = capacity(alpha, tokens, options.sigma).where(group.valid, tokens.new_zeros(()))
    diagnostics = [
        summarise(trace, pair, float(clean_cosine[pair]), float(bits[pair].sum()))
        for pair in range(len(bits))
    ]
    return _Fitted(bits, alpha.detach(), diagnostics)


def _start(tokens: Tensor, options: BottleneckOptions, steering: Steering) -> Tensor:
    """α before the first step."""
    batch, count, channels = tokens.shape
    shape = (batch, *mask_shape(options.mask)(count, channels))
    if steering.alpha_init is None:
        return tokens.new_full(shape, float(options.alpha_init))
    return steering.alpha_init.to(tokens)[..., None].expand(shape).clone()


def _evaluate(
    group: _Group,
    tokens: Tensor,
    alpha: Tensor,
    noise: Tensor,
    options: BottleneckOptions,
    steering: Steering,
    learn: bool,
) -> tuple[Step, list[Tensor]]:
    """One forward pass and, to learn, the loss's gradients by α and Θ_A.

    Samples go through the suffix in chunks of at most ``group.limit`` rows; the gradient of their
    mean is the sum over chunks.
    """
    parameters = [alpha, *steering.parameters]
    gradients = [torch.zeros_like(parameter) for parameter in parameters] if learn else []

    def add(objective: Tensor) -> None:
        if learn:
            found = torch.autograd.grad(objective, parameters, allow_unused=True)
            for total, part in zip(gradients, found, strict=True):
                if part is not None:
                    total += part

    with torch.set_grad_enabled(learn):
        nats = kl(alpha, tokens, options.sigma).expand(tokens.shape)
        cost = options.beta * compression(nats, group.valid, steering.beta_scale)
        add(cost.sum())
        fits, cosines = [], []
        samples = noise.shape[1]
        for chunk in torch.split(noise, max(1, group.limit // len(tokens)), dim=1):
            z = group.restore(blend(alpha[:, None], tokens[:, None], chunk, options.sigma))
            embedding = group.embed(z)
            fitted = fit(embedding, steering.target(z, embedding))
            add(-options.gamma * fitted.sum() / samples)
            fits.append(fitted.detach())
            cosines.append(fit(embedding.detach(), group.guide.embedding[:, None]))
    with torch.no_grad():
        mean_fit = torch.cat(fits, 1).mean(1)
        step = Step(
            fit=mean_fit.cpu(),
            cosine=torch.cat(cosines, 1).mean(1).cpu(),
            nats=compression(nats, group.valid).cpu(),
            loss=(cost - options.gamma * mean_fit).cpu(),
        )
    return step, gradients


def _update(
    optimiser: torch.optim.Optimizer,
    alpha: Tensor,
    others: Sequence[Tensor],
    gradients: Sequence[Tensor],
    loss: Tensor,
) -> None:
    """One Adam step; a pair whose loss or gradient is not finite keeps its α."""
    good = torch.isfinite(loss).to(alpha.device) & torch.isfinite(gradients[0]).all(-1).all(-1)
    keep = good[:, None, None]
    before = alpha.detach().clone()
    for parameter, gradient in zip((alpha, *others), gradients, strict=True):
        parameter.grad = torch.where(
            good.view(-1, *[1] * (gradient.dim() - 1)), gradient, torch.zeros_like(gradient)
        )
    optimiser.step()
    with torch.no_grad():
        alpha.copy_(torch.where(keep, alpha, before))


def _check(
    tokens: Tensor, guide: Guide, valid: Tensor, content: Tensor, keys: Sequence[str]
) -> None:
    if tokens.dim() != 3:
        raise OptionError(f"tokens must be (B, N, C), got {tuple(tokens.shape)}")
    batch, count = tokens.shape[:2]
    for name, mask in (("valid", valid), ("content", content)):
        if tuple(mask.shape) != (batch, count) or mask.dtype != torch.bool:
            raise OptionError(
                f"{name} must be bool of shape {(batch, count)}, got {mask.dtype} "
                f"{tuple(mask.shape)}"
            )
    if not len(guide.embedding) == len(guide.tokens) == len(guide.valid) == len(keys) == batch:
        raise OptionError(
            f"{batch} inputs need {batch} guides and keys, got {len(guide.embedding)} embeddings, "
            f"{len(guide.tokens)} token embeddings, {len(guide.valid)} masks, {len(keys)} keys"
        )
    for pair, key in enumerate(keys):
        if not torch.isfinite(tokens[pair][valid[pair].to(tokens.device)]).all():
            raise EncoderError(
                f"tokens of pair {key!r} are infinite or not a number; check the input, and use "
                "float32 weights where half precision overflows"
            )
        if not torch.isfinite(guide.embedding[pair]).all():
            raise EncoderError(f"the guide's embedding of pair {key!r} is not finite")
