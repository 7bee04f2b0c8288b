"""`open_clip`: its shapes of towers against its own embeddings, and every way weights fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checkpoints
import conformance
import numpy as np
import open_clip_models
import pytest
import torch
from checkpoints import Malicious
from small_backbones import PICTURE

import mmattrib as mm
from mmattrib.backbones.open_clip import load, wrap
from mmattrib.errors import InputError, MissingExtraError, OptionError, TrustWarning, WeightsError
from mmattrib.models import weights
from mmattrib.models.pixels import CLIP_STD
from mmattrib.testing import check_encoder, check_grid
from mmattrib.types import RawText

Written = Callable[[str], tuple[Path, Any]]

# Random weights need not give maps worth trusting; that is not what is tested here.
pytestmark = [
    pytest.mark.usefixtures("quiet_open_clip"),
    pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning"),
]
kinds = pytest.mark.parametrize("kind", list(open_clip_models.CONFIGS))


def small_open_clip(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    options = {"model": f"local-dir:{open_clip_models.write('plain', folder)[0]}"}
    return options, {"image": PICTURE, "text": "a small red cat"}


@pytest.fixture(scope="module")
def written_models(quiet_open_clip: None, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("open_clip")
    made: dict[str, tuple[Path, Any]] = {}

    def write(kind: str) -> tuple[Path, Any]:
        if kind not in made:
            made[kind] = open_clip_models.write(kind, folder)
        return made[kind]

    return write


def _load(folder: Path, **options: Any) -> mm.Backbone:
    return load(f"local-dir:{folder}", **options)


@kinds
def test_loading_reproduces_the_librarys_own_embeddings(kind: str, written_models: Written) -> None:
    import open_clip

    folder, model = written_models(kind)
    backbone = _load(folder)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    ids = tokenizer([raw.text for raw in checkpoints.CAPTIONS])
    text, image = backbone["text"], backbone["image"]
    with torch.no_grad():
        ours = text.embed(text.preprocess(checkpoints.CAPTIONS))
        conformance.close(ours, model.encode_text(ids))
        inputs = image.preprocess(checkpoints.pictures())
        conformance.close(image.embed(inputs), model.encode_image(inputs["pixels"]))


@kinds
def test_pictures_are_prepared_as_the_library_does(kind: str, written_models: Written) -> None:
    import open_clip
    from PIL import Image

    folder, _ = written_models(kind)
    image = _load(folder)["image"]
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    for raw in checkpoints.pictures():
        theirs = transform(Image.fromarray(raw.pixels))
        ours = image.preprocess([raw])["pixels"][0]
        levels = (ours - theirs).abs() * 255 * min(CLIP_STD)
        assert float(levels.mean()) < (6.0 if kind == "custom_text" else 1.0)


@kinds
def test_encoders_keep_their_contract(kind: str, written_models: Written) -> None:
    backbone = _load(written_models(kind)[0])
    check_encoder(backbone["image"], checkpoints.pictures())
    check_encoder(backbone["text"], checkpoints.CAPTIONS)


@kinds
def test_grids_find_disturbed_regions_again(kind: str, written_models: Written) -> None:
    backbone = _load(written_models(kind)[0])
    for raw in checkpoints.pictures():
        check_grid(backbone["image"], raw, count=6)
    check_grid(backbone["text"], checkpoints.GRID_CAPTION)


@kinds
def test_maps_depend_on_neither_batch_nor_padding(kind: str, written_models: Written) -> None:
    backbone = _load(written_models(kind)[0])
    conformance.maps_do_not_depend_on_the_batch(
        backbone, checkpoints.pictures(), checkpoints.CAPTIONS
    )


@kinds
@conformance.halves
def test_half_precision(kind: str, dtype: str, written_models: Written) -> None:
    folder = written_models(kind)[0]
    conformance.runs_in(_load(folder, dtype=dtype), _load(folder), getattr(torch, dtype))


def test_the_value_path_is_what_attention_to_one_token_gives(written_models: Written) -> None:
    """With every other key hidden, attention returns the one value: scaled heads included."""
    from mmattrib.backbones.open_clip.encoders import pre_norm

    for kind in ("plain", "scaled"):
        block = written_models(kind)[1].visual.transformer.resblocks[-1]
        parts = pre_norm(block)
        tokens = torch.randn(2, 5, 32)
        alone = torch.full((5, 5), float("-inf")).fill_diagonal_(0.0)
        with torch.no_grad():
            normed = block.ln_1(tokens)
            if kind == "plain":
                mixed = block.attention(normed, attn_mask=alone)
            else:
                mixed = block.ln_attn(block.attn(normed, attn_mask=alone))
            torch.testing.assert_close(parts.value_path(tokens), block.ls_1(mixed))


def test_cocas_pooler_over_one_token_gives_its_token_embedding(
    written_models: Written,
) -> None:
    image = _load(written_models("coca")[0])["image"]
    with torch.no_grad():
        inputs = image.preprocess(checkpoints.pictures()[:1])
        values = image.token_embeddings(inputs).values[0]
        tokens = image.prefix(inputs, image.num_layers - 1)[0]
        for number in (0, 7, 16):
            alone = tokens[None, number : number + 1]
            pooled = image.suffix(alone, image.num_layers - 1, inputs)
            torch.testing.assert_close(values[number], pooled[0])


def test_words_lie_where_the_caption_has_them(written_models: Written) -> None:
    text = _load(written_models("plain")[0])["text"]
    raw = RawText("  A cat’s  red-dog, 😀 ÉCOLE!")
    words = text.grid(text.preprocess([raw]), 0).words(0)
    assert [raw.text[word.start : word.end] for word in words] == [word.text for word in words]
    assert [word.text for word in words][-4:] == [",", "😀", "ÉCOLE", "!"]
    assert "red-dog" in {word.text for word in words}


@pytest.mark.parametrize(
    ("caption", "message"),
    [("cat dog " * 40, "80 tokens, this model reads at most 22"), ("a <end_of_text> b", "marks")],
)
def test_captions_that_are_refused(caption: str, message: str, written_models: Written) -> None:
    with pytest.raises(InputError, match=message):
        _load(written_models("plain")[0])["text"].preprocess([RawText(caption)])


@pytest.fixture
def architecture(tmp_path: Path) -> Iterator[str]:
    """``plain`` and ``quickgelu`` as architectures that open_clip knows by name."""
    import open_clip
    from open_clip import factory

    before = dict(factory._MODEL_CONFIGS), list(factory._MODEL_CONFIG_PATHS)
    for name, kind in (("small-test", "plain"), ("small-test-quickgelu", "quickgelu")):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(open_clip_models.CONFIGS[kind]))
        open_clip.add_model_config(path)
    yield "small-test"
    factory._MODEL_CONFIGS.clear()
    factory._MODEL_CONFIGS.update(before[0])
    factory._MODEL_CONFIG_PATHS[:] = before[1]


def _saved(path: Path, written_models: Written, **more: torch.Tensor) -> Path:
    torch.save({**written_models("plain")[1].state_dict(), **more}, path)
    return path


def test_a_checkpoint_file(architecture: str, tmp_path: Path, written_models: Written) -> None:
    path = _saved(tmp_path / "weights.pt", written_models)
    backbone = load(architecture, str(path))
    reference = _load(written_models("plain")[0])
    assert backbone.weights_hash() == reference.weights_hash()
    assert backbone.provenance["activation"] == "gelu"
    wrapped = tmp_path / "training.pt"
    state = {f"module.{k}": v for k, v in written_models("plain")[1].state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, wrapped)
    assert load(architecture, str(wrapped)).weights_hash() == reference.weights_hash()


def test_openai_weights_need_quick_gelu(
    architecture: str, tmp_path: Path, written_models: Written
) -> None:
    numbers = {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(24),
        "vocab_size": torch.tensor(49408),
    }
    path = _saved(tmp_path / "openai.pt", written_models, **numbers)
    with pytest.raises(WeightsError, match="Ask for model='small-test-quickgelu'"):
        load(architecture, str(path))
    backbone = load("small-test-quickgelu", str(path))
    assert backbone.provenance["activation"] == "quick-gelu"


def test_a_tag_of_another_activation() -> None:
    with pytest.raises(WeightsError, match="Ask for model='ViT-B-32-quickgelu'"):
        load("ViT-B-32", "openai")


def test_no_weights_is_an_error_and_never_random() -> None:
    with pytest.raises(OptionError, match=r"no weights were named.*laion2b_s34b_b79k"):
        load("ViT-B-32")
    with pytest.raises(OptionError, match="neither a file on this machine nor a tag"):
        load("ViT-B-32", "laion9b")
    with pytest.raises(OptionError, match=r"did you mean.*ViT-B-32"):
        load("ViT-B32", "openai")


def test_a_folder_without_weights(tmp_path: Path, written_models: Written) -> None:
    source = written_models("plain")[0] / "open_clip_config.json"
    (tmp_path / source.name).write_text(source.read_text())
    with pytest.raises(WeightsError, match="holds no weights"):
        _load(tmp_path)
    (tmp_path / source.name).unlink()
    with pytest.raises(WeightsError, match=r"no open_clip_config\.json"):
        _load(tmp_path)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vision_cfg", {"layers": 10**5}, "larger model than it has weights for"),
        ("vision_cfg", {"image_size": 2**21}, "larger model than it has weights for"),
        ("text_cfg", {"vocab_size": 10**9}, "text_cfg.vocab_size 1000000000"),
        ("text_cfg", {"context_length": 2**21}, "larger model than it has weights for"),
    ],
)
def test_a_configuration_of_more_than_the_weights_is_refused_before_it_is_built(
    part: str, change: dict[str, int], message: str, tmp_path: Path, written_models: Written
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(written_models("plain")[0], folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"][part].update(change)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message):
        _load(folder)


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP", "roberta-ViT-B-32"])
def test_towers_of_another_kind(name: str) -> None:
    with pytest.raises(WeightsError, match=r"tower is .*accepted: architectures"):
        load(name, "openai")


def test_a_repository_of_another_kind_is_refused_before_its_weights_are_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "0123456789" * 4
    repository = tmp_path / "models--someone--siglip"
    for folder in ("refs", f"snapshots/{commit}"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    vision = {"timm_model_name": "vit_base_patch16_siglip_224"}
    described = {"model_cfg": {"embed_dim": 8, "vision_cfg": vision, "text_cfg": {}}}
    config = repository / "snapshots" / commit / "open_clip_config.json"
    config.write_text(json.dumps(described))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="tower is timm's vit_base_patch16_siglip_224"):
        load("hf-hub:someone/siglip")


def _without(path: Path, written_models: Written) -> None:
    state = dict(written_models("plain")[1].state_dict())
    del state["ln_final.weight"]
    torch.save(state, path)


def _with(path: Path, written_models: Written) -> None:
    _saved(path, written_models, stranger=torch.zeros(2))


def _wider(path: Path, written_models: Written) -> None:
    _saved(path, written_models, **{"visual.proj": torch.zeros(32, 25)})


def _short(path: Path, written_models: Written) -> None:
    _saved(path, written_models)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _not_one(path: Path, written_models: Written) -> None:
    path.write_bytes(b"<html>404</html>")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without, r"lacks 1 weight \(ln_final.weight\).*left random"),
        (_with, r"has 1 weight \(stranger\).*another architecture"),
        (_wider, r"visual.proj \(32, 25\) instead of \(32, 24\)"),
        (_short, "cut short or damaged"),
        (_not_one, "damaged or not a checkpoint"),
    ],
)
def test_files_that_are_refused(
    spoil: Callable[[Path, Written], None],
    message: str,
    architecture: str,
    tmp_path: Path,
    written_models: Written,
) -> None:
    path = tmp_path / "weights.pt"
    spoil(path, written_models)
    with pytest.raises(WeightsError, match=message):
        load(architecture, str(path))


def test_a_pickle_with_code_in_it_is_not_run(architecture: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    torch.save({"x": Malicious(trace)}, path)
    with pytest.raises(WeightsError, match="would run code"):
        load(architecture, str(path))
    folder = tmp_path / "folder"
    folder.mkdir()
    described = {"model_cfg": open_clip_models.CONFIGS["plain"]}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    path.rename(folder / "open_clip_pytorch_model.bin")
    with pytest.raises(WeightsError, match="would run code"):
        _load(folder)
    assert not trace.exists()


@pytest.mark.parametrize("model", ["hf-hub:nobody/no-such-model", "ViT-B-32"])
def test_a_hub_that_cannot_be_reached(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not weights.hub_reachable(seconds=1.0)
    with pytest.raises(WeightsError, match="hub cannot be reached"):
        load(model, None if model.startswith("hf-hub") else "laion2b_s34b_b79k")


def test_an_extra_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mmattrib.plugins.registry.is_installed", lambda module: module != "open_clip"
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'mmattrib\[open_clip\]'"):
        mm.load_backbone("open_clip")


def test_other_preprocessing(written_models: Written) -> None:
    folder = written_models("plain")[0]
    backbone = _load(folder, preprocess={"mean": [0.0] * 3, "std": [1.0] * 3})
    pixels = backbone["image"].preprocess(checkpoints.pictures())["pixels"]
    assert float(pixels.min()) >= 0.0
    assert float(pixels.max()) <= 1.0
    assert np.isclose(backbone.provenance["image"]["std"], 1.0).all()
    with pytest.raises(OptionError, match="no entry 'size'"):
        _load(folder, preprocess={"size": 3})


def test_the_root_logger_is_left_alone(written_models: Written) -> None:
    import logging

    root = logging.getLogger()
    before = root.level, list(root.handlers)
    _load(written_models("plain")[0])
    assert (root.level, list(root.handlers)) == before


def test_a_live_model_is_wrapped_and_a_patched_attention_counts(written_models: Written) -> None:
    import open_clip

    folder, bare = written_models("plain")
    with pytest.raises(OptionError, match="preprocess_cfg"):
        wrap(bare, open_clip.get_tokenizer(f"local-dir:{folder}"))
    model: Any = open_clip.create_model(f"local-dir:{folder}").eval()
    backbone = wrap(model, open_clip.get_tokenizer(f"local-dir:{folder}"))
    pair: dict[str, Any] = {"image": checkpoints.pictures()[0], "text": checkpoints.CAPTIONS[0]}
    block = model.visual.transformer.resblocks[-1]
    own = block.attention
    block.attention = lambda *args, **kwargs: -own(*args, **kwargs)
    try:
        with pytest.warns(TrustWarning, match="the image encoder"):
            found = mm.attribute(backbone, **pair, method="nib", steps=2)
        encoder = backbone["image"]
        inputs = encoder.preprocess([pair["image"]])
        with encoder.frozen(), torch.no_grad():
            weights = encoder.embed_with_attention(inputs)
            torch.testing.assert_close(weights.embedding.detach(), encoder.embed(inputs))
    finally:
        del block.attention
    assert np.isfinite(found["image"].scores).all()


def test_transformers_wrap_names_the_way(written_models: Written) -> None:
    with pytest.raises(OptionError, match=r"mmattrib\.backbones\.open_clip\.wrap"):
        mm.wrap(written_models("plain")[1], None)


def test_attention_is_what_torch_shows(written_models: Written) -> None:
    """With the weights asked for, which open_clip never does."""
    folder, model = written_models("plain")
    backbone = _load(folder)
    for modality, raws in (("image", checkpoints.pictures()), ("text", checkpoints.CAPTIONS)):
        encoder: Any = backbone[modality]
        with encoder.frozen():
            inputs = encoder.preprocess(raws)
            found = encoder.embed_with_attention(inputs)
            mask = model.attn_mask if modality == "text" else None
            for layer, block in enumerate(encoder.blocks):
                x = block.ln_1(encoder.prefix(inputs, layer - 1))
                theirs = block.attn(
                    x, x, x, need_weights=True, average_attn_weights=False, attn_mask=mask
                )[1]
                torch.testing.assert_close(found.weights[layer], theirs, rtol=1e-4, atol=1e-5)
