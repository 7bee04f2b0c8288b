"""Torch's modes and defaults belong to the caller: no map depends on them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quick_methods import NAMES, quick
from small_backbones import NAMES as BACKBONES
from small_backbones import PICTURE, Small
from small_tiny import small_tiny
from toy_encoders import RAWS, ToyAudio, ToyEncoder, ToyImage, ToyText

import mmattrib as mm
from mmattrib.evaluation.measure import SECONDS
from mmattrib.models import Backbone
from mmattrib.testing import check_encoder, check_grid, check_method
from mmattrib.types import RawAudio

pytestmark = pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")

PACKAGE = Path(mm.__file__).parent


@contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def no_gradients() -> Iterator[None]:
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(True)


@contextmanager
def anomalies() -> Iterator[None]:
    torch.autograd.set_detect_anomaly(True)
    try:
        yield
    finally:
        torch.autograd.set_detect_anomaly(False)


Mode = Callable[[], AbstractContextManager[Any]]

MODES: dict[str, Mode] = {
    "default dtype float64": float64,
    "default device meta": lambda: device("meta"),
    "default device cpu": lambda: device("cpu"),
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "set_grad_enabled(False)": no_gradients,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic algorithms": deterministic,
    "anomaly detection": anomalies,
}
TELLING = ("default dtype float64", "default device meta", "inference_mode", "autocast")
"""Modes in which a tensor without a type or a device of its own shows; the others are like them."""

modes = pytest.mark.parametrize("mode", MODES)


def maps(backbone: Backbone, pair: Mapping[str, Any], method: str) -> list[np.ndarray]:
    found = mm.attribute(backbone, inputs=pair, method=method, **quick(method))
    return [side.scores for side in found.values()]


@cache
def tiny() -> Backbone:
    return small_tiny()


@cache
def scene_pairs() -> list[dict[str, Any]]:
    scene = mm.scenes(1, seed=11)[0]
    sides = {name: scene.input(name) for name in ("image", "audio", "text")}
    return [{a: sides[a], b: sides[b]} for a, b in (("image", "text"), ("audio", "text"))]


@cache
def usual(method: str) -> list[np.ndarray]:
    return maps(tiny(), scene_pairs()[1], method)


def _cases() -> Iterator[Any]:
    """Each method in every mode is a longer test: descents share their code, and most modes act on
    the towers, which two methods try in all of them."""
    for method in NAMES:
        descends, tried = method.startswith("descent-"), method in ("ca-m2ib", "m2ib")
        for mode in MODES:
            own = mode == "default dtype float64" or (mode in TELLING and not descends)
            longer = not (tried or own)
            yield pytest.param(method, mode, marks=[pytest.mark.slow] if longer else [])


@pytest.mark.parametrize(("method", "mode"), list(_cases()))
def test_every_method_gives_the_same_map_bit_for_bit(method: str, mode: str) -> None:
    expected = usual(method)
    with MODES[mode]():
        found = maps(tiny(), scene_pairs()[1], method)
    for ours, own in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, own)


def fast_attention(backbone: Backbone) -> bool:
    """Whether a tower has torch's own attention: under any default device, torch leaves its fast
    path. It never takes it for a subclass."""
    parts = (part for encoder in backbone.values() for part in encoder.module.modules())
    return any(type(part) is torch.nn.MultiheadAttention for part in parts)


def same_maps(
    backbone: Backbone, mode: str, found: list[np.ndarray], expected: list[np.ndarray]
) -> None:
    """Bit for bit, or to rounding where torch takes another path."""
    rounds = fast_attention(backbone) and "device" in mode
    for ours, own in zip(found, expected, strict=True):
        bound = 1e-6 if rounds else 0.0  # bits, or units of the cosine
        np.testing.assert_allclose(ours, own, rtol=0, atol=bound, err_msg=mode)


def same_in_every_mode(backbone: Backbone, pair: Mapping[str, Any]) -> None:
    expected = maps(backbone, pair, "ca-m2ib")
    for mode, enter in MODES.items():
        with enter():
            found = maps(backbone, pair, "ca-m2ib")
        same_maps(backbone, mode, found, expected)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_gives_the_same_maps_bit_for_bit(
    name: str, small_backbone: Callable[[str], Small]
) -> None:
    made = small_backbone(name)
    same_in_every_mode(made.load(), made.pair)


def test_encoders_of_ones_own_give_the_same_maps_bit_for_bit() -> None:
    encoders = {each.modality: each for each in (ToyImage(), ToyText())}
    pair = {"image": PICTURE, "text": "a small dog barks"}
    same_in_every_mode(Backbone(encoders), pair)


@pytest.mark.parametrize("mode", ["default dtype float64", "default device meta"])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_loaded_in_a_mode_is_the_same_one(
    name: str, mode: str, small_backbone: Callable[[str], Small]
) -> None:
    made = small_backbone(name)
    pair = made.pair
    expected = maps(made.load(), pair, "nib")
    with MODES[mode]():
        again = made.load()
        for encoder in again.values():
            for value in encoder.module.parameters():
                assert value.device.type == "cpu"
                assert value.dtype == torch.float32
        found = maps(again, pair, "nib")
    same_maps(again, mode, found, expected)


@modes
def test_spectrograms_of_imagebind_are_the_same_to_a_hundred_thousandth(mode: str) -> None:
    """torchaudio makes Kaldi's filters in torch's default type, and nothing can name it."""
    import small_imagebind

    encoder, sound = small_imagebind.backbone()["audio"], small_imagebind.sound()
    pairs = []
    for enter in (nullcontext, MODES[mode]):
        with enter(), encoder.frozen(), torch.no_grad():
            inputs = encoder.preprocess([sound])
            pairs.append((inputs["x"].clone(), encoder.embed(inputs).clone()))
    (x, embedding), (other, another) = pairs
    bound = 2e-5 if mode == "default dtype float64" else 0.0
    torch.testing.assert_close(other, x, rtol=0, atol=bound)
    torch.testing.assert_close(another, embedding, rtol=0, atol=bound)


@modes
def test_resampled_sound_is_the_same(mode: str) -> None:
    sound = RawAudio(np.random.default_rng(0).normal(0, 0.1, 9000).astype(np.float32), 44100)
    expected = mm.io.resample(sound, 16000).samples
    with MODES[mode]():
        np.testing.assert_array_equal(mm.io.resample(sound, 16000).samples, expected)


def _toys() -> Iterator[Any]:
    """Each toy in one of the two modes; in the other it is a longer test."""
    for toy, usual_mode in ((ToyImage, "device meta"), (ToyAudio, "dtype float64"),
                            (ToyText, "device meta")):  # fmt: skip
        for mode in ("default dtype float64", "default device meta"):
            yield pytest.param(toy, mode, marks=[pytest.mark.slow] * (usual_mode not in mode))


@pytest.mark.parametrize(("toy", "mode"), list(_toys()))
def test_the_conformance_suite_runs_in_a_mode(toy: Callable[[], ToyEncoder], mode: str) -> None:
    encoder, guide = toy(), ToyText()
    raws, captions = RAWS[encoder.modality](), RAWS["text"]()
    with MODES[mode]():
        check_encoder(encoder, raws)
        check_grid(encoder, raws[0])
        check_method(mm.load_method("nib", steps=2), encoder, raws, guide, captions)


@pytest.mark.parametrize("mode", ["default dtype float64", "default device meta"])
def test_an_evaluation_gives_the_same_numbers_in_a_mode(mode: str) -> None:
    def run() -> mm.Results:
        return mm.evaluate(
            tiny(),
            mm.load_dataset("scenes", n=2),
            methods=["nib", "random"],
            pairs=[("image", "text")],
            progress=False,
        )

    expected = run()
    with MODES[mode]():
        found = run()
    for direction in expected.directions:
        for method in ("nib", "random"):
            for metric in set(expected.metrics) - {SECONDS}:
                np.testing.assert_array_equal(
                    found.values(method, direction, metric),
                    expected.values(method, direction, metric),
                )


# --------------------------------------------------------------------------------- by reading

FLOATING = {"zeros", "ones", "empty", "rand", "randn", "eye", "linspace", "hann_window"}
OTHERS = {"full", "arange", "tensor", "as_tensor", "randint", "randperm"}
BUILDING = {"backbones/tiny/model.py"}
"""Modules of a network, built where and as torch's defaults say."""


def _unnamed(path: Path) -> Iterator[str]:
    """Calls that make a tensor where, or of the type that, torch's defaults say."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner, made = node.func.value, node.func.attr
        if not (isinstance(owner, ast.Name) and owner.id == "torch" and made in FLOATING | OTHERS):
            continue
        needed = {"device", "dtype"} if made in FLOATING else {"device"}
        if lacking := needed - {each.arg for each in node.keywords}:
            yield f"{path.relative_to(PACKAGE)}:{node.lineno} torch.{made} without {lacking}"


def test_every_tensor_of_the_package_names_its_device_and_type() -> None:
    """Inside a model's own default device, the CPU's tensors would be made elsewhere."""
    found = [
        line
        for path in sorted(PACKAGE.rglob("*.py"))
        if str(path.relative_to(PACKAGE)) not in BUILDING
        for line in _unnamed(path)
    ]
    assert not found
