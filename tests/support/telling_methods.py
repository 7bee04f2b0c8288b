"""A method that tells how it was run; worker processes import it from here."""

from __future__ import annotations

import torch

from mmattrib.methods import Method, Side, SideScores


class Telling(Method):
    """Scores of one, and in the diagnostics the threads and how many pairs came together."""

    name = "telling"
    unit = "none"

    def explain(self, side: Side) -> SideScores:
        told = {"threads": torch.get_num_threads(), "pairs": len(side)}
        valid = side.grid().valid
        return self.scored(valid.float(), [dict(told) for _ in range(len(side))])
