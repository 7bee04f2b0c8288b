"""Grids of maps in the layouts of the paper's figures: methods side by side (Figs. 2 and 4), and
what is left of an input that was reduced by its map (Fig. 3)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from mmattrib.errors import InputError, TrustWarning
from mmattrib.evaluation.degrading import highest, percentile_of, without
from mmattrib.evaluation.measure import each_explained
from mmattrib.many import Failure
from mmattrib.metrics.faithfulness import reduced_input
from mmattrib.render.gallery import Gallery, Tile, check_size
from mmattrib.render.panels import Panel, Piece, TextPanel, panels
from mmattrib.types import RawText

if TYPE_CHECKING:
    from mmattrib.datasets import Dataset
    from mmattrib.evaluation.candidates import Variant
    from mmattrib.models.backbone import Backbone
    from mmattrib.samples import Sample
    from mmattrib.types import Attribution, BoolArray, Explanation, RawInput

MAPS: Final = (
    "Each map is drawn from its own least score to its own largest; methods have different units. "
    "What the two inputs are known to share is outlined."
)


def comparison(
    backbone: Backbone,
    data: Dataset,
    variants: Sequence[Variant],
    pairs: Sequence[tuple[str, str]],
    *,
    count: int = 6,
    seed: int = 0,
    sides: Sequence[str] | None = None,
) -> Gallery:
    """Methods side by side: a row for each pair, a column for each method, behind the inputs.

    The paper's Fig. 2, with both maps of a pair in one tile; with ``sides``, its Fig. 4.

    Args:
        backbone: a model.
        data: its first samples are drawn.
        variants: the columns.
        pairs: of sides; each makes a row of every sample.
        count: how many samples.
        seed: of the methods' noise.
        sides: those whose maps are drawn; both of each pair if None.

    Raises:
        OptionError: no method, no pair, a layer or option that does not fit, or too many tiles.
    """
    check_size(count * len(pairs), 1 + len(variants))
    rows: list[tuple[str, list[Tile]]] = []
    for sample in islice(iter(data), count):
        for first, second in pairs:
            found = [_explained(backbone, sample, (first, second), v, seed) for v in variants]
            drawn = [side for side in (first, second) if sides is None or side in sides]
            tiles = [
                _failed(each) if isinstance(each, Failure) else Tile(_panels(sample, each, drawn))
                for each in found
            ]
            known = next((each for each in found if not isinstance(each, Failure)), None)
            shown = Tile(note="no method explained it")
            if known is not None:
                inputs = [_plain(panel) for panel in _panels(sample, known, list(known))]
                shown = Tile(inputs, "original")
            rows.append((f"{sample.id}: {first} and {second}", [shown, *tiles]))
    return Gallery(["input", *(variant.label for variant in variants)], rows, MAPS)


def degradation(
    backbone: Backbone,
    data: Dataset,
    variant: Variant,
    pairs: Sequence[tuple[str, str]],
    *,
    count: int = 6,
    seed: int = 0,
) -> Gallery:
    """What the tests of confidence and ROAR+ make of an input: the paper's Fig. 3.

    Columns: the inputs; the maps; what is kept to measure confidence (pictures and sounds by
    their map, words above the median); what ROAR+ trains on (what the map scores above its 75th
    percentile, and words above the median, taken away).

    Args:
        backbone: a model.
        data: its first samples are drawn.
        variant: whose maps.
        pairs: of sides; each makes a row of every sample.
        count: how many samples.
        seed: of the method's noise.

    Raises:
        OptionError: no pair, a layer or option that does not fit, or too many tiles.
    """
    check_size(count * len(pairs), 4)
    rows: list[tuple[str, list[Tile]]] = []
    for sample in islice(iter(data), count):
        for pair in pairs:
            label = f"{sample.id}: {pair[0]} and {pair[1]}"
            found = _explained(backbone, sample, pair, variant, seed)
            if isinstance(found, Failure):
                rows.append((label, [_failed(found)] * 4))
                continue
            drawn = _panels(sample, found, list(found))
            kept = [_reduced(found, side, panel) for side, panel in zip(found, drawn, strict=True)]
            rows.append(
                (
                    label,
                    [
                        Tile([_plain(panel) for panel in drawn], "original"),
                        Tile(drawn),
                        Tile([confidence for confidence, _ in kept], "original"),
                        Tile([roar for _, roar in kept], "original"),
                    ],
                )
            )
    columns = ["input", variant.label, "kept for confidence", "left for ROAR+"]
    return Gallery(columns, rows, MAPS)


def stacked(galleries: Mapping[str, Gallery]) -> Gallery:
    """Galleries of the same columns as one; their names stand before the labels of their rows."""
    if len(galleries) == 1:
        return next(iter(galleries.values()))
    rows = [(f"{name}: {label}", t) for name, each in galleries.items() for label, t in each.rows]
    return Gallery(next(iter(galleries.values())).columns, rows, MAPS)


def degraded_input(raw: RawInput, attribution: Attribution) -> RawInput:
    """What ROAR+ makes of an input: what its map scores high is taken away."""
    taken = highest(attribution, percentile_of(attribution.modality, {}))
    return without(raw, attribution, taken, None)


def _explained(
    backbone: Backbone, sample: Sample, pair: tuple[str, str], variant: Variant, seed: int
) -> Explanation | Failure:
    method, layer = variant.make(seed), variant.layers_for(pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)  # methods are shown as they are
        (found,) = each_explained(backbone, [(0, sample)], pair, method, layer)
    return found if isinstance(found, Failure) else found.explanation


def _failed(failure: Failure) -> Tile:
    return Tile(note=str(failure.error))


def _panels(sample: Sample, explanation: Explanation, sides: Sequence[str]) -> list[Panel]:
    drawn = panels(explanation, _outlines(sample, explanation), scale="map")
    return [panel for panel in drawn if panel.side in sides]


def _outlines(sample: Sample, explanation: Explanation) -> dict[str, BoolArray]:
    found = {}
    for side, attribution in explanation.items():
        truth = sample.truth.get(side)
        try:
            mask = None if truth is None else truth.on(attribution).mask
        except InputError:  # the truth of another kind of input than the one that was read
            mask = None
        if mask is not None and mask.any():
            found[side] = mask
    return found


def _plain(panel: Panel) -> Panel:
    """A caption without its colours; a picture's ``original`` has none."""
    if not isinstance(panel, TextPanel):
        return panel
    return _caption(panel, "".join(piece.text for piece in panel.pieces))


def _caption(panel: TextPanel, text: str) -> TextPanel:
    return replace(panel, pieces=tuple(Piece(f"{word} ") for word in text.split()))


def _reduced(explanation: Explanation, side: str, panel: Panel) -> tuple[Panel, Panel]:
    """The input as the tests of confidence and of ROAR+ reduce it."""
    raw, attribution = explanation.inputs[side], explanation[side]
    return (
        _drawn(explanation, side, panel, reduced_input(raw, attribution) or raw),
        _drawn(explanation, side, panel, degraded_input(raw, attribution)),
    )


def _drawn(explanation: Explanation, side: str, panel: Panel, raw: RawInput) -> Panel:
    if isinstance(panel, TextPanel):
        return _caption(panel, raw.text if isinstance(raw, RawText) else "")
    changed = replace(explanation, inputs={**explanation.inputs, side: raw})
    return next(each for each in panels(changed) if each.side == side)
