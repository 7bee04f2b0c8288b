"""What an evaluation found: every number of every sample, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmattrib.errors import MmattribError, OptionError, brief, is_one_of
from mmattrib.evaluation.statistics import Difference, Numbers, compare, mean_and_error
from mmattrib.evaluation.store import read_entries

if TYPE_CHECKING:
    from mmattrib.evaluation.sheets import Report
    from mmattrib.evaluation.tables import Layout, View
    from mmattrib.types import JSONValue


BLOCK = 16
"""Numbers of samples that get their places together: those of a task."""


class Column(NamedTuple):
    """Which numbers a column holds.

    Attributes:
        dataset: label.
        backbone: label.
        method: label of a method, a variant or a reference.
        seed: of the noise; None where none is drawn.
        direction: e.g. ``"image|text"``: the image explained, the text its guide.
        metric: name, or ``"seconds"`` per pair, for both maps.
    """

    dataset: str
    backbone: str
    method: str
    seed: int | None
    direction: str
    metric: str


class Problem(NamedTuple):
    """Why a pair has no numbers, or fewer.

    Attributes:
        dataset: label.
        sample: its id.
        reason: what went wrong, as sentences.
        backbone: label.
        method: label.
        seed: of the noise; None where none is drawn.
        pair: the two sides, e.g. ``"image-text"``.
    """

    dataset: str
    sample: str
    reason: str
    backbone: str
    method: str
    seed: int | None
    pair: str


@dataclass(frozen=True, eq=False)
class Results:
    """The numbers of an evaluation, and where they come from.

    Attributes:
        columns: which numbers -> ``(samples,)`` float64 in the order of ``samples``, NaN where a
            number is missing or does not apply.
        samples: data set -> the numbers and the ids of its samples that were measured.
        provenance: what the numbers depend on.
        problems: of pairs that have no numbers, or fewer.
        left_out: a method on a model, as ``"NAME on LABEL"`` -> why it was given up there.
    """

    columns: Mapping[Column, Numbers]
    samples: Mapping[str, Mapping[int, str]]
    provenance: Mapping[str, JSONValue] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def _distinct(self, name: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(getattr(column, name) for column in self.columns))

    @property
    def datasets(self) -> tuple[str, ...]:
        """Labels, in the order in which they were measured."""
        return self._distinct("dataset")

    @property
    def backbones(self) -> tuple[str, ...]:
        """Labels, in the order in which they were measured."""
        return self._distinct("backbone")

    @property
    def methods(self) -> tuple[str, ...]:
        """Labels of methods, variants and references, in the order in which they were measured."""
        return self._distinct("method")

    @property
    def directions(self) -> tuple[str, ...]:
        """Directions, in the order in which they were measured."""
        return self._distinct("direction")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics, and ``"seconds"`` per pair (both maps)."""
        return self._distinct("metric")

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """Seeds of the noise; None among them where a method draws none."""
        return self._distinct("seed")

    def measured(self, method: str, direction: str, dataset: str | None = None) -> tuple[str, ...]:
        """Labels of the backbones on which a method was measured in a direction."""
        dataset = self._dataset(dataset)
        found = {
            column.backbone
            for column in self.columns
            if (column.dataset, column.method, column.direction) == (dataset, method, direction)
        }
        return tuple(label for label in self.backbones if label in found)

    def table_of(
        self,
        method: str,
        direction: str,
        metric: str,
        backbones: Sequence[str] | None = None,
        dataset: str | None = None,
        seed: int | None = None,
    ) -> Numbers:
        """``(backbones, samples)`` numbers, averaged over seeds.

        Args:
            method: its label.
            direction: e.g. ``"image|text"``.
            metric: its name.
            backbones: labels; those on which the method was measured in this direction if None.
            dataset: its label; may be left out where there is one.
            seed: one of them alone.

        Raises:
            OptionError: an unknown label.
        """
        dataset = self._dataset(dataset)
        for what, name, known in (
            ("method", method, self.methods),
            ("direction", direction, self.directions),
            ("metric", metric, self.metrics),
            *(("backbone", label, self.backbones) for label in backbones or ()),
        ):
            if not is_one_of(name, known):
                raise OptionError(f"no {what} {brief(name)} in these results: {', '.join(known)}")
        labels = self.measured(method, direction, dataset) if backbones is None else backbones
        size = len(self.samples.get(dataset, ()))
        rows = np.full((len(labels), size), np.nan)
        for place, label in enumerate(labels):
            found = [
                values
                for column, values in self.columns.items()
                if column[:3] == (dataset, label, method)
                and column[4:] == (direction, metric)
                and (seed is None or column.seed == seed)
            ]
            if found:
                rows[place] = np.mean(found, axis=0)
        return rows

    def values(
        self,
        method: str,
        direction: str,
        metric: str,
        backbone: str | Sequence[str] | None = None,
        dataset: str | None = None,
        seed: int | None = None,
    ) -> Numbers:
        """``(samples,)`` numbers of one method, averaged over seeds and backbones.

        A sample that one of the backbones lacks is NaN. Arguments as for :meth:`table_of`;
        ``backbone`` may be one label.

        Raises:
            OptionError: an unknown label.
        """
        labels = [backbone] if isinstance(backbone, str) else backbone
        found = self.table_of(method, direction, metric, labels, dataset, seed)
        if not len(found):
            return np.full(found.shape[1], np.nan)
        mean: Numbers = found.mean(axis=0)
        return mean

    def mean(self, method: str, direction: str, metric: str, **which: Any) -> tuple[float, float]:
        """Mean and standard error over the samples to which the metric applies.

        Args:
            method: its label.
            direction: e.g. ``"image|text"``.
            metric: its name.
            **which: ``backbone=``, ``dataset=`` and ``seed=`` as for :meth:`values`.
        """
        return mean_and_error(self.values(method, direction, metric, **which))

    def difference(
        self,
        method: str,
        other: str,
        metric: str,
        directions: str | Sequence[str],
        *,
        backbones: Sequence[str] = (),
        dataset: str | None = None,
        comparisons: int = 1,
        draws: int = 10_000,
    ) -> Difference:
        """Paired difference ``method - other``, on the backbones and samples that both have.

        Args:
            method: the minuend.
            other: the subtrahend.
            metric: its name.
            directions: one, or several, which are averaged per sample.
            backbones: labels; all if empty.
            dataset: its label; may be left out where there is one.
            comparisons: how many the table makes in which this one stands.
            draws: bootstrap resamples.

        Raises:
            OptionError: an unknown label.
        """
        wanted = [directions] if isinstance(directions, str) else list(directions)
        common = [
            label
            for label in backbones or self.backbones
            if all(label in self.measured(m, d, dataset) for m in (method, other) for d in wanted)
        ]
        if not common:
            return compare(np.empty(0), np.empty(0), comparisons=comparisons)
        first, second = (
            np.mean([self.table_of(m, d, metric, common, dataset) for d in wanted], axis=0)
            for m in (method, other)
        )
        return compare(first, second, comparisons=comparisons, draws=draws)

    def table(self, view: View | None = None, **shown: Any) -> str:
        """A Markdown table per direction: mean ± standard error in percent.

        Args:
            view: what to show; see :class:`mmattrib.evaluation.View`.
            **shown: its fields, in place of a view: ``metrics=``, ``baseline=``, ...
        """
        from mmattrib.evaluation.tables import View, markdown

        return markdown(self, view or View(**shown))

    def to_json(self) -> str:
        """Everything, numbers per sample included."""
        columns = [
            {**column._asdict(), "values": [float(v) if np.isfinite(v) else None for v in values]}
            for column, values in self.columns.items()
        ]
        found = {
            "provenance": dict(self.provenance),
            "samples": {
                label: [{"number": n, "id": name} for n, name in numbered.items()]
                for label, numbered in self.samples.items()
            },
            "left_out": dict(self.left_out),
            "problems": [problem._asdict() for problem in self.problems],
            "columns": columns,
        }
        return json.dumps(found, indent=1)

    def report(self, view: View | None = None, layout: Layout = "directions") -> Report:
        """Tables of every data set and backbone, to be written as text, Markdown, CSV or LaTeX.

        Args:
            view: what to show; see :class:`mmattrib.evaluation.View`.
            layout: ``"directions"``: a table for each, with a row for each method; ``"paper"``: one
                table, with a row for each direction and metric and a column for each method.
        """
        from mmattrib.evaluation.tables import everything

        return everything(self, view, layout)

    def _dataset(self, label: str | None) -> str:
        known = ", ".join(self.samples)
        if label is None and len(self.samples) != 1:
            raise OptionError(f"these results are of several data sets; name one: {known}")
        if label is not None and not is_one_of(label, self.samples):
            raise OptionError(f"no data set {brief(label)} in these results: {known}")
        return next(iter(self.samples)) if label is None else label

    def __repr__(self) -> str:
        count = sum(len(numbered) for numbered in self.samples.values())
        return (
            f"Results({len(self.methods)} methods x {len(self.directions)} directions x "
            f"{len(self.metrics)} metrics on {count} samples)"
        )

    def _repr_markdown_(self) -> str:
        return self.table()


