"""Fitting bottlenecks: Adam over α and Θ_A, pair by pair, with bounded memory.

Pairs are independent problems. Unless more may go together, each is optimised in calls of its
own: a suffix that gets the same shapes gives the same bits, whereas another batch size changes the
order of its sums. Such noise is near 1e-7, but Adam's first update is the rate times the gradient's
sign, which carries it over to α wherever a gradient nearly vanishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from mmattrib.engine.adam import Adam
from mmattrib.engine.bottleneck import blend, capacity, kl, mask_shape
from mmattrib.engine.diagnostics import Step, summarise
from mmattrib.engine.guidance import Context, Guidance, Guide, Steering
from mmattrib.engine.noise import PairNoise
from mmattrib.engine.objective import compression, contrasted, fit
from mmattrib.engine.options import BottleneckOptions
from mmattrib.engine.statistics import TokenStatistics
from mmattrib.engine.together import ALONE, Together
from mmattrib.errors import EncoderError, OptionError, brief, repr_of

Suffix = Callable[[Tensor, Tensor], Tensor]
"""``(R, N, C)`` tokens and ``(R,)`` long row numbers -> ``(R, D)`` L2-normalised embeddings. A row
number says which of the B inputs a row belongs to."""


@dataclass(frozen=True)
class BottleneckResult:
    """Fitted bottlenecks.

    Attributes:
        capacity: ``(B, N)`` float32 bits per token, summed over channels; 0 at padding.
        alpha: ``(B, N, G)`` float32, as the capacity was read; G is C, 1 or between, by the mask.
        diagnostics: one mapping of JSON values per pair: ``clean_cosine``, ``cosine_start``,
            ``cosine_end``, ``fit_start``, ``fit_end``, ``capacity_bits`` (over valid tokens),
            ``losses`` (one per forward pass) and ``warnings`` (sentences). The ends are None where
            they were not measured.
    """

    capacity: Tensor
    alpha: Tensor
    diagnostics: tuple[dict[str, Any], ...]

    __repr__ = repr_of()


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
    relevance: Tensor | None = None,
    clean: Tensor | None = None,
    deeper: Sequence[tuple[Tensor, Suffix]] = (),
    together: Together = ALONE,
) -> BottleneckResult:
    """Fit one bottleneck per pair, eq. (11), and read off its capacity.

    Only α and Θ_A get gradients. The global random state is not touched.

    Args:
        tokens: R, ``(B, N, C)`` at the explained layer.
        suffix: the rest of the tower; see :data:`Suffix`.
        guide: the other side of each pair.
        valid: ``(B, N)`` bool, tokens that are not padding.
        content: ``(B, N)`` bool, tokens that stand for a part of the input.
        keys: one name per pair; the noise follows from it and ``options.seed``.
        options, guidance: see :class:`BottleneckOptions`, :mod:`mmattrib.engine.guidance`.
        explained_tokens: ``(B, N, D)``, tokens in the joint space, which some guidances need.
        statistics: for ``options.standardise``; by default :meth:`TokenStatistics.of_inputs`.
        relevance: ``(B, N)``, any unit; see :attr:`Context.relevance`.
        clean: ``(B, D)``, what the suffix gives for the tokens as they are, if it is known.
        deeper: tokens ``(B, N, C_l)`` and suffixes of further layers that share the mask, which
            must be one λ per token (CoIBA, Hong et al., CVPR 2025). The fit is then the mean over
            layers of that with the bottleneck at this layer alone; the compression and the
            capacity are the first layer's. Each is standardised by its own inputs.
        together: how many pairs are fitted in one call.

    Raises:
        OptionError: shapes do not fit each other, or the guidance lacks what it needs.
        EncoderError: tokens or guides are not finite.
        torch.OutOfMemoryError: not even one row fits.
    """
    _check(tokens, guide, valid, content, keys)
    _check_extras(tokens, guide, content, options, relevance, clean, deeper)
    # Tensors made under inference_mode cannot be saved for a gradient: copies are made outside.
    with torch.inference_mode(False):
        places = [(tokens, suffix, statistics), *((*place, None) for place in deeper)]
        whole = _Group(
            rows=torch.arange(len(tokens), device="cpu"),
            layers=tuple(_layer(*place, valid, options) for place in places),
            guide=guide,
            valid=valid.to(tokens.device),
            content=content.to(tokens.device),
            keys=tuple(keys),
            explained=_moved(explained_tokens, tokens),
            relevance=_moved(relevance, tokens),
            known=_moved(clean, tokens),
            limit=options.max_rows,
        )
        return _joined(_in_groups(whole, options, guidance, together))


@dataclass(frozen=True)
class _Fitted:
    """The result of one group."""

    capacity: Tensor
    alpha: Tensor
    diagnostics: list[dict[str, Any]]


def _in_groups(
    whole: _Group, options: BottleneckOptions, guidance: Guidance, together: Together
) -> list[_Fitted]:
    """Groups of pairs, as many of them in one call as fit."""

    def some(pairs: Tensor, most: int) -> _Fitted:
        return _fit_group(whole.select(pairs, most), options, guidance)

    most = min(whole.limit, options.draws)
    kind = ("fit", whole.layers[0].tokens.shape[1:], most)
    return list(together.over(len(whole.rows), some, rows=most, kind=kind))


def _joined(parts: Sequence[_Fitted]) -> BottleneckResult:
    return BottleneckResult(
        torch.cat([part.capacity for part in parts]),
        torch.cat([part.alpha for part in parts]),
        tuple(entry for part in parts for entry in part.diagnostics),
    )


@dataclass(frozen=True)
class _Layer:
    """One place of the bottleneck in the tower: ``(b, N, C)`` tokens and what follows them."""

    tokens: Tensor
    suffix: Suffix
    statistics: TokenStatistics
    plain: bool = False
    """Whether the bottleneck's scale is the encoder's own."""

    @cached_property
    def scaled(self) -> Tensor:
        """The tokens in the bottleneck's scale, float32 or wider."""
        wide = _wide(self.tokens)
        return wide if self.plain else self.statistics.standardise(wide)

    def restore(self, z: Tensor) -> Tensor:
        """Standardised ``(b, s, N, C)`` tokens back to the encoder's scale."""
        return z if self.plain else self.statistics.per_draw().restore(z)


