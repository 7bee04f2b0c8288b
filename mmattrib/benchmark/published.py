"""M2IB and NIB the plain way, as their authors' code computes them: to be compared with.

Nothing is shared with the engine: textbook formulas, one pair at a time. Tests hold the engine to
the same maps, and ``mmattrib bench`` measures what the plain way costs. What their code does that
costs time is done here too: nobody freezes the parameters, so that every backward pass gives them
gradients as well; M2IB runs both towers, whole, on every copy of the pair at every step; NIB runs
every block behind the layer whole, for one point of the path at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.errors import OptionError
from mmattrib.models.blocks import BlockEncoder, first_of, with_first
from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.models.towers import TowerEncoder
from mmattrib.models.turns import normal_mode, turn

STEPS, SAMPLES = 10, 10
"""Of both papers' code: M2IB's steps and copies, and NIB's points of the path."""


def naive_m2ib(
    embed: Callable[[], Tensor],
    target: Callable[[], Tensor],
    block: nn.Module,
    valid: Tensor,
    noise: Iterable[Tensor],
    *,
    beta: float = 0.1,
    gamma: float = 1.0,
    sigma: float = 1.0,
    learning_rate: float = 1.0,
    per_channel: bool = True,
    trained: Sequence[Tensor] = (),
    tokens_from: Callable[[Any], Tensor] = first_of,
    with_tokens: Callable[[Any, Tensor], Any] = with_first,
) -> tuple[Tensor, list[float]]:
    """M2IB (Wang et al., NeurIPS 2023; eq. (3) of CA-M2IB): the whole model at every step.

    Args:
        embed: runs the whole tower on S copies of one input: ``(S, D)``.
        target: what the embeddings are compared with, made anew at every step: ``(S, D)`` or
            ``(D,)``.
        block: the bottleneck sits behind it.
        valid: ``(N,)`` bool, tokens that are not padding.
        noise: one ``(S, N, C)`` tensor per step.
        beta, gamma, sigma, learning_rate: as in ``m2ib``.
        per_channel: one λ per token and channel, as published, or one per token.
        trained: parameters that get gradients too, as those that nobody froze do.
        tokens_from, with_tokens: read ``(S, N, C)`` tokens from what the block gives, and put
            others in their place.

    Returns:
        ``(N,)`` bits per token, as the last step had them, and the loss of each step.
    """
    alpha: Tensor | None = None
    optimiser: torch.optim.Optimizer | None = None
    bits, losses = torch.zeros(len(valid), dtype=torch.float32, device=valid.device), []
    for eps in noise:
        if alpha is None or optimiser is None:
            size = (len(valid), eps.shape[-1] if per_channel else 1)
            alpha = torch.full(size, 5.0, dtype=eps.dtype, device=eps.device, requires_grad=True)
            optimiser = torch.optim.Adam([alpha], lr=learning_rate)
        seen: list[Tensor] = []

        def bottleneck(
            _module: nn.Module,
            _args: object,
            output: Any,
            eps: Tensor = eps,
            alpha: Tensor = alpha,
            seen: list[Tensor] = seen,
        ) -> Any:
            tokens, lam = tokens_from(output), torch.sigmoid(alpha)
            mean, variance = lam * tokens, (sigma * (1 - lam)) ** 2
            seen.append(-0.5 * (1 + torch.log(variance) - mean**2 - variance))
            return with_tokens(output, mean + sigma * (1 - lam) * eps)

        handle = block.register_forward_hook(bottleneck)
        try:
            embedding = embed()
        finally:
            handle.remove()
        nats = seen[0][0]
        goal = target()
        cosine = nnf.cosine_similarity(embedding, goal if goal.dim() > 1 else goal[None])
        loss = beta * nats[valid].mean() - gamma * cosine.mean()
        bits = nats.detach().sum(-1) / torch.log(torch.tensor(2.0, dtype=eps.dtype, device="cpu"))
        losses.append(float(loss.detach()))
        alpha.grad = torch.autograd.grad(loss, [alpha, *trained], allow_unused=True)[0]
        optimiser.step()
    return bits * valid, losses


def naive_nib(
    embed: Callable[[Tensor], Tensor],
    tokens: Tensor,
    target: Tensor,
    *,
    steps: int = STEPS,
    trained: Sequence[Tensor] = (),
) -> Tensor:
    """NIB (ICLR 2025) as its authors code it: a path from zero tokens, one point at a time.

    Args:
        embed: ``(1, N, C)`` tokens -> ``(1, D)``, every block behind the layer run whole.
        tokens: ``(1, N, C)`` at the layer.
        target: ``(D,)``.
        steps: points.
        trained: as for :func:`naive_m2ib`.

    Returns:
        ``(N,)`` in cosine.
    """
    total = torch.zeros_like(tokens)
    for step in range(1, steps + 1):
        point = (tokens * (step / steps)).detach().requires_grad_()
        cosine = nnf.cosine_similarity(embed(point), target[None]).mean()
        total += tokens * torch.autograd.grad(cosine, [point, *trained], allow_unused=True)[0]
    return (total / steps).sum(-1)[0]


def can_compare(encoders: Iterable[Encoder]) -> bool:
    """Whether both towers are lists of blocks, where a bottleneck can be put by a hook."""
    return all(isinstance(encoder, BlockEncoder) for encoder in encoders)


