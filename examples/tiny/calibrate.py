"""Measures what unrelated pairs look like to `tiny`: ``python -m examples.tiny.calibrate``.

Writes the calibration that ships beside the weights, from the unrelated inputs of held-out scenes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import torch

import mmattrib as mm
from mmattrib.backbones.tiny.checkpoint import CALIBRATION
from mmattrib.calibration import Calibration

SEED: Final = 31_415
"""Of the scenes; no other measurement uses this stream."""


def measure(n: int = 1000, maps: int = 40, seed: int = SEED) -> Calibration:
    """The calibration of the shipped weights, on the first held-out scenes of a seed.

    Args:
        n: scenes whose unrelated pairs are embedded.
        maps: of them, how many are explained.
        seed: of the scenes.
    """
    scenes = mm.load_dataset("scenes", n=n, seed=seed)
    return mm.calibrate(mm.load_backbone("tiny"), scenes, limit=n, maps=maps)


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
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    made = measure(args.n, args.maps, args.seed)
    made.save(args.out)
    for kind, found in made.similarities.items():
        sys.stdout.write(f"{kind}: 95 % at or below {found.at(95):.3f}, {found.n} pairs\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
