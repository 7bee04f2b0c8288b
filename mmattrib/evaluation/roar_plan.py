"""What an experiment of ROAR+ is asked: the model, the methods, the directions, the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from mmattrib import __version__
from mmattrib.datasets.base import Dataset
from mmattrib.errors import OptionError, brief, check_whole
from mmattrib.evaluation.candidates import Methods, Variant, listed
from mmattrib.evaluation.degrading import percentile_of
from mmattrib.evaluation.retraining import SCALE, Recipe
from mmattrib.evaluation.roar_results import CLEAN, NONE, TRUTH
from mmattrib.evaluation.run import Data, Plan, make_plan
from mmattrib.explain import Layers
from mmattrib.models.backbone import Backbone
from mmattrib.models.parameters import logit_scale
from mmattrib.perturb import FILLS
from mmattrib.preparing import side_encoder
from mmattrib.types import JSONValue

CONTROLS: Final = (NONE, TRUTH)


@dataclass(frozen=True)
class Question:
    """What is asked, checked.

    Attributes:
        backbone: the model.
        plan: methods, data and pairs, as an evaluation would have them.
        weights: hash of the model's.
        variants: label -> method.
        controls: of :data:`CONTROLS`.
        directions: pair of sides -> what is degraded, one after the other.
        seeds: of the split and the order.
        recipe: of the training.
        percentiles: modality -> percentile above which scores are taken away.
        fills: modality -> what stands in.
        strict: whether the first pair that cannot be used ends the run.
    """

    backbone: Backbone
    plan: Plan
    weights: str
    variants: Mapping[str, Variant]
    controls: tuple[str, ...]
    directions: Mapping[tuple[str, str], tuple[str, ...]]
    seeds: tuple[int, ...]
    recipe: Recipe
    percentiles: Mapping[str, float]
    fills: Mapping[str, str]
    strict: bool

    @property
    def dataset(self) -> Dataset:
        """What is trained on and held out."""
        return next(iter(self.plan.context.datasets.values()))

    @property
    def fingerprint(self) -> str:
        """Of the data set."""
        return next(iter(self.plan.context.fingerprints.values()))

    @property
    def device(self) -> str:
        """Where the model and its copies compute."""
        return next(iter(self.plan.context.backbones.values())).device

    def size(self) -> int:
        """How many trainings there are."""
        rows = len(self.variants) + len(self.controls)
        return len(self.seeds) * sum(1 + rows * len(each) for each in self.directions.values())

    def head(self) -> dict[str, JSONValue]:
        """What a folder belongs to; methods, seeds and directions may be added."""
        (dataset,) = self.plan.describe()["datasets"].values()
        return {
            "experiment": "roar",
            "version": __version__,
            "backbone": {"name": self.backbone.name, "weights_sha256": self.weights},
            "dataset": dataset,
            "methods": {
                label: each.describe(self.recipe.map_seed) for label, each in self.variants.items()
            },
            "recipe": self.recipe.describe(),
            "percentiles": dict(self.percentiles),
            "fills": dict(self.fills),
        }

    def describe(self) -> dict[str, JSONValue]:
        """For provenance."""
        return {
            **self.head(),
            "controls": list(self.controls),
            "seeds": list(self.seeds),
            "scale": {"-".join(pair): self.scale(pair) for pair in self.directions},
            "threads": torch.get_num_threads(),
            "device": self.device,
            "torch": torch.__version__,
        }

    def scale(self, pair: tuple[str, str]) -> float:
        """The factor before the cosines of a pair of sides."""
        if self.recipe.scale is not None:
            return self.recipe.scale
        encoders = {side: side_encoder(self.backbone, side) for side in pair}
        own = logit_scale(encoders)
        return SCALE if own is None else own


def question(
    backbone: Backbone,
    data: Data,
    methods: Methods,
    directions: Sequence[str] | None,
    controls: Sequence[str],
    layer: Layers,
    seeds: Sequence[int],
    limit: int | None,
    percentiles: Mapping[str, float],
    fills: Mapping[str, str],
    recipe: Recipe,
    strict: bool,
) -> Question:
    """Check the arguments of :func:`mmattrib.evaluation.remove_and_retrain`.

    Raises:
        As there.
    """
    if not isinstance(backbone, Backbone):
        raise OptionError(f"retraining needs a mmattrib.Backbone, got {type(backbone).__name__}")
    named = None if directions is None else _parsed(directions)
    shares, stand_ins = _checked_percentiles(backbone, percentiles), _checked_fills(backbone, fills)
    plan = make_plan(
        backbone, data, methods=methods, metrics=["cosine"], layer=layer,
        seed=recipe.map_seed, limit=limit,
    )  # fmt: skip
    if len(plan.context.datasets) > 1:
        raise OptionError("retraining takes one data set; give one, and others a run of their own")
    variants = {}
    for label, each in plan.context.candidates.items():
        if not isinstance(each, Variant) or label in (*CONTROLS, CLEAN):
            raise OptionError(f"{label!r} is no method that makes maps; give names of methods")
        variants[label] = each
    for name in listed(controls, "controls"):
        if not isinstance(name, str) or name not in CONTROLS:
            raise OptionError(f"no control {brief(name)}; accepted: {', '.join(CONTROLS)}")
    wanted = tuple(check_whole(s, "seed", 0, 2**31 - 1) for s in listed(seeds, "seeds"))
    if not wanted or len(set(wanted)) < len(wanted):
        raise OptionError(
            f"seeds must be different whole numbers, at least one, got {brief(wanted)}"
        )
    return Question(
        backbone, plan, next(iter(plan.context.backbones.values())).weights, variants,
        tuple(dict.fromkeys(controls)), _by_pair(plan.pairs, named), wanted, recipe,
        shares, stand_ins, strict,
    )  # fmt: skip


def _parsed(directions: Sequence[str]) -> list[tuple[str, str, str]]:
    """(direction, first side, second side) of each."""
    found = []
    for text in listed(directions, "directions"):
        sides = text.replace("+", "|").split("|") if isinstance(text, str) else []
        if len(sides) != 2 or not all(sides) or sides[0] == sides[1]:
            raise OptionError(
                f"{brief(text)} is no direction; write image|text to degrade the image by its map "
                "given the text, or image+text to degrade both"
            )
        found.append((text, sides[0], sides[1]))
    if not found or len({text for text, _, _ in found}) < len(found):
        raise OptionError("directions must be different, at least one")
    return found


def _by_pair(
    pairs: Sequence[tuple[str, str]], named: Sequence[tuple[str, str, str]] | None
) -> dict[tuple[str, str], tuple[str, ...]]:
    if named is None:
        return {(a, b): (f"{a}|{b}", f"{b}|{a}") for a, b in pairs}
    found: dict[tuple[str, str], tuple[str, ...]] = dict.fromkeys(pairs, ())
    for text, first, second in named:
        pair = next((p for p in pairs if set(p) == {first, second}), None)
        if pair is None:
            raise OptionError(
                f"the direction {text} is of no pair that the samples have and the model embeds: "
                f"{', '.join('-'.join(each) for each in pairs)}"
            )
        found[pair] += (text,)
    return {pair: each for pair, each in found.items() if each}


def _check_mapping(given: object, what: str) -> None:
    if not isinstance(given, Mapping):
        raise OptionError(f"{what} are a mapping from modalities, got {brief(given)}")


def _checked_percentiles(backbone: Backbone, given: Mapping[str, float]) -> dict[str, float]:
    _check_mapping(given, "percentiles")
    for modality, value in given.items():
        if modality not in backbone:
            raise OptionError(
                f"a percentile is given for {brief(modality)}; accepted: {', '.join(backbone)}"
            )
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not 0 <= value <= 100:
            raise OptionError(
                f"the percentile of {modality} must be from 0 to 100, got {brief(value)}"
            )
    return {modality: percentile_of(modality, given) for modality in backbone}


def _checked_fills(backbone: Backbone, given: Mapping[str, str]) -> dict[str, str]:
    _check_mapping(given, "fills")
    for modality, name in given.items():
        if modality not in backbone:
            raise OptionError(
                f"a fill is given for {brief(modality)}; accepted: {', '.join(backbone)}"
            )
        known = FILLS.get(modality, FILLS["array"])
        if not isinstance(name, str) or name not in known:
            raise OptionError(f"no fill {brief(name)} for {modality}; accepted: {', '.join(known)}")
    return {
        modality: given.get(modality, next(iter(FILLS.get(modality, FILLS["array"]))))
        for modality in backbone
    }
