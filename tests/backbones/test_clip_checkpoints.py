"""`clip`: every way a checkpoint, a folder or the hub fails."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from clip_folders import Written, copy_of

import mmattrib as mm
from mmattrib.backbones.clip import load, wrap
from mmattrib.errors import (
    MissingExtraError,
    OptionError,
    WeightsError,
)
from mmattrib.models import weights
from mmattrib.models.pixels import PixelRecipe

# Random weights need not give maps worth trusting; that is not what is tested here.
pytestmark = [
    pytest.mark.usefixtures("quiet_transformers"),
    pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning"),
]


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
    folder = copy_of(written, tmp_path)
    _edit(folder, change)
    with pytest.raises(WeightsError, match=message):
        load(str(folder))


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vision_config", {"num_hidden_layers": 10**6}, "larger model than it has weights for"),
        ("text_config", {"vocab_size": 10**9}, r"describes a model with text_config.vocab_size 1"),
        ("text_config", {"vocab_size": 4 * 10**6}, "larger model than it has weights for"),
        ("vision_config", {"hidden_size": 2**20}, "larger model than it has weights for"),
        ("text_config", {"num_labels": 10**9}, r"text_config.num_labels 1000000000"),
        ("text_config", {"num_hidden_layers": 6}, "lacks .*left random"),
    ],
)
def test_a_configuration_of_more_than_the_weights_is_refused_before_it_is_built(
    part: str, change: dict[str, int], message: str, written: Written, tmp_path: Path
) -> None:
    folder = copy_of(written, tmp_path)
    config = checkpoints.read_json(folder / "config.json")
    config[part].update(change)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message):
        load(str(folder))


def _not_a_number(state: dict[str, torch.Tensor]) -> None:
    state[NORM][0] = torch.nan


def test_weights_that_are_no_numbers(written: Written, tmp_path: Path) -> None:
    folder = copy_of(written, tmp_path)
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
        ({"image_std": "x"}, "image_std 'x'"),
        ({"image_std": ["x", 1, 1]}, "image_std .*accepted: three numbers"),
        ({"image_std": [1e-30] * 3}, "at least 0.001"),
        ({"image_mean": [1e30] * 3}, "up to 1000"),
        ({"rescale_factor": "x"}, "rescales pixels by 'x'"),
        ({"size": {"shortest_edge": 10**9}}, "shortest_edge '1000000000'"),
        ({"rescale_factor": 0.0}, "rescales pixels by 0.0"),
    ],
)
def test_statistics_that_cannot_normalise(
    change: dict[str, Any], message: str, written: Written, tmp_path: Path
) -> None:
    folder = copy_of(written, tmp_path)
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
    folder, trace = copy_of(written, tmp_path), tmp_path / "trace"
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
    folder = copy_of(written, tmp_path)
    found = checkpoints.read_json(folder / "config.json")
    found |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(found))
    (folder / "mine.py").write_text("")
    with pytest.raises(WeightsError, match="brings code of its own, which is not run"):
        load(str(folder))


def test_a_truncated_file(written: Written, tmp_path: Path) -> None:
    folder = copy_of(written, tmp_path)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(WeightsError, match="cut short or damaged"):
        load(str(folder))


def test_a_pickle_with_code_in_it_is_not_run(written: Written, tmp_path: Path) -> None:
    folder, trace = copy_of(written, tmp_path), tmp_path / "trace"
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
    folder = copy_of(written, tmp_path)
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
