"""What stands behind a name in a listing: its options, with types, defaults, bounds and a line."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmattrib.plugins.registry import Entry
    from mmattrib.types import JSONValue

_SECTIONS = ("Args", "Attributes")
_ROLE = re.compile(r":\w+:`~?(?P<name>[^`]+)`")
_HEAD = re.compile(r"(?P<indent> +)(?P<name>\w+)(?: *\([^)]*\))?: +(?P<said>.*)")


def describe_options(entry: Entry) -> list[dict[str, JSONValue]]:
    """The options that a name takes, as JSON values, in their order.

    Each has ``name``, ``type``, ``default`` (None where ``required``), ``required``, ``accepted``
    (in words, or empty) and ``summary``. A method's come from its dataclass, all others from the
    signature of the factory and its docstring.
    """
    options = getattr(getattr(entry.factory, "__self__", None), "Options", None)
    if dataclasses.is_dataclass(options):
        return _of_dataclass(options)
    return _of_signature(entry.factory)


def _of_dataclass(options: Any) -> list[dict[str, JSONValue]]:
    from mmattrib.methods.options import limits_of

    said: dict[str, str] = {}
    for kind in reversed(options.__mro__):
        said.update(_documented(kind))
    found = []
    for each in dataclasses.fields(options):
        limits = limits_of(options, each.name)
        only = " and ".join(
            f"{name}={' or '.join(map(str, values))}" for name, values in limits.only.items()
        )
        kind = type(each.default) if limits.kind is None else limits.kind
        accepted = limits.accepted() if limits.choices or kind in (int, float) else ""
        found.append(
            {
                "name": each.name,
                "type": kind.__name__ + ("" if limits.kind is None else " | None"),
                "default": _plain(each.default),
                "required": False,
                "accepted": accepted + (f"; acts with {only} alone" if only else ""),
                "summary": said.get(each.name, ""),
            }
        )
    return found


def _of_signature(factory: Callable[..., Any]) -> list[dict[str, JSONValue]]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return []
    said = _documented(factory)
    if inspect.isclass(factory):
        said = {**said, **_documented(factory.__init__)}
    return [
        {
            "name": each.name,
            "type": _type(each),
            "default": None if each.default is each.empty else _plain(each.default),
            "required": each.default is each.empty,
            "accepted": "",
            "summary": said.get(each.name, ""),
        }
        for each in parameters
        if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]


def _type(parameter: inspect.Parameter) -> str:
    note = parameter.annotation
    if note is parameter.empty:
        return ""
    return note if isinstance(note, str) else getattr(note, "__name__", str(note))


def _plain(value: object) -> JSONValue:
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _documented(thing: Any) -> dict[str, str]:
    """Name -> what the docstring's sections of arguments or attributes say, on one line."""
    found: dict[str, str] = {}
    inside, depth, name = False, 0, ""
    for line in (inspect.getdoc(thing) or "").splitlines():
        if line and not line.startswith(" "):
            inside, depth = line.rstrip(":") in _SECTIONS and line.endswith(":"), 0
        elif inside and line.strip():
            head = _HEAD.fullmatch(line)
            if head and (not depth or len(head["indent"]) == depth):
                depth, name = len(head["indent"]), head["name"]
                found[name] = head["said"].strip()
            elif name:
                found[name] += " " + line.strip()
    return {name: _spoken(said) for name, said in found.items()}


def _spoken(said: str) -> str:
    """A docstring's text without its markup: roles become the last part of the name."""
    return _ROLE.sub(lambda role: f"`{role['name'].rpartition('.')[2]}`", said).replace("``", "`")
