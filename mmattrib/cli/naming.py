"""Backbones, data sets and methods by name, several at once: ``[LABEL=]NAME[:KEY=VALUE,...]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmattrib.cli.arguments import checked_device, parse_options
from mmattrib.errors import OptionError, doubled
from mmattrib.plugins import default_plugins
from mmattrib.types import SECOND

if TYPE_CHECKING:
    from mmattrib.datasets import Dataset
    from mmattrib.evaluation import Variant
    from mmattrib.models.backbone import Backbone
    from mmattrib.plugins.registry import Kind


@dataclass(frozen=True)
class Named:
    """Something registered, with its options.

    Attributes:
        name: as registered.
        options: by keyword.
        label: what tables call it; None for its own name.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    label: str | None = None

    @property
    def shown(self) -> str:
        """What messages and tables call it."""
        return self.label or self.name


def parse_named(text: str, option: str, *, labels: bool = True) -> Named:
    """One of ``[LABEL=]NAME[:KEY=VALUE,...]``.

    Args:
        text: as given.
        option: its flag, for messages.
        labels: whether a label may stand before it.

    Raises:
        OptionError: no name, no option behind a colon, or one that is not ``KEY=VALUE``.
    """
    head, colon, rest = text.partition(":")
    label, equals, name = head.rpartition("=") if labels else ("", "", head)
    if colon and not rest:
        raise OptionError(f"{option} {text} ends in a colon; write it like {head}:KEY=VALUE")
    if equals and not label:
        raise OptionError(f"{option} {text} has no label before =; write it like LABEL=NAME")
    options = parse_options(rest.split(",") if rest else (), f"{option} {head}:")
    return Named(name, options, label or None)


def parse_several(
    texts: Sequence[str], kind: Kind, option: str, more: Sequence[str] = ()
) -> list[Named]:
    """Several backbones or data sets, each with options of its own.

    Args:
        texts: as given.
        kind: of which registered names they must be.
        option: the flag, for messages.
        more: ``KEY=VALUE`` of the ``-option`` flag, which belong to a single one.

    Raises:
        OptionError: two under one label, options that belong to none of several, or unknown ones.
        UnknownNameError: no such name.
    """
    found = [parse_named(text, option) for text in texts]
    given = parse_options(more, f"{option}-option")
    if given and len(found) > 1:
        raise OptionError(
            f"{option}-option {more[0]} belongs to one of {len(found)}; write it behind the name, "
            f"like {option} {found[0].name}:{more[0]}"
        )
    if given:
        twice = sorted(set(given) & set(found[0].options))
        if twice:
            raise OptionError(f"{option}-option gives {twice[0]!r} again; give it once")
        found[0].options.update(given)
    registry = default_plugins().registry
    alike = doubled(each.shown for each in found)
    for each in found:
        registry.require(kind, each.name)
        registry.check_options(kind, each.name, each.options, f"{option}-option")
        if each.shown in alike:
            raise OptionError(
                f"{option} {each.shown} is given twice; give it once, or tell them apart by "
                f"labels: {option} "
                f"first={each.name} {option} second={each.name}"
            )
    return found


def make_strict(data: Sequence[Named], strict: bool) -> None:
    """Have data sets refuse their first broken entry, by their own option ``strict``.

    Args:
        data: gets the option.
        strict: the flag; without it everything stays as it is.

    Raises:
        OptionError: one has no such option, or it is given already.
    """
    registry = default_plugins().registry
    for each in data if strict else ():
        if "strict" in each.options:
            raise OptionError(f"--strict gives 'strict' of {each.shown} again; give it once")
        each.options["strict"] = True
        registry.check_options("dataset", each.name, each.options, "--data-option")


def load_models(named: Sequence[Named], device: str | None = None) -> dict[str, Backbone]:
    """Label -> model.

    Raises:
        OptionError: the device cannot be used.
        WeightsError: a checkpoint cannot be loaded.
    """
    import mmattrib

    where = {} if device is None else {"device": checked_device(device)}
    return {n.shown: mmattrib.load_backbone(n.name, **{**n.options, **where}) for n in named}


def open_datasets(named: Sequence[Named]) -> dict[str, Dataset]:
    """Label -> data set; one without a label has the data set's own.

    Raises:
        InputError: its files cannot be used.
    """
    import mmattrib

    found: dict[str, Dataset] = {}
    for each in named:
        opened = mmattrib.load_dataset(each.name, **each.options)
        found[each.label or str(getattr(opened, "label", opened.name))] = opened
    return found


def parse_methods(
    texts: Sequence[str], layers: Any = None, config: Path | None = None
) -> list[Variant]:
    """Methods from the command line and those of a plan; none for every registered one.

    Raises:
        OptionError: ``all`` beside others, a plan that is wrong, an option that is no option, or
            one label twice.
        UnknownNameError: no such method.
    """
    wanted = [parse_named(text, "--method") for text in texts]
    if any(each.name == "all" for each in wanted):
        if len(wanted) > 1 or config is not None or wanted[0].options:
            raise OptionError("--method all stands for every method; give it alone")
        wanted = []
    for each in wanted:
        default_plugins().registry.require("method", each.name)

    from mmattrib.evaluation import Variant
    from mmattrib.evaluation.plans import read_plan

    found = [Variant(each.shown, each.name, each.options, layers) for each in wanted]
    found += [] if config is None else read_plan(config)
    for label in doubled(each.label for each in found):
        raise OptionError(
            f"--method {label} is given twice; give it once, or name variants apart: --method "
            "LABEL=NAME:KEY=VALUE, or another name in the plan"
        )
    return found


def sides_of(pairs: Sequence[tuple[str, str]], backbones: Sequence[Named]) -> tuple[str, ...]:
    """What a layer may be named for."""
    registry = default_plugins().registry
    embedded = [m for each in backbones for m in registry.get("backbone", each.name).modalities]
    sides = [side for pair in pairs for side in pair] or embedded or ["image", "text"]
    return tuple(dict.fromkeys(n for side in sides for n in (side, side.removesuffix(SECOND))))


def parse_metrics(texts: Sequence[str]) -> Any:
    """Metrics from ``NAME`` or ``NAME:N``; None for the default, ``"all"`` for all.

    Raises:
        OptionError: one given twice, ``all`` beside others, or no number behind a colon.
        UnknownNameError: no such metric.
    """
    if "all" in texts:
        if len(texts) > 1:
            raise OptionError("--metric all stands for every metric; give it alone")
        return "all"
    registry, found = default_plugins().registry, dict[str, int | None]()
    for text in texts:
        name, colon, number = text.partition(":")
        registry.require("metric", name)
        if name in found:
            raise OptionError(f"--metric {name} is given twice; give it once")
        if colon and not number.isdecimal():
            raise OptionError(f"--metric {text}: {number!r} is no number of samples")
        found[name] = int(number) if colon else None
    return found or None


def parse_pair(text: str) -> tuple[str, str]:
    """Two kinds of input from ``A,B``.

    Raises:
        OptionError: it is not two.
    """
    first, comma, second = text.partition(",")
    if not (first and comma and second) or "," in second or first == second:
        raise OptionError(f"--pair {text} is not two modalities; write it like image,text")
    return first, second


def refuse_twice(option: str, values: Sequence[Any]) -> None:
    """Refuse a value that is given twice.

    Raises:
        OptionError: one is.
    """
    for value in doubled(values):
        given = ",".join(value) if isinstance(value, tuple) else value
        raise OptionError(f"{option} {given} is given twice; give it once")
