"""On a graphics card: the maps of the processor, to a bound. Skipped where there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from quick_methods import NAMES, quick
from small_backbones import NAMES as BACKBONES
from small_backbones import Small

import mmattrib as mm
from mmattrib.cli import main
from mmattrib.models import Backbone
from mmattrib.testing import check_encoder, check_grid, check_method
from mmattrib.types import RawAudio, RawText

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CUDA = "cuda"
BOUND = 2e-3
"""Of a map's largest score: sums of a card round in another order, and float32 stays float32."""


def explained(
    backbone: Backbone, pair: Mapping[str, Any], method: str, precision: str = "full"
) -> mm.Explanation:
    """With a small budget, the same wherever maps are compared."""
    return mm.attribute(backbone, inputs=pair, method=method, precision=precision, **quick(method))


def maps(backbone: Backbone, pair: Mapping[str, Any], method: str) -> list[np.ndarray]:
    return [side.scores for side in explained(backbone, pair, method).values()]


def near(found: list[np.ndarray], expected: list[np.ndarray], what: str) -> None:
    for ours, own in zip(found, expected, strict=True):
        bound = BOUND * max(float(np.abs(own).max()), 1e-3)
        np.testing.assert_allclose(ours, own, rtol=0, atol=bound, err_msg=what)


def scene_pair(number: int = 0) -> dict[str, Any]:
    scene = mm.scenes(number + 1, seed=11)[number]
    return {name: scene.input(name) for name in ("audio", "text")}


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return mm.load_backbone("tiny", device=CUDA)


@pytest.mark.parametrize("method", NAMES)
def test_every_method_gives_the_map_of_the_processor(method: str, tiny: Backbone) -> None:
    if method.startswith("descent") or method in ("m2ib", "ca-m2ib-literal"):
        # Adam's first step is the sign of a slope, which rounding turns where it is almost zero.
        pytest.skip("a descent follows the signs of slopes")
    near(maps(tiny, scene_pair(), method), maps(mm.load_backbone("tiny"), scene_pair(), method), "")


