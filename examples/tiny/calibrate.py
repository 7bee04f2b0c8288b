"""Measures what unrelated pairs look like to `tiny`: ``python -m examples.tiny.calibrate``.

Writes the calibration that ships beside the weights, from the unrelated inputs of held-out scenes.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import torch

import mmattrib as mm
from mmattrib.backbones.tiny.checkpoint import CALIBRATION
from mmattrib.calibration import Calibration, Level, level_of
from mmattrib.errors import OptionError
from mmattrib.evaluation.calibrate import pair_cosines

SEED: Final = 31_415
"""Of the scenes; no other measurement uses this stream."""


SAID: Final[tuple[Level, ...]] = ("match", "weak", "no match")


def measure(n: int = 1000, maps: int = 40, seed: int = SEED) -> Calibration:
    """The calibration of the shipped weights, on the first held-out scenes of a seed.

    Args:
        n: scenes whose unrelated pairs are embedded.
        maps: of them, how many are explained.
        seed: of the scenes.
    """
    scenes = mm.load_dataset("scenes", n=n, seed=seed)
    return mm.calibrate(mm.load_backbone("tiny"), scenes, limit=n, maps=maps)


def rates(backbone: mm.Backbone, n: int, seed: int) -> dict[str, tuple[Counter[Level], ...]]:
    """What is said of scenes that the calibration was not made of.

    Returns:
        Kind of pair -> how often each verdict falls on the scenes' own pairs, and on unrelated
        ones.

    Raises:
        OptionError: the backbone has no calibration.
    """
    known = backbone.calibration
    if known is None:
        raise OptionError(f"{backbone.name!r} has no calibration; set backbone.calibration")
    scenes = mm.load_dataset("scenes", n=n, seed=seed)
    own, _ = pair_cosines(backbone, scenes, unrelated=False)
    others, _ = pair_cosines(backbone, scenes)
    return {
        kind: tuple(
            Counter(level_of(cosine, known.similarities[kind]) for cosine in cosines)
            for cosines in (own[kind], others[kind])
        )
        for kind in own
    }


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.tiny.calibrate",
        description="Measure unrelated pairs of held-out scenes and write tiny's calibration.",
    )
    parser.add_argument("--n", type=int, default=1000, help="scenes to embed")
    parser.add_argument("--maps", type=int, default=40, help="of them, how many to explain")
    parser.add_argument("--seed", type=int, default=SEED, help="of the scenes")
    parser.add_argument("--out", type=Path, default=CALIBRATION, metavar="FILE")
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; say how often the shipped calibration is right on --n other scenes",
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.check:
        found = rates(mm.load_backbone("tiny"), args.n, args.seed + 1)
        for kind, told in found.items():
            for name, counts in zip(("own", "unrelated"), told, strict=True):
                shares = ", ".join(f"{level} {counts[level] / args.n:.1%}" for level in SAID)
                sys.stdout.write(f"{kind}, {name} pairs: {shares}\n")
        return 0
    made = measure(args.n, args.maps, args.seed)
    made.save(args.out)
    for kind, known in made.similarities.items():
        sys.stdout.write(f"{kind}: 95 % at or below {known.at(95):.3f}, {known.n} pairs\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
