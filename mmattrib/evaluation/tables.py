"""Results as tables: mean ± standard error, and paired differences.

Two layouts: a table for each direction with a row for each method, and the one of the paper's
Table 1, a row for each direction and metric and a column for each method. `sheets` writes both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import numpy as np

from mmattrib.errors import OptionError, brief, is_one_of
from mmattrib.evaluation.sheets import Cell, Content, Report, Table, as_markdown, row
from mmattrib.evaluation.statistics import Numbers, mean_and_error
from mmattrib.plugins import default_plugins

if TYPE_CHECKING:
    from mmattrib.evaluation.results import Problem, Results

Errors: TypeAlias = Literal["samples", "seeds"]
Layout: TypeAlias = Literal["directions", "paper"]

REFERENCES: Final = ("chance", "oracle")
"""Labels of what stands at the end of a table."""
OVER_SAMPLES: Final = "†"
_DECIMALS = {"seconds": 2, "capacity_bits": 1, "cosine": 3}
"""Decimals of what is no share."""


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
        errors: what standard errors are over: ``"samples"``, of numbers averaged over seeds; or
            ``"seeds"``, of means over samples, where a method was measured under several.
    """

    dataset: str | None = None
    directions: Sequence[str] = ()
    metrics: Sequence[str] = ()
    methods: Sequence[str] = ()
    baseline: str | None = None
    compared: Sequence[str] = ()
    backbones: Sequence[str] = ()
    references: Sequence[str] = REFERENCES
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    draws: int = 10_000
    errors: Errors = "samples"


def markdown(results: Results, view: View | None = None) -> str:
    """The tables of :func:`by_direction` in Markdown.

    Raises:
        OptionError: as :func:`by_direction`.
    """
    return as_markdown(by_direction(results, view))


def by_direction(results: Results, view: View | None = None) -> Report:
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
    head = [_head(results, view)]
    if view.baseline is not None:
        head.append(
            f"In brackets: paired difference from {view.baseline} with its 95 % interval; * where "
            "it is clear of zero after correction for all comparisons of its table."
        )
    tables = [_table(results, view, direction, [direction]) for direction in view.directions]
    for name, group in view.groups.items():
        inside = [direction for direction in group if direction in view.directions]
        if len(inside) > 1:
            tables.append(_table(results, view, name, inside))
    return Report(head, tables, _notes(results, view, tables))


def as_paper(results: Results, view: View | None = None) -> Report:
    """One table in the layout of the paper's Table 1.

    A row for each direction and metric, with an arrow that says whether less or more is better,
    and a column for each method. Metrics that measured nothing in a direction are left out.

    Raises:
        OptionError: an unknown direction, metric, method or backbone, a baseline (which has no
            place in this layout), or nothing measured.
    """
    view = _checked(results, view or View())
    if view.baseline is not None:
        raise OptionError(
            "a baseline has no place in the layout of the paper; take the other layout"
        )
    shown = view.methods or results.methods
    methods = [m for m in shown if m not in view.references]
    methods += [m for m in view.references if m in shown]
    rows: list[list[Content]] = []
    for direction in view.directions:
        for metric in view.metrics or results.metrics:
            cells: list[Content] = [
                cell_of(results, view, method, metric, [direction])
                if results.measured(method, direction, view.dataset)
                else ""
                for method in methods
            ]
            if any(str(cell) for cell in cells):
                rows.append([direction, f"{metric}{arrow(metric)}", *cells])
    table = Table("", ["direction", "metric", *methods], rows, grouped=1)
    return Report([_head(results, view)], [table], _notes(results, view, [table]))


def everything(results: Results, view: View | None = None, layout: Layout = "directions") -> Report:
    """Tables of every data set and backbone of some results, each by itself.

    Args:
        results: of an evaluation.
        view: what to show; its data set and backbones are passed over.
        layout: ``"directions"`` as :func:`by_direction`, ``"paper"`` as :func:`as_paper`.

    Raises:
        OptionError: as these, or no such layout.
    """
    if not is_one_of(layout, get_args(Layout)):
        raise OptionError(f"layout {brief(layout)}: accepted are {', '.join(get_args(Layout))}")
    view, make = view or View(), by_direction if layout == "directions" else as_paper
    parts = [
        (label, make(results, replace(view, dataset=label[0], backbones=(label[1],))))
        for label in dict.fromkeys(column[:2] for column in results.columns)
    ]
    if not parts:
        raise OptionError(_nothing(results))
    if len(parts) == 1:
        return parts[0][1]
    tables = []
    for (dataset, backbone), report in parts:
        for table in report.tables:
            title = f"{dataset}, {backbone}" + (f": {table.title}" if table.title else "")
            tables.append(replace(table, title=title))
    head = dict.fromkeys(line for _, report in parts for line in report.head)
    notes = dict.fromkeys(line for _, report in parts for line in report.notes)
    return Report(list(head), tables, list(notes))


