"""A plan: a TOML file that names variants of methods, alone or as grids.

What `mmattrib tune` writes is one, and what ``--config`` takes.

```toml
[defaults]                      # all optional
method = "ca-m2ib"
layer = {image = -1, audio = -1, text = -1}
options = {beta = 1}            # for variants of the default method alone

[variant.published]
method = "m2ib"

[grid.beta]                     # beta/beta=0.3, beta/beta=1, ...
options = {beta = [0.3, 1, 3], points = 20}
layer = {image = [-1, 1]}       # beta/beta=0.3/layer.image=-1, ...

[variant.tuned]
sides = {text = {beta = 10}}    # options that differ where captions are explained
```
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Final

from mmattrib.errors import OptionError, brief, doubled
from mmattrib.evaluation.candidates import Variant
from mmattrib.evaluation.tables import REFERENCES
from mmattrib.files import as_path
from mmattrib.io.files import existing_file

_KEYS: Final = ("method", "layer", "options", "sides")
_MOST = 1024**2  # bytes of a plan
MOST_VARIANTS: Final = 10_000


def read_plan(path: str | Path) -> list[Variant]:
    """The variants of a plan file, in its order, each checked by making its method.

    Raises:
        OptionError: the file cannot be read, or a table, key, method option or layer is wrong.
        UnknownNameError: no such method.
    """
    try:
        with existing_file(as_path(path, "read_plan"), "a plan", "a .toml file").open("rb") as file:
            text = file.read(_MOST + 1)
        if len(text) > _MOST:
            raise OptionError(f"plan {path} has more than {_MOST} bytes; name a plan")
        plan = tomllib.loads(text.decode("utf-8"))
    except OptionError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # InputError is a ValueError
        raise OptionError(f"plan {path}: {error}") from error
    return parse_plan(plan, str(path))


def parse_plan(plan: Mapping[str, Any], where: str = "plan") -> list[Variant]:
    """The variants of a parsed plan.

    Raises:
        OptionError: a table, key, method option or layer is wrong.
        UnknownNameError: no such method.
    """
    _only(plan, ("defaults", "variant", "grid"), where)
    defaults = _table(plan.get("defaults", {}), f"{where}: [defaults]")
    variants = [
        _variant(name, _table(table, f"{where}: {name}"), defaults, where)
        for name, table in _tables(plan, "variant", where)
    ]
    for name, table in _tables(plan, "grid", where):
        for suffix, single in _expand(_table(table, f"{where}: {name}")):
            variants.append(_variant(f"{name}/{suffix}", single, defaults, where))
    if not variants:
        raise OptionError(f"{where} names no variant; write [variant.NAME] or [grid.NAME]")
    names = [variant.label for variant in variants]
    twice = set(doubled(names))
    for name in names:
        if name in twice or name in REFERENCES:
            why = "is reserved" if name in REFERENCES else "stands twice"
            raise OptionError(f"{where}: variant {name!r} {why}; choose another name")
    return variants


def choose(variants: Sequence[Variant], patterns: Sequence[str]) -> list[Variant]:
    """The variants whose names match any of some patterns (``*`` and ``?``); all without one.

    Raises:
        OptionError: a pattern that matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(variant.label, pattern) for variant in variants):
            names = ", ".join(variant.label for variant in variants)
            raise OptionError(f"no variant matches {pattern!r}; the plan has {names}")
    return [v for v in variants if not patterns or any(fnmatchcase(v.label, p) for p in patterns)]


def _tables(plan: Mapping[str, Any], kind: str, where: str) -> Iterator[tuple[str, Any]]:
    """Name -> table, of all of a kind."""
    found = plan.get(kind, {})
    if not isinstance(found, Mapping):
        raise OptionError(
            f"{where}: {kind} must be a table, got {brief(found)}; write [{kind}.NAME]"
        )
    yield from found.items()