@contextmanager
def unfrozen(encoders: Collection[Encoder]) -> Iterator[list[Tensor]]:
    """Evaluation mode in which parameters get gradients; all is put back on leaving.

    Not :meth:`Encoder.frozen`, in which models run quicker than by themselves.

    Yields:
        The parameters. Nothing is written to their ``.grad``.
    """
    parts = {id(part): part for encoder in encoders for part in encoder.module.modules()}
    found = {id(p): p for e in encoders for p in e.module.parameters() if p.is_floating_point()}
    training = [(part, part.training) for part in parts.values()]
    required = [(parameter, parameter.requires_grad) for parameter in found.values()]
    with ExitStack() as stack:
        stack.enter_context(turn())
        for encoder in encoders:
            stack.enter_context(normal_mode(encoder.module))
        stack.enter_context(torch.enable_grad())
        try:
            for part in parts.values():
                part.training = False
            for parameter in found.values():
                parameter.requires_grad_(True)
            yield list(found.values())
        finally:
            for part, mode in training:
                part.training = mode
            for parameter, flag in required:
                parameter.requires_grad_(flag)


def m2ib_as_published(
    encoders: Mapping[str, Encoder],
    inputs: Mapping[str, EncoderInputs],
    layers: Mapping[str, int],
    *,
    steps: int = STEPS,
    samples: int = SAMPLES,
    seed: int = 0,
    shapes: Mapping[str, torch.Size] | None = None,
) -> dict[str, Tensor]:
    """Both maps of one pair, ``(N,)`` bits each.

    Args:
        encoders: side -> tower, two of them; each a :class:`BlockEncoder`.
        inputs: side -> a batch of one.
        layers: side -> the layer behind which the bottleneck sits; 0 or more.
        steps, samples: as published; fewer steps do the same work less often.
        seed: of the noise.
        shapes: side -> that of the layer's tokens, if known; else a pass finds it.

    Raises:
        OptionError: a layer in front of the first block.
    """
    found = {}
    with unfrozen(encoders.values()) as parameters:
        for side, other in _both(encoders):
            encoder, copies = encoders[side], inputs[side].select([0] * samples)
            guide = inputs[other].select([0] * samples)
            if layers[side] < 0 or not isinstance(encoder, BlockEncoder):
                raise OptionError(f"M2IB puts its bottleneck behind a block, not at {layers[side]}")
            tokens = (shapes or token_shapes(encoders, inputs, layers))[side]
            draw = torch.Generator("cpu").manual_seed(seed)
            shape, like = (samples, *tokens[1:]), next(encoder.module.parameters())
            noise = (
                torch.randn(shape, generator=draw, dtype=torch.float32, device="cpu").to(like)
                for _ in range(steps)
            )
            found[side], _ = naive_m2ib(
                lambda encoder=encoder, copies=copies: encoder.embed(copies),  # type: ignore[misc]
                lambda other=other, guide=guide: encoders[other].embed(guide),  # type: ignore[misc]
                encoder.blocks[layers[side]],
                encoder.grid(inputs[side], layers[side]).valid[0].to(like.device),
                noise,
                trained=parameters,
                tokens_from=encoder.tokens_from,
                with_tokens=encoder.with_tokens,
            )
    return found


def token_shapes(
    encoders: Mapping[str, Encoder],
    inputs: Mapping[str, EncoderInputs],
    layers: Mapping[str, int],
) -> dict[str, torch.Size]:
    """Side -> ``(1, N, C)``, the shape of its tokens at its layer."""
    with torch.no_grad():
        return {side: e.prefix(inputs[side], layers[side]).shape for side, e in encoders.items()}


def nib_as_published(
    encoders: Mapping[str, Encoder],
    inputs: Mapping[str, EncoderInputs],
    layers: Mapping[str, int],
    *,
    steps: int = STEPS,
) -> dict[str, Tensor]:
    """Both maps of one pair, ``(N,)`` in cosine; arguments as for :func:`m2ib_as_published`."""
    found = {}
    with unfrozen(encoders.values()) as parameters:
        for side, other in _both(encoders):
            tokens = encoders[side].prefix(inputs[side], layers[side]).detach()
            target = encoders[other].embed(inputs[other])[0].detach()
            embed = plain_suffix(encoders[side], layers[side], inputs[side])
            found[side] = naive_nib(embed, tokens, target, steps=steps, trained=parameters)
    return found


def plain_suffix(encoder: Encoder, layer: int, inputs: EncoderInputs) -> Callable[[Tensor], Tensor]:
    """The tower behind a layer with every block run whole, for every token.

    Of towers that do not say what their blocks are called with, the whole tower runs again and the
    tokens are put in on the way.
    """
    if not isinstance(encoder, TowerEncoder):
        assert isinstance(encoder, BlockEncoder)
        return lambda tokens: BlockEncoder.suffix(encoder, tokens, layer, inputs)
    args, kwargs = encoder.block_call(inputs)

    def embed(tokens: Tensor) -> Tensor:
        for block in encoder.blocks[layer + 1 :]:
            tokens = encoder.tokens_from(first_of(block(tokens, *args, **kwargs)))
        return nnf.normalize(encoder.pool(tokens, inputs).float(), dim=-1)

    return embed


def _both(sides: Iterable[str]) -> list[tuple[str, str]]:
    first, second = sides
    return [(first, second), (second, first)]
