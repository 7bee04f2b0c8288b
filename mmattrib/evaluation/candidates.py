"""What an evaluation compares: methods with their options, and references that need no map."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from mmattrib.errors import OptionError, brief, check_whole
from mmattrib.explain import Layers
from mmattrib.loading import load_method
from mmattrib.methods import Method
from mmattrib.methods.base import check_attributes
from mmattrib.methods.sided import Sided
from mmattrib.models.capabilities import INPUT_LAYER
from mmattrib.plugins import default_plugins
from mmattrib.types import SECOND

if TYPE_CHECKING:
    from mmattrib.evaluation.measure import Context, SampleRow
    from mmattrib.evaluation.tasks import Task
    from mmattrib.types import JSONValue


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, 16 hex digits, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Candidate(ABC):
    """One row of a table.

    Attributes:
        label: what tables call it; unique in an evaluation.
        metrics: those that it has numbers for; None for all that are asked for.
    """

    label: str
    metrics: ClassVar[frozenset[str] | None] = None

    @abstractmethod
    def definition(self) -> dict[str, JSONValue]:
        """What it is, whatever its label: equal definitions share their numbers."""

    def describe(self, seed: int | None) -> dict[str, JSONValue]:
        """Everything that its numbers depend on, options left at their defaults included."""
        return self.definition()

    def seeds(self, wanted: Sequence[int]) -> tuple[int | None, ...]:
        """The seeds to measure it under; ``(None,)`` where it draws nothing."""
        return (None,)

    @abstractmethod
    def measure(self, context: Context, task: Task) -> list[SampleRow]:
        """One row of numbers for each sample of a task."""

    @property
    def id(self) -> str:
        """Its definition as a hash."""
        return digest(self.definition())


@dataclass(frozen=True)
class Variant(Candidate):
    """A method with options and layers, under a label of its own.

    Attributes:
        label: what tables call it.
        method: as registered, or a live method, whose options stand.
        options: of a method that is named; its own defaults for the others.
        layer: as for :func:`mmattrib.attribute`; None for each encoder's own choice. May name
            modalities that a pair does not have.
        sides: modality -> options that differ where it is explained, of a method that is named.
    """

    label: str
    method: str | Method
    options: Mapping[str, JSONValue] = field(default_factory=dict)
    layer: Layers = None
    sides: Mapping[str, Mapping[str, JSONValue]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse options that are none of a method, and layers that are none of any encoder.

        Raises:
            OptionError: options are no mapping, or ``seed`` or ``method`` is among them; a layer
                is no whole number.
        """
        layers = self.layer.values() if isinstance(self.layer, Mapping) else [self.layer]
        for layer in layers:
            if layer is not None:
                check_whole(layer, f"the layer of variant {self.label!r}", INPUT_LAYER)
        sides = self.sides.values() if isinstance(self.sides, Mapping) else [self.sides]
        for given in (self.options, *sides):
            if not isinstance(given, Mapping):
                raise OptionError(
                    f"variant {self.label!r}: options are a mapping such as {{'beta': 0.1}}, got "
                    f"{type(given).__name__}"
                )
            if "seed" in given:
                raise OptionError(
                    f"variant {self.label!r} sets the seed, which the evaluation chooses: give it "
                    "there (seed=, on the command line --seed)"
                )
            if "method" in given:
                raise OptionError(f"variant {self.label!r}: method is no option of a method")

    def make(self, seed: int | None = 0) -> Method:
        """The method itself, under a seed if it draws noise.

        Raises:
            UnknownNameError: no such method.
            OptionError: no such option, or one out of range.
        """
        if not isinstance(self.method, str):
            return self.method if seed is None else self.method.seeded(seed)
        drawn = 0 if seed is None else seed
        common = load_method(self.method, drawn, **self.options)
        own = {
            modality: load_method(self.method, drawn, **{**self.options, **options})
            for modality, options in self.sides.items()
        }
        return Sided(common, own) if own else common

    def seeds(self, wanted: Sequence[int]) -> tuple[int | None, ...]:
        return tuple(wanted) if self.make().draws else (None,)

    def definition(self) -> dict[str, JSONValue]:
        """Method, given options as parsed, and layers.

        Options that are not given stand for whatever the default is, so that a method which gains
        an option keeps its results.
        """
        made = self.make()
        parsed = made.describe()
        given = (
            {name: parsed.get(name, value) for name, value in self.options.items()}
            if isinstance(self.method, str)
            else {name: value for name, value in parsed.items() if name != "seed"}
        )
        layer = dict(self.layer) if isinstance(self.layer, Mapping) else self.layer
        found: dict[str, JSONValue] = {"method": made.name, "options": given, "layer": layer}
        if self.sides:
            found["sides"] = {side: dict(options) for side, options in self.sides.items()}
        return found

    def describe(self, seed: int | None) -> dict[str, JSONValue]:
        return {**self.definition(), "options": self.make(seed).describe()}

    def layers_for(self, sides: Iterable[str]) -> Layers:
        """The layers as :func:`mmattrib.attribute` takes them for a pair of these sides."""
        if not isinstance(self.layer, Mapping):
            return self.layer
        wanted = {name for side in sides for name in (side, side.removesuffix(SECOND))}
        return {name: layer for name, layer in self.layer.items() if name in wanted}

    def measure(self, context: Context, task: Task) -> list[SampleRow]:
        from mmattrib.evaluation.measure import measure_method

        return measure_method(context, task, self)


