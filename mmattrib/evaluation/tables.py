"""Results as Markdown: mean ± standard error, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mmattrib.errors import OptionError
from mmattrib.evaluation.statistics import Numbers, mean_and_error
from mmattrib.plugins import default_plugins

if TYPE_CHECKING:
    from mmattrib.evaluation.results import Results

_DECIMALS = {"seconds": 2, "capacity_bits": 1, "cosine": 3}
"""Decimals of what is no fraction; metrics say whether they are shown in percent."""


@dataclass(frozen=True)
class View:
    """What a table shows.

    Attributes:
        dataset: its label; may be left out where there is one.
        directions: in this order; all that were measured if empty.
        metrics: columns; all that were measured if empty.
        methods: rows; all that were measured if empty.
        baseline: the method that the others are compared with, or None.
        compared: metrics that are compared with the baseline; if empty, those of which it is known
            whether more is better.
        backbones: labels of those to average over; all if empty.
        references: methods that stand at the end and are never compared.
        groups: title -> directions that are averaged for a table of their own.
        draws: of the bootstrap.
    """

    dataset: str | None = None
    directions: Sequence[str] = ()
    metrics: Sequence[str] = ()
    methods: Sequence[str] = ()
    baseline: str | None = None
    compared: Sequence[str] = ()
    backbones: Sequence[str] = ()
    references: Sequence[str] = ("chance", "oracle")
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    draws: int = 10_000


def markdown(results: Results, view: View | None = None) -> str:
    """Tables of everything that was measured on one data set.

    Per direction one row for each method, and one in each group's table, whose numbers are
    averaged over directions per sample first: methods and samples that lack one are left out
    there. ``n`` is the number of samples behind a row's numbers, from the fewest to the most where
    they differ. With a baseline, compared metrics have the paired difference and its 95 % interval
    behind them, on the samples and backbones that both have; ``*`` where the interval, corrected
    for all comparisons of the table, leaves out zero.

    Raises:
        OptionError: an unknown baseline, direction, metric, method or backbone, or nothing
            measured.
    """
    view = _checked(results, view or View())
    parts = [_head(results, view)]
    if view.baseline is not None:
        parts.append(
            f"In brackets: paired difference from {view.baseline} with its 95 % interval; * where "
            "it is clear of zero after correction for all comparisons of its table."
        )
    parts += [_table(results, view, direction, [direction]) for direction in view.directions]
    for name, group in view.groups.items():
        inside = [direction for direction in group if direction in view.directions]
        if len(inside) > 1:
            parts.append(_table(results, view, name, inside))
    if set(results.metrics) == {"seconds"}:
        parts.append(
            "Nothing is known of what these inputs share, and no metric was asked for that needs "
            "no truth: ask for some (`mmattrib metrics` lists them), e.g. confidence_drop, or give "
            "masks or boxes."
        )
    told = _problems(results)
    return "\n\n".join([*parts, *([told] if told else [])]) + "\n"


def _checked(results: Results, view: View) -> View:
    for what, given, known in (
        ("direction", view.directions, results.directions),
        ("metric", view.metrics, results.metrics),
        ("method", view.methods, results.methods),
        ("method", [view.baseline] if view.baseline else [], results.methods),
        ("backbone", view.backbones, results.backbones),
        ("dataset", [view.dataset] if view.dataset else [], tuple(results.samples)),
    ):
        for name in given:
            if name not in known:
                raise OptionError(f"no {what} {name!r} in these results: {', '.join(known)}")
    if view.dataset is None and len(results.samples) > 1:
        raise OptionError(
            f"these results are of several data sets; name one: {', '.join(results.samples)}"
        )
    dataset = view.dataset or next(iter(results.samples), None)
    measured = [
        direction
        for direction in view.directions or results.directions
        if any(results.measured(method, direction, dataset) for method in results.methods)
    ]
    if dataset is None or not measured:
        raise OptionError("nothing was measured")
    return replace(view, dataset=dataset, directions=measured)


def _head(results: Results, view: View) -> str:
    count = len(results.samples[str(view.dataset)])
    found = {column.backbone for column in results.columns if column.dataset == view.dataset}
    names = view.backbones or [label for label in results.backbones if label in found]
    return (
        f"{view.dataset}: {count} samples; backbones: {', '.join(names)}. Percent, mean ± standard "
        "error over samples."
    )


def _problems(results: Results) -> str:
    if not results.problems:
        return ""
    shown = [f"{sample}: {told}" for _, sample, told in results.problems[:3]]
    more = len(results.problems) - len(shown)
    told = "; ".join(shown) + (f"; and {more} more" if more else "")
    return f"{len(results.problems)} problems: {told}".replace("\n", " ")


def _table(results: Results, view: View, title: str, directions: Sequence[str]) -> str:
    measured = [
        method
        for method in view.methods or results.methods
        if all(results.measured(method, d, view.dataset) for d in directions)
    ]
    methods = [method for method in measured if method not in view.references]
    columns = {
        metric: {m: _column(results, view, m, metric, directions) for m in measured}
        for metric in view.metrics or results.metrics
    }
    columns = {
        metric: found
        for metric, found in columns.items()
        if view.metrics or any((~np.isnan(values)).any() for values in found.values())
    }
    compared = [metric for metric in columns if metric in (view.compared or _directed())]
    comparisons = max(1, len(compared) * (len(methods) - 1))
    lines = [
        f"**{title}**",
        "",
        row(["method", "n", *columns]),
        row(["---"] * (2 + len(columns))),
    ]
    references = [
        method
        for method in view.references
        if method in measured and any((~np.isnan(c[method])).any() for c in columns.values())
    ]
    for method in [*methods, *references]:
        cells = [method, _counted(found[method] for found in columns.values())]
        for metric, found in columns.items():
            cell = _cell(found[method], metric)
            if method in methods and view.baseline not in (None, method) and metric in compared:
                cell += _versus(results, view, method, metric, directions, comparisons)
            cells.append(cell)
        lines.append(row(cells))
    return "\n".join(lines)


def _counted(columns: Iterable[Numbers]) -> str:
    """How many samples a row's numbers rest on: from the fewest to the most, where they differ."""
    counts = [count for values in columns if (count := int((~np.isnan(values)).sum()))]
    least, most = min(counts, default=0), max(counts, default=0)
    return str(most) if least == most else f"{least} to {most}"


