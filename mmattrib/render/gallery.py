"""Many maps in one figure: a row for each pair, a column for each method, as PNG or PDF."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from mmattrib.errors import OptionError
from mmattrib.render.figures import Aspect, FigureKind, draw_words, file_bytes, fonts
from mmattrib.render.panels import Panel, TextPanel
from mmattrib.render.wording import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Shown: TypeAlias = Literal["map", "original"]

MOST_ROWS, MOST_COLUMNS = 60, 24
_TILE = 2.3  # inches; those below too
_GAP = 0.08
_HEAD = 0.45
_LABEL = 0.28
_PLANE: Final = {"image": 2.0, "audio": 0.95}
_LINE = 0.29
_LETTERS = 22  # of a caption in a line of a tile
_POINTS = 9.0


@dataclass(frozen=True, eq=False)
class Tile:
    """What stands in one row and column.

    Attributes:
        panels: one below the other.
        shown: the maps, or the inputs without them.
        note: in place of panels, e.g. why there is no map.
    """

    panels: Sequence[Panel] = ()
    shown: Shown = "map"
    note: str = ""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Rows of tiles.

    Attributes:
        columns: their titles.
        rows: a label, and a tile for each column.
        note: below all.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Tile]]]
    note: str = ""


def gallery_bytes(gallery: Gallery, kind: FigureKind, dpi: int = 150) -> bytes:
    """The figure as the bytes of a PNG or PDF file.

    Raises:
        OptionError: nothing to draw, more rows or columns than a figure holds, or a row without a
            tile for each column.
    """
    from matplotlib import style

    _check(gallery)
    # The defaults hold while the figure is built: it looks the same under any style of the user's.
    with style.context("default"):
        return file_bytes(_figure(gallery), kind, dpi)


def check_size(rows: int, columns: int) -> None:
    """Refuse a grid that no figure holds, before its maps are made.

    Raises:
        OptionError: no row or column, or too many.
    """
    if not (1 <= rows <= MOST_ROWS and 1 <= columns <= MOST_COLUMNS):
        raise OptionError(
            f"a grid of {rows} rows and {columns} columns; accepted: 1 to {MOST_ROWS} rows and 1 "
            f"to {MOST_COLUMNS} columns. Draw fewer samples or methods"
        )


def _check(gallery: Gallery) -> None:
    columns = len(gallery.columns)
    check_size(len(gallery.rows), columns)
    for label, tiles in gallery.rows:
        if len(tiles) != columns:
            raise OptionError(f"row {label!r} has {len(tiles)} tiles for {columns} columns")


def _figure(gallery: Gallery) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = len(gallery.columns) * (_TILE + _GAP) + _GAP
    heights = [_LABEL + max(_height(tile) for tile in tiles) + _GAP for _, tiles in gallery.rows]
    note = textwrap.wrap(gallery.note, max(40, int(width * 14)))
    foot = 0.1 + 0.17 * len(note)
    total = _HEAD + sum(heights) + foot
    fig = Figure(figsize=(width, total), dpi=100, facecolor="white")
    FigureCanvasAgg(fig)
    draw = _Drawing(fig, width, total)
    for number, title in enumerate(gallery.columns):
        left = _GAP + number * (_TILE + _GAP)
        draw.say(left + _TILE / 2, 0.27, printable(title, 34), size=10, ha="center", weight="bold")
    top = _HEAD
    for (label, tiles), height in zip(gallery.rows, heights, strict=True):
        room = int(width * 12)
        draw.say(_GAP, top + 0.12, printable(label, max(20, room)), size=8.5, color="#5b5966")
        for number, tile in enumerate(tiles):
            draw.tile(tile, _GAP + number * (_TILE + _GAP), top + _LABEL)
        top += height
    for number, line in enumerate(note):
        draw.say(_GAP, top + 0.1 + 0.17 * number, line, size=8.5, color="#5b5966")
    return fig


def _height(tile: Tile) -> float:
    if not tile.panels:
        return 0.3 + 0.16 * len(_noted(tile))
    return sum(_panel_height(panel) + _GAP for panel in tile.panels)


def _noted(tile: Tile) -> list[str]:
    return textwrap.wrap(printable(tile.note, 200), 34)


def _panel_height(panel: Panel) -> float:
    if not isinstance(panel, TextPanel):
        return _PLANE.get(panel.kind, _PLANE["image"])
    letters = sum(len(piece.text) for piece in panel.pieces)
    return 0.12 + _LINE * min(8, 1 + letters // _LETTERS)


class _Drawing:
    """Places in inches from the top left of a figure."""

    def __init__(self, fig: Figure, width: float, height: float) -> None:
        self.fig, self.width, self.height = fig, width, height

    def say(self, x: float, y: float, text: str, **style: Any) -> None:
        at = (x / self.width, 1 - y / self.height)
        self.fig.text(*at, text, parse_math=False, fontfamily=fonts(), va="center", **style)

    def axes(self, x: float, y: float, height: float) -> Any:
        box = (x / self.width, 1 - (y + height) / self.height)
        return self.fig.add_axes((*box, _TILE / self.width, height / self.height))

    def tile(self, tile: Tile, x: float, y: float) -> None:
        for number, line in enumerate([] if tile.panels else _noted(tile)):
            self.say(x, y + 0.1 + 0.16 * number, line, size=8, color="#8a1c0d")
        for panel in tile.panels:
            height = _panel_height(panel)
            axes = self.axes(x, y, height)
            if isinstance(panel, TextPanel):
                draw_words(axes, panel, points=_POINTS)
            else:
                axes.set_axis_off()
                aspect: Aspect = "equal" if panel.kind == "image" else "auto"
                picture = panel.mapped if tile.shown == "map" else panel.original
                axes.imshow(picture, aspect=aspect, interpolation="antialiased")
            y += height + _GAP
