"""What maps are held against: chance, and the part on which the model itself relies most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from mmattrib.evaluation.candidates import Candidate
from mmattrib.evaluation.measure import SampleRow
from mmattrib.io import load
from mmattrib.metrics.localisation import ObjectTop1
from mmattrib.models.backbone import Backbone
from mmattrib.preparing import side_encoder
from mmattrib.types import SECOND, JSONValue, RawInput

if TYPE_CHECKING:
    from mmattrib.evaluation.measure import Context
    from mmattrib.evaluation.tasks import Task
    from mmattrib.samples import Sample
    from mmattrib.types import BoolArray

_BATCH = 64


@dataclass(frozen=True)
class Chance(Candidate):
    """Object top-1 of random scores: the share of an input's parts that are shared.

    NaN where all parts are shared, or none is.
    """

    label: str = "chance"
    metrics: ClassVar[frozenset[str] | None] = frozenset({ObjectTop1.name})

    def definition(self) -> dict[str, JSONValue]:
        return {"reference": "chance"}

    def measure(self, context: Context, task: Task) -> list[SampleRow]:
        rows = []
        for sample in task.samples:
            values = {}
            for side, guide in (task.pair, task.pair[::-1]):
                shared = _shared(sample, side)
                known = shared.any() and not shared.all()
                number = float(shared.mean()) if known else float("nan")
                values[f"{side}|{guide}"] = {ObjectTop1.name: number}
            rows.append(SampleRow(sample.id, values))
        return rows


@dataclass(frozen=True)
class OcclusionOracle(Candidate):
    """Whether the part whose removal lowers the cosine most is a shared one.

    It asks the model alone, without any map: what a map misses below it is the method's failure.
    Ties count in part. NaN where all parts are shared, or none is, or where the data set cannot
    take a part away (:meth:`mmattrib.datasets.Dataset.without`).
    """

    label: str = "oracle"
    metrics: ClassVar[frozenset[str] | None] = frozenset({ObjectTop1.name})

    def definition(self) -> dict[str, JSONValue]:
        return {"reference": "occlusion oracle"}

    def measure(self, context: Context, task: Task) -> list[SampleRow]:
        backbone = context.backbones[task.backbone].get()
        dataset = context.datasets[task.dataset]
        raws = {
            side: [load(side.removesuffix(SECOND), sample.inputs[side]) for sample in task.samples]
            for side in task.pair
        }
        clean = {side: _embed(backbone, side, raws[side]) for side in task.pair}
        values: list[dict[str, dict[str, float]]] = [{} for _ in task.samples]
        for side, guide in (task.pair, task.pair[::-1]):
            shared = [_shared(sample, side) for sample in task.samples]
            removed = [
                [dataset.without(sample, side, part, raw) for part in range(len(parts))]
                for sample, raw, parts in zip(task.samples, raws[side], shared, strict=True)
            ]
            flat = [raw for row in removed for raw in row if raw is not None]
            left = iter(_embed(backbone, side, flat).unbind(0))
            for found, parts, row, target in zip(
                values, shared, removed, clean[guide], strict=True
            ):
                cosines = [
                    np.nan if raw is None else float((next(left) * target).sum()) for raw in row
                ]
                number = _top_share(parts, np.array(cosines))
                found[f"{side}|{guide}"] = {ObjectTop1.name: number}
        return [SampleRow(s.id, v) for s, v in zip(task.samples, values, strict=True)]


def _shared(sample: Sample, side: str) -> BoolArray:
    truth = sample.truth.get(side)
    return np.array([part.shared for part in truth.parts] if truth else [], dtype=bool)


def _top_share(shared: BoolArray, cosines: np.ndarray) -> float:
    if not shared.any() or shared.all() or np.isnan(cosines).any():
        return float("nan")
    return float(shared[cosines == cosines.min()].mean())


def _embed(backbone: Backbone, side: str, raws: Sequence[RawInput]) -> torch.Tensor:
    """``(n, D)`` embeddings of some inputs of one side, on the CPU."""
    encoder = side_encoder(backbone, side)
    parts = []
    with torch.no_grad(), encoder.frozen():
        for at in range(0, len(raws), _BATCH):
            inputs = encoder.preprocess(raws[at : at + _BATCH])
            parts.append(encoder.embed(inputs).float().cpu())
    return torch.cat(parts) if parts else torch.empty(0, 0, dtype=torch.float32, device="cpu")
