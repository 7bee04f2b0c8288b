"""Maps of the shipped model: they find what is shared, and they follow the guide."""

from __future__ import annotations

import numpy as np
import pytest

import mmattrib as mm
from mmattrib.datasets.scenes import SceneOptions

pytestmark = pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")


@pytest.fixture(scope="module")
def tiny() -> mm.Backbone:
    return mm.load_backbone("tiny")


def _ranks(scores: np.ndarray) -> np.ndarray:
    return scores.ravel().argsort().argsort().astype(float)


def _agreement(one: mm.Explanation, two: mm.Explanation, side: str) -> float:
    """Rank correlation of two maps over tokens."""
    a, b = one[side].token_scores[1:], two[side].token_scores[1:]
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def test_ca_m2ib_finds_what_is_shared(tiny: mm.Backbone) -> None:
    found = mm.evaluate(
        tiny,
        mm.load_dataset("scenes", n=5, seed=31),
        methods=[mm.load_method("ca-m2ib", points=32), "random"],
        pairs=[("image", "text")],
        metrics=["auc", "energy", "object_top1"],
        progress=False,
    )
    for direction in found.directions:
        assert found.mean("ca-m2ib", direction, "object_top1")[0] > 0.75
        assert found.mean("ca-m2ib", direction, "auc")[0] > 0.75
        lead = found.difference("ca-m2ib", "random", "energy", direction, draws=1000)
        assert lead.low > 0.1


@pytest.mark.slow
def test_ca_m2ib_follows_the_guide_more_than_m2ib_does(tiny: mm.Backbone) -> None:
    agreement = {"ca-m2ib": 0.0, "m2ib": 0.0}
    budgets = {"ca-m2ib": {"points": 16}, "m2ib": {"samples": 2}}
    scenes = mm.scenes(3, seed=32)
    for method in agreement:
        for scene, other in zip(scenes, scenes[1:] + scenes[:1], strict=True):
            image = scene.input("image")
            right, wrong = (
                mm.attribute(tiny, image=image, text=caption, method=method, **budgets[method])
                for caption in (scene.caption, other.caption)
            )
            agreement[method] += _agreement(right, wrong, "image") / len(scenes)
    assert agreement["ca-m2ib"] < agreement["m2ib"] - 0.2


def _bits(tiny: mm.Backbone, scenes: list[mm.Scene]) -> dict[str, float]:
    """What ``ca-m2ib`` spends on each side, summed over scenes."""
    total = {"image": 0.0, "text": 0.0}
    for scene in scenes:
        found = mm.attribute(tiny, image=scene.input("image"), text=scene.caption, points=32)
        for side in total:
            bits = float(np.nansum(found[side].token_scores))
            assert bits == pytest.approx(found[side].diagnostics["capacity_bits"], rel=1e-4)
            total[side] += bits
    return total


def test_nothing_shared_buys_next_to_no_information(tiny: mm.Backbone) -> None:
    one, none = (_bits(tiny, mm.scenes(3, 34, options=SceneOptions(shared=n))) for n in (1, 0))
    for side in one:
        assert one[side] > 3 * none[side]


@pytest.mark.slow
def test_the_guide_as_the_input_attends_to_it_is_nearer_to_the_input(tiny: mm.Backbone) -> None:
    nearer = {"image": 0, "text": 0}
    for scene in mm.scenes(3, seed=35):
        found = mm.attribute(tiny, image=scene.input("image"), text=scene.caption)
        plain = mm.attribute(
            tiny, image=scene.input("image"), text=scene.caption, guidance="none", points=2
        )
        for side in nearer:
            told = found[side].diagnostics
            assert told["clean_cosine"] == pytest.approx(found.similarity, abs=1e-5)
            assert plain[side].diagnostics["fit_clean"] == plain[side].diagnostics["clean_cosine"]
            nearer[side] += told["fit_clean"] >= told["clean_cosine"]
    assert min(nearer.values()) >= 2


def test_recordings_from_elsewhere_are_taken(tiny: mm.Backbone) -> None:
    rate = 44_100
    seconds = np.arange(3 * rate) / rate
    stereo = np.stack([np.sin(2 * np.pi * 440 * seconds)] * 2, axis=1).astype(np.float32)
    picture = np.random.default_rng(0).integers(0, 255, (120, 333, 3), dtype=np.uint8)
    found = mm.attribute(tiny, image=picture, audio=(stereo * 0.3, rate), method="nib")
    assert found["image"].scores.shape == (120, 333)
    assert found["audio"].axes[1].values[-1] == pytest.approx(3.0, abs=0.03)
