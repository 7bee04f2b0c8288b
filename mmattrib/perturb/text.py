"""Captions: words are kept, replaced or taken out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from mmattrib.errors import OptionError
from mmattrib.perturb.fills import Fill
from mmattrib.types import FloatArray, RawText, Word

PLACEHOLDER: Final = "#"
"""Stands for a word that is left out: a token of its own, so that the other words keep their
places, which no caption uses. To `tiny` it is an unknown word ("_" would be no token at all)."""

TextFill: TypeAlias = Callable[[str, str], str]
"""The text before a word and the text behind it, to the text with the word taken away."""


def _blank(before: str, after: str) -> str:
    return before + PLACEHOLDER + after


def _delete(before: str, after: str) -> str:
    """Join what is left by one of the white spaces around the word; keep others' letters apart."""
    open_left = not before or before[-1].isspace()
    open_right = not after or after[0].isspace()
    if open_left and open_right:
        after = after.lstrip()
        return before + after if after else before.rstrip()
    if not open_left and not open_right and before[-1].isalnum() and after[0].isalnum():
        return f"{before} {after}"
    return before + after


TEXT_FILLS: Final[dict[str, Fill[TextFill]]] = {
    "blank": Fill(
        f'the placeholder "{PLACEHOLDER}", a token of its own, so that other words keep their '
        "places",
        "CA-M2IB's paper puts a blank for words outside the upper half",
        _blank,
        soft=False,
    ),
    "delete": Fill(
        "nothing: the word goes, and the space around it with it",
        "erasure, Li et al. 2016 (Understanding neural networks through representation erasure)",
        _delete,
        soft=False,
    ),
}


def text_keeper(
    raw: RawText, words: Sequence[Word] | None, fill: TextFill
) -> Callable[[FloatArray], RawText]:
    """Keep one caption by many weights.

    Returns:
        ``(words,)`` weights of 0 or 1 -> the caption with the words of weight 1; what stands
        between words stays.
    """
    if words is None:
        raise OptionError(
            f"{raw.name}: weights of a caption need its words: give words=, e.g. an attribution's."
        )
    place = 0
    for word in words:
        if not place <= word.start < word.end or raw.text[word.start : word.end] != word.text:
            raise OptionError(
                f"{raw.name}: {word} is not in {raw.text!r} there, or out of order; accepted are "
                "the words of this caption in order, without overlap."
            )
        place = word.end

    def kept(weights: FloatArray) -> RawText:
        if weights.shape != (len(words),):
            raise OptionError(
                f"{raw.name}: weights have shape {weights.shape} for {len(words)} words; accepted "
                "is one weight per word."
            )
        text = raw.text
        for word, weight in zip(reversed(words), weights[::-1], strict=True):
            if not weight:  # from the end, so that the earlier spans still fit
                text = fill(text[: word.start], text[word.end :])
        return replace(raw, text=text)

    return kept
