"""`clip`: every family against transformers' own embeddings, and every way a checkpoint fails."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import checkpoints
import conformance
import numpy as np
import pytest
import torch

import mmattrib as mm
from mmattrib.backbones.clip import load, wrap
from mmattrib.backbones.clip.encoders import pooled_output, pre_norm
from mmattrib.errors import (
    EncoderError,
    InputError,
    MissingExtraError,
    OptionError,
    TrustWarning,
    UnknownNameError,
    WeightsError,
)
from mmattrib.models import BlockEncoder, CaptionTokenizer, weights
from mmattrib.models.pixels import CLIP_STD, PixelRecipe
from mmattrib.models.towers import relative_layer
from mmattrib.plugins.loading import load_plugins, using_plugins
from mmattrib.testing import check_encoder, check_grid
from mmattrib.types import RawText

Written = Callable[[str], tuple[Path, Any, Any]]

# Random weights need not give maps worth trusting; that is not what is tested here.
pytestmark = [
    pytest.mark.usefixtures("quiet_transformers"),
    pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning"),
]

families = pytest.mark.parametrize("kind", list(checkpoints.FAMILIES))


@pytest.fixture
def clip(written: Written) -> mm.Backbone:
    return load(str(written("clip")[0]))


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
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
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
    folder = _copy(written, tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(written("clip")[1].state_dict(), folder / "pytorch_model.bin")
    assert load(str(folder)).weights_hash() == load(str(written("clip")[0])).weights_hash()


def test_a_checkpoint_in_the_layout_of_2021(written: Written, tmp_path: Path) -> None:
    """As openai/clip-vit-base-patch32 has it: bare numbers for sizes, two files of vocabulary."""
    folder = _copy(written, tmp_path)
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


def _copy(written: Written, tmp_path: Path, kind: str = "clip") -> Path:
    target = tmp_path / "copy"
    shutil.copytree(written(kind)[0], target)
    return target


def _edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file, {"format": "pt"})


NORM = "vision_model.post_layernorm.weight"


def _take_out(state: dict[str, torch.Tensor]) -> None:
    del state[NORM]


def _put_in(state: dict[str, torch.Tensor]) -> None:
    state["a.stranger"] = torch.zeros(2)


def _reshape(state: dict[str, torch.Tensor]) -> None:
    state[NORM] = torch.zeros(7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_take_out, rf"lacks 1 weight \({NORM}\).*left random"),
        (_put_in, r"has 1 weight \(a.stranger\).*another architecture"),
        (_reshape, rf"architecture.*{NORM}"),
    ],
)
def test_weights_that_do_not_fit(
    change: Callable[[dict[str, torch.Tensor]], None],
    message: str,
    written: Written,
    tmp_path: Path,
) -> None:
    folder = _copy(written, tmp_path)
    _edit(folder, change)
    with pytest.raises(WeightsError, match=message):
        load(str(folder))


def _not_a_number(state: dict[str, torch.Tensor]) -> None:
    state[NORM][0] = torch.nan


def test_weights_that_are_no_numbers(written: Written, tmp_path: Path) -> None:
    folder = _copy(written, tmp_path)
    _edit(folder, _not_a_number)
    with pytest.raises(WeightsError, match=rf"NaN or infinite values in 1 weight \({NORM}\)"):
        load(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_std": [0.0, 0.2, 0.2]}, r"spread \(0.0.*image_std"),
        ({"image_std": [-1.0] * 3}, "the spread above 0"),
        ({"image_mean": [float("nan")] * 3}, "mean .*nan"),
        ({"image_mean": [0.5]}, "three numbers each"),
        ({"rescale_factor": 0.0}, "rescales pixels by 0.0"),
    ],
)
def test_statistics_that_cannot_normalise(
    change: dict[str, Any], message: str, written: Written, tmp_path: Path
) -> None:
    folder = _copy(written, tmp_path)
    for file in ("preprocessor_config.json", "processor_config.json"):
        path = folder / file
        if path.is_file():
            found = checkpoints.read_json(path)
            (found.get("image_processor") or found).update(change)
            path.write_text(json.dumps(found))
    with pytest.raises(WeightsError, match=message):
        load(str(folder))


@pytest.mark.parametrize("part", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_that_a_folder_brings_is_neither_run_nor_asked_about(
    part: str, written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of "y" on a pipe must not run it."""
    folder, trace = _copy(written, tmp_path), tmp_path / "trace"
    code = f"import os\nos.mkdir({str(trace)!r})\nclass Mine:\n    pass\n"
    (folder / "mine.py").write_text(code)
    path = folder / part
    found = checkpoints.read_json(path) if path.is_file() else {}
    autos = {
        "config.json": ("AutoConfig", "AutoModel"),
        "tokenizer_config.json": ("AutoTokenizer",),
        "processor_config.json": ("AutoProcessor", "AutoImageProcessor"),
    }[part]
    found["auto_map"] = {
        auto: ["mine.Mine", None] if auto == "AutoTokenizer" else "mine.Mine" for auto in autos
    }
    if part == "config.json":
        found["model_type"] = "mine"
    elif part == "tokenizer_config.json":
        found["tokenizer_class"] = "Mine"
    else:
        found["processor_class"] = "Mine"
    path.write_text(json.dumps(found))

    def asked(*_: object) -> str:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr("builtins.input", asked)
    try:
        load(str(folder))
    except (WeightsError, OptionError) as error:
        assert "somebody was asked" not in str(error)  # noqa: PT017
    assert not trace.exists()


