"""Tokens of captions, on words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmattrib.errors import EncoderError
from mmattrib.models.grids.base import TokenGrid
from mmattrib.placement import WordPlacement
from mmattrib.types import FloatArray, Word


class TextGrid(TokenGrid):
    """Tokens of captions, on words.

    A word's score is the sum over its tokens: information in bits adds up.
    """

    def __init__(
        self,
        words: Sequence[Sequence[Word]],
        word_of_token: Tensor,
        valid: Tensor,
    ) -> None:
        """Describe the tokens of a batch of captions.

        Args:
            words: per caption, its words in order.
            word_of_token: ``(B, N)`` long, the index of each token's word; -1 for tokens that
                belong to no word (CLS, BOS, EOS, padding).
            valid: ``(B, N)`` bool, tokens that the model reads.
        """
        self._words = [tuple(row) for row in words]
        self._word_of_token = word_of_token.cpu()
        self.valid = valid.cpu()
        self.content = (self._word_of_token >= 0) & self.valid

    @classmethod
    def from_spans(
        cls,
        texts: Sequence[str],
        spans: Sequence[Sequence[tuple[int, int] | None]],
        valid: Tensor,
    ) -> TextGrid:
        """Group tokens into words by their character spans.

        Words are the runs of non-space characters; leading and trailing punctuation is a word of
        its own only where the tokens say so (a token that starts at a word's end starts a new one).
        Tokens that overlap, such as the bytes of one character, are one word.

        Args:
            texts: the captions.
            spans: per caption and token, ``text[start:end]`` or None for special tokens.
            valid: ``(B, N)`` bool.
        """
        words: list[list[Word]] = []
        index = torch.full(valid.shape, -1, dtype=torch.long)
        for row, (text, row_spans) in enumerate(zip(texts, spans, strict=True)):
            found: list[Word] = []
            if len(row_spans) > valid.shape[1]:
                raise EncoderError(
                    f"caption {row} has {len(row_spans)} spans for {valid.shape[1]} tokens"
                )
            for column, span in enumerate(row_spans):
                if span is None:
                    continue
                start, end = _trimmed(text, *span)
                if start >= end:
                    continue
                if found and _continues(text, found[-1], start, end):
                    previous = found.pop()
                    start, end = previous.start, max(previous.end, end)
                found.append(Word(text[start:end], start, end))
                index[row, column] = len(found) - 1
            words.append(found)
        return cls(words, index, valid)

    def placement(self, index: int) -> WordPlacement:
        return WordPlacement(
            self._words[index], self._word_of_token[index].numpy().astype(np.int32)
        )

    def to_tokens(self, maps: Sequence[FloatArray]) -> Tensor:
        out = torch.zeros(self.valid.shape)
        for row, values in enumerate(maps):
            content = self.content[row]
            out[row, content] = torch.from_numpy(np.asarray(values, dtype=np.float32))[
                self._word_of_token[row, content]
            ]
        return out


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the spaces at its ends, which some tokenizers count in."""
    if not 0 <= start <= end <= len(text):
        raise EncoderError(f"span ({start}, {end}) lies outside of {text!r}")
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - (len(part) - len(part.rstrip()))


def _continues(text: str, word: Word, start: int, end: int) -> bool:
    """Whether a token belongs to the word before it: they overlap, or letters go on."""
    if start < word.end:
        return True
    return start == word.end and all(map(_in_word, text[word.start : end]))


def _in_word(char: str) -> bool:
    """Letters, digits and the marks that combine with them, apostrophes and hyphens."""
    return char.isalnum() or char in "'’-" or unicodedata.category(char).startswith("M")
