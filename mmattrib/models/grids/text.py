"""Tokens of captions, on words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmattrib.errors import EncoderError
from mmattrib.models.grids.base import TokenGrid
from mmattrib.models.words import words_of_tokens
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

        The rules are those of :func:`mmattrib.models.words.words_of_tokens`: grapheme clusters
        are whole, letters that touch are one word, and where a script has no spaces a word is one
        piece of the tokenizer.

        Args:
            texts: the captions.
            spans: per caption and token, ``text[start:end]`` or None for special tokens.
            valid: ``(B, N)`` bool.

        Raises:
            EncoderError: more spans than tokens, or a span outside of its caption.
        """
        words: list[list[Word]] = []
        index = torch.full(valid.shape, -1, dtype=torch.long, device="cpu")
        for row, (text, row_spans) in enumerate(zip(texts, spans, strict=True)):
            if len(row_spans) > valid.shape[1]:
                raise EncoderError(
                    f"caption {row} has {len(row_spans)} spans for {valid.shape[1]} tokens"
                )
            found, places = words_of_tokens(text, row_spans)
            words.append(found)
            index[row, : len(places)] = torch.tensor(places, dtype=torch.long, device="cpu")
        return cls(words, index, valid)

    def placement(self, index: int) -> WordPlacement:
        return WordPlacement(
            self._words[index], self._word_of_token[index].numpy().astype(np.int32)
        )

    def to_tokens(self, maps: Sequence[FloatArray]) -> Tensor:
        out = torch.zeros(self.valid.shape, dtype=torch.float32, device="cpu")
        for row, values in enumerate(maps):
            content = self.content[row]
            out[row, content] = torch.from_numpy(np.asarray(values, dtype=np.float32))[
                self._word_of_token[row, content]
            ]
        return out
