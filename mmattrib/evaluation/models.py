"""Where the models of an evaluation come from: in memory, or loaded by each process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from mmattrib.errors import OptionError, WeightsError
from mmattrib.loading import load_backbone
from mmattrib.models.backbone import Backbone
from mmattrib.models.weights import parse_device
from mmattrib.types import Modality


class ModelSource(ABC):
    """A model that each process of an evaluation can have.

    Attributes:
        name: of the backbone.
        weights: SHA-256, as :meth:`mmattrib.Backbone.weights_hash` gives it.
        modalities: what it embeds.
    """

    name: str
    weights: str
    modalities: tuple[Modality, ...]

    @abstractmethod
    def get(self) -> Backbone:
        """The model."""

    @property
    def device(self) -> str:
        """Where it is, or will be once it is loaded, e.g. ``"cpu"`` or ``"cuda:0"``."""
        return "cpu"

    def settle(self, device: str) -> ModelSource:
        """Where it comes from for a process that shall have it on another device.

        A model in memory is moved, so this is for a process that has a copy of its own.

        Raises:
            OptionError: it cannot be elsewhere, or there is no such device.
        """
        raise OptionError(f"{type(self).__name__} cannot put {self.name} on {device}")


@dataclass(frozen=True)
class LiveModel(ModelSource):
    """A model in memory; another process gets a copy."""

    backbone: Backbone
    name: str
    weights: str
    modalities: tuple[Modality, ...]

    @staticmethod
    def of(backbone: Backbone) -> LiveModel:
        """Take a live backbone as it is."""
        return LiveModel(backbone, backbone.name, backbone.weights_hash(), backbone.modalities)

    def get(self) -> Backbone:
        return self.backbone

    @property
    def device(self) -> str:
        return str(next(iter(self.backbone.values())).device)

    def settle(self, device: str) -> LiveModel:
        place = parse_device(device)
        for encoder in self.backbone.values():
            encoder.module.to(place)
        return self


@dataclass(frozen=True)
class NamedModel(ModelSource):
    """A registered backbone with its options, loaded once by each process.

    Attributes:
        options: as :func:`mmattrib.load_backbone` takes them, by name; hashable values.
    """

    name: str
    weights: str
    modalities: tuple[Modality, ...]
    options: tuple[tuple[str, Any], ...] = field(default=())

    @staticmethod
    def of(name: str, **options: Any) -> NamedModel:
        """Load the model once, to know its weights.

        Raises:
            UnknownNameError: no such backbone.
            WeightsError: its checkpoint cannot be loaded.
        """
        given = tuple(sorted(options.items()))
        backbone = _load(name, given)
        return NamedModel(name, backbone.weights_hash(), backbone.modalities, given)

    def get(self) -> Backbone:
        backbone = _load(self.name, self.options)
        if backbone.weights_hash() != self.weights:
            raise WeightsError(f"the weights of {self.name} have changed since the run began")
        return backbone

    @property
    def device(self) -> str:
        return str(dict(self.options).get("device", "cpu"))

    def settle(self, device: str) -> NamedModel:
        given = {**dict(self.options), "device": str(parse_device(device))}
        return replace(self, options=tuple(sorted(given.items())))


@lru_cache(maxsize=4)
def _load(name: str, options: tuple[tuple[str, Any], ...]) -> Backbone:
    """Kept by each process: tasks come back to the same few models."""
    return load_backbone(name, **dict(options))


def model_sources(
    backbones: Backbone | ModelSource | Mapping[str, Backbone | ModelSource],
) -> dict[str, ModelSource]:
    """Label -> source. A single model is labelled by its name.

    Raises:
        OptionError: something else, or none.
    """
    if isinstance(backbones, Backbone | ModelSource):
        backbones = {backbones.name: backbones}
    if not isinstance(backbones, Mapping) or not backbones:
        raise OptionError(
            f"an evaluation needs a backbone or a mapping of them, got {type(backbones).__name__}"
        )
    found: dict[str, ModelSource] = {}
    for label, model in backbones.items():
        if isinstance(model, Backbone):
            found[label] = LiveModel.of(model)
        elif isinstance(model, ModelSource):
            found[label] = model
        else:
            raise OptionError(
                f"backbone {label!r} is {type(model).__name__}, not mmattrib.Backbone"
            )
    return found
