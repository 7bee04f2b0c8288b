"""`clip`: every family against transformers' own embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoints
import conformance
import numpy as np
import pytest
import torch
from clip_folders import Written, copy_of
from small_backbones import PICTURE

import mmattrib as mm
from mmattrib.backbones.clip import load, wrap
from mmattrib.backbones.clip.encoders import pooled_output, pre_norm
from mmattrib.errors import (
    InputError,
)
from mmattrib.models.pixels import CLIP_STD
from mmattrib.models.towers import relative_layer
from mmattrib.testing import check_encoder, check_grid
from mmattrib.types import RawText

# Random weights need not give maps worth trusting; that is not what is tested here.
pytestmark = [
    pytest.mark.usefixtures("quiet_transformers"),
    pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning"),
]


def small_clip(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    options = {"checkpoint": str(checkpoints.write("clip", folder)[0])}
    return options, {"image": PICTURE, "text": "a small red cat"}


families = pytest.mark.parametrize("kind", list(checkpoints.FAMILIES))


@families
def test_loading_reproduces_the_librarys_own_embeddings(kind: str, written: Written) -> None:
    folder, model, processor = written(kind)
    backbone = load(str(folder))
    captions = [raw.text for raw in checkpoints.CAPTIONS]
    padding = "max_length" if kind.startswith("siglip") else True
    tokens = processor.tokenizer(captions, padding=padding, return_tensors="pt")
    text, image = backbone["text"], backbone["image"]
    with torch.no_grad():
        theirs = pooled_output(model.get_text_features(**tokens))
        ours = text.embed(text.preprocess(checkpoints.CAPTIONS))
        conformance.close(ours, theirs)
        inputs = image.preprocess(checkpoints.pictures())
        pixels = inputs["pixels"]
        conformance.close(
            image.embed(inputs), pooled_output(model.get_image_features(pixel_values=pixels))
        )
    assert backbone.provenance["family"] == {"siglip_2": "siglip"}.get(kind, kind)


@families
def test_pictures_are_prepared_as_the_processor_does(kind: str, written: Written) -> None:
    folder, _, processor = written(kind)
    image = load(str(folder))["image"]
    for raw in checkpoints.pictures():
        theirs = processor.image_processor(raw.pixels, return_tensors="pt")["pixel_values"]
        ours = image.preprocess([raw])["pixels"]
        # a grey level is 1/255/std; torchvision and pillow round bicubic filters differently
        levels = (ours - theirs).abs() * 255 * min(CLIP_STD)
        assert float(levels.mean()) < 1.0
        assert float(levels.max()) < 8.0


@families
def test_encoders_keep_their_contract(kind: str, written: Written) -> None:
    backbone = load(str(written(kind)[0]))
    check_encoder(backbone["image"], checkpoints.pictures())
    check_encoder(backbone["text"], checkpoints.CAPTIONS)


@families
def test_grids_find_disturbed_regions_again(kind: str, written: Written) -> None:
    backbone = load(str(written(kind)[0]))
    for raw in checkpoints.pictures():
        check_grid(backbone["image"], raw, count=6)
    check_grid(backbone["text"], checkpoints.GRID_CAPTION)


@families
def test_maps_depend_on_neither_batch_nor_padding(kind: str, written: Written) -> None:
    backbone = load(str(written(kind)[0]))
    conformance.maps_do_not_depend_on_the_batch(
        backbone, checkpoints.pictures(), checkpoints.CAPTIONS
    )
    image, text = backbone["image"], backbone["text"]
    with torch.no_grad():
        guide = image.embed(image.preprocess(checkpoints.pictures()[:1]))
    conformance.maps_do_not_depend_on_padding(
        text, checkpoints.CAPTIONS[2], checkpoints.CAPTIONS[1], guide
    )


@families
@conformance.halves
def test_half_precision(kind: str, dtype: str, written: Written) -> None:
    folder = str(written(kind)[0])
    half = load(folder, dtype=dtype)
    conformance.runs_in(half, load(folder), getattr(torch, dtype))


@families
def test_wrapping_leaves_a_live_model_as_it_was(kind: str, written: Written) -> None:
    folder, model, processor = written(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    flags = [
        parameter.requires_grad_(turn % 2 == 0) for turn, parameter in enumerate(model.parameters())
    ]
    try:
        backbone = wrap(model, processor)
        made = mm.attribute(backbone, image=checkpoints.pictures()[0], text=checkpoints.CAPTIONS[0])
        assert all(module.training for module in model.modules())
        assert [p.requires_grad for p in model.parameters()] == [
            turn % 2 == 0 for turn in range(len(flags))
        ]
        assert all(p.grad is None for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    finally:
        model.eval().requires_grad_(True)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    loaded = mm.attribute(
        load(str(folder)), image=checkpoints.pictures()[0], text=checkpoints.CAPTIONS[0]
    )
    np.testing.assert_allclose(made["text"].scores, loaded["text"].scores, rtol=1e-3)


@pytest.mark.parametrize("kind", ["clip", "siglip", "chinese_clip"])
def test_another_implementation_of_attention(kind: str, written: Written) -> None:
    """Masks are the tower's own, whatever it computes attention with."""
    _, model, processor = written(kind)
    model.set_attn_implementation("eager")
    try:
        backbone = wrap(model, processor)
        check_encoder(backbone["text"], checkpoints.CAPTIONS)
    finally:
        model.set_attn_implementation("sdpa")


