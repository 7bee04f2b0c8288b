"""What a value is, whole: two values that are told alike behave alike, and others are not told.

What a module computes with may hang on anything that it holds: numbers, lists, configurations,
functions, tensors, other modules. :class:`Contents` reads all of a value that it can, notes the
tensors and the modules on the way for its caller, and raises :class:`UnknownError` for a value that
may hide something (an object of a compiled library, a lock, a stream of random numbers).
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

MOST_VALUES: Final = 20_000
"""Values that are read at most, text and numbers in arrays counted by the kilobyte."""

DEEPEST: Final = 24
"""How deep values are looked for in others."""

_PLAIN: Final = frozenset(
    (
        *(bool, int, float, complex, type(None), type(...), range),
        *(torch.dtype, torch.device, torch.layout, torch.memory_format),
    )
)
_DICTS: Final = (dict, OrderedDict, MappingProxyType)
_AS_THEY_ARE: Final = (type, ModuleType, logging.Logger)
"""Known by which one it is."""


class _Bare:
    """An object with attributes and nothing else."""


class UnknownError(Exception):
    """A value that cannot be told whole."""


_numbers: dict[int, tuple[weakref.ref[Any], int]] = {}
_count = itertools.count(1)


def number_of(value: Any) -> int:
    """A number that is this object's alone, also after it is gone; ``id`` is given again.

    Raises:
        UnknownError: it cannot be referred to weakly.
    """
    key = id(value)
    known = _numbers.get(key)
    if known is not None and known[0]() is value:
        return known[1]

    def gone(reference: weakref.ref[Any]) -> None:
        if (there := _numbers.get(key)) is not None and there[0] is reference:
            _numbers.pop(key, None)

    try:
        made = weakref.ref(value, gone), next(_count)
    except TypeError as error:
        raise UnknownError(type(value).__name__) from error
    _numbers[key] = made
    return made[1]


class Contents:
    """Reads values, and remembers what it has read.

    Attributes:
        tensors: those that were met, in order, for the caller to look at.
        modules: those that were met, in order, for the caller to look at.
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.modules: dict[int, nn.Module] = {}
        self._left = MOST_VALUES
        self._depth = 0
        self._met: dict[int, tuple[int, object]] = {}
        self._classes: dict[tuple[type, type], int] = {}

    def of(self, value: Any) -> object:
        """What the value is, of plain values that print alike only where they are equal.

        Raises:
            UnknownError: it holds something that cannot be told, or too much.
        """
        kind = type(value)
        if kind in _PLAIN:
            return value
        self._left -= 1
        if kind is str or kind is bytes or kind is bytearray:
            self._left -= len(value) // 1024
            self._check()
            return value
        self._check()
        met = self._met.get(id(value))
        if met is not None:
            return "met", met[0]
        self.meet(value)
        self._depth += 1
        found = kind.__name__, self._whole(value, kind)
        self._depth -= 1
        return found

    def meet(self, value: Any) -> None:
        """Take a value as read; it is held, so that its ``id`` stays its own."""
        self._met[id(value)] = len(self._met), value

    def _check(self) -> None:
        if self._left < 0 or self._depth > DEEPEST:
            raise UnknownError("too much to read")

    def _whole(self, value: Any, kind: type) -> object:
        if isinstance(value, nn.Module):
            self.modules[id(value)] = value
            return number_of(value)
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return len(self.tensors)
        if isinstance(value, Enum):
            return number_of(kind), value.name
        if isinstance(value, _AS_THEY_ARE):
            return number_of(value)
        for known, read in _READ:
            if kind is known:
                return read(self, value)
        if isinstance(value, np.generic | np.ndarray):
            return self._array(value)
        if isinstance(value, tuple) and (kind is torch.Size or hasattr(value, "_fields")):
            return number_of(kind), self._each(value)
        if isinstance(value, PurePath):
            return str(value)
        return self._object(value, kind)

    def _each(self, values: Any) -> object:
        return tuple(self.of(value) for value in values)

    def _pairs(self, value: Any) -> object:
        return tuple((self.of(key), self.of(part)) for key, part in value.items())

    def _array(self, value: Any) -> object:
        if value.dtype.hasobject:
            raise UnknownError("an array of objects")
        self._left -= value.nbytes // 1024
        self._check()
        return str(value.dtype), value.shape, value.tobytes()

    def _function(self, value: FunctionType) -> object:
        cells = value.__closure__ or ()
        return (
            number_of(value.__code__),
            self.of(value.__defaults__),
            self.of(value.__kwdefaults__),
            tuple(self.of(cell.cell_contents) if _filled(cell) else "empty" for cell in cells),
            self._pairs(vars(value)),
        )

    def _built_in(self, value: Any) -> object:
        owner = value.__self__
        named = owner is None or isinstance(owner, type | ModuleType)
        return number_of(value) if named else (value.__name__, self.of(owner))

    def _object(self, value: Any, kind: type) -> object:
        """One of a class written in Python: nothing but its attributes and its class."""
        plain = (kind.__basicsize__, kind.__itemsize__) == (_Bare.__basicsize__, _Bare.__itemsize__)
        if not plain or "__dict__" not in dir(kind):
            raise UnknownError(kind.__name__)
        return self.class_of(kind), self._pairs(vars(value))

    def class_of(self, kind: type, until: type = object) -> object:
        """A class, with what it and those that it is derived from define, down to one of them."""
        if (known := self._classes.get((kind, until))) is not None:
            return "class", known
        self._classes[kind, until] = len(self._classes)
        found: list[object] = [number_of(kind)]
        for base in kind.__mro__[: kind.__mro__.index(until)]:
            found.append(number_of(base))
            for name, value in vars(base).items():
                if type(value) is FunctionType:
                    found.append((name, number_of(value), number_of(value.__code__)))
                elif not (name.startswith("__") and name.endswith("__")) and name != "_abc_impl":
                    found.append((name, self._in_class(value)))
        return tuple(found)

    def _in_class(self, value: Any) -> object:
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        elif isinstance(value, functools.cached_property):
            value = value.func
        if type(value) is FunctionType:
            return number_of(value), number_of(value.__code__)
        if type(value) in _DESCRIPTORS:
            return type(value).__name__
        return self.of(value)


_DESCRIPTORS: Final = frozenset(
    (type(vars(_Bare)["__dict__"]), type(object.__init__), type(str.join), type(range.start))
)
"""What classes of C lay on themselves: they cannot be changed."""


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


_READ: Final[tuple[tuple[type, Callable[[Contents, Any], object]], ...]] = (
    *((kind, Contents._each) for kind in (list, tuple)),
    *((kind, Contents._pairs) for kind in _DICTS),
    *((kind, lambda own, v: sorted(map(repr, own._each(v)))) for kind in (set, frozenset)),
    (defaultdict, lambda own, v: (own.of(v.default_factory), own._pairs(v))),
    (FunctionType, Contents._function),
    (BuiltinFunctionType, Contents._built_in),
    (MethodType, lambda own, v: (own.of(v.__func__), own.of(v.__self__))),
    (
        functools.partial,
        lambda own, v: tuple(map(own.of, (v.func, v.args, v.keywords, vars(v)))),
    ),
    (functools._lru_cache_wrapper, lambda own, v: own.of(v.__wrapped__)),
    (slice, lambda own, v: (own.of(v.start), own.of(v.stop), own.of(v.step))),
    (re.Pattern, lambda own, v: (own.of(v.pattern), v.flags)),
)
