"""Objects of others that this package calls: methods, metrics and data sets of one's own.

What they raise, and what they give of a wrong type, becomes one error that names the class and what
it gave, instead of failing somewhere in an evaluation. A base class says in ``__init_subclass__``
which of its methods are the contract, and :func:`hold_to` wraps them where a subclass of others
defines them. Importing this module imports the standard library alone.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeAlias

from mmattrib.errors import MmattribError, brief
from mmattrib.plugins.registry import one_line

Fault: TypeAlias = type[MmattribError]
Check: TypeAlias = Callable[[Any], str | None]
"""Takes what was given; says what is wrong with it, or None."""

_OWN = "mmattrib."
_unheld: ContextVar[bool] = ContextVar("_unheld", default=False)


@contextmanager
def unheld() -> Iterator[None]:
    """Let classes of others do as they do inside: whoever checks them says more of a fault."""
    token = _unheld.set(True)
    try:
        yield
    finally:
        _unheld.reset(token)


def is_unheld() -> bool:
    """Whether :func:`unheld` acts."""
    return _unheld.get()


def is_own(thing: object) -> bool:
    """Whether a class or an object is this package's."""
    kind = thing if isinstance(thing, type) else type(thing)
    return kind.__module__.startswith(_OWN)


def passes(error: BaseException) -> bool:
    """Whether an error is raised through: this package's own, and what says nothing of the code.

    ``KeyboardInterrupt``, a full memory (of CUDA too) and warnings that were turned into errors.
    """
    if isinstance(error, MmattribError | Warning | MemoryError | KeyboardInterrupt):
        return True
    full = getattr(sys.modules.get("torch"), "OutOfMemoryError", None)
    return isinstance(full, type) and isinstance(error, full)


@contextmanager
def blamed(fault: Fault, what: str) -> Iterator[None]:
    """Make an error of whatever other people's code raises inside; it may even exit.

    Args:
        fault: the error.
        what: who fails, as the message begins.
    """
    try:
        yield
    except BaseException as error:
        if passes(error):
            raise
        raise fault(f"{what} failed with {one_line(error)}") from error


def hold_to(kind: type[Any], fault: Fault, noun: str, contract: Mapping[str, Check | None]) -> None:
    """Wrap the methods of a contract that a class of others defines.

    Args:
        kind: the class; one of this package's is left as it is.
        fault: the error that names what breaks.
        noun: what the class is, e.g. ``"metric"``.
        contract: name of a method -> what to say against what it gives, if anything.
    """
    if is_own(kind):
        return
    for name, check in contract.items():
        own = vars(kind).get(name)
        if inspect.isfunction(own):
            setattr(kind, name, _held(own, fault, f"{noun} {kind.__name__}: {name}", check))


def _held(own: Callable[..., Any], fault: Fault, what: str, check: Check | None) -> Any:
    @wraps(own)
    def call(*args: Any, **kwargs: Any) -> Any:
        if is_unheld():
            return own(*args, **kwargs)
        with blamed(fault, what):
            found = own(*args, **kwargs)
        if check is not None:
            refuse(fault, what, check(found))
        return found

    return call


def refuse(fault: Fault, what: str, wrong: str | None) -> None:
    """Raise the fault where a check has found something wrong."""
    if wrong is not None:
        raise fault(f"{what} gave {wrong}")


def shown(value: object) -> str:
    """What a value is, in a word or two: others' ``repr`` may be long, or fail."""
    if value is None or isinstance(value, bool | int | float | str):
        return brief(value)
    return f"a {type(value).__name__}"


def described(found: Any) -> str | None:
    """What is wrong with what ``describe`` gave."""
    if not isinstance(found, Mapping):
        return f"{shown(found)}; accepted: a mapping of JSON values"
    return _no_json(dict(found), 0)


def _no_json(value: Any, depth: int) -> str | None:
    if value is None or isinstance(value, bool | int | float | str):
        return None
    if depth > 20:
        return "values that lie more than 20 deep"
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            return "a key that is no text; accepted: a mapping of JSON values"
        inner = list(value.values())
    elif isinstance(value, list | tuple):
        inner = list(value)
    else:
        return f"{shown(value)} among its values; accepted: JSON values"
    return next((said for each in inner if (said := _no_json(each, depth + 1))), None)