Methods: TypeAlias = (
    Literal["all"] | Sequence["str | Method | Candidate"] | Mapping[str, "str | Method"]
)


def candidates(methods: Methods, layer: Layers = None) -> tuple[Candidate, ...]:
    """What to compare, each under a label of its own.

    Args:
        methods: names, live methods, candidates, a mapping from label to name or method, or
            ``"all"`` for every registered method that is not kept for research.
        layer: for those that do not say themselves.

    Raises:
        OptionError: none at all, something else, or two under one label.
        UnknownNameError: no such method.
    """
    if isinstance(methods, Mapping):
        given = [_one(method, layer, label) for label, method in methods.items()]
    elif isinstance(methods, str):
        if methods != "all":
            raise OptionError(
                f"methods must be 'all' or a sequence of methods, got {brief(methods)}"
            )
        given = [
            Variant(entry.name, entry.name, {}, layer)
            for entry in default_plugins().registry.usable("method")
        ]
    else:
        given = [_one(method, layer) for method in listed(methods, "methods")]
    if not given:
        raise OptionError("an evaluation needs at least one method, got none")
    return _told_apart(given)


def listed(given: Any, what: str) -> list[Any]:
    """What is given one by one.

    Raises:
        OptionError: it cannot be gone through.
    """
    try:
        return list(given)
    except TypeError:  # of arrays without an axis too, which call themselves iterable
        raise OptionError(f"{what} must be a sequence, got {type(given).__name__}") from None


def _one(method: Any, layer: Layers, label: str | None = None) -> Candidate:
    if isinstance(method, Candidate) and label is None:
        return method
    if isinstance(method, str):
        return Variant(label or method, method, {}, layer)
    if isinstance(method, Method):
        check_attributes(method)
        return Variant(label or method.name, method, {}, layer)
    raise OptionError(
        f"a method is a name, a mmattrib.methods.Method or a mmattrib.evaluation.Variant, got "
        f"{type(method).__name__}"
    )


def _told_apart(given: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Methods that stand under their own name get the options in which they differ behind it.

    Raises:
        OptionError: two candidates still have one label, or one has another's name.
    """
    found = []
    for candidate in given:
        alike = [c for c in given if c.label == candidate.label]
        if len(alike) > 1 and isinstance(candidate, Variant) and all(map(_is_own_name, alike)):
            candidate = replace(candidate, label=_with_options(candidate, alike))
        found.append(candidate)
    _refuse_seeds(found)
    labels = [candidate.label for candidate in found]
    for label in labels:
        if labels.count(label) > 1:
            raise OptionError(
                f"two methods would stand in the table as {label!r}; name them apart, e.g. "
                "methods={'first': ..., 'second': ...}"
            )
    return tuple(found)


def _is_own_name(candidate: Candidate) -> bool:
    """Whether the label is but the method's name, and not one that somebody chose."""
    return isinstance(candidate, Variant) and candidate.label == candidate.make().name


def _refuse_seeds(found: Sequence[Candidate]) -> None:
    """Refuse live methods that differ in their seed alone: an evaluation gives each its own."""
    live = [c for c in found if isinstance(c, Variant) and isinstance(c.method, Method)]
    for place, one in enumerate(live):
        for other in live[:place]:
            if one.id == other.id and one.make(None).describe() != other.make(None).describe():
                raise OptionError(
                    f"{other.label!r} and {one.label!r} differ in their seed alone, which an "
                    "evaluation sets; give one of them and seed=[0, 1], which averages over seeds"
                )


def _with_options(variant: Variant, alike: Sequence[Candidate]) -> str:
    options = [c.make().describe() for c in alike if isinstance(c, Variant)]
    own = variant.make().describe()
    differing = [name for name in own if any(other.get(name) != own[name] for other in options)]
    told = ", ".join(f"{name}={own[name]}" for name in differing)
    return f"{variant.label} ({told})" if told else variant.label
