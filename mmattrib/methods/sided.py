"""One method with options of its own for some modalities, as the papers tune β, σ and ℓ apart."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

from mmattrib.methods.base import Method, Side, SideScores


class Sided(Method):
    """A method that explains some modalities with other options than the rest.

    Not registered: :class:`mmattrib.evaluation.Variant` makes it of ``sides``.
    """

    name: ClassVar[str] = "sided"
    unit: ClassVar[str] = "none"
    summary: ClassVar[str] = "one method with options of its own for some modalities"

    def __init__(self, common: Method, own: Mapping[str, Method]) -> None:
        """Put it together.

        Args:
            common: for every other modality.
            own: modality -> the same method with other options.
        """
        self.common, self.own = common, dict(own)
        self.options = common.options
        self.name = common.name  # type: ignore[misc]
        self.unit = common.unit  # type: ignore[misc]
        self.requires = common.requires  # type: ignore[misc]

    @property
    def draws(self) -> bool:
        return any(each.draws for each in (self.common, *self.own.values()))

    def seeded(self, seed: int) -> Sided:
        made = copy.copy(self)
        own = {modality: method.seeded(seed) for modality, method in self.own.items()}
        Sided.__init__(made, self.common.seeded(seed), own)
        return made

    def explain(self, side: Side) -> SideScores:
        return self.own.get(side.encoder.modality, self.common).explain(side)

    def default_layer(self, encoder: Any) -> int:
        return self.own.get(encoder.modality, self.common).default_layer(encoder)

    def describe(self) -> dict[str, Any]:
        """The common options, and under ``sides`` those of a modality that differ."""
        common = self.common.describe()
        sides = {
            modality: {k: v for k, v in method.describe().items() if common.get(k) != v}
            for modality, method in self.own.items()
        }
        return {**common, "sides": sides}
