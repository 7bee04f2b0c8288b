"""Draws the worst maps of ca-m2ib on search scenes: ``python -m examples.failure_cases OUT.jpg``.

For each direction that explains a picture or a sound, the scenes with the lowest AUC among the
first N, with the truth outlined: what the caption of the figure in docs/method.md speaks of.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np

import mmattrib as mm
from examples.study.protocol import protocol_scenes
from mmattrib.metrics import auc

SCENES, SHOWN = 16, 4
DIRECTIONS = (("image", "text"), ("image", "audio"), ("audio", "text"), ("audio", "image"))


def _shared(sample: mm.Sample, side: str) -> list[str]:
    return [part.name or "" for part in sample.truth[side].parts if part.shared]


def main(out: str) -> None:
    tiny = mm.load_backbone("tiny")
    scenes = list(protocol_scenes("search", "one", SCENES))
    figure, axes = plt.subplots(len(DIRECTIONS), SHOWN, figsize=(11, 10))
    for row, (side, other) in zip(axes, DIRECTIONS, strict=True):
        pairs = [scene.pair(side, other) for scene in scenes]
        found = list(mm.attribute_many(tiny, pairs, progress=False))
        truths = [s.truth[side].on(ex[side]) for s, ex in zip(scenes, found, strict=True)]
        scored = [auc(ex[side].scores, t.mask) for ex, t in zip(found, truths, strict=True)]
        for axis, worst in zip(row, np.argsort(scored)[:SHOWN], strict=True):
            scene, attribution = scenes[worst], found[worst][side]
            scores = attribution.scores / max(float(attribution.scores.max()), 1e-9)
            if side == "image":
                axis.imshow(scene.inputs["image"].pixels)
                axis.imshow(scores, cmap="inferno", alpha=0.6)
            else:
                axis.imshow(scores, cmap="inferno", origin="lower", aspect="auto")
            axis.contour(truths[worst].mask, levels=[0.5], colors="white", linewidths=1)
            axis.set_title(
                f"{', '.join(_shared(scene, side))}   AUC {100 * scored[worst]:.0f}", fontsize=9
            )
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(f"{side}|{other}")
    figure.tight_layout()
    figure.savefig(out, dpi=80, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    main(sys.argv[1])
