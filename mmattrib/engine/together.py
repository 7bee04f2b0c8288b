"""Several pairs in one call of a suffix, as many as are allowed and as fit into memory.

A call of another size rounds its sums in another order, so that pairs go one by one unless whoever
calls allows more: then every map is that of its pair alone but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")

MOST_KINDS = 256
"""Kinds of call whose bound is remembered; beyond, the first ones are found anew."""


@dataclass(frozen=True)
class Together:
    """How many pairs go into one call.

    Attributes:
        most: pairs at most; 1 for each by itself.
        fits: kind of call -> how many fitted where more did not; shared by whoever shall know.
    """

    most: int = 1
    fits: MutableMapping[Hashable, int] = field(default_factory=dict, compare=False, repr=False)

    def over(
        self,
        count: int,
        call: Callable[[Tensor, int], _T],
        *,
        rows: int = 1,
        kind: Hashable = None,
    ) -> Iterator[_T]:
        """Go through pairs in calls of as many as fit.

        Memory is found by trying: a call for which it does not suffice is made again for half the
        pairs, and for one pair alone with half the rows at a time. What fitted is remembered for
        later calls of the same kind; with one pair a call nothing is remembered, so that no map
        depends on what was explained before it.

        Args:
            count: of pairs.
            call: takes pair numbers ``(b,)``, long on the CPU, and how many rows of each pair may
                go through the suffix at a time.
            rows: that number, to begin with.
            kind: calls of equal kind take equal memory for a pair.

        Yields:
            What ``call`` gives, in the order of the pairs.

        Raises:
            torch.OutOfMemoryError: not even one row of one pair fits.
        """
        size = max(1, min(self.most, self.fits.get(kind, self.most)))
        start = 0
        while start < count:
            pairs = torch.arange(start, min(start + size, count), device="cpu")
            found: list[_T] = []
            try:
                found.append(call(pairs, rows))
            except torch.OutOfMemoryError:
                if len(pairs) == 1 and rows == 1:
                    raise
            if found:
                start += len(pairs)
                yield found[0]
                continue
            # Outside the handler, so that the failed attempt's tensors are free by now.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(pairs) > 1:
                size = len(pairs) // 2
                if len(self.fits) >= MOST_KINDS:
                    self.fits.pop(next(iter(self.fits)))
                self.fits[kind] = size
            else:
                rows = max(1, rows // 2)


ALONE = Together()
"""Each pair in a call of its own: the same shapes, and so the same bits, whatever its batch."""
