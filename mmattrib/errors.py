"""Errors and warnings. Each message says what was given, what is accepted and what to do."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable


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
