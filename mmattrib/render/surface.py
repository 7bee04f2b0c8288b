"""A tuned metric over two settings: a figure with one panel for each kind of input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmattrib.errors import OptionError, repr_of
from mmattrib.render.figures import FigureKind, file_bytes, fonts
from mmattrib.render.wording import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmattrib.types import FloatArray

MOST = 64  # values along an axis


@dataclass(frozen=True, eq=False)
class Surface:
    """A metric over one or two settings.

    Attributes:
        title: e.g. the kind of input, and what the other settings are.
        metric: name, with its unit.
        x: name of the setting along the columns.
        columns: its values as text.
        y: name of the setting along the rows; empty where there is one row.
        rows: its values as text.
        values: ``(rows, columns)``, NaN where nothing was measured.
        best: row and column that were chosen.
    """

    title: str
    metric: str
    x: str
    columns: Sequence[str]
    y: str
    rows: Sequence[str]
    values: FloatArray
    best: tuple[int, int]

    __repr__ = repr_of()


def surface_bytes(surfaces: Sequence[Surface], kind: FigureKind, dpi: int = 150) -> bytes:
    """The figure as the bytes of a PNG or PDF file; what was chosen has a frame.

    Raises:
        OptionError: nothing to draw, or more values than a figure holds.
    """
    from matplotlib import style

    if not surfaces or any(max(s.values.shape) > MOST or s.values.size == 0 for s in surfaces):
        raise OptionError(f"a surface has 1 to {MOST} values along each axis; vary fewer")
    with style.context("default"):
        return file_bytes(_figure(surfaces), kind, dpi)


def _figure(surfaces: Sequence[Surface]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    widths = [max(3.4, 1.9 + 0.75 * len(s.columns)) for s in surfaces]
    height = max(2.6, 1.7 + 0.5 * max(len(s.rows) for s in surfaces))
    total = sum(widths)
    fig = Figure(figsize=(total, height), dpi=100, facecolor="white")
    FigureCanvasAgg(fig)
    left = 0.0
    for surface, width in zip(surfaces, widths, strict=True):
        box = (left + 0.95, 0.75, width - 1.25, height - 1.45)
        axes = fig.add_axes((box[0] / total, box[1] / height, box[2] / total, box[3] / height))
        _draw(axes, surface)
        left += width
    return fig


def _draw(axes: Any, surface: Surface) -> None:
    from matplotlib.patches import Rectangle

    values = np.ma.masked_invalid(surface.values)
    axes.imshow(values, aspect="auto", cmap="cividis", interpolation="nearest")
    known = surface.values[np.isfinite(surface.values)]
    middle = (known.min() + known.max()) / 2 if known.size else 0.0
    for (row, column), value in np.ndenumerate(surface.values):
        told = f"{value:.3g}" if np.isfinite(value) else "–"
        colour = "#ffffff" if np.isfinite(value) and value <= middle else "#000000"
        axes.text(column, row, told, ha="center", va="center", fontsize=8, color=colour)
    row, column = surface.best
    axes.add_patch(
        Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec="#d62728", lw=2.5, clip_on=False)
    )
    said = {"parse_math": False, "fontfamily": fonts()}
    axes.set_xticks(range(len(surface.columns)), [printable(t, 12) for t in surface.columns])
    axes.set_yticks(range(len(surface.rows)), [printable(t, 12) for t in surface.rows])
    axes.tick_params(labelsize=8, length=2)
    axes.set_xlabel(printable(surface.x, 40), fontsize=9, **said)
    axes.set_ylabel(printable(surface.y, 30), fontsize=9, **said)
    title = f"{printable(surface.title, 60)}\n{printable(surface.metric, 40)}"
    axes.set_title(title, fontsize=9, **said)
