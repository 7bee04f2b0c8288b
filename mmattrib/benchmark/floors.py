"""The fewest products that a method's map can be had for, counted on the model itself.

What cannot be left out: each input once through its tower, which gives its tokens and its embedding
alike; and for each row of the method, the blocks behind the layer, forwards, and backwards to the
tokens, which takes the products of forwards once more (weights get no gradient). An embedding that
is read from one token needs the last block for that token alone: each of its matrices once, as keys
and values can be made on the query's side of the product. Norms, activations, noise and attention's
products in the last block are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mmattrib.benchmark.watch import FlopCount
from mmattrib.loading import load_method
from mmattrib.models.blocks import first_of
from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.models.towers import TowerEncoder


def rows(method: str) -> tuple[int, int] | None:
    """Rows with a gradient, and rows without, that a side's tower must run for a map and its guide.

    Of ``m2ib``: samples at each step but the last, whose mask is the result. Of ``ca-m2ib``: rates
    for the map, rates for the guide, and the draws behind the guide's mask. Of ``nib``: the points.
    None of a method whose rows are not known.
    """
    options: Any = load_method(method).options
    if method == "m2ib":
        return options.samples * (options.steps - 1), 0
    if method == "ca-m2ib":
        return options.points + options.guide_points, options.draws_behind
    return (options.steps, 0) if method == "nib" else None


def floor(
    encoders: Mapping[str, Encoder],
    inputs: Mapping[str, EncoderInputs],
    layers: Mapping[str, int],
    method: str,
) -> float | None:
    """GFLOP of both maps of a pair at least; None for a method or a tower that is not known.

    Args:
        encoders: side -> tower.
        inputs: side -> a batch of one.
        layers: side -> the explained layer.
        method: a registered name.
    """
    wanted, total = rows(method), 0.0
    if wanted is None or not all(isinstance(e, TowerEncoder) for e in encoders.values()):
        return None
    for side, encoder in encoders.items():
        assert isinstance(encoder, TowerEncoder)
        with encoder.frozen(), torch.no_grad():
            with FlopCount() as whole:
                encoder.embed(inputs[side])
            row = _row(encoder, inputs[side], layers[side])
        total += whole.total + (2 * wanted[0] + wanted[1]) * row
    return total / 1e9


def _row(encoder: TowerEncoder, inputs: EncoderInputs, layer: int) -> float:
    """FLOP of one row behind a layer, forwards."""
    tokens = encoder.prefix(inputs, layer)
    args, kwargs = encoder.block_call(inputs)
    behind = encoder.blocks[layer + 1 :]
    one = encoder.pooled_index(inputs) is not None
    with FlopCount() as count:
        for block in behind[:-1] if one else behind:
            tokens = encoder.tokens_from(first_of(block(tokens, *args, **kwargs)))
    if not one or not behind:
        return float(count.total)
    matrices = [p for p in behind[-1].parameters() if p.dim() == 2]
    return float(count.total + 2 * sum(p.numel() for p in matrices))
