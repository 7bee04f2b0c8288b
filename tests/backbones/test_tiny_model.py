from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_tiny import write_small_tiny
from torch import Tensor

import mmattrib as mm
from mmattrib.backbones.tiny.checkpoint import (
    TinyInfo,
    count_parameters,
    load_tiny,
    save_tiny,
)
from mmattrib.backbones.tiny.encoders import TinyTextEncoder
from mmattrib.backbones.tiny.model import TOWERS, Block, TinyConfig, TinyModel
from mmattrib.backbones.tiny.tokenizer import CLS_ID, UNK_ID, WordTokenizer
from mmattrib.datasets.scenes import Bank
from mmattrib.datasets.scenes.captions import vocabulary
from mmattrib.errors import InputError, TrustWarning, WeightsError
from mmattrib.types import RawText


def small_tiny(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    scene = mm.scenes(1, seed=11)[0]
    options = {"checkpoint": str(write_small_tiny(folder / "tiny.safetensors"))}
    return options, {side: scene.input(side) for side in ("image", "text")}


def random_inputs(batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randn(batch, 3, 96, 96, generator=generator),
        "audio": torch.randn(batch, 64, 128, generator=generator),
        "text": torch.randint(3, 90, (batch, 24), generator=generator),
    }


@pytest.fixture(scope="module")
def model() -> TinyModel:
    torch.manual_seed(0)
    return TinyModel(TinyConfig(vocabulary=len(vocabulary()))).eval()


@pytest.fixture(scope="module")
def tokenizer() -> WordTokenizer:
    return WordTokenizer(vocabulary())


def test_shapes_and_size(model: TinyModel) -> None:
    embeddings = model(random_inputs())
    for name in TOWERS:
        assert embeddings[name].shape == (2, 128)
        torch.testing.assert_close(embeddings[name].norm(dim=-1), torch.ones(2))
    tokens, _ = model.tower("image").embed_inputs(random_inputs()["image"])
    assert tokens.shape == (2, 1 + 8 * 8, 128)
    tokens, _ = model.tower("audio").embed_inputs(random_inputs()["audio"])
    assert tokens.shape == (2, 1 + 4 * 16, 128)
    assert 3_000_000 < count_parameters(model) < 5_000_000


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_is_its_parts_in_turn(model: TinyModel, name: str) -> None:
    tower, x = model.tower(name), random_inputs()[name]
    tokens, key_mask = tower.embed_inputs(x)
    for block in tower.blocks:
        tokens = block(tokens, key_mask)
    torch.testing.assert_close(tower.pool(tokens), tower(x))
    tokens, key_mask = tower.embed_inputs(x)
    torch.testing.assert_close(tower.pool_from(tokens, 0, key_mask), tower(x))


def test_padding_does_not_change_a_caption(model: TinyModel, tokenizer: WordTokenizer) -> None:
    tower = model.tower("text")
    ids = torch.tensor([tokenizer("a photo of a violin and an old dog").ids])
    used = int((ids != 0).sum())
    torch.testing.assert_close(tower(ids), tower(ids[:, :used]))
    long = torch.tensor([tokenizer("the rain , the wind and a big bell at night").ids])
    batch = tower(torch.cat([ids, long]))
    torch.testing.assert_close(batch[:1], tower(ids))


def test_audio_tokens_are_frequency_major(model: TinyModel) -> None:
    tower = model.tower("audio")
    x = torch.zeros(1, 64, 128)
    base, _ = tower.embed_inputs(x)
    x[0, 16:32, 40:48] = 1.0  # second band of 16 mel, sixth stretch of 8 frames
    moved, _ = tower.embed_inputs(x)
    changed = (moved - base).abs().sum(-1)[0].nonzero().flatten().tolist()
    assert changed == [1 + 1 * 16 + 5]


def test_image_tokens_are_row_major(model: TinyModel) -> None:
    tower = model.tower("image")
    x = torch.zeros(1, 3, 96, 96)
    x[0, :, 28:32, 76:80] = 4.0  # inside row 2, column 6 of 12 x 12 pixels
    moved, _ = tower.embed_inputs(x)
    base, _ = tower.embed_inputs(torch.zeros(1, 3, 96, 96))
    change = (moved - base).abs().sum(-1)[0]
    assert int(change.argmax()) == 1 + 2 * 8 + 6


def test_value_path_is_attention_to_oneself_alone() -> None:
    torch.manual_seed(1)
    block = Block(32, 4)
    token = torch.randn(3, 1, 32)
    # One token can attend to itself only, so that mixing is the identity.
    torch.testing.assert_close(block.value_path(token), block.attn(block.norm1(token)))
    tokens = torch.randn(3, 5, 32)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        block.value_path(tokens)[:, order], block.value_path(tokens[:, order])
    )


def test_tokenizer_gives_ids_spans_and_counts_what_does_not_fit(tokenizer: WordTokenizer) -> None:
    text = "A Violin, and a zyzzyva"
    tokens = tokenizer(text)
    assert [text[a:b] for a, b in tokens.spans] == ["A", "Violin", ",", "and", "a", "zyzzyva"]
    assert tokens.ids[0] == CLS_ID
    assert tokens.ids[6] == UNK_ID
    assert tokens.ids[7:] == (0,) * 17
    assert tokens.ids[:7] == tokenizer(text.lower()).ids[:7]
    assert tokenizer("dog " * 30).truncated == 7


