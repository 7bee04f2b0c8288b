"""Captions through the tokenizers of transformers: ids, padding, and where each token lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmattrib.errors import InputError, WeightsError
from mmattrib.models.captions import Caption, Span, align, too_long, trimmed
from mmattrib.types import RawText


class CaptionTokenizer:
    """A transformers tokenizer that refuses captions which do not fit, and knows where tokens lie.

    Fast tokenizers tell; for slow ones (SigLIP's) tokens are found again by what they spell.
    """

    def __init__(self, tokenizer: Any, longest: int, *, fill: bool = False) -> None:
        """Adapt a tokenizer.

        Args:
            tokenizer: of transformers.
            longest: most tokens that the tower reads, special ones included.
            fill: pad every caption to ``longest``, as SigLIP was trained.

        Raises:
            WeightsError: the tokenizer lacks its vocabulary.
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

    def padded(self, captions: Sequence[Caption]) -> tuple[Tensor, Tensor]:
        """``(B, N)`` ids and ``(B, N)`` bool of captions padded on the right to the longest."""
        count = max(len(caption.ids) for caption in captions)
        ids = torch.full((len(captions), count), self.pad, dtype=torch.long)
        real = torch.zeros(len(captions), count, dtype=torch.bool)
        for row, caption in enumerate(captions):
            ids[row, : len(caption.ids)] = torch.tensor(caption.ids)
            real[row, : len(caption.ids)] = torch.tensor(caption.real)
        return ids, real

    def _encode(self, text: str) -> dict[str, Any]:
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
