"""The matplotlib figure: both sides with titles, colour bars and units, and any warning.

Built on ``matplotlib.figure.Figure`` with its own Agg canvas, so that neither pyplot's list of
figures, nor the backend, nor the reader's rcParams are touched.
"""

from __future__ import annotations

import io
import textwrap
import warnings as python_warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from mmattrib.calibration import noun
from mmattrib.render.overlay import TRUTH_RGB, colour_table, css, css_bar, ink
from mmattrib.render.panels import Outlines, Panel, Piece, PlanePanel, TextPanel, panels
from mmattrib.render.scales import Scale
from mmattrib.render.wording import (
    TRUTH_KEY,
    default_title,
    how_made,
    kept,
    number,
    own_name,
    printable,
    reading,
    scale_note,
    unseen,
    warnings,
)
from mmattrib.types import Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Aspect: TypeAlias = Literal["equal", "auto"]
FigureKind: TypeAlias = Literal["png", "pdf"]

_WIDTH = 11.0  # inches; the heights below too
_MARGIN = 0.45
_STAGE = "#15131c"
_ALARM, _SOFT, _INK = "#8a1c0d", "#5b5966", "#1c1b22"
_ON_STAGE = "#e9e6f2"
_TRUTH = css(np.array(TRUTH_RGB) / 255.0)
# Fonts tried after matplotlib's own for scripts that it lacks; those not installed are left out.
_FALLBACK_FONTS = (
    "Noto Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Arial Unicode MS",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Noto Emoji",
    "Symbola",
)


def figure(
    explanation: Explanation,
    truth: Outlines | None = None,
    clip: float | None = None,
    scale: Scale = "absolute",
) -> Figure:
    """Draw an explanation.

    Args:
        explanation: what to draw.
        truth: side -> bool array in the shape of that side's scores, drawn as an outline.
        clip: percentile beyond which scores are drawn as the largest; None clips nothing.
        scale: which score is drawn in full colour, see :data:`mmattrib.render.scales.Scale`.

    Returns:
        A figure that belongs to no pyplot window, on an Agg canvas.

    Raises:
        OptionError: a truth that fits no side, or ``clip`` or ``scale`` out of range.
        InputError: a side without a raw input that can be drawn.
    """
    from matplotlib import style

    drawn = panels(explanation, truth, clip, scale)
    # The defaults hold while the figure is built: it looks the same under any style of the user's.
    with style.context("default"):
        return _figure(explanation, drawn)


def png_bytes(
    explanation: Explanation,
    truth: Outlines | None = None,
    clip: float | None = None,
    scale: Scale = "absolute",
) -> bytes:
    """The figure as the bytes of a PNG file, 150 dots per inch; its description is the verdict."""
    verdict = explanation.verdict
    told = {"Title": default_title(explanation, verdict), "Description": verdict.sentence}
    return file_bytes(figure(explanation, truth, clip, scale), "png", 150, told)


