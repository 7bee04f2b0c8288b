"""The sentences that pages and figures share, in words for somebody who never saw the project."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from mmattrib.calibration import Verdict, noun
from mmattrib.placement import which_part
from mmattrib.render.normalise import Heatmap
from mmattrib.types import Attribution, Explanation


def nouns(explanation: Explanation) -> list[str]:
    """What to call each side, in order."""
    return [noun(attribution.modality) for attribution in explanation.attributions.values()]


def default_title(explanation: Explanation, verdict: Verdict | None = None) -> str:
    """A title that asks what made two inputs match only where they do.

    Args:
        explanation: of both sides.
        verdict: the explanation's own if None.
    """
    pair = "this " + " and this ".join(nouns(explanation))
    return {
        "match": f"What made {pair} match?",
        "weak": f"What made {pair} match weakly?",
        "no match": f"{pair[0].upper()}{pair[1:]} do not match",
        "unknown": f"What in {pair} speaks for a match?",
    }[(verdict or explanation.verdict).level]


def maps_show(verdict: Verdict) -> str:
    """What the maps are of, given whether there is a match."""
    head = "Below, each input is shown with a map of the parts that "
    return {
        "match": f"{head}made the model match it with the other.",
        "weak": f"{head}made the model match it with the other, as far as it does.",
        "no match": f"{head}speak for the other all the same, however little. They explain no "
        "match, for there is none.",
        "unknown": f"{head}speak for a match with the other.",
    }[verdict.level]


def side_shows(this: str, other: str, verdict: Verdict) -> str:
    """What one map is of, as a heading."""
    what = "matched" if verdict.level in {"match", "weak"} else "speaks for"
    return f"The {this}: what {what} the {other}"


def kept(attribution: Attribution) -> str:
    """How much of the match the mask keeps, and how much noise alone; empty where not measured.

    A descent's first cosine is behind its first mask, not behind noise: it is left out there.
    """
    names = ("clean_cosine", "cosine_end", "cosine_start")
    numbers = [attribution.diagnostics.get(name) for name in names]
    clean, mask, noise = (float(n) if isinstance(n, int | float) else math.nan for n in numbers)
    if not (math.isfinite(clean) and math.isfinite(mask)):
        return ""
    this = noun(attribution.modality)
    alone = math.isfinite(noise) and "losses" not in attribution.diagnostics
    told = [f"{number(clean)} with the whole {this}"]
    told += [f"{number(mask)} with as much of it as the map lets through{_of(mask, clean)}"]
    told += [f"{number(noise)} with noise alone in its place{_of(noise, clean)}"] if alone else []
    said = f"The cosine is {', '.join(told[:-1])} and {told[-1]}."
    if clean <= 0:
        return f"{said} It is not above 0, so there is nothing of it for a map to keep."
    if alone and clean > noise:
        share = round(100 * (mask - noise) / (clean - noise))
        said += f" Of what the whole {this} has above noise, the map keeps {share} %.".replace(
            "-", "−"
        )
    return said


def _of(cosine: float, clean: float) -> str:
    """``" (64 % of 0.19)"``; empty where either is not above zero."""
    if cosine <= 0 or clean <= 0:
        return ""
    return f" ({round(100 * cosine / clean)} % of {number(clean)})"


def named(value: Any, absent: str = "not stated") -> str:
    """A provenance entry that names something: itself, or its ``name``."""
    if isinstance(value, Mapping):
        value = value.get("name")
    return absent if value is None else printable(str(value))


def how_made(explanation: Explanation) -> str:
    """Method and backbone in one phrase."""
    provenance = explanation.provenance
    return f"Method {named(provenance.get('method'))}, model {named(provenance.get('backbone'))}"


def reading(attribution: Attribution, other: str, signed: bool) -> str:
    """How to read one map.

    Args:
        attribution: whose map it is.
        other: what to call the other input.
        signed: whether the map has negative scores.
    """
    if signed:
        return (
            f"Red = counts for the match with the {other}, blue = counts against it, "
            "dark = little influence."
        )
    if attribution.unit == "bits":
        return f"Brighter = more information about the {other} was let through, in bits."
    return f"Brighter = counts more for the match with the {other}."


def unseen(attribution: Attribution) -> str:
    """What of an input the model never saw, as a sentence; empty where it saw everything."""
    part = which_part(attribution)
    if not part:
        return ""
    rest = "rest" if attribution.words else "hatched rest"
    return (
        f"Of this {noun(attribution.modality)} the model saw only {part}: the {rest} had no "
        "influence."
    )


def warnings(explanation: Explanation) -> list[str]:
    """The diagnostics' warnings of every side, each naming its side."""
    found = []
    for attribution in explanation.attributions.values():
        given = attribution.diagnostics.get("warnings") or ()
        for text in (
            given if isinstance(given, list | tuple) else (given,)
        ):  # a file may hold anything
            name = noun(attribution.modality)
            found.append(f"Do not trust this map ({name}): {printable(str(text))}")
    return found


