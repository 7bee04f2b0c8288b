"""What to draw for each side of an explanation, before any page or figure.

A panel holds pictures of bounded size with their ticks, or the shaded words of a caption; the HTML
page and the matplotlib figure both draw the same panels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmattrib.errors import InputError, OptionError
from mmattrib.render.arrays import drawing
from mmattrib.render.normalise import Heatmap, heatmap
from mmattrib.render.overlay import (
    Mask,
    Picture,
    blend,
    draw_truth,
    hatch,
    resized,
    resized_mask,
    resized_picture,
)
from mmattrib.render.scales import Scale, check_scale, full_scores
from mmattrib.render.spectrum import decibel_picture, mel_power
from mmattrib.types import (
    Attribution,
    Axis,
    Explanation,
    FloatArray,
    RawArray,
    RawAudio,
    RawImage,
    RawText,
)

Outlines: TypeAlias = Mapping[str, npt.NDArray[np.bool_]]
"""Side -> what was truly shared: a bool array in the shape of that side's scores."""

MAX_SIDE = 1024  # pixels; larger pictures are shown smaller
MIN_SIDE = 480  # pixels; smaller pictures are shown enlarged
MAX_WORDS = 1000
_SPECTROGRAM = (256, 960)  # rows, columns on the page

Tick: TypeAlias = tuple[float, str]
"""Place along an axis as a fraction of its length, and label."""


@dataclass(frozen=True, eq=False)
class PlanePanel:
    """A picture or a spectrogram and its map, both ``(H, W, 3)`` uint8 of bounded size.

    Attributes:
        side: key in the explanation.
        kind: ``"image"`` or ``"audio"``.
        name: of the raw input.
        original: without the map.
        mapped: with the map, what the model never saw hatched, and the truth's outline if there is
            one.
        heat: of the whole attribution, at the input's own size or the one drawn if that is smaller.
        unit: of the colour bar.
        has_truth: whether the truth is outlined.
        size_note: how the picture shown differs in size from the input; empty if it does not.
        xticks: along the time axis; empty for pictures.
        yticks: along the frequency axis from the bottom; empty for pictures.
        span: for audio, the time in seconds at the left and the right edge.
    """

    side: str
    kind: str
    name: str
    original: Picture
    mapped: Picture
    heat: Heatmap
    unit: str
    size_note: str = ""
    has_truth: bool = False
    xticks: tuple[Tick, ...] = ()
    yticks: tuple[Tick, ...] = ()
    span: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Piece:
    """A stretch of a caption.

    Attributes:
        text: as written.
        score: raw score in the attribution's unit; None for what lies between words.
        value: the heatmap's value in [0, 1].
        bar: the score's size as a fraction of the one in full colour, in [0, 1].
        true: whether the truth counts it as shared.
        coloured: whether the score counts on this scale at all.
    """

    text: str
    score: float | None = None
    value: float = 0.0
    bar: float = 0.0
    true: bool = False
    coloured: bool = True


@dataclass(frozen=True, eq=False)
class TextPanel:
    """A caption in pieces, words and what lies between them, in reading order."""

    side: str
    kind: str
    name: str
    pieces: tuple[Piece, ...]
    heat: Heatmap
    unit: str
    size_note: str = ""
    has_truth: bool = False


Panel: TypeAlias = PlanePanel | TextPanel


def panels(
    explanation: Explanation,
    truth: Outlines | None = None,
    clip: float | None = None,
    scale: Scale = "absolute",
) -> list[Panel]:
    """One panel per side, in the explanation's order.

    Args:
        explanation: what to draw.
        truth: side -> bool array in the shape of that side's scores; sides may be missing.
        clip: percentile for :func:`mmattrib.render.normalise.heatmap`.
        scale: see :data:`mmattrib.render.scales.Scale`.

    Raises:
        OptionError: no such scale, a truth for a side that does not exist or in another shape than
            the scores.
        InputError: a side has no raw input, or one whose shape its scores do not fit.
    """
    known = dict(truth or {})
    for side in known:
        if side not in explanation.attributions:
            raise OptionError(
                f"truth for {side!r}: accepted are the sides {', '.join(map(repr, explanation))}."
            )
    check_scale(scale)
    laid = {side: _laid(side, explanation) for side in explanation.attributions}
    tops = {side: each.heat(clip, "map").high for side, each in laid.items()}
    full = full_scores(explanation, tops, scale)
    return [
        _panel(side, explanation, known.get(side), each.heat(clip, scale, full[side]))
        for side, each in laid.items()
    ]


