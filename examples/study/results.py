"""What a sweep writes, one JSON line per finished chunk, and how it is read into arrays.

A line is ``{"id", "task", "stamp", "rows"}``. ``task`` says what was measured (variant, weights,
scenes), ``id`` is its hash; ``stamp`` says how (checkpoint's label, probes, source, every option),
so that work done before a default changed is not taken for new. Lines ``{"names": {...}}`` say
which definition a name means; the last one counts, so that a variant redefined under its old name
never shows the old one's numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from examples.study.protocol import DIRECTIONS, METRICS
from mmattrib.errors import OptionError
from mmattrib.evaluation.benchmark import Floats

FILE: Final = "results.jsonl"
#: Rows of tables that are no variants, and the definition under which both are measured.
CHANCE: Final = "chance"
ORACLE: Final = "oracle"
REFERENCE: Final = "reference"


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, 16 hex digits, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Journal:
    """The results file of a folder, to be appended to.

    A line that was cut off is passed over, and a new line begun after it: a run that was killed
    loses no more than the chunks in progress.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / FILE
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one line; a process that is killed afterwards does not lose it."""
        line = json.dumps(entry) + "\n"
        with self.path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, 2)
                if file.read(1) != b"\n":
                    line = "\n" + line
            file.write(line.encode())

    def entries(self) -> list[dict[str, Any]]:
        """Every whole line, in file order."""
        return list(_entries(self.path)) if self.path.exists() else []


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # cut off: that chunk is done again
            if isinstance(entry, dict) and (
                "names" in entry or {"task", "stamp", "rows"} <= set(entry)
            ):
                yield entry


@dataclass
class _Column:
    """The chunks of one variant, checkpoint, direction and metric of one set of scenes."""

    parts: list[tuple[int, Floats]] = field(default_factory=list)

    def fill(self, length: int) -> Floats:
        values = np.full(length, np.nan)
        for start, part in self.parts:
            # A chunk measured again without probes does not wipe out the probes it had.
            known = ~np.isnan(part)
            values[start : start + part.size][known] = part[known]
        return values


_Key = tuple[str, str, str, str, str, str]  # split, kind, variant's id, weights, direction, metric


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that a folder's results file holds.

    Attributes:
        names: variant -> the id of its definition, in the order they were first measured;
            ``"chance"`` and ``"oracle"`` among them where they were measured.
        checkpoints: label -> SHA-256 of the weights.
    """

    names: Mapping[str, str]
    checkpoints: Mapping[str, str]
    _columns: Mapping[_Key, _Column]
    _numbers: Mapping[tuple[str, str], Sequence[int]]

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of what was measured."""
        return tuple(self.names)

    @property
    def sets(self) -> tuple[tuple[str, str], ...]:
        """(split, kind) of every set of scenes that something was measured on."""
        return tuple(self._numbers)

    def directions(self, split: str = "search", kind: str = "one") -> tuple[str, ...]:
        """Directions that something was measured in, in the protocol's order."""
        found = {key[4] for key in self._columns if key[:2] == (split, kind)}
        return tuple(d for d in DIRECTIONS if d in found)

    def scene_numbers(self, split: str = "search", kind: str = "one") -> tuple[int, ...]:
        """Numbers of the scenes to which the places of :meth:`values` belong."""
        return tuple(self._numbers.get((split, kind), ()))

    def measured(
        self, variant: str, direction: str, split: str = "search", kind: str = "one"
    ) -> tuple[str, ...]:
        """Labels of the checkpoints on which a variant was measured in a direction."""
        variant = self._id(variant)
        found = {key[3] for key in self._columns if key[:3] == (split, kind, variant)
                 and key[4] == direction}  # fmt: skip
        return tuple(label for label, weights in self.checkpoints.items() if weights in found)

    def table(
        self,
        variant: str,
        direction: str,
        metric: str,
        checkpoints: Sequence[str],
        kind: str = "one",
        split: str = "search",
    ) -> Floats:
        """``(checkpoints, scenes)`` numbers; NaN where nothing was measured or does not apply.

        Args:
            variant: its name.
            direction: e.g. ``"image|text"``.
            metric: a ranked or reported metric, or a probe.
            checkpoints: labels.
            kind: of scenes.
            split: of the protocol.

        Raises:
            OptionError: no such variant, direction, metric or checkpoint.
        """
        for what, name, accepted in (
            ("direction", direction, DIRECTIONS),
            ("metric", metric, METRICS),
        ):
            if name not in accepted:
                raise OptionError(f"{what} {name!r}: accepted are {', '.join(accepted)}")
        numbers = list(self.scene_numbers(split, kind))
        length = max(numbers, default=-1) + 1
        rows = [np.empty((0, len(numbers)))]
        for label in checkpoints:
            if label not in self.checkpoints:
                raise OptionError(
                    f"no checkpoint {label!r} in these results: {', '.join(self.checkpoints)}"
                )
            key = (split, kind, self._id(variant), self.checkpoints[label], direction, metric)
            rows.append(self._columns.get(key, _Column()).fill(length)[numbers][None])
        found: Floats = np.concatenate(rows)
        return found

    def values(
        self,
        variant: str,
        direction: str,
        metric: str,
        checkpoint: str | Sequence[str] | None = None,
        kind: str = "one",
        split: str = "search",
    ) -> Floats:
        """``(scenes,)`` numbers of one column, places as :meth:`scene_numbers` says.

        Args:
            variant: its name.
            direction: e.g. ``"image|text"``.
            metric: a ranked or reported metric, or a probe.
            checkpoint: a label, or several; None for all on which the variant was measured.
                Several are averaged per scene, and a scene that one of them lacks is NaN.
            kind: of scenes.
            split: of the protocol.

        Raises:
            OptionError: no such variant, direction, metric or checkpoint.
        """
        if checkpoint is None:
            checkpoint = self.measured(variant, direction, split, kind)
        labels = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint)
        found = self.table(variant, direction, metric, labels, kind, split)
        mean: Floats = (
            found.mean(axis=0) if labels else np.full(len(self.scene_numbers(split, kind)), np.nan)
        )
        return mean

    def _id(self, variant: str) -> str:
        if variant not in self.names:
            raise OptionError(f"no variant {variant!r} in these results: {', '.join(self.names)}")
        return self.names[variant]


