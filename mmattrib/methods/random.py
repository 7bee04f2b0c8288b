"""Random scores: the baseline that every method must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from mmattrib.methods.base import Method, SeededOptions, Side, SideScores
from mmattrib.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from mmattrib.plugins.hookspecs import Register


class Random(Method):
    """Uniform scores in [0, 1) for valid tokens, drawn from the seed and the pair."""

    name = "random"
    unit = "none"
    summary = "random scores, the baseline that every method must beat"
    Options: ClassVar[type[Any]] = SeededOptions
    options: SeededOptions

    def explain(self, side: Side) -> SideScores:
        import torch

        from mmattrib.engine.noise import pair_generator

        valid = side.grid().valid.cpu()
        scores = torch.zeros(valid.shape, dtype=torch.float32, device="cpu")
        for row, key in enumerate(side.keys):
            generator = pair_generator(self.options.seed, key, "random scores")
            scores[row, valid[row]] = torch.rand(
                int(valid[row].sum()), generator=generator, dtype=torch.float32, device="cpu"
            )
        return self.scored(scores)


@hookimpl
def register_methods(register: Register) -> None:
    """Register ``random``."""
    Random.register(register)
