"""What captions of unequal lengths cost where pairs go together: calls of the model, and GFLOP.

``python -m examples.captions_together [METHOD]`` explains 16 pairs, by ``nib`` unless another
method is named, with CLIP ViT-B/32 of random weights on the processor: pictures with captions whose
numbers of tokens are drawn around 13 with a standard deviation of 3. One by one; together where
captions have as many tokens; with captions padded to a multiple of 4, 8 or 16, of which 8 is what
CLIP's encoder does; and padded to the full length.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np
import torch

import mmattrib as mm
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


def main(names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    backbone = random_clip()
    given = pairs(backbone)
    made = [backbone["text"].preprocess([RawText(each["text"])]) for each in given]
    told = ", ".join(str(count) for count in sorted(one["ids"].shape[1] for one in made))
    print(f"Tokens of the captions: {told}.\n")
    print("| captions | passes through a tower | calls of a suffix | GFLOP |")
    print("| --- | ---: | ---: | ---: |")
    for label, bucket in WAYS:
        calls: Counter[str] = Counter()
        model = counted(backbone, bucket or 1, calls)
        alone = bucket is None
        with FlopCount() as count:
            for _ in mm.attribute_many(
                model, given, method=names[0] if names else "nib", deterministic=alone,
                progress=False,
            ):  # fmt: skip
                pass
        told = f"{calls['one_pass']} | {calls['suffix']} | {count.total / 1e9:,.0f}"
        print(f"| {label} | {told} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
