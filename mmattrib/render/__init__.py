"""Explanations as pictures, pages, sound and files. A leaf: nothing here imports torch.

Names are imported when they are first used, so that listings draw nothing in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmattrib.lazy import lazy_names

if TYPE_CHECKING:
    from mmattrib.render.figures import figure, thumbnail
    from mmattrib.render.normalise import Heatmap, heatmap
    from mmattrib.render.page import index_html, notebook_html, report_html

_HOME = {
    "Heatmap": "normalise",
    "figure": "figures",
    "heatmap": "normalise",
    "index_html": "page",
    "notebook_html": "page",
    "report_html": "page",
    "thumbnail": "figures",
}

__all__ = [
    "Heatmap",
    "figure",
    "heatmap",
    "index_html",
    "notebook_html",
    "report_html",
    "thumbnail",
]


__getattr__ = lazy_names(__name__, _HOME)