def unit_label(attribution: Attribution) -> str:
    """The unit as a colour bar shows it."""
    if attribution.unit != "bits":
        return attribution.unit or "score (no unit)"
    return "bits per word" if attribution.words else "bits per token"


@dataclass(frozen=True, eq=False)
class _Laid:
    """A map's scores at the size it is drawn, and where the model saw the input."""

    scores: FloatArray
    seen: Mask
    unit: str

    def heat(self, clip: float | None, scale: Scale, full: float | None = None) -> Heatmap:
        return heatmap(self.scores, self.unit, clip, self.seen, scale, full)


def _laid(side: str, explanation: Explanation) -> _Laid:
    attribution, shape = explanation[side], explanation[side].shape
    plane = len(shape) == 2 and 0 not in shape
    # A large picture's map is laid at the size it is drawn, never at its own.
    drawn = isinstance(explanation.inputs.get(side), RawImage) and plane
    size = None
    if max(shape, default=0) > MAX_SIDE:
        size = _drawn_size((shape[0], shape[1])) if drawn else shape
    return _Laid(attribution.scores_at(size), attribution.seen_at(size), attribution.unit)


def _panel(side: str, explanation: Explanation, truth: Mask | None, heat: Heatmap) -> Panel:
    attribution = explanation.attributions[side]
    raw = explanation.inputs.get(side)
    shape = attribution.shape
    mask = None if truth is None else np.asarray(truth, dtype=bool)
    if mask is not None and mask.shape != shape:
        raise OptionError(
            f"truth for {side!r} has shape {mask.shape}: accepted is the shape of its scores, "
            f"{shape}."
        )
    plane = len(shape) == 2 and 0 not in shape
    if isinstance(raw, RawText):
        return _text(side, attribution, raw, heat, mask)
    if isinstance(raw, RawArray):
        picture, flat = drawing(side, attribution, raw)
        laid = replace(heat, values=flat(heat.values))
        outline = None if mask is None else flat(mask.astype(np.float32)) > 0.5
        hidden = flat((~attribution.seen).astype(np.float32))
        return _image(side, attribution, picture, laid, outline, hidden)
    if not plane:
        raise InputError(
            f"the scores of {side!r} have shape {shape}: accepted is a plane of at least one row "
            "and one column, with two axes."
        )
    if isinstance(raw, RawImage):
        return _image(side, attribution, raw, heat, mask)
    if isinstance(raw, RawAudio):
        return _audio(side, attribution, raw, heat, mask)
    raise InputError(
        f"side {side!r} has no raw input that can be drawn ({type(raw).__name__}): accepted are "
        "RawImage, RawAudio, RawText and RawArray."
    )


