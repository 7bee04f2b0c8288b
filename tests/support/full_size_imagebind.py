"""ImageBind-huge with random weights, once through ``mm.attribute``: memory and time.

python full_size_imagebind.py write weights.pth      # 4.8 GB
python full_size_imagebind.py explain weights.pth    # JSON lines
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from mmattrib.types import RawAudio, RawImage, RawText

PAIRS = (("image", "text"), ("audio", "text"), ("image", "audio"))


def write(path: Path) -> None:
    """Save the library's own model, initialised at random."""
    from mmattrib.backbones.imagebind.library import library

    torch.manual_seed(0)
    torch.save(library().model.imagebind_huge(pretrained=False).state_dict(), path)


def explain(path: Path) -> None:
    """Load it and explain three pairs with the default method and options."""
    import mmattrib as mm

    with measured("load"):
        backbone = mm.load_backbone("imagebind", checkpoint=str(path))
    with measured("hash of the weights"):  # for provenance, once
        backbone.weights_hash()
    parameters = {
        modality: sum(p.numel() for p in encoder.module.parameters())
        for modality, encoder in backbone.items()
    }
    print(json.dumps({"parameters": parameters}), flush=True)
    random = np.random.default_rng(0)
    inputs = {
        "image": RawImage(random.integers(0, 255, (480, 640, 3), dtype=np.uint8)),
        "audio": RawAudio(random.normal(0, 0.1, 80_000).astype(np.float32), 16_000),
        "text": RawText("a dog barks at a red car in front of an old house"),
    }
    for pair in PAIRS:
        with measured("-".join(pair)):
            found = mm.attribute(backbone, inputs={side: inputs[side] for side in pair})
        for side, attribution in found.items():
            facts = {
                "side": side,
                "layer": attribution.layer,
                "shape": attribution.scores.shape,
                "bits": float(
                    attribution.token_scores[np.isfinite(attribution.token_scores)].sum()
                ),
            }
            print(json.dumps(facts), flush=True)


@contextmanager
def measured(name: str) -> Iterator[None]:
    """Print seconds and the peak of resident memory inside, in GB: all of it, and its own part.

    What is not a process's own is pages of files, which the system may drop.
    """
    peak = {"VmRSS": 0, "RssAnon": 0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for line in Path("/proc/self/status").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in peak:
                    peak[key] = max(peak[key], int(value.split()[0]))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start, busy = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        seconds = time.perf_counter() - start
        ended.set()
        watcher.join()
        facts = {
            "what": name,
            "seconds": round(seconds, 1),
            "processor_seconds": round(time.process_time() - busy, 1),
            "threads": torch.get_num_threads(),
        }
        sizes = {f"{key}_GB": round(value * 1024 / 1e9, 2) for key, value in peak.items()}
        print(json.dumps({**facts, **sizes}), flush=True)


if __name__ == "__main__":
    {"write": write, "explain": explain}[sys.argv[1]](Path(sys.argv[2]))
