"""Word-level tokenizer of `tiny`: ids and the character span of every token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import regex

from mmattrib.models.words import UNSPACED

#: At most so many tokens, `<cls>` included.
MAX_TOKENS: Final = 24
PAD_ID: Final = 0
CLS_ID: Final = 1
UNK_ID: Final = 2

# Letters and decimal digits with the marks that they carry, signs, and one character at a time of
# the scripts without spaces: the vocabulary is English, so that nothing known is cut.
_LETTER: Final = rf"(?!{UNSPACED})[\p{{L}}\p{{Nl}}\p{{No}}]\p{{M}}*"
_TOKEN: Final = regex.compile(
    rf"(?={UNSPACED})\X|(?:{_LETTER})+(?:'(?:{_LETTER})+)?|\d+|(?=[^\p{{L}}\p{{N}}\s_])\X"
)


def tokenise(text: str) -> list[tuple[str, tuple[int, int]]]:
    """Lower-cased words, numbers and punctuation marks with their (start, end) characters."""
    return [(m.group().lower(), m.span()) for m in _TOKEN.finditer(text)]


@dataclass(frozen=True)
class Tokens:
    """`ids`, padded with 0 to max_tokens; `spans` of the tokens after <cls>, before padding.

    `truncated` is the number of tokens that did not fit; `words` the tokens as written.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    words: tuple[str, ...]
    truncated: int


class WordTokenizer:
    """Lower-cases, splits off punctuation, maps words to ids; unknown words become <unk>."""

    def __init__(self, vocabulary: Sequence[str], max_tokens: int = MAX_TOKENS) -> None:
        self.vocabulary = tuple(vocabulary)
        self.max_tokens = max_tokens
        self._ids = {word: i for i, word in enumerate(self.vocabulary)}

    def __call__(self, text: str) -> Tokens:
        """Tokens of a text; what is past `max_tokens` is dropped and counted."""
        found = tokenise(text)
        kept = found[: self.max_tokens - 1]
        ids = [CLS_ID, *(self._ids.get(word, UNK_ID) for word, _ in kept)]
        ids += [PAD_ID] * (self.max_tokens - len(ids))
        return Tokens(
            tuple(ids),
            tuple(span for _, span in kept),
            tuple(text[a:b] for _, (a, b) in kept),
            len(found) - len(kept),
        )
