"""What check_encoder demands of the capabilities that an encoder declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from mmattrib.engine.noise import normal
from mmattrib.models.attention import AttentionPass
from mmattrib.models.capabilities import INPUT_LAYER, MEANING
from mmattrib.models.encoder import Encoder, EncoderInputs

_STEPS = (0.03, 0.1, 0.01, 0.3, 0.003, 0.001, 3e-4, 1e-4)
"""Changes of the embedding that finite differences aim at: small against curvature, large against
rounding; one of them must agree. The smallest are for towers with many kinks on the way, such as
the ReLUs of a deep ResNet: there the difference at 0.003 is off by a tenth, in float64 too."""


class Check(Protocol):
    """The running check; see :func:`mmattrib.testing.check_encoder`."""

    encoder: Encoder
    generator: torch.Generator
    rtol: float

    def fail(self, message: str, cause: BaseException | None = None) -> None:
        """Raise EncoderError."""

    def call(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call the encoder and see that it left the module alone."""

    def close(self, got: Tensor, expected: Tensor, what: str) -> None:
        """Fail unless both are equal."""


def check_names(check: Check) -> None:
    """Every capability that is declared exists."""
    declared = check.encoder.capabilities
    if not isinstance(declared, frozenset) or not declared <= MEANING.keys():
        check.fail(
            f"capabilities are {declared!r}; accepted: a frozenset of {', '.join(MEANING)}, see "
            "mmattrib.models.capabilities"
        )


def check_attention(check: Check, inputs: EncoderInputs, embedding: Tensor) -> None:
    """Weights are probabilities over keys that are no padding, and the embedding hangs on them."""
    encoder = check.encoder
    found: AttentionPass = check.call("embed_with_attention", encoder.embed_with_attention, inputs)
    check.close(found.embedding, embedding, "embed_with_attention gives another embedding")
    if len(found.weights) != encoder.num_layers:
        check.fail(f"embed_with_attention gave {len(found.weights)} blocks of {encoder.num_layers}")
    valid = encoder.grid(inputs, encoder.num_layers - 1).valid
    for block, weights in enumerate(found.weights):
        _check_weights(check, weights.detach().float().cpu(), valid, found, block)
    _check_factors(check, found)
    direction = normal([embedding.shape[1]], check.generator).to(embedding)
    with torch.enable_grad():
        slopes = torch.autograd.grad(
            (found.embedding[0] * direction).sum(), found.weights, allow_unused=True
        )
    known = [slope for slope in slopes if slope is not None]
    if not all(bool(torch.isfinite(slope).all()) for slope in known):
        check.fail("embedding has NaN or infinite gradients with respect to attention")
    if not any(bool(slope.any()) for slope in known):
        check.fail("attention is not what the embedding was computed from: its gradient is zero")
    for block, tokens in enumerate(found.tokens):
        check.close(
            tokens,
            check.call(f"prefix at layer {block}", encoder.prefix, inputs, block),
            f"embed_with_attention gives other tokens of block {block} than prefix",
        )
    laid = check.call("attention", encoder.attention, inputs)
    for block, weights in enumerate(laid):
        expected = (*valid.shape, valid.shape[1])
        if (weights.shape[0], *weights.shape[2:]) != expected or weights.dim() != 4:
            check.fail(
                f"attention of block {block} has shape {tuple(weights.shape)}; accepted: "
                f"({expected[0]}, heads, {expected[1]}, {expected[2]})"
            )