def test_a_checkpoint_that_is_no_safetensors(written: Written, tmp_path: Path) -> None:
    folder = copy_of(written, tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(written("clip")[1].state_dict(), folder / "pytorch_model.bin")
    assert load(str(folder)).weights_hash() == load(str(written("clip")[0])).weights_hash()


def test_a_checkpoint_in_the_layout_of_2021(written: Written, tmp_path: Path) -> None:
    """As openai/clip-vit-base-patch32 has it: bare numbers for sizes, two files of vocabulary."""
    folder = copy_of(written, tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (folder / file).unlink()
    vocabulary, merges = checkpoints.byte_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    described = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 40}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    images = {
        "crop_size": checkpoints.SIDE,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": checkpoints.SIDE + 8,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    old, new = load(str(folder)), load(str(written("clip")[0]))
    samples = {"image": checkpoints.pictures(), "text": checkpoints.CAPTIONS}
    for modality, raws in samples.items():
        with torch.no_grad():
            first, second = (
                backbone[modality].embed(backbone[modality].preprocess(raws))
                for backbone in (old, new)
            )
        torch.testing.assert_close(first, second)


def test_the_value_path_is_what_attention_to_one_token_gives(written: Written) -> None:
    block = written("clip")[1].vision_model.encoder.layers[-1]
    tokens = torch.randn(2, 5, 32)
    alone = torch.full((5, 5), float("-inf")).fill_diagonal_(0.0)[None, None]
    with torch.no_grad():
        expected, _ = block.self_attn(block.layer_norm1(tokens), attention_mask=alone)
        torch.testing.assert_close(pre_norm(block).value_path(tokens), expected)


def test_siglips_pooling_head_over_one_token_gives_its_token_embedding(written: Written) -> None:
    image = load(str(written("siglip")[0]))["image"]
    with torch.no_grad():
        inputs = image.preprocess(checkpoints.pictures()[:1])
        values = image.token_embeddings(inputs).values[0]
        tokens = image.prefix(inputs, image.num_layers - 1)[0]
        for number in (0, 7, 15):
            alone = tokens[None, number : number + 1]
            pooled = image.suffix(alone, image.num_layers - 1, inputs)
            torch.testing.assert_close(values[number], pooled[0])


def test_default_layers_are_m2ibs_or_at_the_same_depth(clip: mm.Backbone) -> None:
    assert [relative_layer(depth) for depth in (1, 2, 3, 12, 24, 32)] == [-1, 0, 1, 9, 18, 24]
    assert clip["image"].default_layer == relative_layer(3)


def test_words_lie_where_the_caption_has_them(clip: mm.Backbone) -> None:
    text = clip["text"]
    raw = RawText("  A cat’s  red-dog, 😀 ÉCOLE!")
    words = text.grid(text.preprocess([raw]), 0).words(0)
    assert [raw.text[word.start : word.end] for word in words] == [word.text for word in words]
    assert "".join(word.text for word in words) == "".join(raw.text.split())


def test_a_caption_with_an_end_mark_is_refused(clip: mm.Backbone) -> None:
    with pytest.raises(InputError, match="own marks"):
        clip["text"].preprocess([RawText("a cat<|endoftext|> and a dog")])


@families
def test_a_caption_that_is_too_long_is_refused(kind: str, written: Written) -> None:
    with pytest.raises(InputError, match="tokens, this model reads at most"):
        load(str(written(kind)[0]))["text"].preprocess([RawText("cat dog " * 40)])