def test_checkpoint_round_trip_and_refusals(model: TinyModel, tmp_path: Path) -> None:
    info = TinyInfo(model.config, vocabulary(), Bank.shipped().class_names, {"seed": 0})
    path = tmp_path / "tiny.safetensors"
    save_tiny(path, model, info)
    again, read = load_tiny(path)
    assert read == info
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=0, rtol=0)
    with pytest.raises(WeightsError, match="missing"):
        load_tiny(tmp_path / "none.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="not a checkpoint of tiny"):
        load_tiny(path)


@pytest.fixture
def text() -> TinyTextEncoder:
    encoder = mm.load_backbone("tiny")["text"]
    assert isinstance(encoder, TinyTextEncoder)
    return encoder


def test_a_caption_without_a_known_word_is_refused_with_some_that_are(
    text: TinyTextEncoder,
) -> None:
    caption = RawText("zwei Katzen schlafen auf meinem Sofa heute", "caption.txt")
    message = r"caption\.txt: .*'zwei', 'katzen', .* 2 more.*such as .*\.words lists them"
    with pytest.raises(InputError, match=message) as caught:
        text.preprocess([RawText("a dog"), caption])
    offered = str(caught.value).split("such as ")[1].split(";")[0]
    assert {word.strip("'") for word in offered.split(", ")} < set(text.words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("<pad>", "<cls>", "<unk>", "dog", "dog"), "5 words, of them twice: dog;"),
        ((), "0 words"),
        (("<pad>", "<cls>"), "2 words"),
        (tuple(map(str, range(300))), "300 words; .*3 to 107 of them"),
    ],
)
def test_a_vocabulary_that_cannot_be_read_is_refused(
    model: TinyModel, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    save_tiny(tmp_path / "m.safetensors", model, TinyInfo(model.config, words, (), {}))
    with pytest.raises(WeightsError, match=message):
        load_tiny(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dog", ""), "'' in its vocabulary; accepted: words"),
        (("dog", 3), "3 in its vocabulary; accepted: words"),
        (("dog", "Piano"), "'Piano' in its vocabulary, which no caption can hold"),
        (("two words",), "'two words' in its vocabulary, which no caption can hold"),
    ],
)
def test_a_word_that_no_caption_can_hold_is_refused(
    model: TinyModel, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    path, marked = tmp_path / "m.safetensors", ("<pad>", "<cls>", "<unk>", *words)
    save_tiny(path, model, TinyInfo(model.config, marked, (), {}))
    with pytest.raises(WeightsError, match=f"m.safetensors has {message}"):
        load_tiny(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 10**9}, "describes a model with depth 1000000000"),
        ({"depth": 10**5}, "larger model than it has weights for"),
        ({"vocabulary": 4 * 10**6}, "larger model than it has weights for"),
        ({"frames": 10**9}, "describes a model with frames"),
        ({"width": 4 * 10**6}, "larger model than it has weights for"),
        ({"depth": 7}, r"lacks 36 weights \(towers.audio.blocks.6"),
        ({"vocabulary": 300}, r"stem.weight \(107, 128\) instead of \(300, 128\)"),
        ({"heads": 3}, "width 128 must be a multiple of heads 3"),
        ({"heads": True}, "heads must be a whole number from 1, got True"),
        ({"depth": 2.0}, "depth must be a whole number from 1, got 2.0"),
        ({"image_size": 100}, "image_size 100 must be 12 times image_grid 8"),
        ({"patch_mel": 0}, "patch_mel must be a whole number from 1"),
    ],
)
def test_sizes_that_the_weights_do_not_have_are_refused_before_they_are_built(
    model: TinyModel, tmp_path: Path, change: dict[str, float], message: str
) -> None:
    path, state = tmp_path / "m.safetensors", model.state_dict()
    metadata = {
        "config": json.dumps({**asdict(model.config), **change}),
        "vocabulary": json.dumps(vocabulary()),
        "class_names": "[]",
        "training": "{}",
    }
    save_file(state, path, metadata)
    with pytest.raises(WeightsError, match=rf"m\.safetensors .*{message}"):
        load_tiny(path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    broken = TinyModel(TinyConfig())
    with torch.no_grad():
        broken.tower("text").norm.bias[0] = torch.nan
    words = ("<pad>", "<cls>", "<unk>", "dog")
    save_tiny(tmp_path / "m.safetensors", broken, TinyInfo(broken.config, words, (), {}))
    with pytest.raises(WeightsError, match=r"in 1 weight \(towers\.text\.norm\.bias\)"):
        load_tiny(tmp_path / "m.safetensors")


def test_unknown_words_are_named_in_the_result(text: TinyTextEncoder, tmp_path: Path) -> None:
    assert "'zyzzyva', 'quux'" in text.notes(RawText("the zyzzyva near a Quux, a zyzzyva"))[0]
    assert not text.notes(RawText("a dog beside a piano"))
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.warns(TrustWarning, match="does not know 'zyzzyva'"):
        found = mm.attribute(
            mm.load_backbone("tiny"), image=picture, text="a dog and a zyzzyva", method="random"
        )
    found.save(tmp_path / "found.json")
    found.save(tmp_path / "page.html")
    for each in (found, mm.load(tmp_path / "found.json")):
        (told,) = each["text"].diagnostics["warnings"]
        assert "does not know 'zyzzyva'" in told
        assert not each["image"].diagnostics["warnings"]
    assert "does not know" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("caption", ["a # and a dog", "# # #", "a dog; a piano!", "(rain)"])
def test_marks_are_no_words(text: TinyTextEncoder, caption: str) -> None:
    """Metrics put a mark where they take a word away: nobody wants to hear of that."""
    text.preprocess([RawText(caption)])
    assert not text.notes(RawText(caption))


def test_captions_of_scenes_have_no_unknown_word(text: TinyTextEncoder) -> None:
    captions = [scene.input("text") for scene in mm.scenes(10)]
    text.preprocess(captions)
    assert not any(text.notes(caption) for caption in captions)