def _check_weights(
    check: Check, weights: Tensor, valid: Tensor, found: AttentionPass, block: int
) -> None:
    rows, count = valid.shape[0] * found.views, valid.shape[1] // found.views
    if weights.dim() != 4 or (len(weights), *weights.shape[2:]) != (
        rows,
        count,
        count + found.extra,
    ):
        check.fail(
            f"attention of block {block} has shape {tuple(weights.shape)}; accepted: ({rows}, "
            f"heads, {count}, {count + found.extra}), for {found.views} views"
        )
    real = valid.view(rows, count)
    queries = real[:, None, :].expand(weights.shape[:3])
    if bool((weights < 0).any()) or not bool(torch.isfinite(weights).all()):
        check.fail(f"attention of block {block} has negative, infinite or NaN weights")
    sums = weights.sum(-1)[queries]
    if bool(((sums - 1).abs() > max(1e-3, 10 * check.rtol)).any()):
        check.fail(
            f"attention of block {block} sums to {float(sums.min()):.4g} to "
            f"{float(sums.max()):.4g} over the keys; accepted: 1"
        )
    unread = queries[..., None] & ~real[:, None, None, :]
    if float(weights[..., :count][unread.expand(*weights.shape[:3], count)].sum()) > 1e-3:
        check.fail(f"attention of block {block} reads tokens that the grid calls padding")


def _check_factors(check: Check, found: AttentionPass) -> None:
    """Queries and keys have their shapes, and the weights are what their products make of them."""
    for block, (query, key) in enumerate(zip(found.queries, found.keys, strict=True)):
        if query is None or key is None:
            continue
        weights = found.weights[block].detach().float().cpu().double()
        shapes = (*weights.shape[:3], query.shape[-1]), (*weights.shape[:2], weights.shape[3])
        if tuple(query.shape) != shapes[0] or tuple(key.shape) != (*shapes[1], query.shape[-1]):
            check.fail(
                f"attention of block {block} comes with queries {tuple(query.shape)} and keys "
                f"{tuple(key.shape)}; accepted: {shapes[0]} and {(*shapes[1], query.shape[-1])}"
            )
        q, k = (part.detach().float().cpu().double() for part in (query, key))
        if _unexplained(weights, q @ k.mT, found.views) > max(0.01, 100 * check.rtol):
            check.fail(
                f"attention of block {block} comes with queries and keys that its weights were "
                "not computed from"
            )


def _unexplained(weights: Tensor, products: Tensor, views: int) -> float:
    """The part of what tells two inputs' log weights apart that their products do not, 0 to 1.

    A softmax takes off a number per query, an encoder may scale the products and add what depends
    on places alone; the difference of two inputs has neither of the latter.
    """
    read = (weights[0] > 1e-6) & (weights[views] > 1e-6)
    shares = read / read.sum(-1, keepdim=True).clamp_min(1)
    logs = weights.clamp_min(1e-6).log()
    centred = []
    for values in (logs[0] - logs[views], products[0] - products[views]):
        known = values.where(read, 0.0)
        centred.append((known - (known * shares).sum(-1, keepdim=True)).where(read, 0.0))
    found, expected = centred
    scale = (found * expected).sum() / expected.square().sum().clamp_min(1e-30)
    return float((found - scale * expected).norm() / found.norm().clamp_min(1e-30))


def check_input_gradient(check: Check, inputs: EncoderInputs) -> None:
    """The gradient at layer -2 is the slope that a finite difference finds."""
    encoder = check.encoder
    cells: Tensor = check.call(f"prefix at layer {INPUT_LAYER}", encoder.prefix, inputs, -2)
    one = inputs.select([0])

    def value(at: Tensor) -> Tensor:
        return (encoder.suffix(at, INPUT_LAYER, one)[0].double() * direction).sum()

    leaf = cells[:1].detach().clone().requires_grad_(True)
    width = encoder.embed(one).shape[1]
    direction = normal([width], check.generator).to(leaf.device, torch.float64)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(value(leaf), leaf)
    noise = normal(leaf.shape, check.generator).to(leaf)
    # Half along the gradient: in many dimensions a random direction alone hardly rises.
    along = slope / slope.norm() + noise / noise.norm()
    expected = float((slope.double() * along.double()).sum())
    ratios = []
    for change in _STEPS:
        step = change / abs(expected)
        rise = value(leaf.detach() + step * along) - value(leaf.detach() - step * along)
        ratios.append(float(rise) / (2 * step * expected))
    best = min(ratios, key=lambda ratio: abs(ratio - 1))
    if not abs(best - 1) <= max(0.03, 100 * check.rtol):
        check.fail(
            f"gradient at layer {INPUT_LAYER} is not that of the embedding: a finite difference "
            f"gives {best:.3g} times its slope"
        )
