"""Fills at the level of tokens: an input is kept by weights where its tokens enter the blocks.

A caption whose words are replaced is another caption; here the caption stays, and with it the
masks, the places and the end of the text, while the tokens of its words fade. It works for any
encoder: weights of a picture or a recording are averaged over each token's own cell.

At the embedding output (layer -1) a token of weight w becomes ``w * token + (1 - w) * fill``.
Tokens that stand for no part of the input (CLS, start, end, padding) are never touched. The
embedding output holds the position too where the tower adds it there, so that fill
``"embedding"`` takes that away as well. At layer -2 the same is done to the cells of the
preprocessed input: its pixels, or the cells of its spectrogram.

Unlike :mod:`mmattrib.perturb`, this module imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from mmattrib.errors import EncoderError, InputError, OptionError, brief, is_one_of
from mmattrib.models.capabilities import ATTENTION, INPUT_LAYER, require
from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.models.grids import TokenGrid
from mmattrib.types import FloatArray, RawText

TokenFill: TypeAlias = Literal["embedding", "pad"]

TOKEN_FILLS: Final[dict[str, str]] = {
    "embedding": "zero: the token's embedding times its weight, as NIB's evaluation of captions; "
    "at layer -2 the normalised value times its weight, as pytorch-grad-cam's of pictures",
    "pad": "the token that the tower makes of its padding id at this place; captions alone",
}
"""Name -> what a token fades to."""


def token_weights(grid: TokenGrid, maps: Sequence[FloatArray]) -> Tensor:
    """Lay weights of inputs on their tokens.

    A token of a caption weighs what its word weighs; a token of a plane the mean over its cell.

    Args:
        grid: of the batch.
        maps: one per input, in [0, 1], in the shape that ``grid.axes`` describes.

    Returns:
        ``(B, N)`` float32; one for tokens that stand for no part of the input.

    Raises:
        OptionError: the number or a shape of the maps does not fit.
    """
    if len(maps) != len(grid.content):
        raise OptionError(f"{len(maps)} maps for {len(grid.content)} inputs; give one for each.")
    arrays = [np.asarray(one, dtype=np.float32) for one in maps]
    for number, one in enumerate(arrays):
        wanted = tuple(len(axis.values) for axis in grid.axes(number))
        if one.shape != wanted:
            raise OptionError(
                f"weights of input {number} have shape {one.shape}; accepted: {wanted}, the shape "
                "of its map (for a caption one weight per word)."
            )
    return torch.where(grid.content, grid.to_tokens(arrays), 1.0)


def keep_tokens(
    encoder: Encoder,
    inputs: EncoderInputs,
    weights: Tensor | Sequence[FloatArray],
    *,
    fill: TokenFill = "embedding",
    pad_id: int | None = None,
    layer: int = -1,
) -> Tensor:
    """Embed a batch whose tokens fade into a fill where their weights are low.

    Args:
        encoder: the caller has entered ``encoder.frozen()``, and ``torch.no_grad()`` where no
            gradient is wanted.
        inputs: a preprocessed batch; ``inputs.select([0] * R)`` repeats an input for R weights.
        weights: in [0, 1], soft or hard. One array per input on its own axes (a caption's words),
            or ``(B, N)`` per token, of which only content tokens are read.
        fill: a name in ``TOKEN_FILLS``.
        pad_id: the padding id for fill ``"pad"``; None for the one with which the encoder's own
            ``preprocess`` pads (``Encoder.pad_id``).
        layer: -1, the embedding output, or -2, the preprocessed input, for encoders that offer it.

    Returns:
        ``(B, D)`` L2-normalised. Weights of one give ``encoder.embed(inputs)``.

    Raises:
        OptionError: an unknown fill, weights that do not fit or are out of range, or a layer that
            is neither, or not there.
        InputError: fill ``"pad"`` for an input that is no caption.
        EncoderError: the encoder does not say which id it pads with.
    """
    if not is_one_of(fill, get_args(TokenFill)):
        raise OptionError(f"no fill {brief(fill)} for tokens; accepted: {', '.join(TOKEN_FILLS)}.")
    if layer not in (-1, INPUT_LAYER):
        raise OptionError(f"tokens fade at layer -1 or {INPUT_LAYER}, got layer {layer!r}.")
    encoder.check_layer(layer)
    grid = encoder.grid(inputs, layer)
    content = grid.content
    laid = weights if isinstance(weights, Tensor) else token_weights(grid, weights)
    if laid.shape != content.shape:
        raise OptionError(
            f"weights have shape {tuple(laid.shape)}; accepted: {tuple(content.shape)} (batch, "
            "tokens), or one array per input on its own axes."
        )
    tokens = encoder.prefix(inputs, layer)
    inside = content.to(tokens.device)[..., None]
    shares = laid.to(tokens)[..., None]
    if not bool(((shares >= -1e-6) & (shares <= 1 + 1e-6))[inside].all()):
        raise OptionError("weights of tokens must be finite numbers in [0, 1].")
    shares = torch.where(inside, shares, 1.0)
    mixed = tokens * shares
    if fill == "pad":
        number = padding_id(encoder, inputs) if pad_id is None else pad_id
        padded = _padded(inputs, content, number)
        mixed = mixed + encoder.prefix(padded, layer) * (1.0 - shares)
    return encoder.suffix(torch.where(inside, mixed, tokens), layer, inputs)


def embed_without(encoder: Encoder, inputs: EncoderInputs, kept: Tensor) -> Tensor:
    """Embed one input without some of its tokens: they are left out, and nothing stands in.

    The blocks attend among what is left, each token at its own place, which also costs less: no
    query and no key of the others is computed. Masks that leave as many tokens go together.

    Args:
        encoder: one that offers ``ATTENTION``: its blocks take any number of tokens. As for
            :func:`keep_tokens`.
        inputs: a preprocessed batch of one.
        kept: ``(R, N)`` bool per token of layer -1; tokens that stand for no part of the input
            (CLS) always stay.

    Returns:
        ``(R, D)`` L2-normalised. A mask that keeps all gives ``encoder.embed(inputs)``.

    Raises:
        OptionError: the encoder does not offer ``ATTENTION``, masks of another shape, or one that
            leaves no token, where the encoder has none of its own.
    """
    require(encoder, [ATTENTION], "leaving tokens out")
    content = encoder.grid(inputs, -1).content
    if kept.dtype != torch.bool or kept.dim() != 2 or kept.shape[1:] != content.shape[1:]:
        raise OptionError(
            f"kept is {kept.dtype} {tuple(kept.shape)}; accepted: bool (R, {content.shape[1]})"
        )
    stays = kept.cpu() | ~content
    counts = stays.sum(-1).tolist()
    if not all(counts):
        raise OptionError(
            f"a mask leaves no token, and the {encoder.modality} encoder has none that stands for "
            "no part of the input; take a fill that puts something in their place"
        )
    tokens = encoder.prefix(inputs, -1)[0]
    found: list[Tensor] = [tokens] * len(stays)
    for count in sorted(set(counts)):
        rows = [row for row, own in enumerate(counts) if own == count]
        places = stays[rows].nonzero()[:, 1].view(len(rows), count)
        some = inputs.select([0] * len(rows))
        made = encoder.suffix(tokens[places.to(tokens.device)], -1, some)
        for row, one in zip(rows, made, strict=True):
            found[row] = one
    return torch.stack(found)


def padding_id(encoder: Encoder, inputs: EncoderInputs) -> int:
    """The id that an encoder of captions pads with: its :attr:`Encoder.pad_id`.

    Raises:
        InputError: the inputs are no captions.
        EncoderError: the encoder does not declare it.
    """
    _captions(inputs)
    if encoder.pad_id is None:
        raise EncoderError(
            f"the {encoder.modality} encoder ({type(encoder).__name__}) does not say which id it "
            "pads with; set its `pad_id`, give pad_id= as its tokenizer has it, or take fill "
            "'embedding'."
        )
    return encoder.pad_id


def _captions(inputs: EncoderInputs) -> list[RawText]:
    found = [raw for raw in inputs.raw if isinstance(raw, RawText)]
    if len(found) != len(inputs.raw):
        raise InputError(
            f"{inputs.raw[0].name}: only captions can be padded; for other inputs take fill "
            "'embedding'."
        )
    return found


def _ids(inputs: EncoderInputs, valid: Tensor) -> tuple[str, Tensor]:
    """Name and values ``(B, L)`` of the one tensor of token ids; L may be below N.

    A tower may append tokens of its own. Masks hold nothing but 0 and 1.
    """
    _captions(inputs)
    found = [
        (name, value)
        for name, value in inputs.tensors.items()
        if not value.is_floating_point()
        and value.dtype != torch.bool
        and value.dim() == 2
        and value.shape[1] <= valid.shape[1]
        and bool(((value != 0) & (value != 1)).any())
    ]
    if len(found) != 1:
        raise EncoderError(
            "the preprocessed captions must hold one tensor (batch, tokens) of whole numbers, "
            f"their ids; found {[name for name, _ in found]} among {list(inputs.tensors)}."
        )
    return found[0]


def _padded(inputs: EncoderInputs, content: Tensor, number: int) -> EncoderInputs:
    """The batch with the padding id in place of every content token."""
    name, ids = _ids(inputs, content)
    count = ids.shape[1]
    if bool(content[:, count:].any()):
        raise EncoderError(f"{name!r} has {count} ids, but tokens behind them stand for words.")
    changed = torch.where(content[:, :count].to(ids.device), number, ids)
    return EncoderInputs({**inputs.tensors, name: changed}, inputs.raw)
