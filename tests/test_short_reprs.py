"""What holds arrays says so in one short line, and never writes them out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mmattrib as mm
from mmattrib.errors import InputError
from mmattrib.models.encoder import EncoderInputs, TokenEmbeddings
from mmattrib.models.grids import ImageGrid
from mmattrib.placement import from_map
from mmattrib.plugins import default_plugins
from mmattrib.types import Axis, RawText


def test_scenes_and_their_truth_are_told_in_short() -> None:
    scene = mm.scenes(1)[0]
    parts = scene.parts("image")
    for value in (scene, scene.objects[0], scene.events[0], parts[0], parts[0].region):
        assert len(repr(value)) < 300
        assert "True, " not in repr(value)
    assert repr(scene).startswith("Scene(seed=0, index=0, split='heldout', image=96x96x3 uint8")


def test_inputs_and_encoders_are_told_in_short() -> None:
    inputs = EncoderInputs({"ids": torch.zeros(2, 77, device="cpu")}, (RawText("a"), RawText("b")))
    assert repr(inputs) == "EncoderInputs(tensors={ids: 2x77 float32}, raw=2 of RawText)"
    flat = torch.zeros(1, 2, device="cpu")
    assert repr(TokenEmbeddings(flat, flat)) == (
        "TokenEmbeddings(values=1x2 float32, valid=1x2 float32)"
    )
    backbone = mm.load_backbone("tiny", device="cpu")
    assert repr(backbone["image"]).endswith(f"default_layer={backbone['image'].default_layer})")
    assert len(repr(backbone.calibration)) < 300
    assert " object at " not in repr(_grid(backbone))


def _grid(backbone: mm.Backbone) -> ImageGrid:
    encoder = backbone["image"]
    raw = mm.scenes(1)[0].input("image")
    grid = encoder.grid(encoder.preprocess([raw]), encoder.default_layer)
    assert isinstance(grid, ImageGrid)
    return grid


def test_a_method_tells_the_options_that_were_set() -> None:
    assert repr(default_plugins().registry.create("method", "nib", steps=7)) == (
        "Method('nib', steps=7)"
    )


BAD = [5, (None, 3), (float("nan"), 3), "ab", (5,), (5.5, 3), (True, 3), [3, 0], (1 << 20, 1 << 20)]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_a_size_that_is_none_is_refused(bad: object) -> None:
    axes = [Axis(name, "px", np.arange(4, dtype=np.float32)) for name in "yx"]
    found = from_map("image", np.ones((4, 4)), "bits", axes)
    for ask in (found.scores_at, found.seen_at, found.axes_at):
        with pytest.raises(InputError, match="accepted is one whole number of places"):
            ask(bad)  # type: ignore[arg-type]
    assert found.scores_at(tuple(np.array([2, 3]))).shape == (2, 3)
