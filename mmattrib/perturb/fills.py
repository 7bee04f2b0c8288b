"""What a fill is: the stand-in for what weights take away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True)
class Fill(Generic[F]):
    """One way to stand in for the part of an input that its weights take away.

    Attributes:
        summary: what takes the place, in one line.
        source: who uses it, or who defined it.
        function: makes it; its arguments depend on the modality.
        soft: whether weights between 0 and 1 are accepted, or only 0 and 1.
    """

    summary: str
    source: str
    function: F
    soft: bool = True
