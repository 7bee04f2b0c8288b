"""Registers the pictures and pages that show an explanation; nothing is drawn until asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmattrib.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmattrib.render.panels import Outlines
    from mmattrib.render.scales import Scale
    from mmattrib.types import Explanation


def png(
    truth: Outlines | None = None, clip: float | None = None, scale: Scale = "absolute"
) -> Callable[[Explanation], bytes]:
    """A writer of figures.

    Args:
        truth: side -> bool mask in the shape of its scores, drawn as an outline.
        clip: percentile beyond which scores are drawn as the largest; None clips nothing.
        scale: which score is drawn in full colour: ``"absolute"``, ``"page"`` or ``"map"``.
    """
    from mmattrib.render.figures import png_bytes

    return lambda explanation: png_bytes(explanation, truth, clip, scale)


def html(
    title: str | None = None,
    truth: Outlines | None = None,
    clip: float | None = None,
    scale: Scale = "absolute",
) -> Callable[[Explanation], bytes]:
    """A writer of self-contained pages.

    Args:
        title: of the page; a sentence made of the inputs if None.
        truth: side -> bool mask in the shape of its scores, drawn as an outline.
        clip: percentile beyond which scores are drawn as the largest; None clips nothing.
        scale: which score is drawn in full colour: ``"absolute"``, ``"page"`` or ``"map"``.
    """
    from mmattrib.render.page import report_html

    return lambda explanation: report_html(explanation, title, truth, clip, scale).encode("utf-8")


def notebook(scale: Scale = "absolute") -> Callable[[Explanation], bytes]:
    """A writer of what a notebook shows.

    Args:
        scale: which score is drawn in full colour: ``"absolute"``, ``"page"`` or ``"map"``.
    """
    from mmattrib.render.page import notebook_html

    return lambda explanation: notebook_html(explanation, scale).encode("utf-8")


@hookimpl
def register_writers(register: Register) -> None:
    """Register ``.png`` and ``.html``, and what notebooks show."""
    register("png", png, summary="a figure of both maps")
    register("html", html, summary="a page of both maps in one file, with sound")
    register("notebook", notebook, summary="a page without its frame, for notebooks", research=True)
