"""Confidence drop and increase: what is left of a match when the input is masked by its map.

Reported, never ranked by: masking makes inputs that no model was trained on, and a map that keeps
everything drops nothing. With s0 the cosine of the pair and s1 the cosine after masking,
drop = max(0, s0 - s1) and increase = 1 where s1 > s0 (Chattopadhay et al. 2018, Grad-CAM++, without
their division by s0, which a cosine near zero would blow up).

All work is done on raw inputs and goes through the encoder's own preprocessing, so that every
backbone is masked alike.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmattrib.models.encoder import Encoder
from mmattrib.perturb import keep, unit_weights
from mmattrib.types import Attribution, RawInput, RawText


def masked_input(raw: RawInput, attribution: Attribution) -> RawInput | None:
    """The input with what its map calls unimportant taken away; None for a constant map.

    A picture fades into its own mean colour where the map is low. A recording's short-time
    spectrum is multiplied by the map. Of a caption's words, those above the median score stay and
    the others become a placeholder.

    Args:
        raw: the explained input.
        attribution: its map.

    Raises:
        InputError: an input of a kind that cannot be perturbed.
        OptionError: the map is not one of this input.
    """
    weights = unit_weights(attribution.scores)
    if weights is None:
        return None
    if isinstance(raw, RawText):
        kept = attribution.scores > np.percentile(attribution.scores, 50)
        return keep(raw, kept, words=attribution.words)
    return keep(raw, weights, axes=attribution.axes)


def confidence(
    encoder: Encoder, raw: RawInput, attribution: Attribution, guide: Tensor, clean: float
) -> tuple[float, float]:
    """Confidence drop and increase of one map, as fractions: times 100 they are the field's.

    Args:
        encoder: of the explained input; the caller has entered ``encoder.frozen()``.
        raw: the explained input.
        attribution: its map.
        guide: ``(D,)`` or ``(1, D)`` embedding of the other side, L2-normalised.
        clean: s0, the cosine of the pair.

    Returns:
        ``max(0, s0 - s1)`` and 1.0 or 0.0; NaN both for a constant map.

    Raises:
        InputError: an input of a kind that cannot be perturbed.
    """
    masked = masked_input(raw, attribution)
    if masked is None:
        return float("nan"), float("nan")
    with torch.no_grad():
        embedding = encoder.embed(encoder.preprocess([masked]))[0]
    left = float((embedding.float().cpu() * guide.float().cpu().reshape(-1)).sum())
    return max(0.0, clean - left), float(left > clean)