def printable(text: str, limit: int = 500) -> str:
    """Text from strangers made fit to show: no control characters, no lone surrogates, bounded."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    clean = "".join(
        "\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in clean
    )
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def own_name(name: str, modality: str) -> str:
    """An input's name, or nothing where it only repeats what kind of input it is."""
    shown = printable(name, 120).strip()
    return "" if shown in {"", modality, noun(modality)} else shown


def primer(explanation: Explanation, heats: Mapping[str, Heatmap]) -> str:
    """How the maps came about and how to compare them, for a reader new to the matter.

    Args:
        explanation: of both sides.
        heats: side -> its map as it is drawn.
    """
    text = (
        "A model reads its input in small pieces, called tokens: patches of a picture or of a "
        "spectrogram, words or parts of words. "
    )
    if all(attribution.unit == "bits" for attribution in explanation.attributions.values()):
        text += (
            "The method lets a part of every piece through and puts noise in the place of the "
            "rest, and weighs the match with the other input against the information that is let "
            "through. How much of a piece is let through is counted in bits. "
        )
    return text + (
        f"{scale_note(explanation, heats)} A map shows what this model used; it does not show that "
        "the model is right."
    )


def scale_note(explanation: Explanation, heats: Mapping[str, Heatmap]) -> str:
    """Which score is drawn in full colour, and what can be compared."""
    own = [side for side, heat in heats.items() if heat.scale == "map"]
    page, levels = dict[str, float](), dict[tuple[str, str], None]()
    for side, heat in heats.items():
        unit, this = printable(explanation[side].unit, 40), noun(explanation[side].modality)
        if heat.scale == "page":
            page[unit] = heat.high
        elif heat.scale == "absolute":
            levels[f"{number(heat.high)} {unit}", this] = None
    said = [
        f"Colour runs from 0 to {number(high)} {unit}, the largest score on this page: brightness "
        "can be compared between maps, and next to nothing stays dark."
        for unit, high in page.items()
    ]
    if levels:
        told = " and ".join(f"{level} in the {this}" for level, this in levels)
        said.append(
            f"On an absolute scale, full colour stands for {told}: next to nothing stays dark."
        )
    if len(levels) > 1:
        said.append("Compare brightness within a map, and numbers between maps.")
    if own:
        which = "Each map" if len(own) == len(heats) else "Any other map"
        said.append(
            f"{which} is coloured from its own least to its own largest score: compare brightness "
            "within a map, and numbers between maps; a map of next to nothing is bright too."
        )
    return " ".join(said)


TRUTH_KEY = (
    "Outlined: what the two inputs truly share. It is known because this pair was composed; the "
    "model was not told."
)


def place(layer: int) -> str:
    """Where in the encoder the map was computed."""
    return "the embedding output" if layer < 0 else f"the output of block {layer}"


def number(value: float) -> str:
    """A score for reading: three significant digits."""
    return f"{value:.3g}".replace("-", "−")
