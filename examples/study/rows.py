"""What the rows of the default buy: fewer rates along the channel, on search scenes.

Measured by ``python -m examples.study sweep`` with plans/rows.toml.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from examples.study.benchmark import KINDS, averaged
from examples.study.kept import raw
from examples.study.protocol import DECIDING
from mmattrib.evaluation import Results, compare
from mmattrib.evaluation.sheets import row
from mmattrib.evaluation.statistics import Numbers

DEFAULT: Final = "80 + 32"
METRICS: Final = (*DECIDING, "stability")
DATASET: Final = "search/one"


def _column(results: Results, method: str, metric: str, directions: Sequence[str]) -> Numbers:
    """``(backbones, samples)``, averaged over the directions to which the metric applies."""
    columns = np.stack(
        [results.table_of(method, d, metric, results.backbones, DATASET) for d in directions]
    )
    return averaged(columns)


def table(results: Results | None = None) -> str:
    """Means, and in brackets the paired difference to the default; bold where it is clear.

    Args:
        results: of the plan; the kept ones if None.
    """
    results = raw("rows") if results is None else results
    heads = [f"{kind}: {metric}" for kind in KINDS for metric in METRICS]
    lines = [f"| rows | {' | '.join(heads)} |", row(["---"] * (len(heads) + 1))]
    for method in results.methods:
        cells = []
        for directions in KINDS.values():
            for metric in METRICS:
                cells.append(_cell(results, method, metric, directions))
        lines.append(row([method, *cells]))
    return "\n".join(lines)


def _cell(results: Results, method: str, metric: str, directions: Sequence[str]) -> str:
    ours = _column(results, method, metric, directions)
    if not np.isfinite(ours).any():
        return ""
    mean = f"{100 * np.nanmean(ours):.1f}"
    if method == DEFAULT:
        return mean
    found = compare(ours, _column(results, DEFAULT, metric, directions))
    change = f"{100 * found.mean:+.1f}"
    return f"{mean} ({f'**{change}**' if found.low > 0 or found.high < 0 else change})"
