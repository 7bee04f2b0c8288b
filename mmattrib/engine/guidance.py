"""Guidance: how the other modality enters the objective, eqs. (3), (4) and (11).

A guidance turns a :class:`Context` (everything known before the optimisation) into a
:class:`Steering` (what the optimisation asks for at each step): the target of the fit, and
optionally a factor on β per token, a start of α per token, and parameters of its own. A new
guidance is one small class with ``prepare`` and one entry in :data:`GUIDANCES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.engine.noise import normal, pair_generator
from mmattrib.engine.statistics import mean_token
from mmattrib.errors import OptionError

TEMPERATURE = 14.0
"""Inverse temperature of attention between L2-normalised tokens, whose dot products are cosines;
CLIP (Radford et al. 2021) starts its logit scale at 1/0.07 ≈ 14.3."""


class Guide:
    """The other side of each pair, in the joint space. Not to be changed in place.

    Attributes:
        embedding: e′, ``(B, D)``, L2-normalised.
        neutral: ē, ``(B, D)``, embeddings of a guide that says nothing (an empty caption, a blank
            picture, silence), or None.
        attended: Ẽ_m′, ``(B, D)``, where attention found a target before the fit, or None for e′.
    """

    def __init__(
        self,
        embedding: Tensor,
        tokens: Tensor | None = None,
        valid: Tensor | None = None,
        neutral: Tensor | None = None,
        attended: Tensor | None = None,
        *,
        load: Callable[[], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """Take the guide's tokens, or how to compute them when they are first read.

        Args:
            embedding: see above.
            tokens: see :attr:`tokens`.
            valid: see :attr:`valid`.
            neutral: see above.
            attended: see above.
            load: gives tokens and valid, in place of both.

        Raises:
            OptionError: neither tokens with valid nor load.
        """
        self.embedding, self.neutral, self.attended = embedding, neutral, attended
        if load is None:
            if tokens is None or valid is None:
                raise OptionError("a Guide needs tokens and valid, or load, which gives both")
            self._check((tokens, valid))
            self._read = (tokens, valid)
        self._load = load

    @property
    def tokens(self) -> Tensor:
        """E_m′, ``(B, M, D)`` token embeddings, each L2-normalised."""
        return self._read[0]

    @property
    def valid(self) -> Tensor:
        """``(B, M)`` bool, tokens that may be attended to."""
        return self._read[1]

    @property
    def target(self) -> Tensor:
        """Ẽ_m′ as it is known before the fit, ``(B, D)``: ``attended``, or else e′."""
        return self.embedding if self.attended is None else self.attended

    def towards(self, attended: Tensor) -> Guide:
        """The same guides with another target Ẽ_m′, ``(B, D)``."""
        return Guide(self.embedding, None, None, self.neutral, attended, load=self._both)

    def against(self, neutral: Tensor) -> Guide:
        """The same guides beside ē, ``(B, D)``."""
        return Guide(self.embedding, None, None, neutral, self.attended, load=self._both)

    def select(self, rows: Tensor) -> Guide:
        """The guides of these rows."""
        return self._each(lambda x: x[rows.to(x.device)])

    def to(self, device: torch.device) -> Guide:
        """The same guides on another device; the two encoders may live on different ones."""
        return self._each(lambda x: x.to(device))

    @cached_property
    def _read(self) -> tuple[Tensor, Tensor]:
        assert self._load is not None
        found = self._load()
        self._check(found)
        return found

    def _both(self) -> tuple[Tensor, Tensor]:
        return self._read

    def _check(self, found: tuple[Tensor, Tensor]) -> None:
        if not len(found[0]) == len(found[1]) == len(self.embedding):
            raise OptionError(
                f"{len(self.embedding)} guides need as many sets of tokens, got {len(found[0])} "
                f"token embeddings and {len(found[1])} masks"
            )

    def _each(self, change: Callable[[Tensor], Tensor]) -> Guide:
        def maybe(x: Tensor | None) -> Tensor | None:
            return None if x is None else change(x)

        def load() -> tuple[Tensor, Tensor]:
            return change(self.tokens), change(self.valid)

        return Guide(
            change(self.embedding),
            None,
            None,
            maybe(self.neutral),
            maybe(self.attended),
            load=load,
        )


@dataclass(frozen=True)
class Context:
    """What a guidance is given: everything known before the optimisation, for b pairs.

    Attributes:
        tokens: R, ``(b, N, C)`` at the explained layer, as the encoder gives them.
        embedding: the explained inputs' clean embeddings, ``(b, D)``.
        token_embeddings: the explained inputs' tokens in the joint space, ``(b, N, D)``, or None.
        valid: ``(b, N)`` bool.
        content: ``(b, N)`` bool, tokens that stand for a part of the input.
        guide: the guides, b of them.
        keys: the pairs' names, for random starts.
        seed: the user's seed.
        embed: the suffix, ``(b, s, N, C)`` tokens -> ``(b, s, D)``.
        relevance: ``(b, N)``, how much each token matters to the guide by another account (a map of
            another method, in any unit), or None.
    """

    tokens: Tensor
    embedding: Tensor
    token_embeddings: Tensor | None
    valid: Tensor
    content: Tensor
    guide: Guide
    keys: tuple[str, ...]
    seed: int
    embed: Callable[[Tensor], Tensor]
    relevance: Tensor | None = None


Target = Callable[[Tensor, Tensor], Tensor]
"""Z ``(b, s, N, C)`` and g(Z) ``(b, s, D)`` -> Ẽ_m′, ``(b, s, D)`` or ``(b, 1, D)``."""


@dataclass(frozen=True)
class Steering:
    """What a guidance returns: the target, and optionally a factor on β and a start of α per token.

    Attributes:
        target: Ẽ_m′ as a function of the bottleneck's tokens and their embedding.
        beta_scale: ``(b, N)`` factor on β per token, or None for ones.
        alpha_init: ``(b, N)`` start of α per token, or None for the option's.
        parameters: Θ_A, leading axis b so that pairs stay independent; trained with α.
    """

    target: Target
    beta_scale: Tensor | None = None
    alpha_init: Tensor | None = None
    parameters: tuple[Tensor, ...] = ()


class Guidance(ABC):
    """One way for the other modality to guide the bottleneck."""

    name: ClassVar[str]

    @abstractmethod
    def prepare(self, context: Context) -> Steering:
        """Look at the pairs once, before the optimisation, without gradients."""


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, valid: Tensor, temperature: float
) -> Tensor:
    """Eq. (4): softmax(temperature · Q Kᵀ) V over the valid keys.

    Args:
        queries: ``(b, ..., d)``.
        keys: ``(b, M, d)``.
        values: ``(b, M, D)``.
        valid: ``(b, M)`` bool.
        temperature: factor on the dot products; 1/√d_k in eq. (4).

    Returns:
        ``(b, ..., D)``.
    """
    flat = queries.flatten(1, -2)
    logits = temperature * flat @ keys.transpose(1, 2)
    # A finite minimum: a guide without any valid token then spreads evenly instead of being NaN.
    logits = logits.masked_fill(~valid[:, None, :], torch.finfo(logits.dtype).min)
    return (logits.softmax(-1) @ values).reshape(*queries.shape[:-1], values.shape[-1])


def fixed(target: Tensor) -> Target:
    """A target function that always returns the same ``(b, D)``."""
    still = target[:, None]
    return lambda _z, _embedding: still


class NoGuidance(Guidance):
    """Ẽ_m′ = e′: M2IB, eq. (3); or a target that was found before, :attr:`Guide.target`."""

    name = "none"

    def prepare(self, context: Context) -> Steering:
        return Steering(fixed(context.guide.target))


@dataclass(frozen=True)
class LiteralAttention(Guidance):
    """Eqs. (4), (5) and (11) as written, with Θ_A = (W_Q, W_K, W_V) trained beside α.

    Where the paper is silent, this reads it so:

    - Θ_A belongs to the pair, as θ_m does (eqs. 10 and 11 fit both per input). It starts from a
      seeded normal draw of variance 1/fan-in, since no training of it is described.
    - Q = Z W_Q from every valid token of the bottleneck, K = E W_K and V = E W_V from the guide's
      token embeddings; d_k = D. One head.
    - (4) gives one vector per explained token, (11) needs one per pair: their mean over the valid
      tokens, L2-normalised as the paper asks of both embeddings.
    - f^ℓ(Ẽ_m) in (5) is the layer's output R. Feeding the guide's embedding into the tokens would
      let the fit rise without the input.

    Since V is free, Θ_A can raise the fit on its own: Ẽ_m′ moves to g(Z), and the map need not
    depend on the guide. The diagnostics say when that has happened.

    Attributes:
        key_dim: d_k, or None for D.
    """

    name: ClassVar[str] = "literal"
    key_dim: int | None = None

    def prepare(self, context: Context) -> Steering:
        guide, tokens = context.guide, context.tokens
        channels, dim = tokens.shape[-1], guide.tokens.shape[-1]
        inner = self.key_dim or dim
        shapes = ((channels, inner), (dim, inner), (dim, dim))
        generators = [pair_generator(context.seed, key, "attention") for key in context.keys]
        query, key, value = (
            torch.stack([normal(shape, g) / shape[0] ** 0.5 for g in generators])
            .to(guide.tokens)
            .requires_grad_()
            for shape in shapes
        )
        weight = context.valid.to(guide.tokens.dtype)
        weight = (weight / weight.sum(-1, keepdim=True).clamp_min(1.0))[:, None, :, None]

        def target(z: Tensor, _embedding: Tensor) -> Tensor:
            queries = (z.to(query.dtype).flatten(1, 2) @ query).reshape(*z.shape[:3], inner)
            attended = attend(
                queries, guide.tokens @ key, guide.tokens @ value, guide.valid, inner**-0.5
            )
            return nnf.normalize((attended * weight).sum(2), dim=-1)

        return Steering(target, parameters=(query, key, value))


@dataclass(frozen=True)
class RelevanceGate(Guidance):
    """Cross-attention as a factor on β: tokens that the guide's tokens attend to cost less.

    Each explained token attends to the guide's tokens by eq. (4), with Q, K and V the token
    embeddings themselves (no Θ_A that could satisfy the objective alone); see
    :func:`token_relevance`. Relevance is standardised over the content tokens, and β_n = β ·
    exp(−strength · z_n). The target stays e′ and cannot move.

    In the limit strength = 0 this is M2IB, eq. (3), with the same mask. Tokens that stand for no
    part of the input (CLS, end of text) keep β.

    Attributes:
        strength: nats of log β per standard deviation of relevance.
        temperature: of the attention.
        bound: standardised relevance is clipped to ± this, so that one token cannot take all.
        source: ``"attention"``, or ``"given"`` for :attr:`Context.relevance` in its place.
    """

    name: ClassVar[str] = "gate"
    strength: float = 0.8
    temperature: float = TEMPERATURE
    bound: float = 2.5
    source: str = "attention"

    def __post_init__(self) -> None:
        _check_source(self.source)

    def prepare(self, context: Context) -> Steering:
        relevance = sourced_relevance(context, self.source, self.temperature)
        z = standardised(relevance, context.content).clamp(-self.bound, self.bound)
        return Steering(fixed(context.guide.embedding), beta_scale=torch.exp(-self.strength * z))


@dataclass(frozen=True)
class StartGuidance(Guidance):
    """Relevance as the start of α: α_n = alpha_init · (2 σ(slope · z_n) − 1); β stays.

    z is relevance standardised over the content tokens, as in :class:`RelevanceGate`. What the
    guide looks for starts open and the rest shut, but every token pays the same for what it lets
    pass, so that the optimisation can undo the start. Tokens that stand for no part of the input
    (CLS, end of text) start at ``alpha_init``.

    Attributes:
        alpha_init: largest magnitude of α at the start.
        slope: at 1.5, one standard deviation of relevance starts at 0.64 of the bound.
        temperature: of the attention.
        source: ``"attention"``, or ``"given"`` for :attr:`Context.relevance` in its place.
    """

    name: ClassVar[str] = "start"
    alpha_init: float = 5.0
    slope: float = 1.5
    temperature: float = TEMPERATURE
    source: str = "attention"

    def __post_init__(self) -> None:
        _check_source(self.source)

    def prepare(self, context: Context) -> Steering:
        relevance = sourced_relevance(context, self.source, self.temperature)
        z = standardised(relevance, context.content)
        spread = 2.0 * torch.sigmoid(self.slope * z) - 1.0
        spread = spread.where(context.content, torch.ones_like(spread))
        return Steering(fixed(context.guide.embedding), alpha_init=self.alpha_init * spread)


@dataclass(frozen=True)
class ResidualAttention(Guidance):
    """Target normalise(e′ + weight · Ẽ), Ẽ = attention of the clean embedding over the guide.

    Without parameters, and fixed before the optimisation. weight = 0 is M2IB.
    """

    name: ClassVar[str] = "residual"
    weight: float = 1.0
    temperature: float = TEMPERATURE

    def prepare(self, context: Context) -> Steering:
        guide = context.guide
        attended = attend(
            context.embedding[:, None], guide.tokens, guide.tokens, guide.valid, self.temperature
        )[:, 0]
        mixed = guide.embedding + self.weight * nnf.normalize(attended, dim=-1)
        return Steering(fixed(nnf.normalize(mixed, dim=-1)))


@dataclass(frozen=True)
class SelfQuery(Guidance):
    """Eq. (4) with Q = g(Z) and K = V = the guide's tokens, without parameters.

    The target stays within what the guide's tokens span, but Z chooses among them.
    """

    name: ClassVar[str] = "self_query"
    temperature: float = TEMPERATURE

    def prepare(self, context: Context) -> Steering:
        guide, temperature = context.guide, self.temperature

        def target(_z: Tensor, embedding: Tensor) -> Tensor:
            attended = attend(embedding, guide.tokens, guide.tokens, guide.valid, temperature)
            return nnf.normalize(attended, dim=-1)

        return Steering(target)


GUIDANCES: dict[str, type[Guidance]] = {
    guidance.name: guidance
    for guidance in (
        NoGuidance,
        LiteralAttention,
        RelevanceGate,
        StartGuidance,
        ResidualAttention,
        SelfQuery,
    )
}
"""Guidances by name."""

SOURCES = ("attention", "given")
"""Where relevance may come from."""


def _check_source(source: str) -> None:
    if source not in SOURCES:
        raise OptionError(f"unknown source {source!r}; accepted: {', '.join(SOURCES)}")


def sourced_relevance(context: Context, source: str, temperature: float) -> Tensor:
    """Relevance of each explained token, ``(b, N)``: :func:`token_relevance`, or what was given.

    Raises:
        OptionError: it should have been given and was not, or nothing is there to attend with.
    """
    if source == "attention":
        return token_relevance(context, temperature)
    if context.relevance is None:
        raise OptionError(
            "source 'given' needs a relevance of the explained tokens, and got none; pass "
            "relevance= to fit_bottleneck(), or use source 'attention'"
        )
    # where(), since a product with zero keeps what is not finite at padding.
    return context.relevance.where(context.content, context.relevance.new_zeros(()))


def token_relevance(context: Context, temperature: float) -> Tensor:
    """The relevance of each explained token to the guide, ``(b, N)``.

    x_n · (ẽ_n / ‖ẽ_n‖ + e / ‖e‖), where x are the explained tokens and e the guide's embedding,
    both less the mean of their own side's tokens, and ẽ_n is what x_n attends to, eq. (4). Without
    that difference the mean wins: tokens of one side share a large component, and the tokens most
    similar to the other side are then the emptiest ones.

    Raises:
        OptionError: the encoder gave no token embeddings of the explained side.
    """
    own = context.token_embeddings
    if own is None:
        raise OptionError(
            "this guidance needs token embeddings of the explained input, and got none; use "
            "guidance 'none', or an encoder that has token_embeddings()"
        )
    guide = context.guide
    own = own - mean_token(own, context.content)
    # The lone token of a one-word caption is all that the guide has: nothing is taken from it.
    several = guide.valid.sum(-1)[:, None, None] > 1
    shared = mean_token(guide.tokens, guide.valid) * several
    tokens, pooled = guide.tokens - shared, guide.embedding[:, None] - shared
    attended = attend(own, tokens, tokens, guide.valid, temperature)
    sought = nnf.normalize(attended, dim=-1) + nnf.normalize(pooled, dim=-1)
    return (own * sought).sum(-1)


def standardised(scores: Tensor, content: Tensor) -> Tensor:
    """Zero mean and unit variance over each row's content tokens, zero elsewhere: ``(b, N)``."""
    weight = content.to(scores.device, scores.dtype)
    count = weight.sum(-1, keepdim=True).clamp_min(1.0)
    centred = (scores - (scores * weight).sum(-1, keepdim=True) / count) * weight
    spread = (centred.square().sum(-1, keepdim=True) / count).sqrt()
    return centred / spread.clamp_min(1e-6)
