"""Captions for ImageBind: CLIP's byte-pair encoding, with the place of each token in the text."""

from __future__ import annotations

from typing import Any

from mmattrib.errors import InputError
from mmattrib.models.captions import Caption, Span, align, too_long
from mmattrib.types import RawText

CONTEXT = 77
"""Tokens that the text tower has positions for, start and end included."""

_WORD_END = "</w>"


class CaptionTokenizer:
    """The library's tokenizer, refusing what it would cut off, and telling where tokens lie."""

    def __init__(self, tokenizer: Any) -> None:
        """Take the library's ``SimpleTokenizer``."""
        self.tokenizer = tokenizer
        self.start: int = tokenizer.encoder["<|startoftext|>"]
        self.end: int = tokenizer.encoder["<|endoftext|>"]

    def __call__(self, raw: RawText) -> Caption:
        """Tokens of a caption, with start and end, not padded.

        Raises:
            InputError: no token, more than fit, or a special token spelled out.
        """
        ids = [int(token) for token in self.tokenizer.encode(raw.text)]
        if not ids:
            raise InputError(f"{raw.name}: the caption has no tokens; give at least one word")
        if self.start in ids or self.end in ids:
            raise InputError(
                f"{raw.name}: the caption spells out <|startoftext|> or <|endoftext|>, which the "
                "model would read as its own marks; remove it"
            )
        if len(ids) > CONTEXT - 2:
            raise too_long(raw, len(ids), CONTEXT - 2)
        spans: list[Span] = align(raw.text, [self._spelled(token) for token in ids])
        return Caption((self.start, *ids, self.end), (None, *spans, None), (True,) * (len(ids) + 2))

    def _spelled(self, token: int) -> bytes:
        piece: str = self.tokenizer.decoder[token]
        letters = piece.removesuffix(_WORD_END)
        return bytes(self.tokenizer.byte_decoder[letter] for letter in letters)