def _checked(results: Results, view: View) -> View:
    for what, given, known in (
        ("direction", view.directions, results.directions),
        ("metric", view.metrics, results.metrics),
        ("method", view.methods, results.methods),
        ("method", [view.baseline] if view.baseline else [], results.methods),
        ("backbone", view.backbones, results.backbones),
        ("dataset", [view.dataset] if view.dataset else [], tuple(results.samples)),
        ("kind of error", [view.errors], get_args(Errors)),
    ):
        for name in given:
            if name not in known:
                raise OptionError(f"no {what} {brief(name)} in these results: {', '.join(known)}")
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
        raise OptionError(_nothing(results))
    return replace(view, dataset=dataset, directions=measured)


def _nothing(results: Results, most: int = 3) -> str:
    """Why there is no number at all."""
    if not results.problems:
        return "nothing was measured"
    reasons = dict.fromkeys(f"{p.sample}: {' '.join(p.reason.split())}" for p in results.problems)
    told = "; ".join(list(reasons)[:most])
    return f"nothing was measured. {told}" + (
        f"; and {len(reasons) - most} more" if len(reasons) > most else ""
    )


def _head(results: Results, view: View) -> str:
    count = len(results.samples[str(view.dataset)])
    found = {column.backbone for column in results.columns if column.dataset == view.dataset}
    names = view.backbones or [label for label in results.backbones if label in found]
    seeds = max((len(_seeds(results, view, method)) for method in results.methods), default=1)
    over = f"the {seeds} seeds of the noise" if seeds > 1 else "samples"
    return (
        f"{view.dataset}: {count} samples; backbones: {', '.join(names)}. Percent, mean ± standard "
        f"error over {over}."
    )


def _seeds(results: Results, view: View, method: str) -> list[int]:
    """The seeds that a method's errors are over; none where they are over samples."""
    if view.errors == "samples":
        return []
    found = {
        column.seed
        for column in results.columns
        if column.method == method
        and column.dataset == view.dataset
        and column.seed is not None
        and (not view.backbones or column.backbone in view.backbones)
    }
    return sorted(found) if len(found) > 1 else []


def _notes(results: Results, view: View, tables: Iterable[Table]) -> list[str]:
    cells = (cell for table in tables for line in table.rows for cell in line)
    marked = any(isinstance(cell, Cell) and bool(cell.mark) for cell in cells)
    told = [
        f"{OVER_SAMPLES} error over samples: the method draws no noise, or one seed was given."
    ] * marked
    if set(results.metrics) == {"seconds"}:
        told.append(
            "Nothing is known of what these inputs share, and no metric was asked for that needs "
            "no truth: ask for some (`mmattrib metrics` lists them), e.g. confidence_drop, or give "
            "masks or boxes."
        )
    asked = results.provenance.get("metrics")
    if isinstance(asked, Mapping) and (lacking := [m for m in asked if m not in results.metrics]):
        told.append(
            f"No number on these inputs: {', '.join(lacking)}. `mmattrib metrics NAME` says what "
            "each needs."
        )
    told += [
        f"Left out: {what}: {' '.join(why.split())}"
        for what, why in results.left_out.items()
        if not view.backbones or what.endswith(tuple(f" on {label}" for label in view.backbones))
    ]
    return [*told, *_problems(results, view)]


