"""The plain way of M2IB and NIB gives our maps: what is compared is the same work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch

import mmattrib as mm
from mmattrib.benchmark.published import (
    can_compare,
    m2ib_as_published,
    nib_as_published,
    unfrozen,
)
from mmattrib.benchmark.subjects import CAPTION, caption, pair, random_clip
from mmattrib.models.encoder import EncoderInputs
from mmattrib.preparing import prepare

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
         "num_attention_heads": 2}  # fmt: skip


@pytest.fixture(scope="module")
def clip() -> mm.Backbone:
    """The shape of CLIP, small."""
    pytest.importorskip("transformers")
    return random_clip(
        vision_config={**SMALL, "image_size": 64, "patch_size": 16}, text_config=SMALL
    )


@pytest.fixture(scope="module")
def inputs(clip: mm.Backbone) -> Mapping[str, EncoderInputs]:
    return prepare(clip, pair(clip)).inputs


LAYERS = {"image": 1, "text": 2}


def test_nib_as_published_gives_the_maps_of_nib(
    clip: mm.Backbone, inputs: Mapping[str, EncoderInputs]
) -> None:
    plain = nib_as_published(clip.encoders, inputs, LAYERS)
    ours = mm.attribute(clip, inputs=pair(clip), method="nib", layer=LAYERS)
    for side, scores in plain.items():
        expected = torch.tensor(ours[side].token_scores, device="cpu")
        assert scores.shape == expected.shape
        assert float((scores - expected).abs().max()) <= 1e-6 * float(expected.abs().max()) + 1e-8


def test_m2ib_as_published_gives_bits_that_are_near_those_of_m2ib(
    clip: mm.Backbone, inputs: Mapping[str, EncoderInputs]
) -> None:
    """Near alone: its noise is another, and its guide is embedded anew at each step."""
    plain = m2ib_as_published(clip.encoders, inputs, LAYERS)
    ours = mm.attribute(clip, inputs=pair(clip), method="m2ib", layer=LAYERS)
    for side, bits in plain.items():
        expected = torch.tensor(ours[side].token_scores, device="cpu")
        assert float(bits.sum()) == pytest.approx(float(expected.sum()), rel=0.2)


@pytest.fixture
def untouched(clip: mm.Backbone) -> Iterator[None]:
    modules = [encoder.module for encoder in clip.values()]
    before = [(p, p.requires_grad, p.detach().clone()) for m in modules for p in m.parameters()]
    hooks = [len(part._forward_hooks) for module in modules for part in module.modules()]
    yield
    for parameter, wanted, value in before:
        assert parameter.requires_grad == wanted
        assert parameter.grad is None
        assert torch.equal(parameter, value)
    assert hooks == [len(part._forward_hooks) for module in modules for part in module.modules()]


@pytest.mark.usefixtures("untouched")
def test_the_model_is_left_as_it_was(
    clip: mm.Backbone, inputs: Mapping[str, EncoderInputs]
) -> None:
    m2ib_as_published(clip.encoders, inputs, LAYERS, steps=1, samples=1)
    nib_as_published(clip.encoders, inputs, LAYERS, steps=1)
    with unfrozen(clip.values()) as parameters:
        assert parameters
        assert all(parameter.requires_grad for parameter in parameters)


def test_a_layer_in_front_of_the_blocks_is_refused(
    clip: mm.Backbone, inputs: Mapping[str, EncoderInputs]
) -> None:
    assert can_compare(clip.values())
    with pytest.raises(mm.errors.OptionError, match="behind a block, not at -1"):
        m2ib_as_published(clip.encoders, inputs, {"image": -1, "text": 1})


def test_a_caption_has_as_many_tokens_as_words_and_two_marks(clip: mm.Backbone) -> None:
    for words in (3, 12, 40):
        text = prepare(clip, {**pair(clip), "text": caption(words)}).inputs["text"]
        assert text["ids"].shape == (1, words + 2)
        assert not (text["ids"] == 0).any(), "a word that it does not know"
    assert caption(12) == CAPTION
    assert caption(12, 5) != CAPTION
    assert sorted(caption(12, 5).split()) == sorted(CAPTION.split())
