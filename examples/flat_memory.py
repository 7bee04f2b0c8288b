"""Peak memory of an evaluation of 1,000, 10,000 and 100,000 samples, each in a process of its own.

A backbone of a few weights and a method that gives each token the same score stand in for real
ones, so that what grows with the number of samples shows, and nothing else. Everything else is what
any evaluation runs: a data set that is read as a stream, tasks, metrics, a store, a table, and the
same once more from the finished store.

    python -m examples.flat_memory                  # all three
    python -m examples.flat_memory 1000 10000       # others
    python -m examples.flat_memory --engine processes --jobs 2
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import mmattrib as mm
from mmattrib.methods import Method, Side, SideScores
from mmattrib.models import EncoderInputs
from mmattrib.models.grids import ImageGrid, Layout, TextGrid
from mmattrib.samples import BoxRegion, Part, SpanRegion, Truth
from mmattrib.types import RawImage, RawText

SIZES = (1_000, 10_000, 100_000)
SIDE, WIDTH, WORDS = 8, 4, 2


class Pictures(mm.BlockEncoder):
    """Pictures of 8 x 8 pixels, a token for each 4 x 4."""

    modality, default_layer = "image", 0

    def __init__(self) -> None:
        self.blocks = [nn.Linear(WIDTH, WIDTH) for _ in range(2)]
        self.module = nn.Sequential(nn.Linear(48, WIDTH), *self.blocks)

    def preprocess(self, raws: Sequence[Any]) -> EncoderInputs:
        pixels = np.stack([raw.pixels for raw in raws]).reshape(len(raws), 2, 4, 2, 4, 3)
        cells = pixels.transpose(0, 1, 3, 2, 4, 5).reshape(len(raws), 4, 48)
        return EncoderInputs({"x": torch.tensor(cells, dtype=torch.float32) / 255}, tuple(raws))

    def forward(self, inputs: EncoderInputs) -> Tensor:
        found: Tensor = self.module(inputs["x"]).mean(dim=1)
        return found

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        return tokens

    def grid(self, inputs: EncoderInputs, layer: int) -> ImageGrid:
        sizes = [raw.pixels.shape[:2] for raw in inputs.raw if isinstance(raw, RawImage)]
        return ImageGrid(Layout("h w", "h w", {"h": 2, "w": 2}), sizes)


class Captions(mm.BlockEncoder):
    """Captions of two words, a token for each."""

    modality, default_layer = "text", 0

    def __init__(self) -> None:
        self.blocks = [nn.Linear(WIDTH, WIDTH) for _ in range(2)]
        self.module = nn.Sequential(nn.Embedding(128, WIDTH), *self.blocks)

    def preprocess(self, raws: Sequence[Any]) -> EncoderInputs:
        ids = [[ord(word[-1]) for word in raw.text.split()] for raw in raws]
        return EncoderInputs({"x": torch.tensor(ids)}, tuple(raws))

    def forward(self, inputs: EncoderInputs) -> Tensor:
        found: Tensor = self.module(inputs["x"]).mean(dim=1)
        return found

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        return tokens

    def grid(self, inputs: EncoderInputs, layer: int) -> TextGrid:
        texts = [raw.text for raw in inputs.raw if isinstance(raw, RawText)]
        spans = [[(0, text.index(" ")), (text.index(" ") + 1, len(text))] for text in texts]
        return TextGrid.from_spans(texts, spans, torch.ones(len(texts), WORDS, dtype=torch.bool))


def backbone() -> mm.Backbone:
    """Both towers, the same in every process."""
    torch.manual_seed(0)
    return mm.Backbone({"image": Pictures(), "text": Captions()}, "few weights")


class Even(Method):
    """The same score for every token."""

    name, unit, summary = "even", "none", "the same score for every token"

    def explain(self, side: Side) -> SideScores:
        return self.scored(side.grid().valid.float())


class Stream(mm.Dataset):
    """Pictures with captions, made as they are asked for and forgotten."""

    name = "stream"

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[mm.Sample]:
        whole = {
            "image": Truth((Part(BoxRegion(0, 0, 4, 4), True, "thing"),)),
            "text": Truth((Part(SpanRegion(2, 8), True, "thing"),)),
        }
        for number in range(self.count):
            drawn = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            text = RawText(f"a thing{number % 10}")
            yield mm.Sample(f"sample-{number}", {"image": RawImage(drawn), "text": text}, whole)

    def size(self) -> int:
        return self.count

    def describe(self) -> dict[str, Any]:
        return {"made": "from numbers"}


def measure(count: int, engine: Any, jobs: int) -> dict[str, Any]:
    """Evaluate so many samples twice, the second time from the store; peaks are in MB."""
    from mmattrib.evaluation import executor_for, make_plan, run
    from mmattrib.evaluation.store import Store

    plan = make_plan(backbone(), Stream(count), methods=[Even()], metrics=["auc", "energy", "iou"])
    tables, seconds = [], []
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        for _ in range(2):
            start = time.process_time()
            store = Store(path, plan.head())
            found = run(plan, store, executor_for(jobs, engine), progress=False)
            tables.append(found.results.table())
            seconds.append(round(time.process_time() - start, 1))
        size = path.stat().st_size
    assert tables[0] == tables[1]
    assert f"{count} samples" in tables[0]
    peaks = {"before_MB": before, "peak_MB": _peak(), "store_MB": round(size / 1e6, 1)}
    own = {"cpu_s": seconds[0], "cpu_s_from_store": seconds[1]}  # of this process alone
    return {"samples": count, **peaks, **own}


def _peak() -> int:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kilobytes / (1024 if sys.platform == "linux" else 1024**2))


def main() -> None:
    """Print a JSON line for each size; each in a process of its own, whose peak is its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--engine", default="serial")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(measure(given.sizes[0], given.engine, given.jobs)), flush=True)
        return
    for size in given.sizes:
        command = [sys.executable, "-m", "examples.flat_memory", str(size), "--inside"]
        command += ["--engine", given.engine, "--jobs", str(given.jobs)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
