"""Reduce a raw input by weights on its own axes, with a fill for what is taken away.

:func:`keep` is the one home of this for pictures, recordings, captions and arrays: metrics mask an
input by its map with it, sampling methods (RISE, SHAP) draw masks for it, and reports make the
sound of a map with it.

>>> import numpy as np
>>> from mmattrib.perturb import keep, unit_weights
>>> from mmattrib.types import RawImage
>>> picture = RawImage(np.full((2, 2, 3), 200, dtype=np.uint8))
>>> weights = unit_weights(np.array([[0.0, 1.0], [0.5, 1.0]]))
>>> keep(picture, weights, fill="black").pixels[..., 0]
array([[  0, 200],
       [100, 200]], dtype=uint8)

Which fill stands in is a choice that changes results: none of them is an input of the kind that a
model was trained on. `FILLS` holds them by kind of input, each with a summary and its source; the
first of each kind is the default.

Weights are soft (numbers in [0, 1]) or hard (bool). The fills of captions take hard ones alone,
since a word is there or not, and so does ``"linear"`` of pictures, which mends holes.
:func:`unit_weights` and :func:`top_weights` make weights of a map's scores. :func:`keep_many`
applies hundreds of weights to one input without doing the same work twice. Fills at the level of
tokens, such as padding or faded embeddings, need an encoder and live in
:mod:`mmattrib.perturb.tokens`.

Importing this package imports numpy alone, no torch.
"""

from __future__ import annotations

from mmattrib.perturb.fills import Fill
from mmattrib.perturb.keeping import FILLS, keep, keep_many
from mmattrib.perturb.text import PLACEHOLDER
from mmattrib.perturb.weights import top_weights, unit_weights

__all__ = [
    "FILLS",
    "PLACEHOLDER",
    "Fill",
    "keep",
    "keep_many",
    "top_weights",
    "unit_weights",
]