class Collector:
    """Takes in finished entries of a store, one by one, and gives :class:`Results`.

    A number takes its eight bytes and little more, so that 100,000 samples stay small.
    """

    def __init__(self) -> None:
        self._numbers: dict[Column, Numbers] = {}
        self._samples: dict[str, Numbered] = {}
        self._problems: dict[Problem, None] = {}
        self._versions: dict[tuple[str, str], str] = {}
        self.labels: dict[str, str] = {}
        self._backbones: dict[str, str] = {}

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take in one entry of a store."""
        task, stamp = entry["task"], entry["stamp"]
        dataset, weights = str(stamp["dataset"]), str(task["weights"])
        self._backbones.setdefault(weights, str(stamp["backbone"]))
        self._forget_older(task)
        samples = self._samples.setdefault(dataset, Numbered())
        for number, row in enumerate(entry["rows"], int(task["start"])):
            place = samples.put(number, str(row["sample"]))
            if row.get("problem"):
                problem = Problem(
                    dataset, str(row["sample"]), str(row["problem"]), weights, task["candidate"],
                    task["seed"], "-".join(map(str, _listed(task.get("pair")))),
                )  # fmt: skip
                self._problems[problem] = None
            for direction, numbers in row["values"].items():
                for metric, value in numbers.items():
                    key = Column(
                        dataset, weights, task["candidate"], task["seed"], direction, metric
                    )
                    column = self._numbers.get(key)
                    if column is None or len(column) <= place:
                        column = self._numbers[key] = _longer(column, samples.room)
                    # A task measured again with fewer metrics does not wipe out what it had.
                    if value is not None:
                        column[place] = float(value)

    def _forget_older(self, task: Mapping[str, Any]) -> None:
        """Numbers of two versions of the package are not to be averaged: the later one counts."""
        key = (task["candidate"], task["weights"])
        if self._versions.setdefault(key, task["version"]) != task["version"]:
            self._versions[key] = task["version"]
            self._numbers = {
                column: numbers
                for column, numbers in self._numbers.items()
                if (column.method, column.backbone) != key
            }

    def results(
        self,
        labels: Mapping[str, str] | None = None,
        provenance: Mapping[str, JSONValue] | None = None,
    ) -> Results:
        """What was taken in, under its labels.

        Args:
            labels: label -> the definition's id, in the order of tables; those that the entries
                gave if None.
            provenance: what the numbers depend on.
        """
        places = {dataset: numbered.places() for dataset, numbered in self._samples.items()}
        backbones = _unique(self._backbones)
        columns: dict[Column, Numbers] = {}
        for label, meant in (labels or self.labels).items():
            for column, numbers in self._numbers.items():
                if column.method != meant:
                    continue
                wanted = places[column.dataset]
                named = column._replace(method=label, backbone=backbones[column.backbone])
                columns[named] = _longer(numbers, int(wanted.max(initial=-1)) + 1)[wanted]
        problems = tuple(
            problem._replace(method=label, backbone=backbones[problem.backbone])
            for label, meant in (labels or self.labels).items()
            for problem in self._problems
            if problem.method == meant
        )
        return Results(columns, dict(self._samples), dict(provenance or {}), problems)


def _listed(value: Any) -> list[Any]:
    """A list as it is; whatever else a file holds in its place is none."""
    return value if isinstance(value, list) else []


def _longer(column: Numbers | None, size: int) -> Numbers:
    """A column with room for so many numbers, NaN where there is none yet."""
    if column is not None and len(column) >= size:
        return column
    found = np.full(size, np.nan)
    if column is not None:
        found[: len(column)] = column
    return found


class Numbered(Mapping[int, str]):
    """Ids of samples by number, in the order of their numbers, a few bytes beside each id.

    Numbers may come in any order and with gaps; each block of :data:`BLOCK` of them gets the next
    free places.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}
        self._ids: list[str | None] = []
        self._count = 0

    def put(self, number: int, name: str) -> int:
        """Note the id of a number, and say which place is its own."""
        block, inside = divmod(number, BLOCK)
        start = self._blocks.get(block)
        if start is None:
            start = self._blocks[block] = len(self._ids)
            self._ids += [None] * BLOCK
        self._count += self._ids[start + inside] is None
        self._ids[start + inside] = name
        return start + inside

    @property
    def room(self) -> int:
        """For how many places a column should have room: more than there are, as lists grow."""
        return len(self._ids) + len(self._ids) // 8

    def places(self) -> npt.NDArray[np.int64]:
        """The places of the numbers that are there, in the order of the numbers."""
        return np.array([self._blocks[n // BLOCK] + n % BLOCK for n in self], dtype=np.int64)

    def __getitem__(self, number: int) -> str:
        block, inside = divmod(number, BLOCK)
        start = self._blocks.get(block)
        found = None if start is None else self._ids[start + inside]
        if found is None:
            raise KeyError(number)
        return found

    def __iter__(self) -> Iterator[int]:
        for block in sorted(self._blocks):
            start = self._blocks[block]
            for inside in range(BLOCK):
                if self._ids[start + inside] is not None:
                    yield block * BLOCK + inside

    def __len__(self) -> int:
        return self._count


def _unique(labels: Mapping[str, str]) -> dict[str, str]:
    """Weights -> label; two models of one label are told apart by their weights."""
    given = list(labels.values())
    return {
        weights: label if given.count(label) == 1 else f"{label}-{weights[:8]}"
        for weights, label in labels.items()
    }


def load_results(path: str | Path) -> Results:
    """Read a store; one that is still being written can be read too.

    Raises:
        OptionError: the file is no store.
    """
    try:
        return collect(read_entries(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, MmattribError):
            raise
        raise OptionError(
            f"{path} holds an entry of another shape ({type(error).__name__}: {error})"
        ) from error


def collect(entries: Iterable[Mapping[str, Any]]) -> Results:
    """Results out of the entries of a store."""
    collector = Collector()
    for entry in entries:
        if "labels" in entry:
            collector.labels.update(entry["labels"])
        else:
            collector.add(entry)
    return collector.results()
