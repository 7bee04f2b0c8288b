"""Grids: from tokens of a layer to places in the input, and back.

A grid belongs to one preprocessed batch. It knows which tokens are real (``valid``), which stand
for a part of the input (``content``; prefix tokens such as CLS, registers, padding and special
tokens do not), and how the content tokens lie on the input. How they lie is written as an
einops-style pattern, so that an order mistake is a visible word and not a silent reshape:
ImageBind's audio tokens are ``"clip f t"``, CLAP's folded ones ``"chunk f t"`` on a plane
``"f (chunk t)"``.
"""

from __future__ import annotations

from mmattrib.models.grids.base import TokenGrid, content_mask
from mmattrib.models.grids.placed import AxisPlacement, PlacedGrid
from mmattrib.models.grids.plane import Box, ImageGrid, Layout, PlaneGrid, SpectrogramGrid
from mmattrib.models.grids.text import TextGrid

__all__ = [
    "AxisPlacement",
    "Box",
    "ImageGrid",
    "Layout",
    "PlacedGrid",
    "PlaneGrid",
    "SpectrogramGrid",
    "TextGrid",
    "TokenGrid",
    "content_mask",
]
