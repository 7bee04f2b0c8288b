"""How many masked inputs a second RISE puts through `tiny`, one at a time and 32 at once.

``python -m examples.masks_per_second`` prints CPU seconds, on one thread, of RISE's map of one side
of a scene: of making the masks and what they leave, preprocessing and the model, all together.
"""

from __future__ import annotations

import time

import torch

import mmattrib as mm
from mmattrib.explain import explain
from mmattrib.loading import load_method
from mmattrib.preparing import prepare

MASKS, BATCHES = 256, (1, 8, 32, 128)
PAIRS = (("image", "text"), ("audio", "text"), ("text", "image"))


def seconds(backbone: mm.Backbone, scene: mm.Scene, pair: tuple[str, str], batch: int) -> float:
    """CPU seconds of the map of the first side."""
    prepared = prepare(backbone, {side: scene.input(side) for side in pair})
    method = load_method("rise", samples=MASKS, batch=batch)
    start = time.process_time()
    explain(backbone, [prepared], method, sides=pair[:1])
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    backbone = mm.load_backbone("tiny")
    # A caption of more than log2(MASKS) words, so that masks are drawn.
    scene = next(each for each in mm.scenes(20, seed=11) if len(each.caption.split()) > 9)
    print("| explained | " + " | ".join(f"{batch} at once" for batch in BATCHES) + " |")
    print("| --- |" + " ---: |" * len(BATCHES))
    for pair in PAIRS:
        best = [min(seconds(backbone, scene, pair, b) for _ in range(3)) for b in BATCHES]
        cells = " | ".join(f"{MASKS / each:.0f} / s" for each in best)
        print(f"| {pair[0]} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
