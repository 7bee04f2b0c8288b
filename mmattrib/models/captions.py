"""Captions: tokens, padding and refusal, and where each token lies.

:class:`CaptionTokenizer` adapts the tokenizers of transformers. :func:`align` finds the tokens of
others again by what they spell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mmattrib.errors import InputError, WeightsError
from mmattrib.models.turns import reading_turn
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

    >>> align("Two DOGS", [b"two", b"do", b"gs"])
    [(0, 3), (4, 6), (6, 8)]
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


class CaptionTokenizer:
    """A transformers tokenizer that refuses captions which do not fit, and knows where tokens lie.

    Fast tokenizers tell; for slow ones (SigLIP's) tokens are found again by what they spell::

        tokenizer = CaptionTokenizer(processor.tokenizer, longest=77)
        caption = tokenizer(RawText("a photo of a cat"))
        caption.ids, caption.spans     # (49406, 320, ...), (None, (0, 1), ...)
        ids, real = tokenizer.padded([caption, other])
    """

    def __init__(self, tokenizer: Any, longest: int, *, fill: bool = False) -> None:
        """Adapt a tokenizer.

        Args:
            tokenizer: of transformers.
            longest: most tokens that the tower reads, special ones included.
            fill: pad every caption to ``longest``, as SigLIP was trained.

        Raises:
            WeightsError: its vocabulary is missing, or gives two tokens one id.
        """
        self.tokenizer, self.longest, self.fill = tokenizer, longest, fill
        self.pad = _pad_id(tokenizer)
        self.fast = bool(getattr(tokenizer, "is_fast", False))
        names = ("bos", "eos", "cls", "sep", "pad")
        self.marks = {getattr(tokenizer, f"{name}_token_id", None) for name in names}
        unknown = {getattr(tokenizer, "unk_token_id", None), *tokenizer.all_special_ids}
        if unknown.issuperset(self._encode("a photo of a cat")["input_ids"]):
            raise WeightsError(
                f"the checkpoint's tokenizer, {type(tokenizer).__name__}, knows none of the words "
                "'a photo of a cat'; its vocabulary is missing. Copy all of its files, "
                "tokenizer.json among them, beside the model"
            )

        _check_vocabulary(tokenizer)

    def __call__(self, raw: RawText) -> Caption:
        """Tokenize a caption.

        Raises:
            InputError: too long, without a token of its own, or with the tokenizer's marks in it.
        """
        bare = self._encode(raw.text)
        special = self._special(bare)
        own = [number for number, marked in enumerate(special) if not marked]
        ids = list(bare["input_ids"])
        if len(ids) > self.longest:
            raise too_long(raw, len(own), self.longest - (len(ids) - len(own)))
        if any(ids[number] in self.marks for number in own):
            raise InputError(
                f"{raw.name}: the caption spells one of the tokenizer's own marks "
                f"({', '.join(map(repr, self.tokenizer.all_special_tokens[:4]))}); take it out"
            )
        if not own:
            raise InputError(f"{raw.name}: nothing of the caption is left as tokens; reword it")
        spans: list[Span] = [None] * len(ids)
        for number, span in zip(own, self._spans(raw.text, bare, own), strict=True):
            spans[number] = span
        if not any(spans):
            raise InputError(f"{raw.name}: this model's tokenizer reads nothing of the caption")
        return self._filled(Caption(tuple(ids), tuple(spans), (True,) * len(ids)))

    def padded(self, captions: Sequence[Caption], multiple: int = 1) -> tuple[Tensor, Tensor]:
        """``(B, N)`` ids and ``(B, N)`` bool of captions padded on the right to the longest.

        Args:
            captions: as this tokenizer made them.
            multiple: N is rounded up to one, up to the longest that the tower reads: captions of
                one N can be batched.
        """
        count = max(len(caption.ids) for caption in captions)
        count = max(count, min(self.longest, -(-count // multiple) * multiple))
        ids = torch.full((len(captions), count), self.pad, dtype=torch.long, device="cpu")
        real = torch.zeros(len(captions), count, dtype=torch.bool, device="cpu")
        for row, caption in enumerate(captions):
            ids[row, : len(caption.ids)] = torch.tensor(caption.ids, device="cpu")
            real[row, : len(caption.ids)] = torch.tensor(caption.real, device="cpu")
        return ids, real

    def _encode(self, text: str) -> dict[str, Any]:
        with reading_turn():  # fast tokenizers raise "Already borrowed" where two threads use one
            return dict(
                self.tokenizer(
                    text,
                    add_special_tokens=True,
                    truncation=False,
                    padding=False,
                    return_offsets_mapping=self.fast,
                    return_special_tokens_mask=True,
                    verbose=False,
                )
            )

    def _special(self, encoded: dict[str, Any]) -> list[bool]:
        return [bool(marked) for marked in encoded["special_tokens_mask"]]

    def _spans(self, text: str, encoded: dict[str, Any], own: Sequence[int]) -> list[Span]:
        if self.fast:
            offsets = encoded["offset_mapping"]
            return [trimmed(text, (int(offsets[n][0]), int(offsets[n][1]))) for n in own]
        names = self.tokenizer.convert_ids_to_tokens([encoded["input_ids"][n] for n in own])
        return align(text, [spelled(name) for name in names])

    def _filled(self, caption: Caption) -> Caption:
        """Padded to the full length on the tokenizer's own side, where the model wants that."""
        room = self.longest - len(caption.ids) if self.fill else 0
        if room == 0:
            return caption
        blank = Caption((self.pad,) * room, (None,) * room, (False,) * room)
        left = getattr(self.tokenizer, "padding_side", "right") == "left"
        first, second = (blank, caption) if left else (caption, blank)
        return Caption(first.ids + second.ids, first.spans + second.spans, first.real + second.real)


def spelled(name: str) -> bytes:
    """What a token of a sentencepiece or wordpiece vocabulary spells, without its marks."""
    if name.startswith("<0x") and name.endswith(">") and len(name) == 6:
        return bytes([int(name[3:5], 16)])
    return name.removeprefix("##").replace("▁", "").encode("utf-8", "surrogatepass")


def _pad_id(tokenizer: Any) -> int:
    for name in ("pad_token_id", "eos_token_id"):
        value = getattr(tokenizer, name, None)
        if isinstance(value, int):
            return value
    raise WeightsError(
        "the checkpoint's tokenizer has neither a padding nor an end token; give the tokenizer "
        "that belongs to the model"
    )


def _check_vocabulary(tokenizer: Any) -> None:
    """Each id belongs to one token; a file that was put together twice is noticed here."""
    read = getattr(tokenizer, "get_vocab", None)
    numbers = list(read().values()) if callable(read) else []
    if len(set(numbers)) != len(numbers):
        raise WeightsError(
            f"the vocabulary of the checkpoint's tokenizer, {type(tokenizer).__name__}, gives "
            f"{len(numbers)} tokens {len(set(numbers))} ids; its files are damaged, download them "
            "again"
        )
