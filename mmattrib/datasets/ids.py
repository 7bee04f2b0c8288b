"""Which ids a stream gave, in bounded memory, so that none is given twice."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from mmattrib.lazy import np


class Ids:
    """Which ids were seen, in 8 bytes each, so that a stream of any length can be checked.

    Two ids that differ have the same 8 bytes with a probability of n² / 2⁶⁵ among n of them: one
    in 370,000 for ten million.
    """

    def __init__(self) -> None:
        self._first: dict[int, str] = {}
        self._recent: set[int] = set()
        self._blocks: list[memoryview] = []

    def add(self, name: str, place: str) -> str | None:
        """Note an id. Where it stands already in words, or None."""
        key = hash(name) & (2**64 - 1)
        if key in self._recent or any(_holds(block, key) for block in self._blocks):
            return self._first.get(key, "further up")
        self._recent.add(key)
        if len(self._first) < _NAMED:
            self._first[key] = f"in {place}"
        if len(self._recent) == _BLOCK:
            block = np.sort(np.fromiter(self._recent, np.uint64, _BLOCK))
            self._recent = set()
            while self._blocks and len(self._blocks[-1]) <= len(block):
                block = np.concatenate([np.asarray(self._blocks.pop()), block])
                block.sort()
            self._blocks.append(block.data)
        return None


_NAMED: Final = 2048
_BLOCK: Final = 4096


def _holds(block: memoryview, key: int) -> bool:
    at = bisect_left(block, key)
    return at < len(block) and block[at] == key
