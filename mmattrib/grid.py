"""TokenGrid: from tokens of a layer to places in the input, and back.

A grid belongs to one preprocessed batch. It knows which tokens are real (``valid``), which stand
for a part of the input (``content``; prefix tokens such as CLS, registers, padding and special
tokens do not), and how the content tokens lie on the input. How they lie is written as an
einops-style pattern, so that an order mistake is a visible word and not a silent reshape:
ImageBind's audio tokens are ``"clip f t"``, CLAP's folded ones ``"chunk f t"`` on a plane
``"f (chunk t)"``.
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import einops
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from mmattrib.errors import EncoderError
from mmattrib.types import Axis, FloatArray, Word


def content_mask(batch: int, count: int, prefix: int = 0, suffix: int = 0) -> Tensor:
    """Mark the tokens between ``prefix`` leading and ``suffix`` trailing ones.

    Returns:
        ``(batch, prefix + count + suffix)`` bool.
    """
    mask = torch.zeros(batch, prefix + count + suffix, dtype=torch.bool)
    mask[:, prefix : prefix + count] = True
    return mask


class TokenGrid(ABC):
    """Where the tokens of a layer lie on the inputs of one batch.

    Attributes:
        valid: ``(B, N)`` bool, tokens that carry something (CLS included, padding not).
        content: ``(B, N)`` bool, tokens that stand for a part of the input.
    """

    valid: Tensor
    content: Tensor

    @abstractmethod
    def to_input(self, scores: Tensor) -> list[FloatArray]:
        """Lay token scores on the inputs.

        Args:
            scores: ``(B, N)``; only content tokens are read.

        Returns:
            One float32 array per input, in the shape that :meth:`axes` describes.
        """

    @abstractmethod
    def to_tokens(self, maps: Sequence[FloatArray]) -> Tensor:
        """Average input-space values over each content token's own cell.

        Args:
            maps: one array per input, in the shape that :meth:`axes` describes.

        Returns:
            ``(B, N)`` float32, zero outside ``content``.
        """

    @abstractmethod
    def axes(self, index: int) -> tuple[Axis, ...]:
        """The axes of input ``index``."""

    def words(self, index: int) -> tuple[Word, ...]:
        """The words of input ``index``; empty unless the input is text."""
        return ()

    def _checked(self, scores: Tensor) -> Tensor:
        if scores.shape != self.valid.shape:
            raise EncoderError(
                f"token scores have shape {tuple(scores.shape)}, the grid has "
                f"{tuple(self.valid.shape)} (batch, tokens)"
            )
        return scores.detach().to("cpu", torch.float32)


_BATCH = "batchaxis"  # unlikely as the name of a layout's axis, unlike "b"


@dataclass(frozen=True)
class Layout:
    """How content tokens unfold into a plane of rows and columns.

    Attributes:
        tokens: einops pattern of the token sequence, e.g. ``"h w"``, ``"f t"``,
            ``"chunk f t"``.
        plane: einops pattern of the plane, e.g. ``"h w"``, ``"f t"``, ``"f (chunk t)"``.
        sizes: the length of every axis that ``tokens`` names.
    """

    tokens: str
    plane: str
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        axes = [sorted(re.findall(r"\w+", pattern)) for pattern in (self.tokens, self.plane)]
        if axes != [sorted(self.sizes)] * 2 or min(self.sizes.values(), default=0) < 1:
            raise EncoderError(
                f"layout {self.tokens!r} -> {self.plane!r} does not fit the sizes "
                f"{dict(self.sizes)}; both patterns must name every axis once, each at least 1 long"
            )

    @property
    def count(self) -> int:
        """Number of content tokens."""
        return int(np.prod(list(self.sizes.values())))

    def unfold(self, scores: Tensor) -> Tensor:
        """``(B, count)`` to ``(B, rows, columns)``."""
        pattern = f"{_BATCH} ({self._flat}) -> {_BATCH} {self.plane}"
        return einops.rearrange(scores, pattern, **self.sizes)

    def fold(self, plane: Tensor) -> Tensor:
        """``(B, rows, columns)`` to ``(B, count)``."""
        pattern = f"{_BATCH} {self.plane} -> {_BATCH} ({self._flat})"
        return einops.rearrange(plane, pattern, **self.sizes)

    @property
    def _flat(self) -> str:
        """``tokens`` without its brackets: a sequence is flat, however it came about."""
        return self.tokens.replace("(", "").replace(")", "")


@dataclass(frozen=True)
class Box:
    """The part of an input plane that the model sees: rows ``top:bottom``, columns ``left:right``.

    May reach outside the plane where the model pads its input.
    """

    top: int
    left: int
    bottom: int
    right: int


class PlaneGrid(TokenGrid):
    """Tokens that tile a plane: pixels, or time x frequency.

    Scores are interpolated bilinearly to the plane, as M2IB does, then cropped to the part of the
    input that the model saw; the rest of the input is zero, since it had no influence.
    """

    def __init__(
        self,
        layout: Layout,
        axes: Sequence[tuple[Axis, Axis]],
        boxes: Sequence[Box] | None = None,
        prefix: int = 0,
        suffix: int = 0,
        laid: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """Describe the grid of a batch.

        Args:
            layout: how the content tokens unfold into rows and columns.
            axes: per input, its row axis and its column axis; their lengths are its shape.
            boxes: per input, the part that the model saw; the whole plane if None.
            prefix: tokens before the content, such as CLS and registers.
            suffix: tokens after the content.
            laid: ``(B, N)`` bool, the tokens that ``layout`` lays on the plane, where ``prefix``
                and ``suffix`` cannot say it (a CLS token in every clip).
            valid: ``(B, N)`` bool, tokens that carry something; all if None.
        """
        self.layout = layout
        self._axes = [tuple(pair) for pair in axes]
        shapes = [tuple(len(axis.values) for axis in pair) for pair in self._axes]
        self._shapes = shapes
        self._boxes = list(boxes) if boxes is not None else [Box(0, 0, h, w) for h, w in shapes]
        self._laid = (
            content_mask(len(self._axes), layout.count, prefix, suffix) if laid is None else laid
        ).cpu()
        self.valid = torch.ones_like(self._laid) if valid is None else valid.cpu()
        if self._laid.shape != self.valid.shape or len(self._laid) != len(self._axes):
            raise EncoderError(
                f"laid {tuple(self._laid.shape)} and valid {tuple(self.valid.shape)} must both be "
                f"(batch, tokens) for the {len(self._axes)} inputs of the batch"
            )
        if len(self._boxes) != len(self._axes):
            raise EncoderError(f"{len(self._boxes)} boxes were given for {len(self._axes)} inputs")
        if not bool((self._laid.sum(dim=1) == layout.count).all()):
            raise EncoderError(
                f"every row of laid must mark the {layout.count} tokens of layout "
                f"{layout.tokens!r}, got {self._laid.sum(dim=1).tolist()}"
            )
        self.content = self._laid & self.valid

    def to_input(self, scores: Tensor) -> list[FloatArray]:
        scores = self._checked(scores)
        planes = self.layout.unfold(scores[self._laid].view(len(scores), self.layout.count))
        known = self.layout.unfold(self.valid[self._laid].view(planes.shape[0], -1))
        maps: list[FloatArray] = []
        for plane, real, box, shape in zip(planes, known, self._boxes, self._shapes, strict=True):
            size = (box.bottom - box.top, box.right - box.left)
            seen = _enlarge(plane, real, size)
            full = np.zeros(shape, dtype=np.float32)
            rows, columns = _overlap(box, shape)
            full[rows, columns] = seen[
                rows.start - box.top : rows.stop - box.top,
                columns.start - box.left : columns.stop - box.left,
            ]
            maps.append(full)
        return maps

    def to_tokens(self, maps: Sequence[FloatArray]) -> Tensor:
        rows, columns = self.layout.unfold(torch.zeros(1, self.layout.count)).shape[1:]
        planes = []
        for values, box, shape in zip(maps, self._boxes, self._shapes, strict=True):
            seen = np.zeros((box.bottom - box.top, box.right - box.left), dtype=np.float32)
            inside_rows, inside_columns = _overlap(box, shape)
            seen[
                inside_rows.start - box.top : inside_rows.stop - box.top,
                inside_columns.start - box.left : inside_columns.stop - box.left,
            ] = np.asarray(values, dtype=np.float32)[inside_rows, inside_columns]
            cells = nnf.interpolate(
                torch.from_numpy(seen)[None, None], (rows, columns), mode="area"
            )
            planes.append(cells[0, 0])
        out = torch.zeros(self.content.shape)
        out[self._laid] = self.layout.fold(torch.stack(planes)).reshape(-1)
        return out * self.content

    def axes(self, index: int) -> tuple[Axis, ...]:
        return self._axes[index]


def _overlap(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the plane inside the box; empty where they do not meet."""
    top, left = min(max(0, box.top), box.bottom), min(max(0, box.left), box.right)
    return (
        slice(top, max(top, min(shape[0], box.bottom))),
        slice(left, max(left, min(shape[1], box.right))),
    )