def _problems(results: Results, view: View, most: int = 3) -> Iterator[str]:
    """How many pairs have no or fewer numbers, and the reasons with the samples that met them."""
    found = [each for each in results.problems if each.dataset == view.dataset]
    found = [p for p in found if not view.backbones or p.backbone in view.backbones]
    if not found:
        return
    reasons: dict[str, list[Problem]] = {}
    for each in found:
        reasons.setdefault(" ".join(each.reason.split()), []).append(each)
    pairs = len({frozenset(direction.split("|")) for direction in results.directions})
    pairs = max(pairs, len({each.pair for each in found}))
    failed = len({(each.sample, each.pair) for each in found})
    told = []
    for reason, of in list(reasons.items())[:most]:
        names = list(dict.fromkeys(each.sample for each in of))
        more = f" and {len(names) - most} more" if len(names) > most else ""
        methods = list(dict.fromkeys(each.method for each in of))
        by = "" if len(methods) == len(results.methods) else f", with {', '.join(methods)}"
        told.append(f"{', '.join(names[:most])}{more}{by}: {reason}")
    left = len(reasons) - len(told)
    yield (
        f"{failed} of {pairs * len(results.samples[str(view.dataset)])} pairs of {view.dataset} "
        f"lack numbers. {'; '.join(told)}" + (f"; and {left} more reasons" if left else "")
    )


def _table(results: Results, view: View, title: str, directions: Sequence[str]) -> Table:
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
    references = [
        method
        for method in view.references
        if method in measured and any((~np.isnan(c[method])).any() for c in columns.values())
    ]
    rows: list[list[Content]] = []
    for method in [*methods, *references]:
        cells: list[Content] = [method, _counted(found[method] for found in columns.values())]
        for metric in columns:
            cell = cell_of(results, view, method, metric, directions)
            if method in methods and view.baseline not in (None, method) and metric in compared:
                note = _versus(results, view, method, metric, directions, comparisons)
                cell = replace(cell, note=note)
            cells.append(cell)
        rows.append(cells)
    return Table(title, ["method", "n", *columns], rows)


def _counted(columns: Iterable[Numbers]) -> str:
    """How many samples a row's numbers rest on: from the fewest to the most, where they differ."""
    counts = [count for values in columns if (count := int((~np.isnan(values)).sum()))]
    least, most = min(counts, default=0), max(counts, default=0)
    return str(most) if least == most else f"{least} to {most}"


def _metric(name: str) -> object | None:
    """The class of a registered metric; None for one that was made by hand."""
    entries = default_plugins().registry.usable("metric", research=True)
    return next((entry.factory for entry in entries if entry.name == name), None)


def higher_is_better(metric: str) -> bool | None:
    """Whether more of a registered metric is better; None where neither is, or none can tell."""
    found: bool | None = getattr(_metric(metric), "higher_is_better", None)
    return found


def arrow(metric: str) -> str:
    """``" ↑"`` where more is better, ``" ↓"`` where less is."""
    better = higher_is_better(metric)
    return "" if better is None else " ↑" if better else " ↓"


def in_percent(metric: str) -> bool:
    """Whether tables show a metric times 100."""
    return metric not in _DECIMALS and bool(getattr(_metric(metric), "percent", True))


def _directed() -> frozenset[str]:
    registry = default_plugins().registry
    return frozenset(
        entry.name
        for entry in registry.usable("metric", research=True)
        if getattr(entry.factory, "higher_is_better", None) is not None
    )


def _column(
    results: Results,
    view: View,
    method: str,
    metric: str,
    directions: Sequence[str],
    seed: int | None = None,
) -> Numbers:
    """``(samples,)``, averaged over backbones and directions."""
    found = []
    for direction in directions:
        labels = results.measured(method, direction, view.dataset)
        labels = tuple(c for c in labels if not view.backbones or c in view.backbones)
        found.append(results.values(method, direction, metric, labels, view.dataset, seed))
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
    return f"({mean:+.1f} [{low:.1f}, {high:.1f}]{'*' if found.clear else ''})"


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
            raise OptionError(
                f"no method {brief(name)} in these results: {', '.join(results.methods)}"
            )
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


def cell_of(
    results: Results, view: View, method: str, metric: str, directions: Sequence[str]
) -> Cell:
    """Mean and error of a method in some directions, as tables show it.

    Args:
        results: of an evaluation.
        view: its data set, backbones and kind of error.
        method: label.
        metric: name.
        directions: averaged per sample.
    """
    mean, error = mean_and_error(_column(results, view, method, metric, directions))
    seeds, mark = _seeds(results, view, method), ""
    if seeds:
        means = [
            mean_and_error(_column(results, view, method, metric, directions, seed))[0]
            for seed in seeds
        ]
        error = mean_and_error(np.array(means))[1]
    elif any(_seeds(results, view, other) for other in results.methods):
        mark = OVER_SAMPLES
    if in_percent(metric):
        return Cell(100 * mean, 100 * error, mark=mark)
    return Cell(mean, decimals=_DECIMALS.get(metric, 3))
