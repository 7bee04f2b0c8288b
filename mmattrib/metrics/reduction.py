"""What is left of a match when an input is reduced by its map: one core, published conventions.

Papers that report "confidence drop" reduce inputs in different ways, so that their numbers cannot
be compared. Each way has a name here:

======== ================================ =============================== =========================
name     pictures                         recordings                      captions
======== ================================ =============================== =========================
paper    raw pixels times the soft map,   the short-time spectrum times   words above the median
         the rest the mean colour         the soft map                    stay, others are a blank
gradcam  preprocessed tensor times the    preprocessed tensor (log-mel)   none
         soft map                         times the soft map
m2ib     preprocessed tensor times row 0  none                            token ids times the mask
         of the soft map                                                  above the median: 0 stands
                                                                          for the others
nib      as gradcam                       none                            token embeddings times the
                                                                          soft map
======== ================================ =============================== =========================

A soft map is scaled from its least score to its largest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from mmattrib.errors import EncoderError, InputError, OptionError
from mmattrib.lazy import np
from mmattrib.metrics.base import Case
from mmattrib.perturb import keep, unit_weights
from mmattrib.types import Attribution, FloatArray, RawInput, RawText

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.models.encoder import Encoder

Convention: TypeAlias = Literal["paper", "gradcam", "m2ib", "nib"]
"""CA-M2IB's paper, section 4.3; pytorch-grad-cam's code; M2IB's code; NIB's code."""

CONVENTIONS: Final[tuple[Convention, ...]] = get_args(Convention)


def reduced_input(
    raw: RawInput, attribution: Attribution, *, complement: bool = False
) -> RawInput | None:
    """The input with what its map calls unimportant taken away; None for a constant map.

    A picture fades into its own mean colour where the map is low. A recording's short-time
    spectrum is multiplied by the map. Of a caption's words, those above the median score stay and
    the others become a placeholder. Maps are scaled from their least score to their largest.

    Args:
        raw: the explained input.
        attribution: its map.
        complement: take away what the map calls important instead.

    Raises:
        InputError: an input of a modality that cannot be reduced.
    """
    weights = unit_weights(attribution.scores)
    if weights is None:
        return None
    if isinstance(raw, RawText):
        kept = above_median(attribution.scores)
        return keep(raw, kept != complement, words=attribution.words)
    return keep(raw, 1.0 - weights if complement else weights, axes=attribution.axes)


def above_median(scores: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which scores lie above the 50th percentile; those that equal it do not."""
    return np.asarray(scores > np.percentile(scores, 50))


def kept_cosine(case: Case, convention: Convention = "paper") -> float:
    """s1: the cosine with the guide of the input reduced to what its map scores high.

    NaN for a constant map, and where the convention has no way for this kind of input.

    Raises:
        InputError: a caption's encoder does not say which of its tensors holds token ids.
    """
    key = "kept_cosine" if convention == "paper" else f"kept_cosine_{convention}"
    return case.keep(key, lambda: _WAYS[convention](case))


def removed_cosine(case: Case) -> float:
    """The cosine with the guide of what ``kept_cosine`` takes away; NaN for a constant map."""
    return case.keep("removed_cosine", lambda: _raw_cosine(case, complement=True))


def _raw_cosine(case: Case, complement: bool = False) -> float:
    reduced = reduced_input(case.raw, case.attribution, complement=complement)
    return float("nan") if reduced is None else float(case.cosines([reduced])[0])


def _tensor_cosine(case: Case) -> float:
    """The preprocessed tensor times the soft map (pytorch-grad-cam's multiplication)."""
    weights = _cell_weights(case)
    return float("nan") if weights is None else _faded_cosine(case, weights, layer=-2)


def _first_row_cosine(case: Case) -> float:
    """M2IB's evaluation of pictures: its map has no batch axis, so that row 0 is taken for it."""
    weights, shape = _cell_weights(case), _tensor_shape(case)
    if weights is None or len(shape) != 4 or weights.numel() != shape[-2] * shape[-1]:
        return float("nan")
    rows = weights.view(shape[-2], shape[-1])
    return _faded_cosine(case, rows[:1].expand_as(rows).reshape(1, -1), layer=-2)


def _id_cosine(case: Case) -> float:
    """M2IB's evaluation of captions: token ids times a mask, so that id 0 stands for the others."""
    own = case.content_scores()
    if unit_weights(own) is None:
        return float("nan")
    return _faded_cosine(case, _token_weights(case, above_median(own)), layer=-1, pad_id=0)


def _embedding_cosine(case: Case) -> float:
    """NIB's evaluation of captions: token embeddings times the soft map."""
    weights = unit_weights(case.content_scores())
    if weights is None:
        return float("nan")
    return _faded_cosine(case, _token_weights(case, weights), layer=-1)


def _m2ib(case: Case) -> float:
    kinds = {"image": _first_row_cosine, "text": _id_cosine}
    return kinds.get(case.attribution.modality, _nothing)(case)


def _nib(case: Case) -> float:
    kinds = {"image": _tensor_cosine, "text": _embedding_cosine}
    return kinds.get(case.attribution.modality, _nothing)(case)


def _nothing(case: Case) -> float:
    return float("nan")


_WAYS: Final[Mapping[Convention, Callable[[Case], float]]] = {
    "paper": _raw_cosine,
    "gradcam": _tensor_cosine,
    "m2ib": _m2ib,
    "nib": _nib,
}


def _input_name(encoder: Encoder) -> str | None:
    """The tensor that layer -2 stands for, if the encoder offers that layer."""
    from mmattrib.models.capabilities import INPUT_GRADIENT

    return encoder.input_name if INPUT_GRADIENT in encoder.capabilities else None


def _tensor_shape(case: Case) -> tuple[int, ...]:
    name = _input_name(case.encoder)
    return () if name is None else tuple(case.model.inputs[name].shape)


def _cell_weights(case: Case) -> Tensor | None:
    """``(1, N)``: the soft map on the cells of the preprocessed tensor.

    None for a constant map, for captions, and where the encoder does not offer layer -2. A cell has
    the mean of the map over the part of the input that it shows.
    """
    import torch

    encoder, inputs = case.encoder, case.model.inputs
    if _input_name(encoder) is None:
        return None
    grid = encoder.grid(inputs, -2)
    laid = grid.to_tokens([case.attribution.scores])
    content = grid.content.cpu()
    weights = unit_weights(laid[content].numpy())
    if weights is None:
        return None
    whole = torch.ones(content.shape, dtype=torch.float32, device="cpu")
    return whole.masked_scatter(content, torch.from_numpy(weights))


def _token_weights(case: Case, own: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
    """``(1, N)``: weights of the content tokens, one for the others."""
    import torch

    weights = np.ones((1, len(case.content)), dtype=np.float32)
    weights[0, case.content] = own
    return torch.from_numpy(weights)


def _faded_cosine(case: Case, weights: Tensor, layer: int, pad_id: int | None = None) -> float:
    """The cosine after tokens or cells of a layer fade to zero, or to the token of an id."""
    import torch

    from mmattrib.perturb.tokens import keep_tokens

    encoder, inputs = case.encoder, case.model.inputs
    with torch.no_grad(), encoder.frozen():
        try:
            if pad_id is None:
                found = keep_tokens(encoder, inputs, weights, layer=layer)
            else:
                found = keep_tokens(encoder, inputs, weights, fill="pad", pad_id=pad_id)
        except (EncoderError, OptionError) as error:
            raise InputError(f"{case.raw.name}: {error}") from error
    target = case.model.guide_embedding().float().cpu()
    return float((found[0].float().cpu() * target).sum())