@dataclass(frozen=True)
class _Group:
    """b pairs that are optimised together; fields as in :func:`fit_bottleneck`.

    The first layer is the explained one. ``known`` is the clean embedding, ``(b, D)``, if it was
    given; ``limit`` is of rows of each pair in one call.
    """

    rows: Tensor
    layers: tuple[_Layer, ...]
    guide: Guide
    valid: Tensor
    content: Tensor
    keys: tuple[str, ...]
    explained: Tensor | None
    relevance: Tensor | None
    known: Tensor | None
    limit: int

    def select(self, rows: Tensor, limit: int) -> _Group:
        """Some of the pairs."""
        first = self.layers[0].tokens
        return _Group(
            rows=self.rows[rows],
            layers=tuple(
                replace(layer, tokens=layer.tokens[rows], statistics=layer.statistics.select(rows))
                for layer in self.layers
            ),
            guide=self.guide.select(rows).to(first.device),
            valid=self.valid[rows],
            content=self.content[rows],
            keys=tuple(self.keys[row] for row in rows.tolist()),
            explained=None if self.explained is None else self.explained[rows],
            relevance=None if self.relevance is None else self.relevance[rows],
            known=None if self.known is None else self.known[rows],
            limit=limit,
        )

    def clean(self) -> Tensor:
        """``(b, 1, D)``: the embeddings without a bottleneck."""
        first = self.layers[0].tokens
        return self.embed(first[:, None]) if self.known is None else _wide(self.known)[:, None]

    def embed(self, z: Tensor, layer: int = 0) -> Tensor:
        """``(b, s, N, C)`` tokens, in the encoder's scale -> ``(b, s, D)``, float32 or wider."""
        place = self.layers[layer]
        rows = self.rows.repeat_interleave(z.shape[1])
        flat = z.flatten(0, 1).to(place.tokens.dtype)
        return _wide(place.suffix(flat, rows)).reshape(*z.shape[:2], -1)


def _layer(
    tokens: Tensor,
    suffix: Suffix,
    given: TokenStatistics | None,
    valid: Tensor,
    options: BottleneckOptions,
) -> _Layer:
    """A place of the bottleneck, with the statistics that the options ask for."""
    tokens = tokens.detach().clone()
    if not options.standardise:
        statistics = TokenStatistics.identity(tokens)
    elif given is None:
        statistics = TokenStatistics.of_inputs(tokens, valid)
    else:
        statistics = TokenStatistics(given.mean.to(tokens).clone(), given.std.to(tokens).clone())
    return _Layer(tokens, suffix, statistics, plain=not options.standardise)


