"""Leaving out one part at a time: Zeiler and Fergus, "Visualizing and Understanding Convolutional
Networks", ECCV 2014, section 4.2, for pictures; Li, Monroe and Jurafsky, "Understanding Neural
Networks through Representation Erasure", 2016, for words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.lazy import np
from mmattrib.methods.base import Side, option
from mmattrib.methods.masking import Floats, MaskedInput, MaskingMethod, MaskOptions
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from mmattrib.plugins.hookspecs import Register


@dataclass(frozen=True)
class LeaveOneOutOptions(MaskOptions):
    """Options of ``leave-one-out``; the fills and ``batch`` as in :class:`MaskOptions`.

    Attributes:
        cells: parts along each axis of what the model saw of a picture or a recording.
    """

    cells: int = option(7, least=1, most=32)


class LeaveOneOut(MaskingMethod):
    """How much the cosine falls when a fill stands in for one part, each in turn; signed.

    A part's fall is shared by the tokens that lie on it: their scores sum to it. Fills that draw at
    random draw the same for every pair.

    Diagnostics: ``clean_cosine``; ``empty_cosine``, of the fill alone; ``parts``; ``fill``;
    ``model_rows``.
    """

    name = "leave-one-out"
    summary = "fall of the cosine when one part of the input is taken away (occlusion, erasure)"
    Options: ClassVar[type[Any]] = LeaveOneOutOptions
    options: LeaveOneOutOptions

    def explain_one(self, side: Side, row: int) -> tuple[Floats, dict[str, Any]]:
        masked = MaskedInput(side, row, self.options)
        parts = masked.parts(self.options.cells)
        count = int(np.prod(parts))
        ends = np.repeat([[False], [True]], count, axis=1)
        every = np.concatenate([ends, ~np.eye(count, dtype=np.bool_)])
        laid = (masked.lay(row.reshape(parts)) for row in every)
        cosines = np.concatenate(list(masked.cosines(laid)))
        scores = masked.spread((cosines[1] - cosines[2:]).reshape(parts))
        return scores, masked.report(count, empty_cosine=float(cosines[0]))


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``leave-one-out``."""
    LeaveOneOut.register(register)
