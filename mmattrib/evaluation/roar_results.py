"""What retraining found: the held-out loss of every training, ROAR+ of each, and tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mmattrib.errors import OptionError
from mmattrib.evaluation.sheets import row
from mmattrib.evaluation.statistics import mean_and_error
from mmattrib.evaluation.store import read_entries

if TYPE_CHECKING:
    from mmattrib.types import JSONValue

CLEAN: Final = "clean"
NONE: Final = "none"
TRUTH: Final = "truth"
RANDOM: Final = "random"
SHOWN: Final = {NONE: "no degradation", TRUTH: "what is shared, by the truth"}
"""How tables call the controls."""


@dataclass(frozen=True)
class Retrained:
    """One training on degraded pairs beside the one on clean pairs of the same seed.

    Attributes:
        method: label of a method, or ``"none"`` or ``"truth"`` for a control.
        pair: of sides.
        direction: what was degraded, e.g. ``"image|text"``.
        seed: of the split and the order.
        loss: l_c, held-out loss after training on degraded pairs, in nats.
        clean: l_o, the same after training on clean pairs.
        before: held-out loss before any training.
        removed: side -> mean share of it that was taken away.
        unmade: pairs that stayed whole, for want of a map.
        seconds: of the steps of this training.
        map_seconds: of the maps of both sides of every pair, made once for all seeds.
        peak_mb: most memory of its process until then, in MB.
        problem: what went wrong with some pairs, or None.
    """

    method: str
    pair: tuple[str, str]
    direction: str
    seed: int
    loss: float
    clean: float
    before: float
    removed: Mapping[str, float]
    unmade: int
    seconds: float
    map_seconds: float
    peak_mb: float
    problem: str | None = None

    @property
    def roar(self) -> float:
        """ROAR+: (l_c - l_o) / l_o; NaN where l_o is 0."""
        return (self.loss - self.clean) / self.clean if self.clean else float("nan")


@dataclass(frozen=True)
class RoarResults:
    """Every training of an experiment.

    Attributes:
        rows: one for each method, direction and seed.
        provenance: what the numbers depend on.
        seconds: of all trainings, those on clean pairs included.
        peak_mb: most memory of a process that trained, in MB.
    """

    rows: Sequence[Retrained]
    provenance: Mapping[str, JSONValue] = field(default_factory=dict)
    seconds: float = 0.0
    peak_mb: float = float("nan")

    @staticmethod
    def of(
        entries: Iterable[Mapping[str, Any]], provenance: Mapping[str, JSONValue]
    ) -> RoarResults:
        """Put the entries of a store together; what has no clean training is left out."""
        clean: dict[tuple[Any, ...], dict[str, Any]] = {}
        others = []
        seconds, peaks = 0.0, []
        for entry in entries:
            task, numbers = entry["task"], next(iter(entry["rows"][0]["values"].values()))
            key = (tuple(task["pair"]), task["seed"])
            seconds += numbers["seconds"]
            peaks.append(numbers["peak_mb"] or float("nan"))
            if task["candidate"] == CLEAN:
                clean[key] = numbers
            else:
                others.append((key, entry, numbers))
        rows = [
            _row(key, entry, numbers, clean[key]) for key, entry, numbers in others if key in clean
        ]
        return RoarResults(rows, provenance, seconds, max(peaks, default=float("nan")))

    def table(self, baseline: str = RANDOM) -> str:
        """Markdown: for each direction ROAR+ in percent, mean ± standard error over seeds.

        ``above BASELINE`` is the mean difference of ROAR+ from it over the seeds that both have,
        with its standard error, and in how many of these it is above.

        Raises:
            OptionError: nothing was measured.
        """
        if not self.rows:
            raise OptionError("nothing was measured")
        parts = [self._head()]
        for direction in dict.fromkeys(each.direction for each in self.rows):
            parts.append(self._table(direction, baseline))
        problems = dict.fromkeys(each.problem for each in self.rows if each.problem)
        if problems:
            parts.append("Problems: " + "; ".join(list(problems)[:3]).replace("\n", " "))
        return "\n\n".join(parts) + "\n"

    def _head(self) -> str:
        seeds = len({each.seed for each in self.rows})
        return (
            f"ROAR+ in percent, mean ± standard error over {seeds} seed{'s' * (seeds != 1)}. "
            f"{len(self.rows)} trainings on degraded pairs; all trainings took "
            f"{self.seconds:.0f} s, and {self.peak_mb:.0f} MB at most."
        )

    def _table(self, direction: str, baseline: str) -> str:
        own = [each for each in self.rows if each.direction == direction]
        methods = list(dict.fromkeys(each.method for each in own))
        based = {each.seed: each.roar for each in own if each.method == baseline}
        against = f"above {baseline}"
        head = ["method", "ROAR+ %", "loss", "removed %", "kept whole", "training s", "maps s"]
        head += [against, "seeds above"] if based else []
        clean = _mean({e.seed: e.clean for e in own}.values(), 3)
        before = _mean({e.seed: e.before for e in own}.values(), 3)
        lines = [
            f"**{direction}** (clean loss {clean}; before training {before})",
            "",
            row(head),
            row(["---"] * len(head)),
        ]
        for method in methods:
            found = [each for each in own if each.method == method]
            cells = [
                SHOWN.get(method, method),
                _mean((100 * each.roar for each in found), 1),
                _mean((each.loss for each in found), 3),
                ", ".join(
                    _mean((100 * each.removed.get(side, 0.0) for each in found), 1, error=False)
                    for side in found[0].removed
                )
                or "0",
                str(max(each.unmade for each in found)),
                _mean((each.seconds for each in found), 1, error=False),
                _mean((each.map_seconds for each in found), 0, error=False),
            ]
            if based:
                differences = [e.roar - based[e.seed] for e in found if e.seed in based]
                above = sum(d > 0 for d in differences)
                same = method == baseline
                cells += ["" if same else _mean((100 * d for d in differences), 1)]
                cells += ["" if same else f"{above} of {len(differences)}"]
            lines.append(row(cells))
        return "\n".join(lines)

    def to_json(self) -> str:
        """Every number, as JSON."""
        rows = [{**asdict(each), "pair": list(each.pair), "roar": each.roar} for each in self.rows]
        told = {"provenance": self.provenance, "seconds": self.seconds, "rows": rows}
        return json.dumps(told, indent=1)


def load_retrained(path: str | Path) -> RoarResults:
    """What a folder of :func:`mmattrib.evaluation.remove_and_retrain` holds so far.

    Args:
        path: its ``roar.jsonl``; one that is still being written can be read too.

    Raises:
        OptionError: it is no such file.
    """
    entries = {entry["id"]: entry for entry in read_entries(path) if "id" in entry}
    if any("direction" not in entry["task"] for entry in entries.values()):
        raise OptionError(f"{path} holds an evaluation, not retraining; mm.evaluate reads it")
    return RoarResults.of(filter(is_training, entries.values()), {})


def is_training(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of a store has all that is read of a training; others are passed over."""
    task, rows = entry["task"], entry["rows"]
    if not rows or not rows[0]["values"]:
        return False
    pair, seed, (numbers, *more) = task.get("pair"), task.get("seed"), rows[0]["values"].values()
    return (
        not more
        and isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(text, str) for text in (*pair, task.get("direction")))
        and isinstance(seed, int)
        and isinstance(entry["stamp"].get("method"), str)
        and isinstance(rows[0].get("problem"), str | None)
        and {"loss", "before", "unmade", "seconds", "peak_mb", "pairs"} <= numbers.keys()
        and all(value is not None or name == "peak_mb" for name, value in numbers.items())
    )


def _row(
    key: tuple[Any, ...],
    entry: Mapping[str, Any],
    numbers: Mapping[str, Any],
    clean: Mapping[str, Any],
) -> Retrained:
    removed = {
        name.removeprefix("removed_"): float(value)
        for name, value in numbers.items()
        if name.startswith("removed_")
    }
    peak = numbers["peak_mb"]
    return Retrained(
        entry["stamp"]["method"], key[0], entry["task"]["direction"], key[1],
        numbers["loss"], clean["loss"], numbers["before"], removed, int(numbers["unmade"]),
        numbers["seconds"], numbers.get("map_seconds", float("nan")),
        float("nan") if peak is None else peak,
        entry["rows"][0].get("problem"),
    )  # fmt: skip


def _mean(values: Iterable[float], decimals: int, error: bool = True) -> str:
    mean, spread = mean_and_error(np.array(list(values), dtype=np.float64))
    if np.isnan(mean):
        return ""
    told = f"{mean:.{decimals}f}"
    return told if not error or np.isnan(spread) else f"{told} ± {spread:.{decimals}f}"
