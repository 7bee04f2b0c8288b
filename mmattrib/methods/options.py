"""Options of methods: frozen dataclasses that check themselves and know which of them act.

Importing this module imports no torch.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from mmattrib.errors import SEEDS, OptionError, brief

Value = TypeVar("Value", bool, int, float, str)

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


SMALLEST, LARGEST = 1e-9, 1e9
"""Bounds of a number above 0, and of one without a bound of its own: beyond them float32 overflows
or rounds to nothing."""


@dataclass(frozen=True)
class Limits:
    """What an option accepts, and when it acts.

    Attributes:
        least: smallest value, or None.
        most: largest value, or None.
        above: value that it must exceed, or None.
        choices: the values accepted, or empty for any in range.
        only: name of another option -> its values under which this one acts. Under any other, the
            option must keep its default, and is not described.
        resource: it bounds memory or batches, and changes no map but by rounding.
        kind: type of an option that may be left unset (None), or None for the default's type.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    resource: bool = False
    kind: type[Any] | None = None

    def accepted(self) -> str:
        """The accepted values, for a message."""
        if self.choices:
            return ", ".join(self.choices)
        if self.least is not None and self.most is not None:
            return f"from {self.least:g} to {self.most:g}"
        parts = []
        if self.above == 0:
            parts.append(f"{SMALLEST:g} or more")
        elif self.above is not None:
            parts.append(f"above {self.above:g}")
        if self.least is not None:
            parts.append(f"{self.least:g} or more")
        if self.most is not None:
            parts.append(f"at most {self.most:g}")
        elif parts and self.kind in (None, float):
            parts.append(f"at most {LARGEST:g}")
        return " and ".join(parts) or f"a number within ±{LARGEST:g}"

    def accepts(self, value: Any) -> bool:
        """Whether a value of the right type is accepted."""
        if value is None:
            return self.kind is not None
        if self.choices:
            return value in self.choices
        if isinstance(value, str | bool):
            return True
        if not abs(value) < math.inf or (isinstance(value, float) and abs(value) > LARGEST):
            return False
        if self.above is not None and not value > self.above:
            return False
        if self.above == 0 and value < SMALLEST:
            return False
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )


def option(
    default: Value,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    choices: Sequence[str] = (),
    only: Mapping[str, tuple[Any, ...]] | None = None,
    resource: bool = False,
) -> Value:
    """A field of an options dataclass, with its default and its :class:`Limits`."""
    limits = Limits(least, most, above, tuple(choices), dict(only or {}), resource)
    return field(default=default, metadata={"limits": limits})


def unset(
    kind: type[Value],
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> Value | None:
    """A field that is unset (None) by default, and then neither acts nor is described.

    With ``only={NAME: (None,)}`` on another option, the two are alternatives.
    """
    limits = Limits(least, most, above, kind=kind)
    return field(default=None, metadata={"limits": limits})


def limits_of(options: Any, name: str) -> Limits:
    """The limits of an option, of an options dataclass or an instance of one."""
    found = {each.name: each.metadata.get("limits") for each in fields(options)}[name]
    return found if isinstance(found, Limits) else Limits()


@dataclass(frozen=True)
class MethodOptions:
    """Options of a method: none. A subclass adds fields made with :func:`option`.

    Raises:
        OptionError: a value of the wrong type or out of range, or one that differs from its
            default where it would have no effect.
    """

    def __post_init__(self) -> None:
        for each in fields(self):
            limits = limits_of(self, each.name)
            value = _parse(each.name, getattr(self, each.name), each.default, limits.kind)
            object.__setattr__(self, each.name, value)
            if not limits.accepts(value):
                said = f"{each.name} must be {limits.accepted()}, got {brief(value)}"
                if limits.choices:
                    said = f"unknown {each.name} {brief(value)}; accepted: {limits.accepted()}"
                raise OptionError(said)
        acting = acting_options(self)
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name not in acting and value != each.default:
                raise _without_effect(self, each.name)


@dataclass(frozen=True)
class SeededOptions(MethodOptions):
    """Options of a method that draws noise.

    Attributes:
        seed: of the noise; the same seed gives the same map.
    """

    seed: int = option(0, least=SEEDS[0], most=SEEDS[1])


def _without_effect(options: Any, name: str) -> OptionError:
    """The error for an option that is given where it does not act."""
    value, only = getattr(options, name), limits_of(options, name).only
    for other, values in only.items():
        beside = getattr(options, other)
        if values == (None,) and beside is not None:
            return OptionError(
                f"{name}={brief(value)} would have no effect beside {other}={brief(beside)}: "
                f"give {name} or {other}, not both"
            )
    needs = " and ".join(
        f"{other}={' or '.join(map(repr, values))}" for other, values in only.items()
    )
    return OptionError(
        f"{name}={brief(value)} would have no effect here: it acts with {needs} alone; set that, "
        "or leave it out"
    )


def acting_options(options: Any) -> dict[str, Any]:
    """Name and value of every option that is set and acts, given the others.

    Args:
        options: an instance of an options dataclass.
    """
    return {
        each.name: getattr(options, each.name)
        for each in fields(options)
        if getattr(options, each.name) is not None
        and all(
            getattr(options, name) in values
            for name, values in limits_of(options, each.name).only.items()
        )
    }


def parse_options(options: type[Any], given: Mapping[str, Any], method: str) -> Any:
    """An instance of a frozen options dataclass from keywords.

    Args:
        options: the dataclass; every field has a default, whose type the value must have.
        given: field name -> value, or its text.
        method: for messages.

    Raises:
        OptionError: an unknown field, with the nearest names; a value of the wrong type; one that
            has no effect beside the others, be it the default's.
    """
    defaults = {each.name: each.default for each in fields(options) if each.default is not MISSING}
    for name in given:
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise OptionError(
                f"method {method!r} has no option {brief(name)}{hint}; accepted: "
                f"{', '.join(defaults) or 'none'}"
            )
    made = options(
        **{
            name: _parse(name, value, defaults[name], limits_of(options, name).kind)
            for name, value in given.items()
        }
    )
    acting = acting_options(made)
    for name in given:
        if name not in acting and getattr(made, name) is not None:
            raise _without_effect(made, name)
    return made


def _parse(name: str, value: Any, default: Any, unset: type[Any] | None) -> Any:
    """``value`` in the type of ``default``, or of an option that may be unset; text is read."""
    if value is None and unset is not None:
        return None
    kind = unset or type(default)
    try:
        if kind is bool:
            text = str(value).lower()
            if text in ("true", "yes", "on", "1", "false", "no", "off", "0"):
                return text in ("true", "yes", "on", "1")
        elif isinstance(value, bool):
            pass
        elif kind is int:
            if isinstance(value, str) or value == int(value):
                return int(value)
        elif kind is float:
            return float(value)
        elif isinstance(value, kind):
            return value
    except (TypeError, ValueError, OverflowError):
        pass
    raise OptionError(f"{name} must be {_KINDS.get(kind, kind.__name__)}, got {brief(value)}")