def _table(table: Any, where: str) -> dict[str, Any]:
    """A table with keys that are known, and options even where there are none."""
    options = table.get("options", {}) if isinstance(table, Mapping) else None
    if not isinstance(options, Mapping):
        raise OptionError(f"{where} and its options must each be a table, got {brief(table)}")
    _only(table, _KEYS, where)
    sides = table.get("sides", {})
    if not isinstance(sides, Mapping) or not all(isinstance(v, Mapping) for v in sides.values()):
        raise OptionError(
            f"{where}: sides must be a table of options for each modality, got {brief(sides)}; "
            "write it like sides = {text = {beta = 10}}"
        )
    return {**table, "options": dict(options), "sides": dict(sides)}


def _only(table: Mapping[str, Any], accepted: Sequence[str], where: str) -> None:
    unknown = sorted(set(table) - set(accepted))
    if unknown:
        raise OptionError(f"{where} has {', '.join(unknown)}; accepted: {', '.join(accepted)}")


def _variant(
    name: str, table: Mapping[str, Any], defaults: Mapping[str, Any], where: str
) -> Variant:
    method = table.get("method", defaults.get("method"))
    if not isinstance(method, str):
        raise OptionError(f"{where}: variant {name!r} needs a method, got {brief(method)}")
    options = dict(table["options"])
    if method == defaults.get("method"):
        options = {**defaults["options"], **options}
    if "seed" in options or any("seed" in own for own in table["sides"].values()):
        raise OptionError(f"{where}: variant {name!r} sets the seed, which the evaluation chooses")
    layer = _merged(table.get("layer"), defaults.get("layer"))
    try:
        variant = Variant(name, method, options, layer, table["sides"])
        variant.make()
    except OptionError as error:
        raise OptionError(f"{where}: variant {name!r}: {error}") from error
    return variant


def _merged(own: Any, default: Any) -> Any:
    if isinstance(own, Mapping) and isinstance(default, Mapping):
        return {**default, **own}
    return default if own is None else own


def _expand(table: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every choice out of the lists in a grid's table, with the name that it gives."""
    options, layer = dict(table["options"]), table.get("layer")
    axes: list[tuple[str, str, list[Any]]] = [
        ("options", key, value) for key, value in options.items() if isinstance(value, list)
    ]
    if isinstance(layer, Mapping):
        axes += [("layer", key, value) for key, value in layer.items() if isinstance(value, list)]
    elif isinstance(layer, list):
        axes.append(("", "layer", layer))
    if prod(len(axis[2]) for axis in axes) > MOST_VARIANTS:
        raise OptionError(f"a grid makes more than {MOST_VARIANTS} variants; shorten its lists")
    for values in product(*(axis[2] for axis in axes)):
        single = {**table, "options": dict(options)}
        if isinstance(layer, Mapping):
            single["layer"] = dict(layer)
        parts = []
        for (group, key, _), value in zip(axes, values, strict=True):
            if group:
                single[group][key] = value
            else:
                single[key] = value
            parts.append(f"{'layer.' if group == 'layer' else ''}{key}={value}")
        yield "/".join(parts) or "all", single


def write_plan(variants: Sequence[Variant], comments: Sequence[str] = ()) -> str:
    """Variants of named methods as the text of a plan file.

    Args:
        variants: which.
        comments: lines above them.

    Raises:
        OptionError: a live method, or what a plan cannot hold.
    """
    lines = [f"# {' '.join(comment.split())}" for comment in comments]
    for variant in variants:
        if not isinstance(variant.method, str):
            raise OptionError(f"{variant.label!r} is a live method, which no plan can name")
        lines += [f"[variant.{_toml(variant.label)}]", f"method = {_toml(variant.method)}"]
        for key, value in (
            ("layer", variant.layer), ("options", variant.options), ("sides", variant.sides),
        ):  # fmt: skip
            if value is not None and value != {}:
                lines.append(f"{key} = {_toml(value)}")
    text = "\n".join(lines) + "\n"
    try:
        same = [v.id for v in parse_plan(tomllib.loads(text))] == [v.id for v in variants]
    except ValueError:  # None, or a number that is none
        same = False
    if not same:
        raise OptionError("these variants hold values that a plan cannot hold")
    return text


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(str(k))} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)
