"""Words of a caption, out of where its tokens lie.

The rules, in this order:

1. A grapheme cluster (Unicode Standard Annex 29, section 3: a letter with its accents, a joined
   emoji, a flag, a keycap) is never split: a token that covers a part of it counts as all of it.
2. Tokens that then overlap, such as the bytes of one character, are one word.
3. Tokens that touch are one word as long as letters, digits, apostrophes and hyphens go on;
   every other sign is a word of its own, or as many together as the tokenizer puts in one token.
4. Scripts that are written without spaces between words (Chinese, Japanese, Thai, Lao, Khmer,
   Burmese, ...) have no such runs: there a word is one piece of the tokenizer.
5. White space and the zero-width space separate words. Other invisible characters (joiners, soft
   hyphens, directional marks) neither separate nor are words: inside a word they belong to it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import regex

from mmattrib.errors import EncoderError
from mmattrib.types import Word

UNSPACED = (
    r"[\p{Line_Break=SA}\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{scx=Yi}"
    r"\p{scx=Tangut}\p{scx=Nushu}\p{scx=Javanese}\p{scx=Balinese}]"
)
"""Pattern of ``regex``: a character of a script without spaces between words. Line_Break=SA is
Unicode's class of scripts whose words only a dictionary finds: Thai, Lao, Khmer, Burmese, Tai and
others; East Asian and Indonesian scripts are listed."""

_CLUSTER = regex.compile(r"\X")
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")
_UNSPACED = regex.compile(UNSPACED)
_ZERO_WIDTH_SPACE = "\u200b"
_KEYCAP = "\u20e3"

# What a cluster is to the words around it.
_BLANK, _HIDDEN, _LETTER, _UNSPACED_LETTER, _SIGN = range(5)


def words_of_tokens(
    text: str, spans: Sequence[tuple[int, int] | None]
) -> tuple[list[Word], list[int]]:
    """Group tokens into words by their character spans; see the module for the rules.

    Args:
        text: the caption.
        spans: one ``text[start:end]`` per token, in order; None for tokens that stand for no part
            of the caption.

    Returns:
        The words in order, disjoint; and for each token the index of its word, -1 for none.

    Raises:
        EncoderError: a span lies outside of the caption.
    """
    clusters = _Clusters(text)
    found: list[Word] = []
    index: list[int] = []
    for span in spans:
        visible = None if span is None else clusters.visible(*span)
        if span is None or visible is None:
            # an invisible piece counts to the word that it follows
            ends = found[-1].end if found else -1
            joined = span is not None and 0 <= ends < span[1] and clusters.hidden(ends, span[1])
            index.append(len(found) - 1 if joined else -1)
            continue
        start, end = visible
        if found and clusters.continues(found[-1], start, end):
            previous = found.pop()
            start, end = previous.start, max(previous.end, end)
        found.append(Word(text[start:end], start, end))
        index.append(len(found) - 1)
    return found, index


class _Clusters:
    """The grapheme clusters of a caption: where each begins and ends, and what it is."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.start: list[int] = []
        self.end: list[int] = []
        self.kind: list[int] = []
        for match in _CLUSTER.finditer(text):
            low, high = match.span()
            count = high - low
            self.start += [low] * count
            self.end += [high] * count
            self.kind += [_kind(match.group())] * count

    def visible(self, start: int, end: int) -> tuple[int, int] | None:
        """The clusters that a span touches, without blank and invisible ones at its ends."""
        if not 0 <= start <= end <= len(self.text):
            raise EncoderError(f"span ({start}, {end}) lies outside of {self.text!r}")
        if start == end:
            return None
        start, end = self.start[start], self.end[end - 1]
        while start < end and self.kind[start] in (_BLANK, _HIDDEN):
            start = self.end[start]
        while start < end and self.kind[end - 1] in (_BLANK, _HIDDEN):
            end = self.start[end - 1]
        return (start, end) if start < end else None

    def hidden(self, start: int, end: int) -> bool:
        """Whether nothing but invisible characters lies between; true of an empty stretch."""
        return all(kind == _HIDDEN for kind in self.kind[start:end])

    def continues(self, word: Word, start: int, end: int) -> bool:
        """Whether ``text[start:end]`` belongs to the word before it."""
        if start < word.end:
            return True
        if not self.hidden(word.end, start):
            return False
        if _UNSPACED_LETTER in (self.kind[word.end - 1], self.kind[start]):
            return False
        inside = (_LETTER, _UNSPACED_LETTER, _HIDDEN)
        return all(kind in inside for kind in self.kind[word.start : end])


def _kind(cluster: str) -> int:
    plain = [char for char in cluster if not _INVISIBLE.match(char)]
    if all(char.isspace() or unicodedata.category(char) == "Cc" for char in plain):
        return _BLANK if plain or _ZERO_WIDTH_SPACE in cluster else _HIDDEN
    if _KEYCAP in cluster:
        return _SIGN
    if any(map(str.isalnum, plain)):
        return _UNSPACED_LETTER if any(map(_UNSPACED.match, plain)) else _LETTER
    # a mark that has lost its letter goes with the letters beside it
    lone_mark = all(unicodedata.category(char).startswith("M") for char in plain)
    return _LETTER if lone_mark or plain[0] in "'’-" else _SIGN
