"""Which of an index's categories a model finds nearest to each photograph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from mmattrib.datasets.coco import TEMPLATE, CocoDataset
from mmattrib.io import load
from mmattrib.models import Backbone
from mmattrib.samples import Sample
from mmattrib.types import RawText

BEST: Final = 5
"""A category is taken where the model finds it among so many nearest ones."""


def ranked(
    photographs: CocoDataset, backbone: Backbone
) -> Iterator[tuple[Path, list[Sample], dict[str, int]]]:
    """Each photograph with its samples, and every category's rank by its cosine, from 0 on."""
    names = photographs.categories
    prompts = text_embeddings(backbone, [TEMPLATE.format(name) for name in names])
    for path, samples in groupby(photographs, key=lambda sample: sample.inputs["image"]):
        cosines = image_embedding(backbone, path) @ prompts.T
        order = cosines.argsort(descending=True).tolist()
        yield path, list(samples), {names[k]: place for place, k in enumerate(order)}


def text_embeddings(backbone: Backbone, captions: Sequence[str]) -> Tensor:
    """``(captions, D)``, each embedded by itself."""
    encoder = backbone["text"]
    with encoder.frozen(), torch.no_grad():
        return torch.cat([encoder.embed(encoder.preprocess([RawText(text)])) for text in captions])


def image_embedding(backbone: Backbone, path: Path) -> Tensor:
    """``(D,)`` of one photograph."""
    encoder = backbone["image"]
    with encoder.frozen(), torch.no_grad():
        return encoder.embed(encoder.preprocess([load("image", path)]))[0]
