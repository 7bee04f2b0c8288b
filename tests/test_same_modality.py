"""Two inputs of one modality, and inputs that are plain arrays, through the same call."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmattrib as mm
from mmattrib.errors import InputError
from mmattrib.models.blocks import BlockEncoder
from mmattrib.models.encoder import EncoderInputs
from mmattrib.models.grids import Layout, TokenGrid
from mmattrib.models.grids.placed import AxisPlacement, PlacedGrid
from mmattrib.types import Axis, RawArray, RawInput

# Few rates: these tests are about which inputs meet, not about how good a map is.
QUICK = {"points": 2, "guide_points": 2, "draws_behind": 2}
attribute = functools.partial(mm.attribute, **QUICK)


class LineEncoder(BlockEncoder):
    """Eight numbers, four tokens on a line; a modality that no decoder knows."""

    default_layer = 0

    def __init__(self, modality: str) -> None:
        self.modality = modality
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.module = nn.Sequential(nn.Linear(2, 6), Mix(), Mix(), nn.Linear(6, 5))
        self.blocks = [self.module[1], self.module[2]]

    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        rows = [torch.from_numpy(raw.values) for raw in raws if isinstance(raw, RawArray)]
        return EncoderInputs({"x": torch.stack(rows).view(len(raws), 4, 2)}, tuple(raws))

    def forward(self, inputs: EncoderInputs) -> Tensor:
        return self.module(inputs["x"]).mean(1)

    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        return self.module[3](tokens)

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        place = AxisPlacement.of_views([(np.arange(8, dtype=np.float32) + 0.5) / 2], 4)
        axis = Axis("time", "s", np.arange(8, dtype=np.float32))
        laid = torch.ones(len(inputs), 4, dtype=torch.bool)
        return PlacedGrid(
            Layout("t", "t", {"t": 4}), [(axis,)] * len(inputs), [(place,)] * len(inputs), laid
        )


class Mix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.inner(x) + x.mean(1, keepdim=True))


@pytest.fixture
def lines() -> mm.Backbone:
    return mm.Backbone({"line": LineEncoder("line"), "wave": LineEncoder("wave")})


def array(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=8).astype(np.float32)


def test_both_sides_of_one_modality_are_explained(untrained: mm.Backbone) -> None:
    first, second = (scene.image for scene in mm.scenes(2, seed=5))
    found = attribute(untrained, image=first, inputs={"image_2": second})
    assert list(found) == ["image", "image_2"]
    for side in found:
        assert found[side].modality == "image"
        assert found[side].scores.shape == (96, 96)
        assert found[side].scores.max() > 0
    assert found.inputs["image_2"].pixels.tobytes() != found.inputs["image"].pixels.tobytes()


def test_which_input_comes_first_changes_no_map(untrained: mm.Backbone) -> None:
    first, second = (scene.image for scene in mm.scenes(2, seed=5))
    one = attribute(untrained, inputs={"image": first, "image_2": second})
    other = attribute(untrained, inputs={"image": second, "image_2": first})
    np.testing.assert_array_equal(one["image"].scores, other["image_2"].scores)
    np.testing.assert_array_equal(one["image_2"].scores, other["image"].scores)
    assert one.provenance["pair_key"] == other.provenance["pair_key"]


def test_the_guide_matters(untrained: mm.Backbone) -> None:
    one, *others = (scene.image for scene in mm.scenes(3, seed=5))
    maps = [
        mm.attribute(untrained, image=one, inputs={"image_2": other}, points=8)["image"].scores
        for other in others
    ]
    assert np.abs(maps[0] - maps[1]).max() > 0.01 * maps[0].max()


def test_captions_too(untrained: mm.Backbone) -> None:
    found = attribute(untrained, text="a dog on the grass", inputs={"text_2": "a loud dog"})
    assert [word.text for word in found["text_2"].words] == ["a", "loud", "dog"]


def test_a_stream_may_mix_pairs_of_one_and_of_two_modalities(untrained: mm.Backbone) -> None:
    scenes = mm.scenes(2, seed=5)
    pairs = [
        {"image": scenes[0].image, "image_2": scenes[1].image},
        {"image": scenes[0].image, "text": scenes[0].caption},
        {"image": scenes[1].image, "image_2": scenes[0].image},
    ]
    many = list(mm.attribute_many(untrained, pairs, progress=False, **QUICK))
    for pair, found in zip(pairs, many, strict=True):
        alone = attribute(untrained, inputs=pair)
        for side in pair:
            np.testing.assert_array_equal(found[side].scores, alone[side].scores)


def test_layers_by_side_and_by_modality(untrained: mm.Backbone) -> None:
    scenes = mm.scenes(2, seed=5)
    pair = {"image": scenes[0].image, "image_2": scenes[1].image}
    both = attribute(untrained, inputs=pair, layer={"image": 2, "image_2": 0})
    assert (both["image"].layer, both["image_2"].layer) == (2, 0)
    same = attribute(untrained, inputs=pair, layer={"image": 2})
    assert (same["image"].layer, same["image_2"].layer) == (2, 2)


def test_the_same_name_twice_is_refused(untrained: mm.Backbone) -> None:
    image = mm.scenes(1)[0].image
    with pytest.raises(InputError, match="image_2"):
        attribute(untrained, image=image, inputs={"image": image})


def test_arrays_of_an_unknown_modality(lines: mm.Backbone) -> None:
    found = attribute(lines, inputs={"line": array(0), "wave": (array(1), 100.0)})
    assert found["line"].scores.shape == (8,)
    assert found.inputs["wave"].rate == 100.0
    again = attribute(lines, inputs={"wave": (array(1), 100.0), "line": array(0)})
    np.testing.assert_array_equal(found["line"].scores, again["line"].scores)
    twice = attribute(lines, inputs={"line": array(0), "line_2": array(1)})
    assert list(twice) == ["line", "line_2"]


def test_arrays_from_files(lines: mm.Backbone, tmp_path) -> None:
    np.save(tmp_path / "line.npy", array(0))
    found = attribute(lines, inputs={"line": tmp_path / "line.npy", "wave": array(1)})
    assert found.inputs["line"].name == "line.npy"
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    for bad, message in (
        (tmp_path / "objects.npy", "holds no plain numbers"),
        (tmp_path / "missing.npy", "does not exist"),
        ([1.0, 2.0], "cannot use list"),
        (np.array([np.nan]), "NaN"),
        (np.array(["a"]), "no plain numbers"),
        (np.zeros((0, 3)), "shape"),
        ((array(0), -1.0), "rate"),
        (RawArray(array(0), "wave"), "RawArray of 'wave'"),
    ):
        with pytest.raises(InputError, match=message):
            attribute(lines, inputs={"line": bad, "wave": array(1)})
