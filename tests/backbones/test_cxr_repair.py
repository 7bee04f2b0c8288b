"""`cxr-repair`: OpenAI's format, the training's preprocessing, radiographs of any depth."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import conformance
import numpy as np
import pytest
import torch
from checkpoints import Malicious
from PIL import Image
from small_backbones import PICTURE
from torch.nn import functional as nnf

import mmattrib as mm
from mmattrib.backbones.cxr_repair import load
from mmattrib.errors import InputWarning, OptionError, WeightsError
from mmattrib.io import load_image
from mmattrib.testing import check_encoder, check_grid
from mmattrib.types import RawImage

# Random weights need not give maps worth trusting; that is not what is tested here.
pytestmark = [
    pytest.mark.usefixtures("quiet_open_clip"),
    pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning"),
]

SIDE = 32


def small_cxr_repair(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    import open_clip_models

    options = {"checkpoint": str(open_clip_models.write_openai(folder)[0])}
    return options, {"image": PICTURE, "text": "a small red cat"}


@pytest.fixture(scope="module")
def written_model(
    quiet_open_clip: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    import open_clip_models

    return open_clip_models.write_openai(tmp_path_factory.mktemp("cxr"))


@pytest.fixture(scope="module")
def path(written_model: tuple[Path, Any]) -> Path:
    return written_model[0]


@pytest.fixture(scope="module")
def model(written_model: tuple[Path, Any]) -> Any:
    return written_model[1]


def radiographs() -> list[RawImage]:
    """Grey pictures of the shapes that radiographs have."""
    generator = np.random.default_rng(2)
    greys = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in ((90, 72), (64, 80))]
    return [RawImage(np.repeat(grey[:, :, None], 3, axis=2)) for grey in greys]


@pytest.mark.parametrize("preprocessing", ["cxr-repair", "m2ib"])
def test_conformance(preprocessing: str, model: Any, path: Path) -> None:
    import open_clip

    backbone = load(str(path), preprocessing=preprocessing)
    image, text = backbone["image"], backbone["text"]
    with torch.no_grad():
        inputs = image.preprocess(radiographs())
        conformance.close(image.embed(inputs), model.encode_image(inputs["pixels"]))
        ids = open_clip.SimpleTokenizer(context_length=24)([r.text for r in checkpoints.CAPTIONS])
        ours = text.embed(text.preprocess(checkpoints.CAPTIONS))
        conformance.close(ours, model.encode_text(ids))
    check_encoder(image, radiographs())
    check_encoder(text, checkpoints.CAPTIONS)
    for raw in radiographs():
        check_grid(image, raw, count=6)
    check_grid(text, checkpoints.GRID_CAPTION)
    conformance.maps_do_not_depend_on_the_batch(backbone, radiographs(), checkpoints.CAPTIONS[:2])
    assert backbone.provenance["preprocessing"] == preprocessing


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str, path: Path) -> None:
    half = load(str(path), dtype=dtype)
    conformance.runs_in(half, load(str(path)), getattr(torch, dtype))


def test_default_layers_are_those_of_m2ibs_demonstration(path: Path) -> None:
    from mmattrib.backbones.cxr_repair import loading

    assert loading._layers(12, 12) == {"image": 9, "text": 7}
    assert load(str(path))["text"].default_layer == 2


def test_the_trainings_preprocessing(path: Path) -> None:
    """Written out: letterbox on black, statistics of 0-255, bicubic on the tensor."""
    raw = radiographs()[0]
    scale = 320 / 90
    inner = Image.fromarray(raw.pixels[:, :, 0]).resize(
        (int(72 * scale), int(90 * scale)), Image.Resampling.LANCZOS
    )
    canvas = Image.new("L", (320, 320))
    canvas.paste(inner, ((320 - inner.width) // 2, (320 - inner.height) // 2))
    pixels = torch.from_numpy(np.asarray(canvas).astype(np.float32)).expand(3, -1, -1)
    expected = nnf.interpolate(
        ((pixels - 101.48761) / 83.43944)[None], (SIDE, SIDE), mode="bicubic"
    )
    ours = load(str(path))["image"].preprocess([raw])["pixels"]
    torch.testing.assert_close(ours, expected, atol=2e-3, rtol=0)


def test_m2ibs_preprocessing_is_clips(path: Path) -> None:
    recipe: Any = load(str(path), preprocessing="m2ib")["image"]
    assert recipe.recipe.mean == (0.48145466, 0.4578275, 0.40821073)
    assert recipe.recipe.fit == "crop"


def test_the_map_of_a_letterboxed_radiograph_covers_all_of_it(path: Path) -> None:
    backbone = load(str(path))
    raw = radiographs()[1]
    scores = mm.attribute(backbone, image=raw, text="a small cat", method="random")["image"].scores
    assert scores.shape == raw.pixels.shape[:2]
    assert (scores != 0).mean() > 0.99


def test_radiographs_of_sixteen_bits(path: Path, tmp_path: Path) -> None:
    grey = radiographs()[0].pixels[:, :, 0]
    wide = (grey.astype(np.uint16) * 257).copy()
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    first, second = load_image(tmp_path / "wide.png"), load_image(tmp_path / "grey.png")
    np.testing.assert_array_equal(first.pixels, second.pixels)
    Image.fromarray((wide // 16).copy()).save(tmp_path / "dark.png")
    with pytest.warns(InputWarning, match="which 12 bits would hold"):
        dark = load_image(tmp_path / "dark.png")
    with pytest.warns(UserWarning, match="brightest pixel is 16 of 255"):
        load(str(path))["image"].preprocess([dark])


def _missing(state: dict[str, torch.Tensor]) -> None:
    del state["visual.ln_post.bias"]


def _unexpected(state: dict[str, torch.Tensor]) -> None:
    state["classifier.weight"] = torch.zeros(3)


def _another(state: dict[str, torch.Tensor]) -> None:
    del state["visual.conv1.weight"]


def _half_a_block(state: dict[str, torch.Tensor]) -> None:
    state["visual.transformer.resblocks.0.mlp.c_fc.weight"] = torch.zeros(3, 64)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_missing, r"lacks 1 weight \(visual.ln_post.bias\)"),
        (_unexpected, r"has 1 weight \(classifier.weight\)"),
        (_another, r"no visual.conv1.weight, so it is no ViT"),
        (_half_a_block, r"\(3, 64\) instead of \(256, 64\)"),
    ],
)
def test_weights_that_do_not_fit(
    spoil: Callable[[dict[str, torch.Tensor]], None], message: str, path: Path, tmp_path: Path
) -> None:
    state = torch.load(path, weights_only=True)
    spoil(state)
    torch.save(state, tmp_path / "spoilt.pt")
    with pytest.raises(WeightsError, match=message):
        load(str(tmp_path / "spoilt.pt"))


def test_files_that_are_refused(path: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.pt"
    short.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="cut short or damaged"):
        load(str(short))
    torch.save({"x": Malicious(tmp_path / "trace")}, tmp_path / "code.pt")
    with pytest.raises(WeightsError, match="would run code"):
        load(str(tmp_path / "code.pt"))
    assert not (tmp_path / "trace").exists()
    with pytest.raises(WeightsError, match="is not a file"):
        load(str(tmp_path / "nothing.pt"))


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates what OpenAI's own files are
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "scripted.pt")
    with pytest.raises(WeightsError, match="TorchScript archive, which runs code"):
        load(str(tmp_path / "scripted.pt"))


def test_options_that_are_refused(path: Path) -> None:
    with pytest.raises(OptionError, match="needs checkpoint="):
        mm.load_backbone("cxr-repair")
    with pytest.raises(OptionError, match="one of cxr-repair, m2ib"):
        load(str(path), preprocessing="clip")
