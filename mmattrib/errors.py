"""Errors and warnings. Each message says what was given, what is accepted and what to do."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from math import prod
from numbers import Integral
from typing import Any, cast


class MmattribError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(MmattribError, ValueError):
    """A raw input (file, array, caption) cannot be used."""


class OptionError(MmattribError, ValueError):
    """An option of a method, a backbone or a command is out of range or unknown."""


class UnknownNameError(MmattribError, LookupError):
    """No backbone, method, metric or command is registered under this name."""


class PluginError(MmattribError, RuntimeError):
    """A plugin is broken, or two plugins claim one name."""


class MissingExtraError(MmattribError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class WeightsError(MmattribError, RuntimeError):
    """A checkpoint is missing, truncated, or does not fit its model."""


class EncoderError(MmattribError, TypeError):
    """An encoder does not keep its contract; the message names the part that broke."""


class MethodError(MmattribError, TypeError):
    """A method does not keep its contract; the message names the part that broke."""


class MetricError(MmattribError, TypeError):
    """A metric does not keep its contract; the message names the part that broke."""


class DatasetError(MmattribError, TypeError):
    """A data set does not keep its contract; the message names the part that broke."""


class TrustWarning(UserWarning):
    """A map was computed, but its diagnostics say that it should not be trusted."""


class WorkerError(MmattribError, RuntimeError):
    """A process that shared the work ended by itself, did not start, or cannot be sent its part."""


class InputWarning(UserWarning):
    """An input was taken as its type says, but its values suggest that something else was meant."""


MOST = 10_000_000
"""Largest number of samples, pairs or places along an axis: more was hardly meant."""


def brief(value: object, most: int = 60) -> str:
    """What was given, for a message: its ``repr``, cut short, whatever it is and however large.

    Long containers and texts are never written out whole first, and what cannot be written at all
    (a number of more digits than Python writes, an object whose ``repr`` fails) is told by type.

    >>> brief("abc"), brief(10**10000), brief([5] * 99999)
    ("'abc'", 'a whole number of more than 60 digits', '[5, 5, 5, 5, 5, 5, ...]')
    """
    shorter = reprlib.Repr()
    shorter.maxstring = shorter.maxother = shorter.maxlong = most
    try:
        if isinstance(value, int) and abs(value) >= 10**most:
            return f"a whole number of more than {most} digits"
        if isinstance(value, bytes):
            value = value[:most]
        text = shorter.repr(value)
    except Exception:  # of the object's own code, of any kind
        text = type(value).__name__
    return text if len(text) <= most else f"{text[: most - 3]}..."


def repr_of(*names: str) -> Callable[[object], str]:
    """A ``__repr__`` for classes that hold arrays: it tells shapes and counts, never their values.

    Always on one line of fewer than 300 characters.

    Args:
        *names: of the attributes to tell; for a dataclass, if none, its fields.

    >>> class Grid:
    ...     __repr__ = repr_of("size", "rows")
    ...     size, rows = (2, 3), [[1, 2, 3]] * 20
    >>> Grid()
    Grid(size=(2, 3), rows=20 of list)
    """

    def told(self: object) -> str:
        own = names
        if not own and is_dataclass(self):
            own = tuple(each.name for each in fields(self) if each.repr)
        known = [f"{name}={_told(getattr(self, name, None))}" for name in own]
        inner = ", ".join(known)
        return f"{type(self).__name__}({inner if len(inner) <= 230 else inner[:229] + '…'})"

    return told


def _told(value: object, most: int = 60) -> str:
    """A value in few words: an array by shape and type, a long container by what it holds."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and hasattr(value, "dtype"):
        size = "x".join(map(str, shape)) or "0-d"
        return f"{size} {str(value.dtype).removeprefix('torch.')}"
    if type(value) is dict or isinstance(value, Mapping):
        if not isinstance(value, dict):  # its values may have to be made
            return brief(list(value), most)
        inner = ", ".join(f"{key}: {_told(item, 20)}" for key, item in list(value.items())[:9])
        clean = "".join(c if c.isprintable() else "?" for c in inner)
        return f"{{{clean}}}" if len(clean) <= 2 * most else f"{len(value)} entries"
    if isinstance(value, tuple | list):
        plain = all(isinstance(item, str | int | float | None) for item in value[:9])
        text = brief(value, most) if plain and len(value) <= 6 else ""
        return text if text else f"{len(value)} of {type(value[0]).__name__}"
    return brief(value, most)


def doubled(names: Iterable[Hashable]) -> list[Any]:
    """Those that are given more than once, each once, in the order in which they come."""
    return [name for name, count in Counter(names).items() if count > 1]


def is_one_of(value: object, accepted: Iterable[str]) -> bool:
    """Whether something is one of some words; an array or a list is none, and no error."""
    return isinstance(value, str) and value in tuple(accepted)


SEEDS = (-(2**63), 2**63 - 1)
"""Smallest and largest seed of noise."""


def check_seed(value: object, what: str = "seed", least: int = SEEDS[0]) -> int:
    """A seed; see :func:`check_whole`."""
    return check_whole(value, what, least, SEEDS[1])


def check_switch(value: object, what: str) -> bool:
    """True or False, or 1 or 0.

    Raises:
        OptionError: something else.
    """
    if not isinstance(value, int) and type(value).__name__ not in ("bool", "bool_"):  # numpy's
        raise OptionError(f"{what} must be True or False, got a {type(value).__name__}")
    return bool(value)


def check_whole(value: object, what: str, least: int = 0, most: int = MOST) -> int:
    """A whole number within bounds, so that a mistyped one is refused before anything is done.

    Args:
        value: what was given.
        what: its name, for the message.
        least: smallest that is accepted.
        most: largest that is accepted.

    Raises:
        OptionError: it is no whole number, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise OptionError(
            f"{what} must be a whole number from {least} to {most}, got {brief(value)}"
        )
    if not least <= value <= most:
        raise OptionError(
            f"{what} must be a whole number from {least} to {most}, got {brief(value)}"
        )
    return value


MOST_PLACES = 1 << 28
"""Places of a map at a size of one's own: 1 GB."""


def check_size(size: object, own: tuple[int, ...], axes: Sequence[str]) -> tuple[int, ...]:
    """The size of a map as whole numbers, so that none is cut or rounded without a word.

    Args:
        size: what was given: a tuple, a list or an array ``(axes,)``; numpy's whole numbers are as
            good as Python's, True and False are none.
        own: the size that the map has by itself, which is accepted whatever it is.
        axes: their names.

    Raises:
        InputError: it is no whole number of places for each axis, or too many in all.
    """
    row = isinstance(size, tuple | list) or getattr(size, "ndim", None) == 1
    given = list(cast(Any, size)) if row and len(cast(Any, size)) == len(own) else []
    if given and all(isinstance(n, Integral) and not isinstance(n, bool) for n in given):
        found = tuple(map(int, given))
        if found == own or (min(found) >= 1 and prod(found) <= MOST_PLACES):
            return found
    raise InputError(
        f"size {brief(size)}: accepted is one whole number of places, at least 1, for each of "
        f"the axes ({', '.join(map(brief, axes))}), and {MOST_PLACES} places in all; or None for "
        f"the size that it has, {brief(own)}"
    )
