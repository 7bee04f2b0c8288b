"""The third world: pretrained towers on photographs with outlines.

Any folder in COCO's layout will do. A pair is a photograph and "a photo of a {category}", for every
category that covers 2 to 60 % of the photograph and is among the five of the index that the model
finds nearest to it: what a model does not see, no map of it can find. For words, a pair is a
photograph and the first of its captions that names such a category. Texts that name two things are
in ``two_things``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import torch

from examples.study.nearest import BEST, image_embedding, ranked, text_embeddings
from examples.study.protocol import RANKED, REPORTED
from examples.study.sweep import FILE, source_digest
from examples.study.two_things import METRICS, TwoThings
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
from mmattrib.models import Backbone
from mmattrib.samples import Sample
from mmattrib.types import JSONValue

Texts: TypeAlias = Literal["categories", "captions", "two"]

PAIR: Final = ("image", "text")

DIRECTIONS: Final[Mapping[Texts, tuple[str, ...]]] = {
    "categories": ("image|text",),
    "captions": ("image|text", "text|image"),
    "two": ("image|text",),
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
    for _, samples, ranks in ranked(photographs, backbone):
        for sample in samples:
            shared = [part.name for part in sample.truth["image"].parts if part.shared]
            if any(name is not None and ranks[name] < BEST for name in shared):
                yield sample.id
                if photographs.texts == "captions":
                    break


def pairs(photographs: Path, texts: Texts, backbone: Backbone, split: str | None = None) -> Dataset:
    """The pairs that are taken of a folder in COCO's layout.

    Raises:
        InputError: photographs or indices that cannot be used, or no pair.
    """
    if texts != "two":
        return Recognised(CocoDataset(photographs, texts, split), backbone)
    named, said = (CocoDataset(photographs, each, split) for each in ("categories", "captions"))
    return TwoThings(named, said, backbone)


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
    chosen = pairs(photographs, texts, model.get(), split)
    more = METRICS if texts == "two" else ()
    plan = make_plan(
        {backbone: model},
        {label(texts): chosen if limit is None else chosen.head(limit)},
        methods=candidates,
        metrics=[*(m for m in (*RANKED, *REPORTED) if m != "seconds"), *more],
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
