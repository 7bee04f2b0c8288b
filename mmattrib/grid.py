"""TokenGrid: from tokens of a layer to places in the input, and back.

A grid belongs to one preprocessed batch. It knows which tokens are real (``valid``), which stand
for a part of the input (``content``; prefix tokens such as CLS, registers, padding and special
tokens do not), and how the content tokens lie on the input. How they lie is written as an
einops-style pattern, so that an order mistake is a visible word and not a silent reshape:
ImageBind's audio tokens are ``"clip f t"``, CLAP's folded ones ``"chunk f t"`` on a plane
``"f (chunk t)"``.
"""

from __future__ import annotations

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

    @property
    def count(self) -> int:
        """Number of content tokens."""
        return int(np.prod(list(self.sizes.values())))

    def unfold(self, scores: Tensor) -> Tensor:
        """``(B, count)`` to ``(B, rows, columns)``."""
        return einops.rearrange(scores, f"b ({self.tokens}) -> b {self.plane}", **self.sizes)

    def fold(self, plane: Tensor) -> Tensor:
        """``(B, rows, columns)`` to ``(B, count)``."""
        return einops.rearrange(plane, f"b {self.plane} -> b ({self.tokens})", **self.sizes)


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
        self.content = self._laid & self.valid

    def to_input(self, scores: Tensor) -> list[FloatArray]:
        scores = self._checked(scores)
        planes = self.layout.unfold(scores[self._laid].view(len(scores), self.layout.count))
        maps: list[FloatArray] = []
        for plane, box, shape in zip(planes, self._boxes, self._shapes, strict=True):
            size = (box.bottom - box.top, box.right - box.left)
            seen = nnf.interpolate(plane[None, None], size=size, mode="bilinear")[0, 0].numpy()
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
    return (
        slice(max(0, box.top), min(shape[0], box.bottom)),
        slice(max(0, box.left), min(shape[1], box.right)),
    )


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

        Args:
            texts: the captions.
            spans: per caption and token, ``text[start:end]`` or None for special tokens.
            valid: ``(B, N)`` bool.
        """
        words: list[list[Word]] = []
        index = torch.full(valid.shape, -1, dtype=torch.long)
        for row, (text, row_spans) in enumerate(zip(texts, spans, strict=True)):
            found: list[Word] = []
            for column, span in enumerate(row_spans):
                if span is None or span[0] >= span[1]:
                    continue
                start, end = span
                if found and start <= found[-1].end and _one_word(text, found[-1].start, end):
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


def _one_word(text: str, start: int, end: int) -> bool:
    """Whether ``text[start:end]`` is a run of letters and digits, apostrophes and hyphens."""
    return all(char.isalnum() or char in "'’-" for char in text[start:end])
