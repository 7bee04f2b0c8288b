"""`tiny` with random weights and narrow towers, for whatever does not ask what its weights know.

The same anatomy, grids, vocabulary and capabilities as the model that ships; a map of it costs a
fraction of the time.
"""

from __future__ import annotations

from pathlib import Path

import torch

import mmattrib as mm
from mmattrib.backbones.tiny.checkpoint import TinyInfo, save_tiny
from mmattrib.backbones.tiny.encoders import wrap
from mmattrib.backbones.tiny.model import TinyConfig, TinyModel
from mmattrib.datasets.scenes import Bank
from mmattrib.datasets.scenes.captions import vocabulary


def small_model() -> TinyModel:
    """The same weights at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)  # of the first whose maps are nowhere 0 throughout
        return TinyModel(TinyConfig(width=32, embed_dim=32, vocabulary=len(vocabulary())))


def small_tiny() -> mm.Backbone:
    """A fresh backbone, in evaluation mode."""
    return wrap(small_model(), vocabulary())


def write_small_tiny(path: Path) -> Path:
    """Its checkpoint, for ``load_backbone("tiny", checkpoint=path)`` and the command line."""
    model, words = small_model(), vocabulary()
    info = TinyInfo(model.config, words, Bank.shipped().class_names, {"steps": 0})
    save_tiny(path, model, info)
    return path