def load_results(folder: str | Path) -> Results:
    """Read a sweep's results; a sweep in progress can be read too.

    Raises:
        OptionError: the folder holds no results.
    """
    path = Path(folder) / FILE
    if not path.exists():
        raise OptionError(f"{folder} holds no {FILE}; `python -m examples.study sweep` writes one")
    return collect(_entries(path))


def collect(entries: Iterable[Mapping[str, Any]]) -> Results:
    """Results out of the entries of a journal."""
    names: dict[str, str] = {}
    labels: dict[str, str] = {}  # weights -> label
    columns: dict[_Key, _Column] = {}
    numbers: dict[tuple[str, str], set[int]] = {}
    versions: dict[str, str] = {}
    for entry in entries:
        if "names" in entry:
            names.update(entry["names"])
            continue
        task, rows = entry["task"], entry["rows"]
        labels.setdefault(task["weights"], entry["stamp"]["checkpoint"])
        where = (task["split"], task["kind"])
        if versions.setdefault(task["variant"], task["version"]) != task["version"]:
            # Numbers of two versions of the package are not to be averaged: the later one counts.
            versions[task["variant"]] = task["version"]
            columns = {k: v for k, v in columns.items() if k[2] != task["variant"]}
        numbers.setdefault(where, set()).update(range(task["start"], task["start"] + len(rows)))
        for key, part in _parts(task, rows):
            columns.setdefault((*where, *key), _Column()).parts.append((task["start"], part))
    known = {key[2] for key in columns}
    names |= {name: name for name in (CHANCE, ORACLE)}
    return Results(
        {name: variant for name, variant in names.items() if variant in known},
        _unique(labels),
        columns,
        {where: sorted(found) for where, found in numbers.items()},
    )


def _parts(
    task: Mapping[str, Any], rows: Sequence[Mapping[str, Mapping[str, float | None]]]
) -> Iterator[tuple[tuple[str, str, str, str], Floats]]:
    for direction in rows[0]:
        if task["variant"] == REFERENCE:
            for name in (CHANCE, ORACLE):
                part = _array([row[direction].get(name) for row in rows])
                yield (name, task["weights"], direction, "specificity"), part
            continue
        for metric in dict.fromkeys(name for row in rows for name in row[direction]):
            part = _array([row[direction].get(metric) for row in rows])
            yield (task["variant"], task["weights"], direction, metric), part


def _array(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _unique(labels: Mapping[str, str]) -> dict[str, str]:
    """Label -> weights; two files of one name are told apart by their weights."""
    given = list(labels.values())
    return {
        label if given.count(label) == 1 else f"{label}-{weights[:8]}": weights
        for weights, label in labels.items()
    }
