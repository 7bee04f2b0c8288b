"""FLAVA's encoders against the library and the conformance suite."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import mmattrib_flava
import numpy as np
import pytest
import torch
from mmattrib_flava import load

import mmattrib as mm
from mmattrib.errors import InputError, OptionError, WeightsError
from mmattrib.plugins import Plugins
from mmattrib.testing import check_encoder, check_grid
from mmattrib.types import RawImage, RawText

pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat", "on", "the", "roof"]
WORDS += ["red", "car", ",", "!"]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@functools.cache
def checkpoint(pretraining: bool = False) -> str:
    """A folder with a small model of random weights and its processor.

    Args:
        pretraining: with the heads that published checkpoints hold beside the model.
    """
    from transformers import (
        BertTokenizer,
        FlavaConfig,
        FlavaForPreTraining,
        FlavaModel,
        FlavaProcessor,
    )
    from transformers.models.flava.image_processing_pil_flava import FlavaImageProcessorPil

    tower: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    config = FlavaConfig(
        image_config={**tower, "image_size": 32, "patch_size": 8},
        text_config={**tower, "vocab_size": len(WORDS), "max_position_embeddings": 20},
        multimodal_config={**tower, "num_hidden_layers": 1},
        hidden_size=32,
        projection_dim=16,
        init_codebook=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = (FlavaForPreTraining if pretraining else FlavaModel)(config).eval()
        with torch.no_grad():  # as far from nothing as training leaves them
            for value in model.parameters():
                value += 0.15 * torch.randn_like(value)
    folder = Path(tempfile.mkdtemp(prefix="flava-test-"))
    side = {"height": 32, "width": 32}
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizer.from_pretrained(folder, model_max_length=20)
    model.save_pretrained(folder)
    FlavaProcessor(FlavaImageProcessorPil(size=side, crop_size=side), tokenizer).save_pretrained(
        folder
    )
    return str(folder)


@functools.cache
def flava() -> mm.Backbone:
    return load(checkpoint())


@functools.cache
def library() -> Any:
    from transformers import FlavaModel

    return FlavaModel.from_pretrained(checkpoint()).eval()


def picture(seed: int = 0, size: tuple[int, int] = (40, 56)) -> RawImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return RawImage(pixels, f"picture {seed}")


def caption(number: int = 0) -> RawText:
    return RawText(("a dog on the red car", "a cat", "The roof, a red roof!")[number])


def test_it_registers_through_the_public_hook() -> None:
    plugins = Plugins()
    assert plugins.add(mmattrib_flava, name="flava", distribution="mmattrib-flava", version="0.1.0")
    assert plugins.problems == []
    found = plugins.registry.create("backbone", "flava", checkpoint=checkpoint())
    assert found.modalities == ("image", "text")


def test_pictures_give_the_librarys_embedding() -> None:
    from transformers.models.flava.image_processing_pil_flava import FlavaImageProcessorPil

    raws = [picture(0), picture(1, (64, 33))]
    processor = FlavaImageProcessorPil.from_pretrained(checkpoint())
    theirs = processor([raw.pixels for raw in raws], return_tensors="pt")["pixel_values"]
    inputs = flava()["image"].preprocess(raws)
    torch.testing.assert_close(inputs["pixels"], theirs.float(), rtol=0, atol=1e-5)
    with torch.no_grad():
        expected = library().get_image_features(theirs).pooler_output[:, 0]
        mine = flava()["image"].embed(inputs)
    wanted = torch.nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-5)


def test_captions_give_the_librarys_embedding() -> None:
    from transformers import AutoTokenizer

    raws = [caption(number) for number in range(3)]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint())
    theirs = tokenizer([raw.text for raw in raws], padding=True, return_tensors="pt")
    encoder = flava()["text"]
    with torch.no_grad():
        expected = library().get_text_features(**theirs).pooler_output[:, 0]
        mine = encoder.embed(encoder.preprocess(raws))
    wanted = torch.nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-5)


def test_similarity_is_the_one_of_the_contrastive_loss() -> None:
    """Published checkpoints hold the pretraining model: it loads, and its logits come back."""
    from transformers import FlavaForPreTraining

    model = FlavaForPreTraining.from_pretrained(checkpoint(True)).eval()
    found = load(checkpoint(True))
    images = found["image"].preprocess([picture(0), picture(1)])
    texts = found["text"].preprocess([caption(0), caption(1)])
    with torch.no_grad():
        out = model(
            input_ids=texts["ids"],
            input_ids_masked=texts["ids"],
            attention_mask=texts["real"].long(),
            pixel_values=images["pixels"],
            return_loss=False,
        )
        mine = found["image"].embed(images) @ found["text"].embed(texts).T
    expected = out.contrastive_logits_per_image / model.flava.logit_scale.exp()
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)


def test_both_towers_keep_the_contract() -> None:
    check_encoder(flava()["image"], [picture(0), picture(1, (64, 33))])
    check_encoder(flava()["text"], [caption(0), caption(1)])


def test_grids_keep_the_contract() -> None:
    check_grid(flava()["image"], picture())
    check_grid(flava()["text"], caption())
    grid = flava()["text"].grid(flava()["text"].preprocess([caption(2)]), 0)
    assert [word.text for word in grid.words(0)] == ["The", "roof", ",", "a", "red", "roof", "!"]


@pytest.mark.parametrize("layer", range(-1, 3))
def test_suffix_takes_up_where_prefix_stopped(layer: int) -> None:
    raws = {"image": [picture(0), picture(1)], "text": [caption(0), caption(1)]}
    for modality, given in raws.items():
        encoder = flava()[modality]
        inputs = encoder.preprocess(given)
        with torch.no_grad():
            again = encoder.suffix(encoder.prefix(inputs, layer), layer, inputs)
            torch.testing.assert_close(again, encoder.embed(inputs), rtol=0, atol=1e-5)


def test_token_embeddings_ignore_the_other_tokens_of_the_last_block() -> None:
    encoder = flava()["image"]
    inputs = encoder.preprocess([picture()])
    block = encoder.blocks[-1]
    with torch.no_grad():
        tokens = block.layernorm_before(encoder.prefix(inputs, 1))[:, 5:6]  # attends to itself
        alone = encoder.to_joint(block.attention(tokens)[0])
        found = encoder.token_embeddings(inputs)
    wanted = torch.nn.functional.normalize(alone, dim=-1)
    torch.testing.assert_close(found.values[:, 5:6], wanted, rtol=0, atol=1e-5)
    assert found.valid.tolist() == [[False] + [True] * 16]


def test_attribution_is_the_same_alone_and_in_a_batch() -> None:
    pairs = [{"image": picture(number), "text": caption(number)} for number in range(3)]
    options = {"method": "m2ib", "steps": 2, "samples": 2}
    many = list(mm.attribute_many(flava(), pairs, progress=False, **options))
    for pair, found in zip(pairs, many, strict=True):
        alone = mm.attribute(flava(), **pair, **options)
        for side in pair:
            np.testing.assert_allclose(found[side].scores, alone[side].scores, atol=1e-5)
        assert found["image"].scores.shape == (40, 56)
        assert found["image"].scores.max() > 0
        assert len(found["text"].words) > 0


def test_half_precision() -> None:
    half = load(checkpoint(), dtype="bfloat16")
    for modality, raw in (("image", picture()), ("text", caption())):
        with torch.no_grad():
            mine, full = (b[modality].embed(b[modality].preprocess([raw])) for b in (half, flava()))
        assert float((mine * full).sum()) > 0.98
    found = mm.attribute(half, image=picture(), text=caption(), method="m2ib", steps=2, samples=1)
    assert np.isfinite(found["image"].scores).all()


def test_what_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(OptionError, match="dtype"):
        load(checkpoint(), dtype="int8")
    with pytest.raises(WeightsError, match="is not a folder"):
        load(str(tmp_path / "nothing"))
    copied = tmp_path / "copy"
    shutil.copytree(checkpoint(), copied)
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: 1 << 12])
    with pytest.raises(WeightsError, match="cut short or damaged"):
        load(str(copied))
    state = load_file(Path(checkpoint()) / "model.safetensors")
    del state["image_projection.weight"]
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 weight \(image_projection\.weight"):
        load(str(copied))
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "model_type": "clip"}))
    with pytest.raises(WeightsError, match="is a 'clip' model; accepted"):
        load(str(copied))
    config["text_config"]["num_hidden_layers"] = 10**5
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="larger model than it has weights for"):
        load(str(copied))


def test_a_processor_of_another_size_is_refused() -> None:
    from mmattrib_flava.towers import FlavaImageEncoder
    from transformers.models.flava.image_processing_pil_flava import FlavaImageProcessorPil

    with pytest.raises(WeightsError, match="image processor gives"):
        FlavaImageEncoder(library(), FlavaImageProcessorPil())


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="takes RawImage"):
        flava()["image"].preprocess([caption()])
    with pytest.raises(InputError, match="takes RawText"):
        flava()["text"].preprocess([picture()])
    with pytest.raises(InputError, match="at most 18"):
        flava()["text"].preprocess([RawText("dog " * 30)])
    with pytest.raises(InputError, match="reword it"):
        flava()["text"].preprocess([RawText(" ")])