def _enlarge(plane: Tensor, real: Tensor, size: tuple[int, int]) -> FloatArray:
    """Bilinear ``(rows, columns)`` to ``size``; where ``real`` is false, zero.

    Cells that are not real are first filled from the last real one to their left, so that what
    padding holds (NaN even) does not bleed into its neighbours.
    """
    if bool(real.all()):
        return _interpolated(plane, size, "bilinear")
    columns = torch.arange(plane.shape[1]).expand_as(plane)
    last = torch.where(real, columns, -1).cummax(dim=1).values
    filled = plane.gather(1, last.clamp(min=0)).masked_fill(last < 0, 0.0)
    shown = _interpolated(real.float(), size, "nearest-exact") > 0
    return np.where(shown, _interpolated(filled, size, "bilinear"), np.float32(0))


def _interpolated(plane: Tensor, size: tuple[int, int], mode: str) -> FloatArray:
    values: FloatArray = nnf.interpolate(plane[None, None], size=size, mode=mode)[0, 0].numpy()
    return values


class ImageGrid(PlaneGrid):
    """Patches of pictures, on each picture's own pixels."""

    def __init__(
        self,
        layout: Layout,
        sizes: Sequence[tuple[int, int]],
        boxes: Sequence[Box] | None = None,
        prefix: int = 0,
        suffix: int = 0,
    ) -> None:
        """Describe the grid of a batch of pictures.

        Args:
            layout: how the patch tokens unfold; rows run down.
            sizes: per picture, its height and width in its own pixels.
            boxes: per picture, the part that the model saw after resizing and cropping, in the
                picture's own pixels; the whole picture if None.
            prefix: tokens before the patches.
            suffix: tokens after the patches.
        """
        axes = [(_pixels("y", height), _pixels("x", width)) for height, width in sizes]
        super().__init__(layout, axes, boxes, prefix, suffix)


