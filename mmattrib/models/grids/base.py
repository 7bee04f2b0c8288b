"""The base class of grids: which tokens are valid, which stand for the input, and where."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from mmattrib.errors import EncoderError, repr_of
from mmattrib.types import Axis, FloatArray, Placement, Word


def content_mask(batch: int, count: int, prefix: int = 0, suffix: int = 0) -> Tensor:
    """Mark the tokens between ``prefix`` leading and ``suffix`` trailing ones.

    Returns:
        ``(batch, prefix + count + suffix)`` bool.
    """
    mask = torch.zeros(batch, prefix + count + suffix, dtype=torch.bool, device="cpu")
    mask[:, prefix : prefix + count] = True
    return mask


class TokenGrid(ABC):
    """Where the tokens of a layer lie on the inputs of one batch.

    A subclass sets both masks and writes :meth:`placement` and :meth:`to_tokens`.

    Attributes:
        valid: ``(B, N)`` bool, tokens that carry something (CLS included, padding not).
        content: ``(B, N)`` bool, tokens that stand for a part of the input.
    """

    valid: Tensor
    content: Tensor

    __repr__ = repr_of("valid", "content")

    @abstractmethod
    def placement(self, index: int) -> Placement:
        """Where the tokens of input ``index`` lie on it, without torch and without the batch."""

    def to_input(self, scores: Tensor) -> list[FloatArray]:
        """Lay token scores on the inputs.

        Args:
            scores: ``(B, N)``; only content tokens are read.

        Returns:
            One float32 array per input, in the shape that :meth:`axes` describes.

        Raises:
            EncoderError: scores of another shape.
        """
        rows, content = self._checked(scores).numpy(), self.content.numpy()
        return [
            self.placement(index).lay(row, own)
            for index, (row, own) in enumerate(zip(rows, content, strict=True))
        ]

    @abstractmethod
    def to_tokens(self, maps: Sequence[FloatArray]) -> Tensor:
        """Average input-space values over each content token's own cell.

        Args:
            maps: one array per input, in the shape that :meth:`axes` describes.

        Returns:
            ``(B, N)`` float32, zero outside ``content``.
        """

    def axes(self, index: int) -> tuple[Axis, ...]:
        """The axes of input ``index``."""
        return self.placement(index).axes

    def words(self, index: int) -> tuple[Word, ...]:
        """The words of input ``index``; empty unless the input is text."""
        return self.placement(index).words

    def _checked(self, scores: Tensor) -> Tensor:
        if scores.shape != self.valid.shape:
            raise EncoderError(
                f"token scores have shape {tuple(scores.shape)}, the grid has "
                f"{tuple(self.valid.shape)} (batch, tokens)"
            )
        return scores.detach().to("cpu", torch.float32)
