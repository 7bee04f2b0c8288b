"""Captions through open_clip's tokenizers: ids, padding, and where each token lies."""

from __future__ import annotations

from typing import Any

from mmattrib.errors import InputError, WeightsError
from mmattrib.models.captions import Caption, Span, align, too_long
from mmattrib.types import RawText


class OpenClipTokenizer:
    """One of open_clip's tokenizers, refusing captions that it would silently cut.

    They do not say where tokens lie either. Taken are its BPE tokenizer, and its wrapper around a
    fast tokenizer of transformers.
    """

    def __init__(self, tokenizer: Any, longest: int) -> None:
        """Adapt a tokenizer.

        Args:
            tokenizer: of ``open_clip.get_tokenizer``.
            longest: tokens that the tower reads, special ones included; captions are padded to it.

        Raises:
            WeightsError: a tokenizer of another kind.
        """
        self.tokenizer, self.longest = tokenizer, longest
        self.inner: Any = getattr(tokenizer, "tokenizer", None)
        if self.inner is None and not hasattr(tokenizer, "byte_decoder"):
            raise WeightsError(
                f"the model's tokenizer is {type(tokenizer).__name__}; accepted: open_clip's "
                "SimpleTokenizer, or its HFTokenizer around a fast tokenizer"
            )
        mode: Any = getattr(tokenizer, "tokenizer_mode", None)
        if self.inner is not None and (mode or not getattr(self.inner, "is_fast", False)):
            raise WeightsError(
                f"the model's tokenizer, {type(self.inner).__name__}, is slow or in a mode of its "
                "own, so that tokens cannot be found in the caption; accepted: fast tokenizers"
            )

    @property
    def pad(self) -> int | None:
        """The id that captions are padded with: 0 of open_clip's own, the wrapped one's or none."""
        return 0 if self.inner is None else getattr(self.inner, "pad_token_id", None)

    def __call__(self, raw: RawText) -> Caption:
        """Tokenize a caption and pad it to the full length.

        Raises:
            InputError: too long, without a token of its own, or with the tokenizer's marks in it.
        """
        caption = self._simple(raw) if self.inner is None else self._wrapped(raw)
        if not any(caption.spans):
            raise InputError(f"{raw.name}: this model's tokenizer reads nothing of the caption")
        return caption

    def _simple(self, raw: RawText) -> Caption:
        inner = self.tokenizer
        own = inner.encode(raw.text)
        self._check(raw, len(own), 2, set(own) & set(inner.all_special_ids))
        pieces = [
            bytes(inner.byte_decoder[char] for char in inner.decoder[one].removesuffix("</w>"))
            for one in own
        ]
        room = self.longest - len(own) - 2
        return Caption(
            (inner.sot_token_id, *own, inner.eot_token_id, *[0] * room),
            (None, *align(raw.text, pieces), None, *[None] * room),
            (True,) * (len(own) + 2) + (False,) * room,
        )

    def _wrapped(self, raw: RawText) -> Caption:
        cleaned = self.tokenizer.clean_fn(raw.text)
        inner: Any = self.inner
        bare = inner(
            cleaned,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            truncation=False,
            verbose=False,
        )
        marked = [bool(one) for one in bare["special_tokens_mask"]]
        own = [number for number, special in enumerate(marked) if not special]
        names = ("bos", "eos", "cls", "sep", "pad")
        marks = {getattr(inner, f"{name}_token_id", None) for name in names}
        ids = bare["input_ids"]
        self._check(raw, len(own), len(ids) - len(own), {ids[n] for n in own} & marks)
        offsets = [bare["offset_mapping"][number] for number in own]
        pieces = [
            "".join(cleaned[start:end].split()).encode("utf-8", "surrogatepass")
            for start, end in offsets
        ]
        found = dict(zip(own, align(raw.text, pieces), strict=True))
        final = self.tokenizer([raw.text], context_length=self.longest)[0].tolist()
        left = inner.padding_side == "left"
        shift = self.longest - len(ids) if left else 0
        spans: list[Span] = [None] * self.longest
        real = [False] * self.longest
        for number in range(len(ids)):
            spans[number + shift], real[number + shift] = found.get(number), True
        return Caption(tuple(final), tuple(spans), tuple(real))

    def _check(self, raw: RawText, own: int, special: int, marks: set[Any]) -> None:
        if own + special > self.longest:
            raise too_long(raw, own, self.longest - special)
        if marks:
            raise InputError(
                f"{raw.name}: the caption spells one of the tokenizer's own marks; take it out"
            )
        if not own:
            raise InputError(f"{raw.name}: nothing of the caption is left as tokens; reword it")
