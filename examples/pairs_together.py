"""How far maps move where pairs go through `tiny` together, and where its suffix is bfloat16.

``python -m examples.pairs_together [METHOD ...] [--pair A,B] [--device cuda]`` explains pairs of
four scenes, pictures with captions unless others are named, one by one, together, and with the
suffix in bfloat16, and prints for each method the largest difference of a token's score, as a share
of its map's largest, and the least rank correlation over maps. Every method of the listing by
default; a small budget for each. On a card it prints first how far its maps are from those of the
processor, in float32.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch

import mmattrib as mm
from mmattrib.plugins import default_plugins

PAIRS = 4
BUDGET = {"points": 16, "guide_points": 8, "draws_behind": 4, "steps": 5, "samples": 64, "cells": 3}


def maps(backbone: mm.Backbone, method: str, sides: Sequence[str], **given: Any) -> list[Any]:
    """The content tokens' scores of both sides of every pair."""
    own = {each.name for each in fields(mm.load_method(method).options)}
    budget = {name: value for name, value in BUDGET.items() if name in own}
    if "learning_rate" in own:
        budget["samples"] = 4  # draws of noise for each step
    scenes = mm.scenes(PAIRS, seed=11)
    pairs = [{side: scene.input(side) for side in sides} for scene in scenes]
    found = mm.attribute_many(backbone, pairs, method=method, progress=False, **{**budget, **given})
    return [side.token_scores[side.content] for each in found for side in each.values()]


def moved(found: Sequence[Any], expected: Sequence[Any]) -> tuple[float, float]:
    """The largest difference, and the least rank correlation."""
    gaps, ranks = [0.0], [1.0]
    for ours, own in zip(found, expected, strict=True):
        if np.ptp(own) == 0:
            continue
        gaps.append(float(np.abs(ours - own).max() / np.abs(own).max()))
        first, second = (np.argsort(np.argsort(x)).astype(np.float64) for x in (ours, own))
        ranks.append(float(np.corrcoef(first, second)[0, 1]))
    return max(gaps), min(ranks)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--pair", default="image,text")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    sides = asked.pair.split(",")
    card = asked.device != "cpu"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    backbone, usual = mm.load_backbone("tiny", device=asked.device), mm.load_backbone("tiny")
    listed = [each.name for each in default_plugins().registry.usable("method")]
    first = ("on the card: largest difference", "rank") if card else ()
    heads = (*first, "together: largest difference", "bfloat16: largest difference", "rank")
    print(f"| method | {' | '.join(heads)} |\n| --- |{' ---: |' * len(heads)}")
    for name in asked.methods or listed:
        cells = []
        alone = maps(backbone, name, sides, precision="full", deterministic=True)
        if card:
            gap, rank = moved(alone, maps(usual, name, sides))
            cells += [f"{gap:.0e}", f"{rank:.3f}"]
        together, _ = moved(
            maps(backbone, name, sides, precision="full", deterministic=False), alone
        )
        half, rank = moved(maps(backbone, name, sides, precision="half", deterministic=True), alone)
        cells += [f"{together:.0e}", f"{half:.0e}", f"{rank:.3f}"]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
