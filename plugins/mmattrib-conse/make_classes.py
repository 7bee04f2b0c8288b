"""Make mmattrib_conse/classes.safetensors: the names of ImageNet's classes, embedded.

    pip install timm && python make_classes.py

Needs the text tower's package (README.md) and timm, which has the names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
from mmattrib_conse.classes import FILE
from mmattrib_conse.loading import text_encoder
from safetensors.torch import save_file
from torch import Tensor

from mmattrib.types import RawText

TEMPLATE = "a photo of a {}"
"""What a name is put into before it is embedded."""

BATCH = 128
"""Names embedded at a time."""


def class_names() -> list[list[str]]:
    """The names of each of ImageNet's classes, WordNet's lemmas, in the order of the logits."""
    from timm.data import ImageNetInfo

    descriptions = ImageNetInfo().label_descriptions()
    return [[name.strip() for name in str(text).split(",")] for text in descriptions]


def prompt_embeddings(prompts: Sequence[str]) -> Tensor:
    """``(prompts, D)``, of length 1, before the space is centred."""
    encoder, _ = text_encoder(None)
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            raws = [RawText(prompts[number]) for number in chosen]
            embedded = encoder.forward(encoder.preprocess(raws))
            found.update(zip(chosen, embedded, strict=True))
    return torch.stack([found[number] for number in range(len(prompts))])


def class_embeddings(
    names: Sequence[Sequence[str]], embed: Callable[[Sequence[str]], Tensor] = prompt_embeddings
) -> Tensor:
    """``(classes, D)``: the mean over each class's names of the names' embeddings."""
    embedded = embed([TEMPLATE.format(name) for each in names for name in each])
    parts = embedded.split([len(each) for each in names])
    return torch.stack([part.mean(dim=0) for part in parts])


if __name__ == "__main__":
    made = class_embeddings(class_names())
    save_file({"embeddings": made.contiguous()}, FILE)
    sys.stdout.write(f"{FILE}: {tuple(made.shape)}\n")
