"""Pictures of maps on photographs: the worst and those in the middle, by what was measured.

``python -m examples.study album COCO OUT.jpg`` draws them from the kept numbers of ``photographs``,
or from the numbers of a folder of one's own. Without ``--photographs`` only maps and outlines are
drawn, so that a picture of them can be passed on whatever the photographs' licences say.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np

import mmattrib as mm
from examples.study.photographs import PAIR, label
from mmattrib.datasets.coco import CocoDataset
from mmattrib.errors import OptionError
from mmattrib.evaluation import Results
from mmattrib.evaluation.plans import read_plan
from mmattrib.samples import Sample

METHODS: Final = ("ca-m2ib", "m2ib", "nib")
"""Columns; each as it was measured."""
PLAN: Final = Path(__file__).parent / "plans" / "photographs.toml"


def chosen(results: Results, count: int) -> list[tuple[str, float]]:
    """Ids and auc of the worst pairs of ``ca-m2ib``, then of as many around the median."""
    name = label("categories")
    ids = list(results.samples[name].values())
    scored = results.values("ca-m2ib", "image|text", "auc", dataset=name)
    order = [int(k) for k in np.argsort(scored) if not np.isnan(scored[k])]
    if len(order) < 2 * count:
        raise OptionError(f"only {len(order)} pairs were measured; {2 * count} are to be drawn")
    middle = len(order) // 2 - count // 2
    return [(ids[k], float(scored[k])) for k in (*order[:count], *order[middle:][:count])]


def draw(
    photographs: Path, results: Results, out: Path, *, count: int = 4, shown: bool = False,
    backbone: str = "conse",
) -> None:  # fmt: skip
    """Draw the album.

    Args:
        photographs: the folder in COCO's layout that was measured.
        results: of it, by ``measure``.
        out: a picture file.
        count: how many of the worst, and of those around the median.
        shown: whether the photographs lie under the maps.
        backbone: as it was measured.

    Raises:
        OptionError: too few pairs, or one of them is not in the folder.
    """
    wanted = chosen(results, count)
    samples = {sample.id: sample for sample in CocoDataset(photographs, "categories")}
    if lacking := [name for name, _ in wanted if name not in samples]:
        raise OptionError(f"{photographs} holds no pair {lacking[0]!r}; give the folder measured")
    model = mm.load_backbone(backbone)
    figure, axes = plt.subplots(len(wanted), len(METHODS), figsize=(7, 2.1 * len(wanted)))
    for row, (name, scored) in zip(axes, wanted, strict=True):
        _row(row, model, samples[name].pair(*PAIR), shown)
        row[0].set_ylabel(f"{samples[name].tags['category']}\nAUC {100 * scored:.0f}", fontsize=8)
    for axis, method in zip(axes[0], METHODS, strict=True):
        axis.set_title(method, fontsize=9)
    figure.tight_layout()
    figure.savefig(out, dpi=70, pil_kwargs={"quality": 80})
    plt.close(figure)


def _row(axes: Sequence[Any], model: mm.Backbone, sample: Sample, shown: bool) -> None:
    variants = {variant.label: variant for variant in read_plan(PLAN)}
    for axis, name in zip(axes, METHODS, strict=True):
        variant = variants[name]
        found = mm.attribute(
            model, inputs=sample.inputs, method=variant.make(), layer=variant.layer
        )["image"]
        scores = np.maximum(found.scores, 0)
        if shown:
            axis.imshow(mm.io.load_image(sample.inputs["image"]).pixels)
        axis.imshow(
            scores / max(float(scores.max()), 1e-9), cmap="inferno", alpha=0.6 if shown else 1
        )
        axis.contour(sample.truth["image"].on(found).mask, levels=[0.5], colors="w", linewidths=1)
        axis.set_xticks([])
        axis.set_yticks([])
