"""What β buys: bits, and how much of the match the solved mask keeps.

``python -m examples.price_of_information [SCENES]`` prints a row for each β, over search scenes of
the protocol, a picture and a caption each: bits in the picture where the two share a class and
where they share none, the clean cosine, and the cosine behind the mask and behind noise alone.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

import mmattrib as mm
from examples.study.protocol import Sharing, protocol_scenes

PRICES = (0.03, 0.1, 0.3, 1.0, 3.0)


def main(scenes: int) -> None:
    torch.set_num_threads(1)
    tiny = mm.load_backbone("tiny")
    kinds: tuple[Sharing, ...] = ("one", "none")
    pairs = {
        kind: [s.pair("image", "text") for s in protocol_scenes("search", kind, scenes)]
        for kind in kinds
    }
    print(
        "| β | bits, one shared | bits, none shared | cosine clean | behind mask | behind noise |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for beta in PRICES:
        told = {
            kind: [
                ex["image"].diagnostics
                for ex in mm.attribute_many(tiny, given, beta=beta, progress=False)
            ]
            for kind, given in pairs.items()
        }
        one = {key: np.mean([d[key] for d in told["one"]]) for key in (
            "capacity_bits", "clean_cosine", "cosine_end", "cosine_start")}  # fmt: skip
        none = np.mean([d["capacity_bits"] for d in told["none"]])
        print(
            f"| {beta:g} | {one['capacity_bits']:.1f} | {none:.1f} | {one['clean_cosine']:.3f} | "
            f"{one['cosine_end']:.3f} | {one['cosine_start']:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)
