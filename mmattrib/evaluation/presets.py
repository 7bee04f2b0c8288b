"""The paper's experiments as settings: which data, model, methods, layers and prices.

Off the paper's data (`scenes` on `tiny`, or data of one's own) the same methods run at the
encoders' own layers, and there is nothing published to stand beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from mmattrib.evaluation.candidates import Variant
from mmattrib.evaluation.published import METHODS, METRICS, SOURCE, TABLE_1
from mmattrib.evaluation.results import Results
from mmattrib.evaluation.sheets import Cell, Content, Report, Table
from mmattrib.evaluation.tables import View, arrow, cell_of, everything
from mmattrib.plugins import default_plugins

LITERAL: Final = "ca-m2ib-literal"


@dataclass(frozen=True)
class Part:
    """One data set of an experiment.

    Attributes:
        key: what the command line and the published numbers call it.
        dataset: as registered.
        backbone: as registered.
        weights: what the command line calls its checkpoint.
        samples: how many pairs.
        seeds: of the noise.
        layers: of the two bottlenecks, as M2IB published them; None for the encoders' own.
        beta: their price of information.
    """

    key: str
    dataset: str
    backbone: str
    weights: str = ""
    samples: int = 40
    seeds: tuple[int, ...] = (0, 1, 2)
    layers: Mapping[str, int] | None = field(default=None)
    beta: float = 0.1


_TEN: Final = tuple(range(10))
PARTS: Final[Mapping[str, Part]] = {
    part.key: part
    for part in (
        # M2IB's demonstration on radiographs: price 1, captions at block 7.
        Part("ms-cxr", "ms-cxr", "cxr-repair", "cxr", 1000, _TEN, {"image": 9, "text": 7}, 1.0),
        Part("cc", "conceptual-captions", "clip", "cc", 2000, _TEN, {"image": 9, "text": 9}),
        # Sized for an hour on two cores: a scene under one seed takes some 40 s of one.
        Part("scenes", "scenes", "tiny"),
    )
}
"""By key. MS-CXR and Conceptual Captions have the paper's sizes."""

QUICK_SAMPLES: Final = 4
QUICK_SEEDS: Final = (0, 1)


def table_methods(part: Part, own_backbone: bool = False) -> tuple[list[Variant], list[str]]:
    """The methods of Table 1 that are registered, and the names of those that are not.

    `m2ib` and `ca-m2ib-literal`, the paper as written, have the published layers and price;
    `grad-cam` reads the last block but one, as pytorch-grad-cam does on a ViT; the others and
    `ca-m2ib` run as they do by default.

    Args:
        part: of the experiment.
        own_backbone: another model than the paper's: every method at the encoders' own layers.
    """
    layers = None if own_backbone or part.layers is None else dict(part.layers)
    known = default_plugins().registry.names("method")
    wanted = [*METHODS[:-1], LITERAL, METHODS[-1]]
    found, missing = [], []
    for name in wanted:
        if name not in known:
            missing.append(name)
        elif name in ("m2ib", LITERAL):
            found.append(Variant(name, name, {"beta": part.beta}, layers))
        elif name == "grad-cam" and layers is not None:
            found.append(Variant(name, name, {}, dict.fromkeys(layers, 10)))
        else:
            found.append(Variant(name, name))
    return found, missing


def table_metrics() -> dict[str, str]:
    """The paper's rows -> the metric here, of those that are registered."""
    known = default_plugins().registry.names("metric")
    return {
        row: next(name for name in names if name in known)
        for row, names in METRICS.items()
        if any(name in known for name in names)
    }


def beside_published(results: Results, missing: Sequence[str], view: View | None = None) -> Report:
    """Table 1 as measured, and where the paper has numbers of this data, these and the difference.

    Args:
        results: whose data sets are labelled by :data:`PARTS`.
        missing: methods of the paper that were not measured.
        view: what the tables of what was measured show.
    """
    measured = everything(results, view, "paper")
    rows: list[list[Content]] = []
    names = table_metrics()
    for (data, direction, row), cells in TABLE_1.items():
        if data not in results.samples:
            continue
        for method, (mean, error) in cells.items():
            for own in (method, LITERAL) if method == METHODS[-1] else (method,):
                found = _measured(results, data, direction, names.get(row, ""), own)
                difference = Cell(found.value - mean, decimals=2, plus=True)
                label = f"{row}{arrow(names[row]) if row in names else ' ↑'}"
                rows.append(
                    [f"{data} {direction}", label, own, found, Cell(mean, error, 2), difference]
                )
    tables = list(measured.tables)
    notes = list(measured.notes)
    if rows:
        columns = ["data", "metric", "method", "here", "published", "difference"]
        tables.append(Table("Beside the paper, in percent", columns, rows, grouped=2))
        notes.append(
            f"Published: {SOURCE}; its last column stands beside ca-m2ib, the closed form of this "
            f"package, and beside {LITERAL}, the paper as written. Conventions of confidence "
            "differ between papers; ROAR+ is measured by a command of its own."
        )
    if missing:
        notes.append(f"Not registered here, so not measured: {', '.join(missing)}.")
    return Report(measured.head, tables, notes)


def _measured(results: Results, data: str, direction: str, metric: str, method: str) -> Cell:
    nothing = Cell(float("nan"), decimals=2)
    if metric not in results.metrics or method not in results.methods:
        return nothing
    if not results.measured(method, direction, data):
        return nothing
    found = cell_of(results, View(dataset=data, errors="seeds"), method, metric, [direction])
    return replace(found, decimals=2, mark="")


def tuning_grid(method: str, layers: int, quick: bool = False) -> list[Variant]:
    """What the paper's appendix varies: layer, price and noise, for all kinds of input together.

    The appendix's own values are not at hand; layers are the second half of the tower without its
    last block, prices and noise lie around the published ones. γ has no axis of its own: only
    β / γ acts, eq. (11).

    Args:
        method: ``"ca-m2ib"`` or ``"ca-m2ib-literal"``.
        layers: blocks of the shortest tower.
        quick: two layers and two prices alone.
    """
    from mmattrib.evaluation.tuning import grid

    beta = [0.3, 1.0, 3.0, 10.0] if method == METHODS[-1] else [0.01, 0.1, 1.0]
    tried = list(range(max(-1, layers // 2 - 1), layers - 1))
    if quick:
        return grid(method, tried[:2], {"beta": beta[1:3]})
    return grid(method, tried, {"beta": beta, "sigma": [0.5, 1.0, 2.0]})