def _drawn_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns that a picture of ``(height, width)`` is shown with."""
    height, width = shape
    longest = max(height, width)
    factor = min(1.0, MAX_SIDE / longest) if longest > MIN_SIDE else MIN_SIDE / longest
    return max(1, round(height * factor)), max(1, round(width * factor))


def _image(
    side: str,
    attribution: Attribution,
    raw: RawImage,
    heat: Heatmap,
    truth: Mask | None,
    hidden: FloatArray | None = None,
) -> PlanePanel:
    """A picture and its map; ``hidden`` is 1 where the model saw nothing, where that is not what
    the attribution's own plane says."""
    height, width = raw.pixels.shape[:2]
    size = _drawn_size((height, width))
    original = resized_picture(raw.pixels, size)
    mapped = blend(original, _shown(heat, size), heat.signed)
    if hidden is not None:
        mapped = _hatched(mapped, original, resized(hidden, size) > 0.5)
    else:
        mapped = _hatched(mapped, original, ~attribution.seen_at(size))
    if truth is not None:
        mapped = draw_truth(mapped, resized_mask(truth, size), width=max(2, max(size) // 200))
    smaller = max(size) < max(height, width)
    note = f"Shown at {size[1]} × {size[0]} of {width} × {height} pixels." if smaller else ""
    return PlanePanel(
        side,
        "image",
        raw.name,
        original,
        mapped,
        heat,
        unit_label(attribution),
        note,
        truth is not None,
    )


def _hatched(mapped: Picture, original: Picture, unseen: Mask) -> Picture:
    """The map, with the part that the model never saw as given and hatched instead."""
    if not unseen.any():
        return mapped
    return hatch(np.where(unseen[..., None], original, mapped), unseen)


def _shown(heat: Heatmap, size: tuple[int, int]) -> FloatArray:
    if heat.values.shape == size:
        return heat.values
    return np.clip(resized(heat.values, size), 0.0, 1.0)


def _audio(
    side: str, attribution: Attribution, raw: RawAudio, heat: Heatmap, truth: Mask | None
) -> PlanePanel:
    frequency, time = attribution.axes
    hertz = _at_cells(frequency, _SPECTROGRAM[0])
    seconds = _at_cells(time, _SPECTROGRAM[1])
    power = mel_power(raw.samples, raw.sample_rate, np.maximum(hertz, 0.0), seconds)
    original = decibel_picture(power)
    values = _shown(heat, _SPECTROGRAM)[::-1]
    mapped = blend(original, values, heat.signed)
    mapped = _hatched(mapped, original, ~attribution.seen_at(_SPECTROGRAM)[::-1])
    if truth is not None:
        mapped = draw_truth(mapped, resized_mask(truth, _SPECTROGRAM)[::-1], width=3)
    half = 0.5 * (seconds[1] - seconds[0])
    span = (float(seconds[0] - half), float(seconds[-1] + half))
    return PlanePanel(
        side,
        "audio",
        raw.name,
        original,
        mapped,
        heat,
        unit_label(attribution),
        has_truth=truth is not None,
        xticks=_time_ticks(span),
        yticks=_frequency_ticks(frequency.values),
        span=span,
    )


def _at_cells(axis: Axis, count: int) -> npt.NDArray[np.float64]:
    """Axis values at the centres of ``count`` equal cells that cover all of the axis's own."""
    if len(axis.values) == 1:
        # One cell says nothing about its width; it is drawn from 0 to twice its centre.
        return (np.arange(count) + 0.5) / count * 2.0 * max(float(axis.values[0]), 1e-3)
    return axis.at(count).values.astype(np.float64)


def _time_ticks(span: tuple[float, float]) -> tuple[Tick, ...]:
    length = span[1] - span[0]
    if not length > 0:
        return ()
    steps = [m * 10.0**e for e in range(-3, 6) for m in (1, 2, 5)]
    step = next((s for s in steps if length / s <= 10.0), length)
    first = int(np.ceil(span[0] / step - 1e-9))
    last = int(np.floor(span[1] / step + 1e-9))
    return tuple(((n * step - span[0]) / length, f"{n * step:.6g}") for n in range(first, last + 1))


def _frequency_ticks(values: FloatArray) -> tuple[Tick, ...]:
    known = np.asarray(values, dtype=np.float64)
    ticks: list[Tick] = []
    for hertz in (63, 125, 250, 500, 1000, 2000, 4000, 8000, 16000):
        if known[0] <= hertz <= known[-1]:
            index = float(np.interp(hertz, known, np.arange(len(known))))
            place = (index + 0.5) / len(known)
            if not ticks or place - ticks[-1][0] > 0.09:
                ticks.append((place, f"{hertz}" if hertz < 1000 else f"{hertz // 1000}k"))
    return tuple(ticks)


def _text(
    side: str, attribution: Attribution, raw: RawText, heat: Heatmap, truth: Mask | None
) -> TextPanel:
    words = attribution.words
    if attribution.shape != (len(words),):
        raise InputError(
            f"the scores of {side!r} have shape {attribution.shape}: accepted is one score "
            f"for each of its {len(words)} words."
        )
    scores = np.nan_to_num(attribution.scores, posinf=0.0, neginf=0.0)
    sizes = np.abs(scores) if heat.signed else np.maximum(scores, 0.0)
    top = float(sizes.max(initial=0.0) if heat.scale == "map" else heat.high) or 1.0
    counts = heat.strength >= heat.floor
    pieces: list[Piece] = []
    position = 0
    for index in sorted(range(len(words)), key=lambda i: words[i].start)[:MAX_WORDS]:
        start, end = max(position, words[index].start), words[index].end
        if not attribution.seen[index]:
            continue  # no token stands for it: shown as what lies between words
        if start > position:
            pieces.append(Piece(raw.text[position:start]))
        pieces.append(
            Piece(
                raw.text[start:end],
                float(attribution.scores[index]),
                float(heat.values[index]),
                min(1.0, float(sizes[index]) / top),
                bool(truth[index]) if truth is not None else False,
                bool(counts[index]),
            )
        )
        position = max(position, end)
    note = ""
    if len(words) > MAX_WORDS:
        note = f"The first {MAX_WORDS} of {len(words)} words are shown."
    elif position < len(raw.text):
        pieces.append(Piece(raw.text[position:]))
    return TextPanel(
        side,
        "text",
        raw.name,
        tuple(pieces),
        heat,
        unit_label(attribution),
        note,
        truth is not None,
    )