def _pixels(name: str, count: int) -> Axis:
    return Axis(name, "px", np.arange(count, dtype=np.float32) + 0.5)


class SpectrogramGrid(PlaneGrid):
    """Patches of spectrograms, in Hz and seconds; row 0 is the lowest frequency."""

    def __init__(
        self,
        layout: Layout,
        hertz: FloatArray,
        seconds: Sequence[FloatArray],
        boxes: Sequence[Box] | None = None,
        prefix: int = 0,
        suffix: int = 0,
        laid: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """Describe the grid of a batch of recordings.

        Args:
            layout: how the patch tokens unfold; rows run from low to high frequency.
            hertz: ``(mel,)`` centre frequency of each row.
            seconds: per recording, ``(frames,)`` centre time of each column in the recording.
            boxes: per recording, the part of its own plane that the model saw.
            prefix: tokens before the patches.
            suffix: tokens after the patches.
            laid: as for :class:`PlaneGrid`.
            valid: as for :class:`PlaneGrid`.
        """
        frequency = Axis("frequency", "Hz", np.asarray(hertz, dtype=np.float32))
        axes = [
            (frequency, Axis("time", "s", np.asarray(times, dtype=np.float32))) for times in seconds
        ]
        super().__init__(layout, axes, boxes, prefix, suffix, laid, valid)


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

    def to_input(self, scores: Tensor) -> list[FloatArray]:
        scores = self._checked(scores)
        maps: list[FloatArray] = []
        for row, words in enumerate(self._words):
            content = self.content[row]
            totals = torch.zeros(len(words))
            totals.index_add_(0, self._word_of_token[row, content], scores[row, content])
            maps.append(totals.numpy())
        return maps

    def to_tokens(self, maps: Sequence[FloatArray]) -> Tensor:
        out = torch.zeros(self.valid.shape)
        for row, values in enumerate(maps):
            content = self.content[row]
            out[row, content] = torch.from_numpy(np.asarray(values, dtype=np.float32))[
                self._word_of_token[row, content]
            ]
        return out

    def axes(self, index: int) -> tuple[Axis, ...]:
        return (Axis("word", "", np.arange(len(self._words[index]), dtype=np.float32)),)

    def words(self, index: int) -> tuple[Word, ...]:
        return self._words[index]


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
