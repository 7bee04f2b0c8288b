"""Confidence drop and increase: what is left of a match when the input is masked by its map.

Reported, never ranked by: masking makes inputs that no model was trained on, and a map that keeps
everything drops nothing. With s0 the cosine of the pair and s1 the cosine after masking,
drop = max(0, s0 - s1) and increase = 1 where s1 > s0 (Chattopadhay et al. 2018, Grad-CAM++, without
their division by s0, which a cosine near zero would blow up).

All work is done on raw inputs and goes through the encoder's own preprocessing, so that every
backbone is masked alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from mmattrib.errors import InputError
from mmattrib.models.encoder import Encoder
from mmattrib.render.audio import masked_audio
from mmattrib.types import (
    Attribution,
    FloatArray,
    RawAudio,
    RawImage,
    RawInput,
    RawText,
)

#: Stands for a word that is left out: a token of its own, so that the other words keep their
#: places, which no caption uses. To `tiny` it is an unknown word ("_" would be no token at all).
PLACEHOLDER: Final = "#"


def unit_map(scores: FloatArray) -> FloatArray | None:
    """Min-max normalised scores in [0, 1], or None for a constant map, which has no such form."""
    low, high = float(scores.min()), float(scores.max())
    if not high > low:
        return None
    scaled: FloatArray = ((scores.astype(np.float64) - low) / (high - low)).astype(np.float32)
    return scaled


def masked_input(raw: RawInput, attribution: Attribution) -> RawInput | None:
    """The input with what its map calls unimportant taken away; None for a constant map.

    A picture fades into its own mean colour where the map is low. A recording's short-time
    spectrum is multiplied by the map. Of a caption's words, those above the median score stay and
    the others become a placeholder.

    Args:
        raw: the explained input.
        attribution: its map.

    Raises:
        InputError: an input of another modality.
    """
    weights = unit_map(attribution.scores)
    if weights is None:
        return None
    if isinstance(raw, RawImage):
        pixels = raw.pixels.astype(np.float32)
        mean = pixels.mean(axis=(0, 1))
        mixed = pixels * weights[..., None] + mean * (1.0 - weights[..., None])
        return replace(raw, pixels=np.rint(mixed).clip(0, 255).astype(np.uint8))
    if isinstance(raw, RawAudio):
        hertz, seconds = (axis.values for axis in attribution.axes)
        return replace(
            raw, samples=masked_audio(raw.samples, raw.sample_rate, weights, hertz, seconds)
        )
    if isinstance(raw, RawText):
        kept = attribution.scores > np.percentile(attribution.scores, 50)
        text = raw.text
        for word, keep in zip(reversed(attribution.words), kept[::-1], strict=True):
            if not keep:  # from the end, so that the earlier spans still fit
                text = text[: word.start] + PLACEHOLDER + text[word.end :]
        return replace(raw, text=text)
    raise InputError(f"{raw.name}: {raw.modality} cannot be masked; accepted: image, audio, text")


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
        InputError: an input of a modality that cannot be masked.
    """
    masked = masked_input(raw, attribution)
    if masked is None:
        return float("nan"), float("nan")
    with torch.no_grad():
        embedding = encoder.embed(encoder.preprocess([masked]))[0]
    left = float((embedding.float().cpu() * guide.float().cpu().reshape(-1)).sum())
    return max(0.0, clean - left), float(left > clean)
