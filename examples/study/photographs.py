"""The third world: pretrained towers on photographs with outlines.

Any folder in COCO's layout will do. A pair is a photograph and "a photo of a {category}", for every
category that covers 2 to 60 % of the photograph and is among the five of the index that the model
finds nearest to it: what a model does not see, no map of it can find. For words, a pair is a
photograph and the first of its captions that names such a category.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from examples.study.protocol import RANKED, REPORTED
from examples.study.sweep import FILE, source_digest
from mmattrib.datasets import Dataset
from mmattrib.datasets.coco import TEMPLATE, CocoDataset
from mmattrib.errors import InputError
from mmattrib.evaluation import (
    Candidate,
    NamedModel,
    Outcome,
    Store,
    executor_for,
    make_plan,
    run,
)
from mmattrib.io import load
from mmattrib.models import Backbone
from mmattrib.samples import Sample
from mmattrib.types import JSONValue, RawText

Texts: TypeAlias = Literal["categories", "captions"]

BEST: Final = 5
"""A category is taken where the model finds it among so many nearest ones."""

PAIR: Final = ("image", "text")

DIRECTIONS: Final[Mapping[Texts, tuple[str, ...]]] = {
    "categories": ("image|text",),
    "captions": ("image|text", "text|image"),
}
"""What is explained; of a category's prompt, the words are no question."""

HEAD: Final = {"study": "photographs with outlines", "metrics": [*RANKED, *REPORTED]}


def label(texts: Texts) -> str:
    """What results call the pairs."""
    return f"photographs/{texts}"


class Recognised(Dataset):
    """Samples whose category a model recognises; where texts are captions, one a photograph."""

    name = "recognised"

    def __init__(self, photographs: CocoDataset, backbone: Backbone) -> None:
        """Choose among the samples of ``photographs``.

        Raises:
            InputError: the model recognises nothing.
        """
        self.photographs = photographs
        self.chosen = frozenset(_chosen(photographs, backbone))
        if not self.chosen:
            raise InputError(
                f"{backbone.name} recognises no category in the photographs of {photographs.folder}"
            )

    def __iter__(self) -> Iterator[Sample]:
        return (sample for sample in self.photographs if sample.id in self.chosen)

    def size(self) -> int:
        return len(self.chosen)

    def describe(self) -> dict[str, JSONValue]:
        ids = "\n".join(sorted(self.chosen))
        return {**self.photographs.describe(), "chosen": hashlib.sha256(ids.encode()).hexdigest()}


def _chosen(photographs: CocoDataset, backbone: Backbone) -> Iterator[str]:
    names = photographs.categories
    with torch.no_grad():
        prompts = text_embeddings(backbone, [TEMPLATE.format(name) for name in names])
        for path, samples in groupby(photographs, key=lambda sample: sample.inputs["image"]):
            cosines = image_embedding(backbone, path) @ prompts.T
            best = {names[k] for k in cosines.topk(min(BEST, len(names))).indices.tolist()}
            for sample in samples:
                shared = {part.name for part in sample.truth["image"].parts if part.shared}
                if shared & best:
                    yield sample.id
                    if photographs.texts == "captions":
                        break


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


def measure(
    candidates: Sequence[Candidate],
    photographs: Path,
    texts: Texts,
    folder: Path,
    *,
    backbone: str = "conse",
    split: str | None = None,
    limit: int | None = None,
    jobs: int = 1,
    fresh: bool = False,
    progress: bool = True,
) -> Outcome:
    """Measure what is not measured yet, and append it to the folder's results.

    Args:
        candidates: variants from a plan.
        photographs: a folder in COCO's layout.
        texts: which pairs.
        folder: of the results file; made if it does not exist.
        backbone: registered, of pictures and captions.
        split: as for the data set ``coco``.
        limit: only so many of the chosen samples, from the first on.
        jobs: processes to share the work, one thread each.
        fresh: measure again what was measured with another source of engine or methods.
        progress: show a progress bar on standard error.

    Raises:
        InputError: photographs or indices that cannot be used.
        OptionError: results of another plan in the folder.
    """
    model = NamedModel.of(backbone)
    chosen: Dataset = Recognised(CocoDataset(photographs, texts, split), model.get())
    plan = make_plan(
        {backbone: model},
        {label(texts): chosen if limit is None else chosen.head(limit)},
        methods=candidates,
        metrics={metric: None for metric in (*RANKED, *REPORTED) if metric != "seconds"},
        pairs=[PAIR],
    )
    return run(
        plan, Store(folder / FILE, HEAD), executor_for(jobs), source=source_digest(),
        fresh=fresh, keep_going=True, progress=progress,
    )  # fmt: skip


def model_card(photographs: Path, backbone: str = "conse", split: str | None = None) -> str:
    """How well a model matches the photographs with their captions and categories, as lines."""
    found = CocoDataset(photographs, "captions", split)
    model = NamedModel.of(backbone).get()
    pictures = found.pictures()
    seen = torch.stack([image_embedding(model, path) for path, _, _ in pictures])
    said = text_embeddings(model, [captions[0] for _, captions, _ in pictures])
    cosines = seen @ said.T
    own = cosines.diag()
    rank = (cosines > own[:, None]).sum(1)
    shares = ", ".join(f"R@{k} {100 * (rank < k).float().mean():.0f} %" for k in (1, 5, 10))
    others = (cosines.sum() - own.sum()) / (len(own) * (len(own) - 1))
    prompts = text_embeddings(model, [TEMPLATE.format(name) for name in found.categories])
    best = (seen @ prompts.T).argmax(1).tolist()
    right = [found.categories[k] in held for k, (_, _, held) in zip(best, pictures, strict=True)]
    return (
        f"{len(pictures)} photographs, the first caption of each: {shares}; mean cosine "
        f"{own.mean():.3f} with its own, {others:.3f} with others'. The nearest of "
        f"{len(found.categories)} categories is in the photograph: "
        f"{100 * sum(right) / len(right):.0f} %"
    )