def test_code_of_an_unknown_architecture_is_named(written: Written, tmp_path: Path) -> None:
    folder = _copy(written, tmp_path)
    found = checkpoints.read_json(folder / "config.json")
    found |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(found))
    (folder / "mine.py").write_text("")
    with pytest.raises(WeightsError, match="brings code of its own, which is not run"):
        load(str(folder))


def test_a_truncated_file(written: Written, tmp_path: Path) -> None:
    folder = _copy(written, tmp_path)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(WeightsError, match="cut short or damaged"):
        load(str(folder))


def test_a_pickle_with_code_in_it_is_not_run(written: Written, tmp_path: Path) -> None:
    folder, trace = _copy(written, tmp_path), tmp_path / "trace"
    (folder / "model.safetensors").unlink()
    torch.save(
        {NORM: torch.ones(32), "x": checkpoints.Malicious(trace)}, folder / "pytorch_model.bin"
    )
    with pytest.raises(WeightsError, match="would run code"):
        load(str(folder))
    assert not trace.exists()
    with (folder / "pytorch_model.bin").open("rb") as stream:
        assert stream.read(2) == b"PK"
    pickle.loads(pickle.dumps(checkpoints.Malicious(trace)))  # it would have
    assert trace.exists()


def test_another_architecture(tmp_path: Path) -> None:
    from transformers import BertConfig

    BertConfig(hidden_size=8, num_attention_heads=1).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="'bert' model; `clip` takes"):
        load(str(tmp_path))


