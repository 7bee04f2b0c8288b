"""Random scores: the floor that every method must beat."""

from __future__ import annotations

import torch

from mmattrib.engine.noise import pair_generator
from mmattrib.methods.base import Method, Side, SideScores


class Random(Method):
    """Uniform scores in [0, 1) for valid tokens, drawn from the seed and the pair."""

    name = "random"
    unit = "none"

    def explain(self, side: Side) -> SideScores:
        valid = side.grid().valid.cpu()
        scores = torch.zeros(valid.shape)
        for row, key in enumerate(side.keys):
            generator = pair_generator(self.options.seed, key, "random scores")
            scores[row, valid[row]] = torch.rand(int(valid[row].sum()), generator=generator)
        return SideScores(scores, self.unit, tuple({"warnings": []} for _ in side.keys))
