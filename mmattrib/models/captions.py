"""Where the tokens of a caption lie in it, for tokenizers that tell and for those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TypeAlias

from mmattrib.errors import InputError
from mmattrib.types import RawText

Span: TypeAlias = tuple[int, int] | None
"""``text[start:end]``, or None for a token that stands for no part of the caption."""


@dataclass(frozen=True)
class Caption:
    """A tokenized caption, special tokens and padding included.

    Attributes:
        ids: ``(N,)`` token ids.
        spans: one per token.
        real: one per token: False for padding.
    """

    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    real: tuple[bool, ...]


def too_long(raw: RawText, count: int, most: int) -> InputError:
    """The error for a caption that does not fit; counts are without special tokens."""
    return InputError(
        f"{raw.name}: the caption has {count} tokens, this model reads at most {most}; shorten it"
    )


def trimmed(text: str, span: tuple[int, int]) -> Span:
    """The span without the white space at its ends; None if nothing is left."""
    start, end = span
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else None


def align(text: str, pieces: Sequence[bytes]) -> list[Span]:
    """Find tokens in their caption again by what they spell.

    Tokenizers lower the case, drop white space and punctuation, or mend odd characters; what
    stays the same anchors the rest.

    Args:
        text: the caption.
        pieces: what each token spells, in order, as UTF-8 without white space; a byte-level token
            may hold a part of a character.

    Returns:
        One span per piece; None where nothing of the piece is in the caption.
    """
    source, owner = _spelled(text)
    target = bytearray()
    piece_of: list[int] = []
    for number, piece in enumerate(pieces):
        letters = _lowered(piece)
        target += letters
        piece_of += [number] * len(letters)
    spans: list[Span] = [None] * len(pieces)
    for low, high, first, last in _matches(source, bytes(target)):
        same = high - low == last - first
        for place in range(first, last):
            at = low + place - first if same else low
            until = at if same else high - 1
            number, found = piece_of[place], spans[piece_of[place]]
            start, end = owner[at], owner[until] + 1
            spans[number] = (
                (start, end) if found is None else (min(start, found[0]), max(end, found[1]))
            )
    return spans


def _spelled(text: str) -> tuple[bytes, list[int]]:
    """The caption's letters in lower case as UTF-8, and the character each byte belongs to."""
    letters, owner = bytearray(), []
    for index, char in enumerate(text):
        if not char.isspace():
            encoded = char.lower().encode("utf-8", "surrogatepass")
            letters += encoded
            owner += [index] * len(encoded)
    return bytes(letters), owner


def _lowered(piece: bytes) -> bytes:
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:  # a part of a character has no case
        return piece
    return "".join(char.lower() for char in text if not char.isspace()).encode()


def _matches(source: bytes, target: bytes) -> list[tuple[int, int, int, int]]:
    """``source[low:high]`` stands for ``target[first:last]``, in order."""
    if source == target:
        return [(0, len(source), 0, len(target))] if source else []
    matcher = SequenceMatcher(None, source, target, autojunk=False)
    return [
        (low, high, first, last)
        for tag, low, high, first, last in matcher.get_opcodes()
        if tag in ("equal", "replace")
    ]