def _moved(x: Tensor | None, tokens: Tensor) -> Tensor | None:
    """``x`` without gradients, where the tokens are."""
    return None if x is None else x.detach().clone().to(tokens.device)


def _wide(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is where that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _fit_group(group: _Group, options: BottleneckOptions, guidance: Guidance) -> _Fitted:
    """Optimise the pairs of one group from the start."""
    tokens = group.layers[0].scaled
    with torch.no_grad():
        clean = group.clean()
        steering = guidance.prepare(_context(group, clean[:, 0], options))
        clean_cosine = fit(clean, group.guide.embedding[:, None])[:, 0]
    if steering.parameters and len(group.layers) > 1:
        raise OptionError(
            f"guidance {guidance.name!r} trains an attention over one layer's tokens, and deeper "
            "layers were given; use a guidance without parameters, or deeper=()"
        )
    alpha = _start(tokens, options, steering).requires_grad_()
    trained = [(alpha, options.learning_rate)]
    trained += [(each, options.attention_learning_rate) for each in steering.parameters]
    optimiser = Adam(trained)
    trace: list[Step] = []
    for number, noises in zip(range(options.steps), _noise(group, options), strict=False):
        learn = number < options.steps - 1
        if trace and not learn and not options.measure_end:
            break
        step, gradients = _evaluate(group, clean, alpha, noises, options, steering, learn)
        trace.append(step)
        if learn:
            _update(optimiser, alpha, gradients, step.loss)
    with torch.no_grad():
        bits = capacity(alpha, tokens, options.sigma).where(group.valid, tokens.new_zeros(()))
    ended = len(trace) == options.steps
    diagnostics = [
        summarise(trace, pair, float(clean_cosine[pair]), float(bits[pair].sum()), ended)
        for pair in range(len(bits))
    ]
    return _Fitted(bits, alpha.detach(), diagnostics)


def _context(group: _Group, embedding: Tensor, options: BottleneckOptions) -> Context:
    """What a guidance may look at; ``embedding`` is the clean one, ``(b, D)``."""
    return Context(
        tokens=group.layers[0].tokens,
        embedding=embedding,
        token_embeddings=group.explained,
        valid=group.valid,
        content=group.content,
        guide=group.guide,
        keys=group.keys,
        seed=options.seed,
        embed=group.embed,
        relevance=group.relevance,
    )


def _noise(group: _Group, options: BottleneckOptions) -> Iterator[list[Tensor]]:
    """Step after step the noise of each layer, ``(b, s, N, C)``, from streams of their own."""
    if options.noise == "mean":
        yield from repeat([torch.zeros_like(layer.scaled[:, None]) for layer in group.layers])
    streams = [
        PairNoise(
            group.keys,
            group.valid,
            layer.tokens.shape[-1],
            options.samples,
            seed=options.seed,
            antithetic=options.antithetic,
            purpose=f"noise of deeper layer {number}" if number else "noise",
        )
        for number, layer in enumerate(group.layers)
    ]
    while True:
        yield [
            stream.draw().to(layer.scaled)
            for stream, layer in zip(streams, group.layers, strict=True)
        ]


def _start(tokens: Tensor, options: BottleneckOptions, steering: Steering) -> Tensor:
    """α before the first step."""
    batch, count, channels = tokens.shape
    shape = (batch, *mask_shape(options.mask)(count, channels))
    if steering.alpha_init is None:
        return tokens.new_full(shape, float(options.alpha_init))
    return steering.alpha_init.to(tokens)[..., None].expand(shape).clone()


def _evaluate(
    group: _Group,
    clean: Tensor,
    alpha: Tensor,
    noises: Sequence[Tensor],
    options: BottleneckOptions,
    steering: Steering,
    learn: bool,
) -> tuple[Step, list[Tensor]]:
    """One forward pass and, to learn, the loss's gradients by α and Θ_A.

    At most ``group.limit`` samples of each pair go through the suffix at a time; the gradient of
    their mean is the sum over chunks. ``clean`` is the clean embedding, ``(b, 1, D)``.
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
        tokens = group.layers[0].scaled
        nats = kl(alpha, tokens, options.sigma).expand(tokens.shape)
        cost = options.beta * compression(nats, group.valid, steering.beta_scale)
        add(cost.sum())
        priced = [gradient.clone() for gradient in gradients]
        fits, cosines, gains, caps = [], [], [], []
        rows = sum(noise.shape[1] for noise in noises)
        for z, embedding in _passes(group, alpha, noises, options.sigma):
            target = steering.target(z, embedding)
            against = (target, group.guide.neutral, options.contrast)
            gained = contrasted(embedding, *against)
            add(-options.gamma * gained.sum() / rows)
            gains.append(gained.detach())
            caps.append(contrasted(clean, *against).detach().expand_as(gained))
            fits.append(fit(embedding, target).detach())
            cosines.append(fit(embedding.detach(), group.guide.embedding[:, None]))
    with torch.no_grad():
        gain = torch.cat(gains, 1).mean(1)
        if options.target == "capped":
            cap = torch.cat(caps, 1).mean(1)
            below, gain = gain < cap, torch.minimum(gain, cap)
            gradients = [_pick(below, *both) for both in zip(gradients, priced, strict=True)]
        step = Step(
            fit=torch.cat(fits, 1).mean(1).cpu(),
            cosine=torch.cat(cosines, 1).mean(1).cpu(),
            nats=compression(nats, group.valid).cpu(),
            loss=(cost - options.gamma * gain).cpu(),
        )
    return step, gradients


def _passes(
    group: _Group, alpha: Tensor, noises: Sequence[Tensor], sigma: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Z and g(Z) chunk by chunk, with the bottleneck at one layer at a time."""
    for number, (layer, noise) in enumerate(zip(group.layers, noises, strict=True)):
        for chunk in torch.split(noise, group.limit, dim=1):
            z = layer.restore(blend(alpha[:, None], layer.scaled[:, None], chunk, sigma))
            yield z, group.embed(z, number)


def _pick(chosen: Tensor, x: Tensor, other: Tensor) -> Tensor:
    """``x`` for the pairs ``chosen``, ``(b,)`` bool, and ``other`` for the rest."""
    return torch.where(chosen.view(-1, *[1] * (x.dim() - 1)), x, other)


def _update(optimiser: Adam, alpha: Tensor, gradients: Sequence[Tensor], loss: Tensor) -> None:
    """One Adam step; a pair whose loss or gradient is not finite keeps its α."""
    good = torch.isfinite(loss).to(alpha.device) & torch.isfinite(gradients[0]).all(-1).all(-1)
    before = alpha.detach().clone()
    optimiser.step([_pick(good, each, torch.zeros_like(each)) for each in gradients])
    with torch.no_grad():
        alpha.copy_(_pick(good, alpha, before))


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
    if not len(guide.embedding) == len(keys) == batch:
        raise OptionError(
            f"{batch} inputs need {batch} guides and keys, got {len(guide.embedding)} guides and "
            f"{len(keys)} keys"
        )
    for pair, key in enumerate(keys):
        if not torch.isfinite(tokens[pair][valid[pair].to(tokens.device)]).all():
            raise EncoderError(
                f"tokens of pair {key!r} are infinite or not a number; check the input, and use "
                "float32 weights where half precision overflows"
            )
        if not torch.isfinite(guide.embedding[pair]).all():
            raise EncoderError(f"the guide's embedding of pair {key!r} is not finite")


def _check_extras(
    tokens: Tensor,
    guide: Guide,
    content: Tensor,
    options: BottleneckOptions,
    relevance: Tensor | None,
    clean: Tensor | None,
    deeper: Sequence[tuple[Tensor, Suffix]],
) -> None:
    if clean is not None and clean.shape != guide.embedding.shape:
        raise OptionError(f"clean must be {tuple(guide.embedding.shape)}, got {tuple(clean.shape)}")
    if options.contrast > 0 and (guide.neutral is None or len(guide.neutral) != len(tokens)):
        raise OptionError(
            f"contrast {options.contrast:g} needs the embedding of a neutral guide for each of the "
            f"{len(tokens)} pairs (Guide.neutral); give one, or contrast 0"
        )
    if relevance is not None and (
        relevance.shape != tokens.shape[:2]
        or not torch.isfinite(relevance[content.to(relevance.device)]).all()
    ):
        raise OptionError(
            f"relevance must be {tuple(tokens.shape[:2])} and finite at content tokens, got "
            f"{tuple(relevance.shape)}"
        )
    if deeper and options.mask != "token":
        raise OptionError(
            f"deeper layers share one λ per token: mask must be 'token', got {brief(options.mask)}"
        )
    for number, (further, _) in enumerate(deeper):
        if further.dim() != 3 or further.shape[:2] != tokens.shape[:2]:
            raise OptionError(
                f"tokens of deeper layer {number} must be {(*tokens.shape[:2], 'C')}, got "
                f"{tuple(further.shape)}"
            )
