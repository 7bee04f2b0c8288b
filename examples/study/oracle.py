"""What maps are held against: chance, and the object on which the model itself relies most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from examples.study.measure import Row
from examples.study.results import CHANCE, ORACLE
from mmattrib.datasets.scenes.generator import Scene, part_names
from mmattrib.evaluation.benchmark import Floats, raw_input
from mmattrib.io import load as load_raw
from mmattrib.metrics.base import BoolArray
from mmattrib.models.backbone import Backbone


def reference_rows(backbone: Backbone, pair: tuple[str, str], scenes: Sequence[Scene]) -> list[Row]:
    """Specificity of chance and of the occlusion oracle, in both directions.

    ``chance`` is the share of the explained side's objects that are shared: what a map of random
    scores expects. ``oracle`` is 1 where the object whose removal lowers the cosine most is a
    shared one. It asks the model alone, so what a map misses below it is the method's failure.
    Ties count in part. Both are NaN where all objects are shared, or none is.

    Args:
        backbone: embeds both modalities.
        pair: two modalities.
        scenes: as :func:`mmattrib.scenes` makes them; they must be able to be drawn again.
    """
    clean = {modality: _embed(backbone, scenes, modality) for modality in pair}
    rows: list[Row] = [{} for _ in scenes]
    for side, other in (pair, pair[::-1]):
        removed = [s.without(side, k) for s in scenes for k in range(len(part_names(s, side)))]
        left = iter(_embed(backbone, removed, side).unbind(0))
        for row, scene, guide in zip(rows, scenes, clean[other], strict=True):
            shared = np.array([name in scene.shared for name in part_names(scene, side)])
            cosines = np.array([float((next(left) * guide).sum()) for _ in shared])
            row[f"{side}|{other}"] = _scores(shared, cosines)
    return rows


def _scores(shared: BoolArray, cosines: Floats) -> dict[str, float]:
    if shared.all() or not shared.any():
        return {CHANCE: float("nan"), ORACLE: float("nan")}
    lowest = cosines == cosines.min()
    return {CHANCE: float(shared.mean()), ORACLE: float(shared[lowest].mean())}


def _embed(backbone: Backbone, scenes: Sequence[Scene], modality: str, batch: int = 64) -> Tensor:
    """``(n, D)`` embeddings of one modality of some scenes."""
    encoder = backbone[modality]
    parts = []
    with torch.no_grad(), encoder.frozen():
        for at in range(0, len(scenes), batch):
            raws = [load_raw(modality, raw_input(s, modality)) for s in scenes[at : at + batch]]
            parts.append(encoder.embed(encoder.preprocess(raws)).float().cpu())
    return torch.cat(parts)