def thumbnail(
    explanation: Explanation, truth: Outlines | None = None, scale: Scale = "absolute"
) -> bytes:
    """Both maps side by side, without axes or titles, as the bytes of a PNG file (600 × 225).

    Raises:
        OptionError: a truth that fits no side.
        InputError: a side without a raw input that can be drawn.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = panels(explanation, truth, scale=scale)
    with style.context("default"):
        fig = Figure(figsize=(6.0, 2.25), dpi=100, facecolor=_STAGE)
        FigureCanvasAgg(fig)
        share = 1.0 / len(drawn)
        for index, panel in enumerate(drawn):
            axes = fig.add_axes((index * share + 0.01, 0.03, share - 0.02, 0.94))
            if isinstance(panel, TextPanel):
                draw_words(axes, panel, points=13.0)
            else:
                axes.set_axis_off()
                aspect: Aspect = "equal" if panel.kind == "image" else "auto"
                axes.imshow(panel.mapped, aspect=aspect, interpolation="antialiased")
        return file_bytes(fig, "png", 100)


def file_bytes(
    fig: Figure, kind: FigureKind, dpi: int, told: Mapping[str, str] | None = None
) -> bytes:
    """A figure as the bytes of a file; equal figures give equal bytes.

    Args:
        fig: any figure.
        kind: ``"png"`` or ``"pdf"``.
        dpi: dots per inch, of the pictures in a PDF too.
        told: metadata.
    """
    from matplotlib import rc_context

    nothing = {"png": ("Software",), "pdf": ("Creator", "Producer", "CreationDate")}[kind]
    buffer = io.BytesIO()
    # Letters of a PDF stay text (42: TrueType), which readers can search and copy.
    with python_warnings.catch_warnings(), rc_context({"pdf.fonttype": 42}):
        # A caption may use a script that no installed font has; boxes are drawn in its place.
        python_warnings.filterwarnings("ignore", message="Glyph .* missing from")
        metadata = {**dict.fromkeys(nothing), **(told or {})}
        fig.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def _figure(explanation: Explanation, drawn: list[Panel]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = [*warnings(explanation)]
    for panel in drawn:
        modality = explanation[panel.side].modality
        found += [f"The {noun(modality)}: {note}" for note in panel.heat.notes]
    told = [(text, _ALARM) for text in found]
    told += [(text, _SOFT) for text in map(unseen, explanation.values()) if text]
    told += [
        (f"The {noun(attribution.modality)}: {said[0].lower()}{said[1:]}", _SOFT)
        for attribution in explanation.values()
        if (said := kept(attribution))
    ]
    told.append((scale_note(explanation, {panel.side: panel.heat for panel in drawn}), _SOFT))
    verdict = explanation.verdict
    judged = _ALARM if verdict.level == "no match" else _INK
    told.insert(0, (verdict.sentence, judged))
    lines = [(line, colour) for text, colour in told for line in textwrap.wrap(text, 125)][:14]
    head = 0.95 + 0.2 * len(lines) + (0.12 if lines else 0.0)
    heights = [_height(panel) for panel in drawn]
    total = head + sum(heights)
    fig = Figure(figsize=(_WIDTH, total), dpi=100, facecolor="white")
    FigureCanvasAgg(fig)
    cosine = number(round(explanation.similarity, 3))
    title = f"{default_title(explanation, verdict)}   similarity {cosine}"
    _say(fig, _MARGIN, total - 0.42, total, title, size=14, weight="bold")
    _say(fig, _MARGIN, total - 0.72, total, how_made(explanation), size=9.5, color="#5b5966")
    for index, (line, colour) in enumerate(lines):
        at = total - 1.02 - 0.2 * index
        weight = "normal" if colour == _SOFT else "bold"
        _say(fig, _MARGIN, at, total, line, size=9.5, color=colour, weight=weight)
    top = total - head
    for panel, height in zip(drawn, heights, strict=True):
        _draw_side(fig, explanation, panel, (top - height, top, total))
        top -= height
    return fig


def _height(panel: Panel) -> float:
    if isinstance(panel, TextPanel):
        letters = sum(len(piece.text) + 1 for piece in panel.pieces)
        return 1.3 + 0.42 * min(20, 1 + letters // 85)
    if panel.kind == "audio":
        return 3.6
    rows, columns = panel.original.shape[:2]
    return float(1.0 + min(5.0, 4.55 * rows / columns))


def _draw_side(
    fig: Figure, explanation: Explanation, panel: Panel, band: tuple[float, float, float]
) -> None:
    """Draw one side into the band ``(bottom, top, figure height)`` in inches."""
    bottom, top, total = band
    attribution = explanation[panel.side]
    others = [noun(a.modality) for side, a in explanation.items() if side != panel.side]
    other = others[0] if others else "other input"
    name = own_name(panel.name, attribution.modality)
    label = f"The {noun(attribution.modality)}" + (f": {printable(name, 60)}" if name else "")
    _say(fig, _MARGIN, top - 0.2, total, label, size=11, weight="bold")
    advice = reading(attribution, other, panel.heat.signed)
    if panel.has_truth:
        advice += f" {TRUTH_KEY.partition('.')[0]}."
    _say(fig, _MARGIN, top - 0.42, total, advice, size=9, color="#5b5966")
    width = _WIDTH - 2 * _MARGIN - 0.85
    low, high = bottom + 0.2, top - 0.58
    if isinstance(panel, TextPanel):
        box = (_MARGIN, low + 0.1, width, high - low - 0.1)
        draw_words(fig.add_axes(_inches(box, total)), panel, points=13.0)
    else:
        _draw_planes(fig, panel, (low, high, total), width)
    bar = (_MARGIN + width + 0.15, low + 0.1, 0.14, high - low - 0.2)
    _draw_bar(fig, panel, _inches(bar, total))


def _draw_planes(
    fig: Figure, panel: PlanePanel, band: tuple[float, float, float], width: float
) -> None:
    low, high, total = band
    audio = panel.kind == "audio"
    inset = 0.42 if audio else 0.0
    each = width / 2 - 0.1
    for index, picture in enumerate((panel.original, panel.mapped)):
        left = _MARGIN + index * (each + 0.2)
        floor = low + (0.3 if audio else 0.0)
        box = (left + inset, floor, each - inset, high - floor)
        axes = fig.add_axes(_inches(box, total))
        aspect: Aspect = "auto" if audio else "equal"
        rows, columns = picture.shape[:2]
        axes.imshow(picture, aspect=aspect, extent=(0, columns, 0, rows))
        _set_ticks(axes, panel, index == 0)


def _set_ticks(axes: Axes, panel: PlanePanel, first: bool) -> None:
    rows, columns = panel.original.shape[:2]
    axes.set_xticks([at * columns for at, _ in panel.xticks], [text for _, text in panel.xticks])
    axes.set_yticks([at * rows for at, _ in panel.yticks], [text for _, text in panel.yticks])
    axes.tick_params(labelsize=7, length=2.5, color="#5b5966", labelcolor="#5b5966")
    if panel.kind == "audio":
        axes.set_xlabel("time (s)", fontsize=7.5, color="#5b5966", labelpad=1)
        if first:
            axes.set_ylabel("frequency (Hz)", fontsize=7.5, color="#5b5966", labelpad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_bar(fig: Figure, panel: Panel, box: tuple[float, float, float, float]) -> None:
    heat = panel.heat
    axes = fig.add_axes(box)
    axes.imshow(
        colour_table(heat.signed)[:, None, :], aspect="auto", origin="lower", extent=(0, 1, 0, 1)
    )
    low, high = number(heat.low), number(heat.high)
    if heat.clipped:
        low, high = (f"≤ {low}" if heat.signed else low), f"≥ {high}"
    axes.set_xticks([])
    axes.set_yticks([0, 1], [low, high])
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.tick_params(labelsize=8, length=2)
    unit = printable(panel.unit, 40)
    short = box[3] * fig.get_figheight() < 1.5  # the unit does not fit between the numbers
    beside = 4.2 if short else 1.7
    axes.text(beside, 0.5, unit, fontsize=8, rotation=90, va="center", parse_math=False)


def draw_words(axes: Axes, panel: TextPanel, points: float) -> None:
    """Lay the words out in lines on a dark ground; what does not fit is left off with an ellipsis.

    Coordinates are inches from the top left of the axes.
    """
    fig: Any = axes.get_figure()
    position = axes.get_position()
    width = position.width * fig.get_figwidth()
    height = position.height * fig.get_figheight()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(_STAGE)
    for spine in axes.spines.values():
        spine.set_visible(False)
    line = points / 72.0 * 2.3
    pad, gap = 0.05, 0.06
    x, y = 0.15, line * 0.7
    end = x
    for piece in panel.pieces:
        if piece.score is None and not piece.text.strip():
            continue
        word = " ".join(printable(piece.text, 40).split())
        text = _word(axes, word, points, x + pad, y)
        taken = _text_width(axes, text)
        if x + taken + 2 * pad > width - 0.1 and x > 0.15:
            x, y = 0.15, y + line
            text.set_position((x + pad, y))
        if y + line * 0.4 > height:
            text.set_text("…")
            text.set_position((end, y - line))
            break
        _shade(axes, panel, piece, text, (x, y, taken + 2 * pad, points / 72.0))
        x += taken + 2 * pad + gap
        end = x


def _word(axes: Axes, word: str, points: float, x: float, y: float) -> Any:
    return axes.text(
        x,
        y,
        word,
        fontsize=points,
        color=_ON_STAGE,
        va="center_baseline",
        parse_math=False,
        fontfamily=fonts(),
    )


def _text_width(axes: Axes, text: Any) -> float:
    fig: Any = axes.get_figure()
    with python_warnings.catch_warnings():
        python_warnings.filterwarnings("ignore", message="Glyph .* missing from")
        extent = text.get_window_extent(fig.canvas.get_renderer())
    return float(extent.width / fig.dpi)


def _shade(
    axes: Axes,
    panel: TextPanel,
    piece: Piece,
    text: Any,
    box: tuple[float, float, float, float],
) -> None:
    """Shade a word and draw its bar; ``box`` is left, centre, width and letter height in inches."""
    from matplotlib.patches import Rectangle

    if piece.score is None:
        return
    left, centre, width, letter = box
    ground = colour_table(panel.heat.signed)[round(piece.value * 255)]
    text.set_color(ink(ground) if piece.coloured else _ON_STAGE)
    text.set_zorder(3)
    upper, tall = centre - 0.72 * letter, 1.4 * letter
    edge = _TRUTH if piece.true else "none"
    face = css(ground) if piece.coloured else "none"
    axes.add_patch(Rectangle((left, upper), width, tall, fc=face, ec=edge, lw=1.6, zorder=2))
    under = upper + tall + 0.12 * letter
    fill = css_bar(piece.value, panel.heat.signed)
    axes.add_patch(Rectangle((left, under), width, 0.13 * letter, fc="#38344a", ec="none"))
    axes.add_patch(Rectangle((left, under), width * piece.bar, 0.13 * letter, fc=fill, ec="none"))


def _say(fig: Figure, x: float, y: float, total: float, text: str, **style: Any) -> None:
    fig.text(x / _WIDTH, y / total, text, parse_math=False, fontfamily=fonts(), **style)


def _inches(
    box: tuple[float, float, float, float], total: float
) -> tuple[float, float, float, float]:
    left, bottom, width, height = box
    return left / _WIDTH, bottom / total, width / _WIDTH, height / total


@lru_cache(maxsize=1)
def fonts() -> list[str]:
    """Families to try, in order, of those that are installed."""
    from matplotlib import font_manager

    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]
