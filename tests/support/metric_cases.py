"""Cases for metrics: of a random model on small inputs, and of a model that adds up its parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from render_examples import audio_side, image_side, pair, text_side, with_scores

import mmattrib as mm
from mmattrib.backbones.tiny.encoders import wrap
from mmattrib.backbones.tiny.model import TinyConfig, TinyModel
from mmattrib.datasets.scenes import ScenesDataset
from mmattrib.datasets.scenes.captions import vocabulary
from mmattrib.metrics import Case
from mmattrib.samples import Sample
from mmattrib.testing.metrics import cases_of
from mmattrib.types import RawImage

SIDES = {"image": image_side, "audio": audio_side, "text": text_side}


def untrained_backbone() -> mm.Backbone:
    """The shapes of `tiny` with random weights, whose cosines are not all alike."""
    words = vocabulary()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TinyModel(TinyConfig(vocabulary=len(words)))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(3.0)
    return wrap(model, words)


def small_sample() -> Sample:
    """A scene whose picture has the size that `tiny` takes, so that its map lies on its tensor."""
    scene = next(iter(ScenesDataset(1, seed=7001)))
    pixels = Image.fromarray(scene.inputs["image"].pixels).resize((96, 96))
    return Sample("small", {**scene.inputs, "image": RawImage(np.asarray(pixels))})


def model_cases(backbone: mm.Backbone | None = None, method: Any = None) -> dict[str, Case]:
    """``"image|text"`` -> case, for each direction of one small sample."""
    made = mm.load_method("nib", steps=2) if method is None else method
    found = cases_of(backbone or untrained_backbone(), [small_sample()], made)
    return {f"{case.side}|{case.guide}": case for case in found}


class LinearCase(Case):
    """A case whose cosine is a sum over the places that are kept: what each place adds is known."""

    def __init__(self, side: str, worth: np.ndarray, scores: np.ndarray | None = None) -> None:
        shown = worth if scores is None else scores
        own = with_scores(SIDES[side](), lambda old: np.reshape(shown, old.shape))
        guide = "text" if side != "text" else "image"
        ex = pair(own, SIDES[guide]())
        super().__init__(Sample("linear", dict(ex.inputs)), ex, side, guide)
        self.worth = np.asarray(worth, dtype=np.float64).reshape(ex[side].shape)

    @property
    def clean(self) -> float:
        return float(self.worth.sum())

    def kept_cosines(self, weights: Iterable[Any], **_: Any) -> np.ndarray:
        return np.array([(self.worth * row).sum() for row in weights], dtype=np.float64)


def worth(side: str, seed: int = 0) -> np.ndarray:
    """What each place of a side adds: different numbers of both signs."""
    shape = SIDES[side]()[1].shape
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
