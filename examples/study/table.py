"""Results as Markdown: mean ± standard error in percent, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from examples.study.compare import Difference, compare
from examples.study.protocol import DECIDING, DIRECTIONS, METRICS, PROBES, RANKED, Kind, Split
from examples.study.results import CHANCE, ORACLE, Results
from mmattrib.errors import OptionError
from mmattrib.evaluation.benchmark import Floats

#: Not fractions: given as they are, with so many decimals.
_PLAIN: Final = {"seconds": 2, "capacity_bits": 1, "cosine": 3}
#: Directions that are averaged for the overall table.
GROUPS: Final = {
    "image and audio": tuple(d for d in DIRECTIONS if not d.startswith("text|")),
    "text": tuple(d for d in DIRECTIONS if d.startswith("text|")),
}


@dataclass(frozen=True)
class View:
    """What a table shows.

    Attributes:
        directions: in this order; all that were measured if empty.
        metrics: columns; all that were measured if empty.
        baseline: the variant that the others are compared with, or None.
        checkpoints: labels of those to average over; all if empty.
        split: of the protocol.
        kind: of scenes.
        draws: of the bootstrap.
    """

    directions: Sequence[str] = ()
    metrics: Sequence[str] = ()
    baseline: str | None = None
    checkpoints: Sequence[str] = ()
    split: Split = "search"
    kind: Kind = "one"
    draws: int = 10_000


def markdown(results: Results, view: View | None = None) -> str:
    """Tables of everything that was measured on one set of scenes.

    Per direction one row for each variant, and one in each overall table, whose numbers are
    averaged over directions per scene first: variants and scenes that lack one are left out there.
    With a baseline, the ranked metrics and the probes have the paired difference and its 95 %
    interval behind them, on the scenes and checkpoints that both have; ``*`` where the interval,
    corrected for all comparisons of the table, leaves out zero.

    Raises:
        OptionError: an unknown baseline, direction, metric or checkpoint, or nothing measured.
    """
    view = view or View()
    if view.baseline is not None and view.baseline not in results.variants:
        raise OptionError(f"no variant {view.baseline!r}: {', '.join(results.variants)}")
    for what, given, accepted in (
        ("direction", view.directions, DIRECTIONS),
        ("metric", view.metrics, METRICS),
        ("checkpoint", view.checkpoints, tuple(results.checkpoints)),
    ):
        for name in given:
            if name not in accepted:
                raise OptionError(f"{what} {name!r}: accepted are {', '.join(accepted)}")
    measured = results.directions(view.split, view.kind)
    directions = [d for d in view.directions or measured if d in measured]
    if not directions:
        raise OptionError(f"nothing was measured on split {view.split!r}, kind {view.kind!r}")
    scenes = results.scene_numbers(view.split, view.kind)
    parts = [
        f"split {view.split}, kind {view.kind}: {len(scenes)} scenes; checkpoints: "
        f"{', '.join(view.checkpoints or results.checkpoints)}. Percent, mean ± standard error "
        "over scenes."
    ]
    if view.baseline is not None:
        parts.append(
            f"In brackets: paired difference from {view.baseline} with its 95 % interval; * where "
            "it is clear of zero after correction for all comparisons of its table."
        )
    parts += [_table(results, view, direction, [direction]) for direction in directions]
    for name, group in GROUPS.items():
        inside = [d for d in group if d in directions]
        if len(inside) > 1:
            parts.append(_table(results, view, f"mean over {name} explained", inside))
    return "\n\n".join(parts) + "\n"


def _table(results: Results, view: View, title: str, directions: Sequence[str]) -> str:
    measured = [
        v for v in results.variants
        if all(results.measured(v, d, view.split, view.kind) for d in directions)
    ]  # fmt: skip
    variants = [v for v in measured if v not in (CHANCE, ORACLE)]
    columns = {
        metric: {v: _column(results, view, v, metric, directions) for v in measured}
        for metric in view.metrics or METRICS
    }
    columns = {
        metric: found
        for metric, found in columns.items()
        if view.metrics or any((~np.isnan(values)).any() for values in found.values())
    }
    ranked = [metric for metric in columns if metric in (*RANKED, *PROBES)]
    comparisons = max(1, len(ranked) * (len(variants) - 1))
    lines = [
        f"**{title}**",
        "",
        _row(["variant", "n", *columns]),
        _row(["---"] * (2 + len(columns))),
    ]
    # Chance and the oracle are known for specificity alone.
    references = [v for v in (CHANCE, ORACLE) if v in measured and "specificity" in columns]
    for variant in [*variants, *references]:
        counts = [int((~np.isnan(columns[m][variant])).sum()) for m in columns]
        cells = [variant, str(max(counts, default=0))]
        for metric, found in columns.items():
            cell = _cell(found[variant], metric)
            if view.baseline not in (None, variant) and metric in ranked and cell:
                cell += _versus(results, view, variant, metric, directions, comparisons)
            cells.append(cell)
        lines.append(_row(cells))
    return "\n".join(lines)


def _column(
    results: Results, view: View, variant: str, metric: str, directions: Sequence[str]
) -> Floats:
    """``(scenes,)``, averaged over checkpoints and directions."""
    found = []
    for direction in directions:
        labels = results.measured(variant, direction, view.split, view.kind)
        labels = tuple(c for c in labels if not view.checkpoints or c in view.checkpoints)
        found.append(results.values(variant, direction, metric, labels, view.kind, view.split))
    mean: Floats = np.mean(found, axis=0)
    return mean


def _versus(
    results: Results,
    view: View,
    variant: str,
    metric: str,
    directions: Sequence[str],
    comparisons: int,
) -> str:
    found = difference(
        results, variant, str(view.baseline), metric, directions,
        checkpoints=view.checkpoints, split=view.split, kind=view.kind,
        comparisons=comparisons, draws=view.draws,
    )  # fmt: skip
    if found.scenes == 0:
        return ""
    mean, low, high = (100 * v for v in (found.mean, found.low, found.high))
    return f" ({mean:+.1f} [{low:.1f}, {high:.1f}]{'*' if found.clear else ''})"


def difference(
    results: Results,
    variant: str,
    baseline: str,
    metric: str,
    directions: Sequence[str],
    *,
    checkpoints: Sequence[str] = (),
    split: Split = "search",
    kind: Kind = "one",
    comparisons: int = 1,
    draws: int = 10_000,
) -> Difference:
    """Paired difference of two variants, on the checkpoints and scenes that both were measured on.

    Args:
        results: from :func:`examples.study.load_results`.
        variant: the minuend.
        baseline: the subtrahend.
        metric: as a fraction, e.g. ``"iou"``.
        directions: averaged per scene; one, or several.
        checkpoints: labels; all if empty.
        split: of the protocol.
        kind: of scenes.
        comparisons: as for :func:`examples.study.compare`.
        draws: as for :func:`examples.study.compare`.

    Raises:
        OptionError: no such variant.
    """
    common = [
        label for label in checkpoints or results.checkpoints
        if all(label in results.measured(v, d, split, kind) for v in (variant, baseline)
               for d in directions)
    ]  # fmt: skip
    if not common:
        return compare(np.empty(0), np.empty(0), comparisons=comparisons)
    sides = [
        np.mean([results.table(v, d, metric, common, kind, split) for d in directions], axis=0)
        for v in (variant, baseline)
    ]
    return compare(sides[0], sides[1], comparisons=comparisons, draws=draws)


def against(
    results: Results, variant: str, rivals: Sequence[str] = (), view: View | None = None
) -> str:
    """One table of how far a variant leads its rivals, a row for each rival and metric.

    A cell is the paired difference ``variant - rival`` in a direction, in percent, with its 95 %
    interval; ``*`` where the interval, corrected for all comparisons of the table, leaves out zero.
    Behind the rival's name stands on how many scenes it was compared.

    Args:
        results: from :func:`examples.study.load_results`.
        variant: the one that is compared.
        rivals: with which; all others if empty.
        view: directions, metrics (default: those that decide), checkpoints,
            split and kind.

    Raises:
        OptionError: no such variant, direction, metric or checkpoint.
    """
    view = view or View()
    others = rivals or [v for v in results.variants if v not in (variant, CHANCE, ORACLE)]
    directions = view.directions or DIRECTIONS
    metrics = view.metrics or DECIDING
    comparisons = len(others) * len(directions) * len(metrics)
    lines = [_row(["rival", "metric", *directions]), _row(["---"] * (2 + len(directions)))]
    for rival in others:
        for metric in metrics:
            found = [
                difference(
                    results, variant, rival, metric, [d], checkpoints=view.checkpoints,
                    split=view.split, kind=view.kind, comparisons=comparisons, draws=view.draws,
                )
                for d in directions
            ]  # fmt: skip
            cells = [
                f"{100 * d.mean:+.1f} [{100 * d.low:.1f}, {100 * d.high:.1f}]"
                f"{'*' if d.clear else ''}"
                if d.scenes
                else ""
                for d in found
            ]
            lines.append(_row([f"{rival} ({max(d.scenes for d in found)})", metric, *cells]))
    return "\n".join(lines) + "\n"


def _cell(values: Floats, metric: str) -> str:
    values = values[~np.isnan(values)]
    if values.size == 0:
        return ""
    mean = float(values.mean())
    if metric in _PLAIN:
        return f"{mean:.{_PLAIN[metric]}f}"
    if values.size == 1:
        return f"{100 * mean:.1f}"
    error = float(values.std(ddof=1) / np.sqrt(values.size))
    return f"{100 * mean:.1f} ± {100 * error:.1f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