def test_a_naflex_checkpoint_is_told_from_siglip(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
    with pytest.raises(WeightsError, match="NaFlex"):
        load(str(tmp_path))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_files(file: str, written: Written, tmp_path: Path) -> None:
    folder = _copy(written, tmp_path)
    (folder / file).unlink()
    with pytest.raises(WeightsError):
        load(str(folder))


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a folder"):
        load(str(tmp_path / "nothing"))


def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not weights.hub_reachable(seconds=1.0)
    with pytest.raises(WeightsError, match="hub cannot be reached"):
        load("nobody/no-such-model", revision="v1")


def test_a_cached_checkpoint_loads_without_a_network(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("mmattrib.models.pretrained.hub_reachable", lambda: False)
    repository, commit = tmp_path / "models--someone--small", "0123456789" * 4
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(written("clip")[0], repository / "snapshots" / commit)
    backbone = load("someone/small")
    assert backbone.provenance["commit"] == commit
    assert backbone.weights_hash() == load(str(written("clip")[0])).weights_hash()
    with pytest.raises(WeightsError, match="hub cannot be reached"):
        load("someone/small", revision="another")


def test_a_revision_of_a_folder(written: Written) -> None:
    with pytest.raises(OptionError, match="no revisions"):
        load(str(written("clip")[0]), revision="main")


@pytest.mark.parametrize("option", [{"device": "cuda:99"}, {"device": "x"}, {"dtype": "int8"}])
def test_options_out_of_range(option: dict[str, str], written: Written) -> None:
    with pytest.raises(OptionError, match=r"accepted|must be one of"):
        load(str(written("clip")[0]), **option)


def test_an_extra_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mmattrib.plugins.registry.is_installed", lambda module: module != "transformers"
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'mmattrib\[clip\]'"):
        mm.load_backbone("clip")


def test_a_processor_of_another_model(written: Written) -> None:
    from transformers import CLIPImageProcessor, CLIPProcessor

    _, model, processor = written("clip")
    images = CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    with pytest.raises(WeightsError, match="48 x 48 pixels, its image tower takes 32 x 32"):
        wrap(model, CLIPProcessor(images, processor.tokenizer))
    with pytest.raises(OptionError, match="no tokenizer"):
        wrap(model, processor.tokenizer)
    with pytest.raises(OptionError, match="cannot wrap Linear"):
        wrap(torch.nn.Linear(2, 2), processor)


def test_a_rescale_factor_moves_into_the_statistics() -> None:
    from transformers import CLIPImageProcessor

    side = {"height": 32, "width": 32}
    plain = CLIPImageProcessor(size=side, crop_size=side)
    raw = CLIPImageProcessor(
        size=side, crop_size=side, do_rescale=False, image_mean=[122.7] * 3, image_std=[68.5] * 3
    )
    scaled = CLIPImageProcessor(
        size=side, crop_size=side, image_mean=[122.7 / 255] * 3, image_std=[68.5 / 255] * 3
    )
    assert PixelRecipe.from_processor(plain, (32, 32)).fit == "stretch"
    first, second = (PixelRecipe.from_processor(p, (32, 32)) for p in (raw, scaled))
    np.testing.assert_allclose(first.mean, second.mean)
    np.testing.assert_allclose(first.std, second.std)


@pytest.mark.parametrize("kind", ["clip", "siglip", "altclip"])
def test_attention_is_what_the_library_shows(kind: str, written: Written) -> None:
    """With fused attention, against the same model that shows its weights."""
    from transformers import AutoModel

    folder, model, processor = written(kind)
    eager = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    assert model.config._attn_implementation == "sdpa"
    backbone = mm.wrap(model, processor)
    samples = {"image": checkpoints.pictures()[:2], "text": checkpoints.CAPTIONS[:2]}
    for modality, raws in samples.items():
        encoder: Any = backbone[modality]
        with encoder.frozen(), torch.no_grad():
            inputs = encoder.preprocess(raws)
            tower = eager.vision_model if modality == "image" else eager.text_model
            given = (
                {"pixel_values": inputs["pixels"]}
                if modality == "image"
                else {"input_ids": inputs["ids"]}
            )
            if kind == "altclip" and modality == "text":
                given["attention_mask"] = inputs["real"].long()
            theirs = tower(**given, output_attentions=True).attentions
            found = encoder.embed_with_attention(inputs)
        assert len(theirs) == len(found.weights) == encoder.num_layers
        for mine, other in zip(found.weights, theirs, strict=True):
            torch.testing.assert_close(mine.detach(), other, rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------- a user's own model


@pytest.mark.parametrize("side", ["image", "text"])
def test_a_hook_on_the_last_attention_counts(side: str, written: Written) -> None:
    """Its quick way does not call the attention; the map is that of the hooked model."""
    _, model, processor = written("clip")
    backbone = wrap(model, processor)
    picture, caption = checkpoints.pictures()[0], checkpoints.CAPTIONS[0]
    pair: dict[str, Any] = {"image": picture, "text": caption, "method": "nib", "steps": 2}
    plain = mm.attribute(backbone, **pair)
    encoder: Any = backbone[side]
    attention = encoder.blocks[-1].self_attn
    handle = attention.register_forward_hook(lambda _m, _a, out: (2 * out[0].flip(1), *out[1:]))
    with pytest.warns(TrustWarning, match=f"the {side} encoder"):
        hooked = mm.attribute(backbone, **pair)
    handle.remove()
    assert abs(hooked.similarity - plain.similarity) > 1e-3
    assert not np.allclose(hooked[side].token_scores, plain[side].token_scores, atol=1e-4)
    # The integral of the slopes, by hand, on the model as it is.
    handle = attention.register_forward_hook(lambda _m, _a, out: (2 * out[0].flip(1), *out[1:]))
    general = BlockEncoder.suffix
    inputs = encoder.preprocess([picture if side == "image" else caption])
    other = backbone["text" if side == "image" else "image"]
    guide = other.embed(other.preprocess([caption if side == "image" else picture])).detach()
    tokens = encoder.prefix(inputs, encoder.default_layer).detach()
    total = torch.zeros_like(tokens)
    for step in (1, 2):
        leaf = (step / 2 * tokens).requires_grad_(True)
        cosine = (general(encoder, leaf, encoder.default_layer, inputs) * guide).sum()
        total += torch.autograd.grad(cosine, leaf)[0] / 2
    handle.remove()
    expected = (tokens * total).sum(-1)[0]
    found = torch.from_numpy(hooked[side].token_scores.copy())
    known = ~found.isnan()
    torch.testing.assert_close(found[known], expected[known], rtol=1e-3, atol=1e-5)


def test_a_model_that_gives_tuples_says_why(written: Written, tmp_path: Path) -> None:
    _, _, processor = written("clip")
    model = type(written("clip")[1]).from_pretrained(written("clip")[0])
    model.config.return_dict = False
    for part in (model.config.text_config, model.config.vision_config):
        part.return_dict = False
    backbone = wrap(model, processor)
    with pytest.raises(EncoderError, match=r"return_dict=False\? Set model.config.return_dict"):
        backbone["image"].embed(backbone["image"].preprocess(checkpoints.pictures()[:1]))


def test_models_of_others_are_shown_their_way(written: Written) -> None:
    from transformers import ClapModel, FlavaModel

    _, _, processor = written("clip")
    for kind, way in ((ClapModel, "mmattrib_clap.wrap"), (FlavaModel, "mmattrib-flava")):
        with torch.device("meta"):
            model = kind(kind.config_class())
        with pytest.raises(OptionError, match=f"cannot wrap {kind.__name__}.*{way}"):
            wrap(model, processor)


def test_a_plugin_that_is_not_installed_is_named() -> None:
    with (
        using_plugins(load_plugins(entry_points=())),
        pytest.raises(UnknownNameError, match="pip install mmattrib-clap"),
    ):
        mm.load_backbone("clap")


def test_a_doubled_vocabulary_is_refused() -> None:
    tokenizer: Any = checkpoints.clip_tokenizer()
    known = tokenizer.get_vocab()

    class Doubled(type(tokenizer)):  # type: ignore[misc]
        def get_vocab(self) -> dict[str, int]:
            return {**known, "again": known["cat</w>"]}

    tokenizer.__class__ = Doubled
    with pytest.raises(WeightsError, match=f"gives {len(known) + 1} tokens {len(known)} ids"):
        CaptionTokenizer(tokenizer, 20)


def test_threads_that_share_a_tokenizer_get_the_maps_of_one_alone(clip: mm.Backbone) -> None:
    pairs = [
        {"image": picture, "text": caption}
        for picture, caption in zip(checkpoints.pictures(), checkpoints.CAPTIONS, strict=True)
    ]

    def explain(pair: dict[str, Any]) -> list[Any]:
        found = mm.attribute(clip, **pair, method="nib", steps=2)
        return [side.token_scores for side in found.values()]

    alone = [explain(pair) for pair in pairs]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(explain, pairs * 2))
    for number, found in enumerate(together):
        for got, expected in zip(found, alone[number % len(pairs)], strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("part", ["v_proj", "self"])
def test_token_embeddings_see_a_hook_on_the_last_attention(clip: mm.Backbone, part: str) -> None:
    """On its value projection the value path runs through it; around it the whole tower is run."""
    encoder: Any = clip["image"]
    attention = encoder.blocks[-1].self_attn
    hooked = attention.v_proj if part == "v_proj" else attention

    def turn(_module: Any, _args: Any, out: Any) -> Any:
        changed = -(out[0] if isinstance(out, tuple) else out)
        return (changed, *out[1:]) if isinstance(out, tuple) else changed

    with encoder.frozen(), torch.no_grad():
        inputs = encoder.preprocess(checkpoints.pictures()[:1])
        before = encoder.token_embeddings(inputs).values
        handle = hooked.register_forward_hook(turn)
        try:
            after = encoder.checked(inputs, 0).token_embeddings(inputs).values
        finally:
            handle.remove()
    assert not torch.allclose(after, before, atol=1e-2)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_padding_id_is_the_tokenizers_even_where_padding_counts(
    kind: str, written: Written
) -> None:
    from mmattrib.perturb.tokens import keep_tokens

    text = load(str(written(kind)[0]))["text"]
    assert text.pad_id == written(kind)[2].tokenizer.pad_token_id
    with text.frozen(), torch.no_grad():
        inputs = text.preprocess(checkpoints.CAPTIONS[:1])
        content = text.grid(inputs, -1).content
        gone = keep_tokens(text, inputs, torch.zeros(content.shape), fill="pad")
        ids = inputs["ids"].masked_fill(content, text.pad_id)
        put_in = text.prefix(inputs.with_tensor("ids", ids), -1)
        torch.testing.assert_close(gone, text.suffix(put_in, -1, inputs))
