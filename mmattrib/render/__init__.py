"""Explanations as pictures, pages, sound and files. A leaf: nothing here imports torch."""

from __future__ import annotations

from mmattrib.render.figures import figure, thumbnail
from mmattrib.render.normalise import Heatmap, heatmap
from mmattrib.render.page import index_html, notebook_html, report_html

__all__ = [
    "Heatmap",
    "figure",
    "heatmap",
    "index_html",
    "notebook_html",
    "report_html",
    "thumbnail",
]