def _directed() -> frozenset[str]:
    registry = default_plugins().registry
    return frozenset(
        entry.name
        for entry in registry.usable("metric", research=True)
        if getattr(entry.factory, "higher_is_better", None) is not None
    )


def _column(
    results: Results, view: View, method: str, metric: str, directions: Sequence[str]
) -> Numbers:
    """``(samples,)``, averaged over backbones and directions."""
    found = []
    for direction in directions:
        labels = results.measured(method, direction, view.dataset)
        labels = tuple(c for c in labels if not view.backbones or c in view.backbones)
        found.append(results.values(method, direction, metric, labels, view.dataset))
    mean: Numbers = np.mean(found, axis=0)
    return mean


def _versus(
    results: Results,
    view: View,
    method: str,
    metric: str,
    directions: Sequence[str],
    comparisons: int,
) -> str:
    found = results.difference(
        method, str(view.baseline), metric, directions, backbones=view.backbones,
        dataset=view.dataset, comparisons=comparisons, draws=view.draws,
    )  # fmt: skip
    if found.samples == 0:
        return ""
    mean, low, high = (100 * v for v in (found.mean, found.low, found.high))
    return f" ({mean:+.1f} [{low:.1f}, {high:.1f}]{'*' if found.clear else ''})"


def against(
    results: Results, method: str, rivals: Sequence[str] = (), view: View | None = None
) -> str:
    """One table of how far a method leads its rivals, a row for each rival and metric.

    A cell is the paired difference ``method - rival`` in a direction, in percent, with its 95 %
    interval; ``*`` where the interval, corrected for all comparisons of the table, leaves out zero.
    Behind the rival's name stands on how many samples it was compared.

    Args:
        results: of an evaluation.
        method: the one that is compared.
        rivals: with which; all others but references if empty.
        view: data set, directions, metrics (default: those that compare), backbones.

    Raises:
        OptionError: an unknown method, direction, metric or backbone.
    """
    view = _checked(results, view or View())
    known = [m for m in results.methods if m not in (method, *view.references)]
    for name in (method, *rivals):
        if name not in results.methods:
            raise OptionError(f"no method {name!r} in these results: {', '.join(results.methods)}")
    others = rivals or known
    metrics = view.metrics or [m for m in results.metrics if m in _directed()]
    comparisons = len(others) * len(view.directions) * len(metrics)
    lines = [
        row(["rival", "metric", *view.directions]),
        row(["---"] * (2 + len(view.directions))),
    ]
    for rival in others:
        for metric in metrics:
            found = [
                results.difference(
                    method, rival, metric, d, backbones=view.backbones, dataset=view.dataset,
                    comparisons=comparisons, draws=view.draws,
                )
                for d in view.directions
            ]  # fmt: skip
            cells = [
                f"{100 * d.mean:+.1f} [{100 * d.low:.1f}, {100 * d.high:.1f}]"
                f"{'*' if d.clear else ''}"
                if d.samples
                else ""
                for d in found
            ]
            lines.append(row([f"{rival} ({max(d.samples for d in found)})", metric, *cells]))
    return "\n".join(lines) + "\n"


def _cell(values: Numbers, metric: str) -> str:
    mean, error = mean_and_error(values)
    if np.isnan(mean):
        return ""
    if metric in _DECIMALS:
        return f"{mean:.{_DECIMALS[metric]}f}"
    return f"{100 * mean:.1f}" if np.isnan(error) else f"{100 * mean:.1f} ± {100 * error:.1f}"


def row(cells: Sequence[str]) -> str:
    """A line of a Markdown table; what would break it is escaped or becomes a space."""
    clean = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
    return "| " + " | ".join(clean) + " |"