@pytest.mark.parametrize("method", [n for n in NAMES if n.startswith(("descent", "m2ib", "ca-m"))])
def test_descents_give_a_map_alike(method: str, tiny: Backbone) -> None:
    here = maps(tiny, scene_pair(), method)
    for ours, own in zip(here, maps(mm.load_backbone("tiny"), scene_pair(), method), strict=True):
        assert np.isfinite(ours).all()
        if np.ptp(own) > 0:
            assert np.corrcoef(ours.ravel(), own.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_gives_the_maps_of_the_processor(
    name: str, small_backbone: Callable[[str], Small]
) -> None:
    made = small_backbone(name)
    here, there = made.load(), mm.load_backbone(name, **made.options, device=CUDA)
    for encoder in there.values():
        assert {p.device.type for p in encoder.module.parameters()} == {"cuda"}
    for method in ("ca-m2ib", "nib", "grad-cam"):
        near(maps(there, made.pair, method), maps(here, made.pair, method), f"{name}, {method}")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_a_map_alike(
    dtype: str, small_backbone: Callable[[str], Small]
) -> None:
    made = small_backbone("clip")
    whole, half = (
        mm.attribute(
            mm.load_backbone(made.name, **made.options, device=CUDA, dtype=each),
            inputs=made.pair,
            method="nib",
            precision="full",
        )
        for each in ("float32", dtype)
    )
    for side, own in whole.items():
        expected, found = own.token_scores[own.content], half[side].token_scores[own.content]
        bound = 0.02 * np.abs(expected).max() + 5e-4
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


def test_an_encoder_on_a_card_keeps_the_contract(tiny: Backbone) -> None:
    audio, text = tiny["audio"], tiny["text"]
    sounds = [RawAudio(scene.audio, scene.sample_rate) for scene in mm.scenes(2, seed=11)]
    captions = [RawText(scene.caption) for scene in mm.scenes(2, seed=11)]
    check_encoder(text, captions)
    check_grid(audio, sounds[0])
    for name in ("ca-m2ib", "nib"):
        check_method(mm.load_method(name, **quick(name)), audio, sounds, text, captions)


def test_a_guide_may_lie_on_another_device() -> None:
    here, there = mm.load_backbone("tiny"), mm.load_backbone("tiny", device=CUDA)
    mixed = Backbone({"audio": there["audio"], "text": here["text"]})
    near(maps(mixed, scene_pair(), "ca-m2ib"), maps(here, scene_pair(), "ca-m2ib"), "mixed")


@pytest.mark.parametrize("deterministic", [None, True])
def test_the_same_map_again_alone_and_in_a_batch(
    deterministic: bool | None, tiny: Backbone
) -> None:
    pairs = [scene_pair(number) for number in range(4)]
    given: dict[str, Any] = {"method": "ca-m2ib", "points": 8, "precision": "full"}
    many = list(
        mm.attribute_many(tiny, pairs, deterministic=deterministic, progress=False, **given)
    )
    for pair, together in zip(pairs, many, strict=True):
        assert together.provenance["deterministic"] is bool(deterministic)
        for _ in range(2):
            alone = mm.attribute(tiny, inputs=pair, **given)
            for side, own in alone.items():
                if deterministic:
                    np.testing.assert_array_equal(together[side].scores, own.scores)
                else:
                    near([together[side].scores], [own.scores], "batch")


def test_a_card_computes_the_suffix_in_bfloat16_where_it_has_units_for_it(tiny: Backbone) -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("no units for bfloat16")
    found = explained(tiny, scene_pair(), "nib", "auto")
    assert found.provenance["precision"] == "bfloat16"
    for side, own in zip(found.values(), maps(tiny, scene_pair(), "nib"), strict=True):
        assert np.corrcoef(side.scores.ravel(), own.ravel())[0, 1] > 0.98


def test_pairs_that_do_not_fit_together_go_in_halves(
    tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [scene_pair(number) for number in range(4)]
    suffix, sizes = type(tiny["audio"]).suffix, []

    def full(self: Any, tokens: torch.Tensor, layer: int, inputs: Any) -> torch.Tensor:
        sizes.append(len(tokens))
        if len(tokens) > 16:
            raise torch.OutOfMemoryError("as if")
        return suffix(self, tokens, layer, inputs)

    given: dict[str, Any] = {"method": "ca-m2ib", "points": 8, "precision": "full"}
    whole = list(mm.attribute_many(tiny, pairs, progress=False, **given))
    monkeypatch.setattr(type(tiny["audio"]), "suffix", full)
    for found, own in zip(
        mm.attribute_many(tiny, pairs, progress=False, **given), whole, strict=True
    ):
        near([a.scores for a in found.values()], [a.scores for a in own.values()], "halves")
    assert max(sizes) > 16


def test_a_default_device_changes_nothing(tiny: Backbone) -> None:
    expected = maps(tiny, scene_pair(), "ca-m2ib")
    torch.set_default_device(CUDA)
    try:
        found = maps(tiny, scene_pair(), "ca-m2ib")
        near(maps(mm.load_backbone("tiny", device="cpu"), scene_pair(), "ca-m2ib"), expected, "cpu")
    finally:
        torch.set_default_device(None)
    near(found, expected, "default device")


def test_threads_on_one_model_give_right_maps(tiny: Backbone) -> None:
    expected = maps(tiny, scene_pair(), "nib")
    found: dict[int, list[np.ndarray]] = {}

    def work(number: int) -> None:
        found[number] = maps(tiny, scene_pair(), "nib")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for each in found.values():
        near(each, expected, "thread")
    assert len(found) == 4


def test_nothing_stays_on_the_card(tiny: Backbone) -> None:
    maps(tiny, scene_pair(), "ca-m2ib")
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        maps(tiny, scene_pair(), "ca-m2ib")
    assert torch.cuda.memory_allocated() <= before + (1 << 20)


def test_the_result_is_read_and_saved_without_a_card(tiny: Backbone, tmp_path: Path) -> None:
    found = mm.attribute(tiny, inputs=scene_pair(), method="nib", steps=2)
    for name in ("page.html", "map.png", "all.npz", "all.json"):
        found.save(tmp_path / name)
    again = mm.load(tmp_path / "all.npz")
    np.testing.assert_array_equal(again["audio"].scores, found["audio"].scores)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_evaluation_gives_the_numbers_of_the_processor(jobs: int) -> None:
    def run(device: str) -> mm.Results:
        return mm.evaluate(
            mm.evaluation.NamedModel.of("tiny", device=device),
            mm.load_dataset("scenes", n=3),
            methods=["nib"],
            metrics="all",
            pairs=[("image", "text")],
            jobs=jobs,
            precision="full",
            progress=False,
        )

    here, there = run("cpu"), run(CUDA)
    for metric in set(here.metrics) - {"seconds"}:
        np.testing.assert_allclose(
            there.values("nib", "image|text", metric),
            here.values("nib", "image|text", metric),
            atol=5e-3,
            err_msg=metric,
        )


def test_the_command_line_takes_the_device(tmp_path: Path) -> None:
    out = tmp_path / "map.json"
    scene = mm.scenes(1, seed=11)[0]
    arguments = ["attribute", "--backbone", "tiny", "--device", CUDA, "--text", scene.caption]
    from PIL import Image

    Image.fromarray(scene.image).save(tmp_path / "a.png")
    arguments += ["--image", str(tmp_path / "a.png"), "--method", "nib", "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert out.exists()
