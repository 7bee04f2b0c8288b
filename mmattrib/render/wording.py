"""The sentences that pages and figures share, in words for somebody who never saw the project."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from mmattrib.placement import which_part
from mmattrib.types import Attribution, Explanation

NOUNS = {"image": "picture", "audio": "recording", "text": "caption"}


def noun(modality: str) -> str:
    """What to call an input of this modality."""
    return NOUNS.get(modality, f"{modality} input")


def nouns(explanation: Explanation) -> list[str]:
    """What to call each side, in order."""
    return [noun(attribution.modality) for attribution in explanation.attributions.values()]


def default_title(explanation: Explanation) -> str:
    """A title that says what the page answers."""
    return "What made this " + " and this ".join(nouns(explanation)) + " match?"


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
        for text in (given,) if isinstance(given, str) else given:
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


def primer(explanation: Explanation) -> str:
    """How the maps came about and how to compare them, for a reader new to the matter."""
    text = (
        "A model reads its input in small pieces, called tokens: patches of a picture or of a "
        "spectrogram, words or parts of words. "
    )
    if all(attribution.unit == "bits" for attribution in explanation.attributions.values()):
        text += (
            "The method closes every piece as far as it can while the match with the other input "
            "stays. What has to stay open is what the match rests on, and is counted in bits. "
        )
    return text + (
        "Each map is coloured from its own least to its own largest score: compare brightness "
        "within a map, and numbers between maps. A map shows what this model used; it does not "
        "show that the model is right."
    )


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
