"""What a tower gives its blocks beside the tokens, laid out for rows that repeat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from torch import Tensor

BlockCall: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Further arguments of a block, by place and by name."""

ByRow: TypeAlias = dict[tuple[Any, ...], bool | None]
"""Where in a call a tensor is -> whether it has an entry for each row; None where none can tell."""


def tensors_of(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """Every tensor of a call, in tuples, lists and dictionaries too, with its place."""
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, tuple | list):
        for number, each in enumerate(value):
            yield from tensors_of(each, (*place, number))
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from tensors_of(each, (*place, name))


def by_row(one: BlockCall, two: BlockCall) -> ByRow:
    """Which tensors have an entry for each row of the batch, as their shapes say.

    Args:
        one: of a batch of one.
        two: of the same input twice.
    """
    found: ByRow = {}
    doubled = dict(tensors_of(two))
    for place, value in tensors_of(one):
        shape = doubled[place].shape if place in doubled else None
        found[place] = None
        if shape == value.shape:
            found[place] = False
        elif value.dim() and len(value) == 1 and shape == (2, *value.shape[1:]):
            found[place] = True
    return found


def shortened(call: BlockCall, rows: int, count: int, fewer: int) -> BlockCall | None:
    """The call for the first tokens alone: masks ``(..., N, N)`` cut on both axes.

    Args:
        call: for ``rows`` rows of ``count`` tokens.
        rows: B; where it is N, ``(B, N)`` and ``(N, N)`` cannot be told apart.
        count: N.
        fewer: how many of them are left.

    Returns:
        None where an argument goes along the tokens in another way.
    """

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[..., :fewer, :fewer] if count in value.shape else value
        if isinstance(value, tuple | list):
            parts = [cut(each) for each in value]
            return value._make(parts) if hasattr(value, "_make") else type(value)(parts)
        return (
            {name: cut(each) for name, each in value.items()} if isinstance(value, dict) else value
        )

    tensors = [value for _, value in tensors_of(call)]
    along = [value for value in tensors if count in value.shape]
    if any(x.shape[-2:] != (count, count) or (x.dim() == 2 and rows == count) for x in along):
        return None
    made: BlockCall = cut(call)
    return made


def laid_out(call: BlockCall, known: ByRow, which: Tensor) -> BlockCall | None:
    """The call for a batch that is made of rows of a smaller one.

    Args:
        call: of the smaller batch.
        known: of these arguments.
        which: ``(B,)``, row numbers in the smaller batch.

    Returns:
        None where nobody can tell how an argument goes on.
    """
    if any(known.get(place) is None for place, _ in tensors_of(call)):
        return None

    def lay(value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, Tensor):
            return value[which.to(value.device)] if known[place] else value
        if isinstance(value, tuple | list):
            parts = [lay(each, (*place, number)) for number, each in enumerate(value)]
            return value._make(parts) if hasattr(value, "_make") else type(value)(parts)
        if isinstance(value, dict):
            return {name: lay(each, (*place, name)) for name, each in value.items()}
        return value

    made: BlockCall = lay(call, ())
    return made
