"""Where ImageNet's classes lie in the text tower's space: part of the model, as its weights are."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mmattrib.errors import WeightsError
from mmattrib.models import read_state_dict

FILE = Path(__file__).with_name("classes.safetensors")
"""``embeddings`` ``(1000, 384)`` in the order of the logits; made by ``make_classes.py``."""


def class_embeddings() -> Tensor:
    """``(1000, 384)``: for each class, the mean of its names' embeddings.

    They come in a file, so that the model is the same on every machine: computed anew they would
    differ in the last digits, and with them the hash of the weights.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    state = read_state_dict(FILE)
    if state.keys() != {"embeddings"} or state["embeddings"].shape != (1000, 384):
        raise WeightsError(f"{FILE} is damaged; install mmattrib-conse again")
    return state["embeddings"]
