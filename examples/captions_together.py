"""What captions of unequal lengths cost where pairs go together: calls of the model, and GFLOP.

``python -m examples.captions_together [METHOD] [--device cuda]`` explains 16 pairs, by ``nib``
unless another method is named, with CLIP ViT-B/32 of random weights: pictures with captions whose
numbers of tokens are drawn around 13 with a standard deviation of 3. One by one; together where
captions have as many tokens; with captions padded to a multiple of 4, 8 or 16, of which 8 is what
CLIP's encoder does; and padded to the full length. On a card it prints seconds too, the median of
some runs.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import numpy as np
import torch

import mmattrib as mm
from examples.compiled_suffix import seconds
from mmattrib.benchmark.subjects import caption, pair, random_clip
from mmattrib.benchmark.watch import FlopCount
from mmattrib.types import RawText

PAIRS, MEAN, SPREAD, LEAST = 16, 13, 3, 5
LONGEST = 77
WAYS = (
    ("one by one", None),
    ("together, as many tokens", 1),
    *((f"together, multiples of {count}", count) for count in (4, 8, 16)),
    (f"together, all {LONGEST}", LONGEST),
)


def pairs(backbone: mm.Backbone) -> list[dict[str, Any]]:
    """Pictures with captions of unequal lengths, two tokens of which are marks."""
    drawn = np.random.default_rng(0).normal(MEAN, SPREAD, PAIRS).round().astype(int)
    words = np.clip(drawn, LEAST, None) - 2
    return [
        {**pair(backbone, number), "text": caption(int(count), number)}
        for number, count in enumerate(words)
    ]


def counted(backbone: mm.Backbone, bucket: int, calls: Counter[str]) -> mm.Backbone:
    """The model with another bucket, its calls counted."""
    encoders = {}
    for modality, encoder in backbone.items():
        made: Any = copy.copy(encoder)
        for name in ("one_pass", "suffix"):
            vars(made)[name] = _counting(getattr(encoder, name), calls, name)
        encoders[modality] = made
    encoders["text"].bucket = bucket
    return mm.Backbone(encoders, backbone.name, backbone.provenance)


def _counting(method: Callable[..., Any], calls: Counter[str], name: str) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return method(*args, **kwargs)

    return call


def explain(model: mm.Backbone, given: Sequence[Any], method: str, alone: bool) -> None:
    """Both maps of every pair."""
    for _ in mm.attribute_many(model, given, method=method, deterministic=alone, progress=False):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("method", nargs="?", default="nib")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    asked = parser.parse_args()
    card = asked.device.type != "cpu"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    backbone = random_clip(device=str(asked.device))
    given = pairs(backbone)
    made = [backbone["text"].preprocess([RawText(each["text"])]) for each in given]
    told = ", ".join(str(count) for count in sorted(one["ids"].shape[1] for one in made))
    print(f"Tokens of the captions: {told}.\n")
    print(f"| captions | passes through a tower | calls of a suffix | GFLOP |{' s |' * card}")
    print(f"| --- | ---: | ---: | ---: |{' ---: |' * card}")
    for label, bucket in WAYS:
        calls: Counter[str] = Counter()
        model = counted(backbone, bucket or 1, calls)
        with FlopCount() as count:
            explain(model, given, asked.method, bucket is None)
        told = f"{calls['one_pass']} | {calls['suffix']} | {count.total / 1e9:,.0f} |"
        if card:
            again = partial(explain, model, given, asked.method, bucket is None)
            spent = seconds(again, asked.device)
            told += f" {spent:.3f} |"
        print(f"| {label} | {told}", flush=True)


if __name__ == "__main__":
    main()
