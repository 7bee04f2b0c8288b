"""Candidates that cost the process that measures them its life, and need no model."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmattrib.evaluation import Candidate
from mmattrib.evaluation.measure import Context, SampleRow
from mmattrib.evaluation.tasks import Task
from mmattrib.types import JSONValue


@dataclass(frozen=True)
class Deadly(Candidate):
    """Each sample's number in its data set; some samples kill the process a few times first.

    Attributes:
        folder: where a file stands for each death.
        deaths: number of a task's first sample -> how often its process dies.
    """

    folder: str
    deaths: Mapping[int, int] = field(default_factory=dict)
    label: str = "deadly"

    def definition(self) -> dict[str, JSONValue]:
        return {"reference": "deadly"}

    def measure(self, context: Context, task: Task) -> list[SampleRow]:
        died = Path(self.folder) / str(task.start)
        died.mkdir(exist_ok=True)
        count = len(list(died.iterdir()))
        if count < self.deaths.get(task.start, 0):
            (died / f"{count}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [
            SampleRow(sample.id, {"image|text": {"auc": float(task.start + place)}})
            for place, sample in enumerate(task.samples)
        ]
