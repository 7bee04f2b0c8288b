"""Run the pretrained backbones at their real size, with random weights, and measure them.

Writes checkpoints of ViT-B/32 in the formats of transformers, open_clip and OpenAI to a temporary
folder (about 600 MB each, one at a time), loads each as a user would, and explains one pair. Every
backbone runs in a process of its own, so that the peak memory is its own.

    python examples/full_size_check.py            # all of them
    python examples/full_size_check.py clip       # one
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CAPTION = "a photo of a small red bird on the roof of an old house"
METHODS = ("ca-m2ib", "m2ib")


def clip(folder: Path) -> dict[str, Any]:
    """``save_pretrained`` of a CLIP ViT-B/32, with CLIP's own vocabulary."""
    import open_clip
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    simple = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in simple.encoder.items()}
    merges = [tuple(pair) for pair in simple.bpe_ranks if len(pair) == 2]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    CLIPModel(CLIPConfig()).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)
    return {"checkpoint": str(folder)}


def open_clip_file(folder: Path) -> dict[str, Any]:
    """A state dict of open_clip's ViT-B-32."""
    import open_clip
    import torch

    path = folder / "weights.pt"
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), path)
    return {"model": "ViT-B-32", "pretrained": str(path)}


def cxr_repair(folder: Path) -> dict[str, Any]:
    """A state dict in OpenAI's format, with the numbers that it holds beside the weights."""
    import open_clip
    import torch

    path = folder / "clip-imp-pretrained.pt"
    state = dict(open_clip.create_model("ViT-B-32-quickgelu").state_dict())
    numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    torch.save({**state, **{k: torch.tensor(v) for k, v in numbers.items()}}, path)
    return {"checkpoint": str(path)}


WRITERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "clip": clip,
    "open_clip": open_clip_file,
    "cxr-repair": cxr_repair,
}


def measure(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Load a backbone and explain one pair: seconds, and peak memory in MB."""
    import torch

    import mmattrib as mm
    from mmattrib.io import load_image, load_text
    from mmattrib.metrics import rank_correlation

    start = time.perf_counter()
    backbone = mm.load_backbone(name, **options)
    found: dict[str, Any] = {"backbone": name, "load_s": round(time.perf_counter() - start, 2)}
    found["threads"] = torch.get_num_threads()
    found["loaded_mb"] = _peak_mb()
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    found["suffix_gap"] = max(
        _suffix_gap(backbone["image"], load_image(picture)),
        _suffix_gap(backbone["text"], load_text(CAPTION)),
    )
    backbone.weights_hash()  # once per backbone, not per pair
    warnings.simplefilter("ignore", mm_trust_warning())
    for method in METHODS:
        seconds, busy = [], []
        for _ in range(3):
            start, spent = time.perf_counter(), time.process_time()
            explained = mm.attribute(backbone, image=picture, text=CAPTION, method=method)
            seconds.append(time.perf_counter() - start)
            busy.append(time.process_time() - spent)
        assert explained["image"].scores.shape == (480, 640)
        found[f"{method}_s"] = round(sorted(seconds)[1], 2)
        found[f"{method}_cpu_s"] = round(sorted(busy)[1], 2)
        found[f"{method}_layers"] = dict(explained.provenance["layers"])
        again = mm.attribute(backbone, image=picture, text=CAPTION, method=method, seed=1)
        for side in ("image", "text"):
            maps = [ex[side].token_scores for ex in (explained, again)]
            shown = np.isfinite(maps[0])  # NaN at padding
            assert all(np.isfinite(m[shown]).all() for m in maps)
            found[f"{method}_{side}_bits"] = round(float(maps[0][shown].sum()), 1)
            found[f"{method}_{side}_stability"] = round(
                rank_correlation(*(m[shown] for m in maps)), 3
            )
    found["peak_mb"] = _peak_mb()
    return found


def _suffix_gap(encoder: Any, raw: Any) -> float:
    """The largest difference of ``suffix(prefix(x, layer))`` from ``embed(x)``, at any layer."""
    import torch

    with encoder.frozen(), torch.no_grad():
        inputs = encoder.preprocess([raw])
        embedding = encoder.embed(inputs)
        gaps = [
            (encoder.suffix(encoder.prefix(inputs, layer), layer, inputs) - embedding).abs().max()
            for layer in range(-1, encoder.num_layers)
        ]
    return float(f"{max(map(float, gaps)):.1e}")


def mm_trust_warning() -> type[Warning]:
    """Random weights give maps that need not be trusted, and say so."""
    from mmattrib.errors import TrustWarning

    return TrustWarning


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(names: list[str]) -> None:
    """Write, measure and remove one checkpoint after the other."""
    for name in names or list(WRITERS):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, __file__, "--write", name, folder], check=True)
            subprocess.run([sys.executable, __file__, "--measure", name, folder], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        target = Path(sys.argv[3])
        (target / "options.json").write_text(json.dumps(WRITERS[sys.argv[2]](target)))
    elif sys.argv[1:2] == ["--measure"]:
        given = json.loads((Path(sys.argv[3]) / "options.json").read_text())
        print(json.dumps(measure(sys.argv[2], given)))
    else:
        main(sys.argv[1:])
