"""Which metrics order methods alike: rank correlations over methods, and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Final

import numpy as np

from examples.study.protocol import RANKED
from mmattrib.evaluation import Results
from mmattrib.evaluation.sheets import row
from mmattrib.evaluation.statistics import Numbers
from mmattrib.evaluation.tables import higher_is_better
from mmattrib.metrics.sensitivity import rank_correlation

DRAWS: Final = 400
"""Resamples of the scenes."""


@dataclass(frozen=True)
class Agreement:
    """Metrics beside each other on the same scenes.

    A metric's order of the methods is that of their means over scenes; metrics of which less is
    better are turned round. Correlations are averaged over directions. Random maps are a method.

    Attributes:
        sources: metric -> where its numbers are, all of the same scenes in the same order.
        methods: that are ordered.
        directions: over which correlations are averaged.
    """

    sources: Mapping[str, Results]
    methods: Sequence[str]
    directions: Sequence[str]

    def table(self) -> str:
        """Every metric beside every other."""
        names = list(self.sources)
        found = {pair: self.correlations(*pair, resamples=0)[0] for pair in combinations(names, 2)}
        lines = [f"| | {' | '.join(names)} |", row(["---"] * (len(names) + 1))]
        for place, one in enumerate(names):
            cells = [
                "" if column <= place or np.isnan(found[one, two]) else f"{found[one, two]:.2f}"
                for column, two in enumerate(names)
            ]
            lines.append(row([one, *cells]))
        return "\n".join(lines)

    def with_truth(self) -> str:
        """What the model was asked beside what is known, with 95 % intervals over scenes."""
        asked = [name for name in self.sources if name not in RANKED]
        lines = [f"| | {' | '.join(RANKED)} |", row(["---"] * (len(RANKED) + 1))]
        for name in asked:
            cells = []
            for known in RANKED:
                found = self.correlations(name, known)
                low, high = np.nanquantile(found[1:], (0.025, 0.975))
                cells.append(f"{found[0]:.2f} ({low:.2f} to {high:.2f})")
            lines.append(row([name, *cells]))
        return "\n".join(lines)

    def correlations(self, one: str, two: str, resamples: int = DRAWS) -> Numbers:
        """``(1 + resamples,)``: on all scenes, and on each resample of them."""
        found = []
        for direction in self.directions:
            pair = [self._means[name, direction] for name in (one, two)]
            there = np.isfinite(pair[0][0]) & np.isfinite(pair[1][0])
            if there.sum() > 2:
                rows = zip(*(each[: 1 + resamples, there] for each in pair), strict=True)
                found.append([rank_correlation(*means) for means in rows])
        if not found:
            return np.full(1 + resamples, np.nan)
        together: Numbers = np.mean(found, axis=0)
        return together

    @cached_property
    def _means(self) -> Mapping[tuple[str, str], Numbers]:
        """(metric, direction) -> ``(1 + DRAWS, methods)`` means over scenes, more being better."""
        found = {}
        for name, source in self.sources.items():
            sign = -1.0 if higher_is_better(name) is False else 1.0
            for direction in self.directions:
                values = sign * np.stack(
                    [source.values(method, direction, name) for method in self.methods]
                )
                there = np.isfinite(values)
                weights = _weights(values.shape[1])
                with np.errstate(invalid="ignore"):  # where no number is there
                    means = (weights @ np.where(there, values, 0.0).T) / (weights @ there.T)
                found[name, direction] = means.round(12)  # equal means are ties
        return found


def _weights(scenes: int) -> Numbers:
    """``(1 + DRAWS, scenes)`` how often each scene counts; the same resamples for all metrics."""
    drawn = np.random.default_rng(0).multinomial(scenes, np.full(scenes, 1 / scenes), DRAWS)
    return np.concatenate([np.ones((1, scenes)), drawn])
