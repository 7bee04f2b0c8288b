"""The one verb: both sides from one call, the same map alone or in any batch, a model untouched."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import mmattrib as mm
from mmattrib.errors import InputError, MethodError, OptionError, TrustWarning, UnknownNameError
from mmattrib.methods import Method, Side, SideScores

SMALL = {"points": 4, "guide_points": 2, "draws_behind": 2}
"""A quick budget of the default method; what these tests say holds for any."""

SMALL_FIT = {"steps": 3, "samples": 2}
"""The same for a method that descends."""

METHODS = ("m2ib", "ca-m2ib", "ca-m2ib-literal", "nib", "gradient-x-input", "grad-cam", "random")

IMAGE = object()
"""Stands for a scene's picture in parametrised cases."""

pytestmark = pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")


def _budget(method: str) -> dict[str, int]:
    if method == "ca-m2ib":
        return SMALL
    return SMALL_FIT if "m2ib" in method else {}


def _pair(scene: mm.Scene, *modalities: str) -> dict[str, Any]:
    whole = {
        "image": scene.image,
        "audio": (scene.audio, scene.sample_rate),
        "text": scene.caption,
    }
    return {modality: whole[modality] for modality in modalities}


def _state(backbone: mm.Backbone) -> tuple[Any, ...]:
    """Everything about a model that a call might leave changed."""
    found = []
    for encoder in backbone.values():
        for module in encoder.module.modules():
            hooks = [len(v) for k, v in vars(module).items() if k.endswith("_hooks")]
            found.append((type(module), module.training, hooks))
        for name, value in encoder.module.named_parameters():
            found.append((name, value.requires_grad, value.grad is None, value.detach().sum()))
    return tuple(found)


def test_one_call_explains_both_sides(untrained: mm.Backbone, three_scenes: list[mm.Scene]) -> None:
    scene = three_scenes[0]
    ex = mm.attribute(untrained, **_pair(scene, "image", "audio"), seed=3, **SMALL)
    assert list(ex) == ["image", "audio"]
    assert ex["image"].scores.shape == (96, 96)
    assert ex["audio"].scores.shape == (64, 128)
    assert [axis.unit for axis in ex["audio"].axes] == ["Hz", "s"]
    assert ex["audio"].axes[1].values[-1] == pytest.approx(127 * 0.02)
    assert {side.unit for side in ex.values()} == {"bits"}
    assert -1 <= ex.similarity <= 1
    assert ex["image"].diagnostics["clean_cosine"] == pytest.approx(ex.similarity, abs=1e-5)
    assert ex.provenance["options"]["seed"] == 3
    assert ex.provenance["weights_sha256"] == untrained.weights_hash()
    assert ex.provenance["layers"] == {"image": ex["image"].layer, "audio": ex["audio"].layer}


def test_words_carry_their_spans(untrained: mm.Backbone) -> None:
    caption = "A dog, and  a bell."
    image = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    ex = mm.attribute(untrained, image=image, text=caption, method="nib")
    words = ex["text"].words
    assert [caption[word.start : word.end] for word in words] == [word.text for word in words]
    assert {"dog", "bell"} <= {word.text for word in words}
    assert ex["text"].scores.shape == (len(words),)
    assert ex["image"].scores.shape == (40, 30)


def _each() -> Iterator[Any]:
    """Batches are made alike for all methods: the others are longer tests."""
    for method in METHODS:
        marks = [] if method in ("m2ib", "ca-m2ib", "nib") else [pytest.mark.slow]
        yield pytest.param(method, marks=marks)


@pytest.mark.parametrize("method", list(_each()))
def test_a_map_is_the_same_alone_and_in_any_batch(
    method: str, untrained: mm.Backbone, three_scenes: list[mm.Scene]
) -> None:
    pairs = [_pair(scene, "audio", "text") for scene in three_scenes]
    short = (three_scenes[0].audio[:9000], 16000)
    long = (np.concatenate([scene.audio for scene in three_scenes[:2]]), 16000)
    pairs += [{"audio": short, "text": "a dog"}, {"audio": long, "text": "two dogs and a bell"}]
    given = {"method": method, "seed": 5, **_budget(method)}
    alone = [mm.attribute(untrained, **pair, **given) for pair in pairs]
    order = [3, 0, 4, 2, 1]
    many = mm.attribute_many(
        untrained, [pairs[i] for i in order], batch_size=4, progress=False, **given
    )
    for i, ex in zip(order, many, strict=True):
        for side, found in ex.items():
            expected = alone[i][side].scores
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found.scores, expected, rtol=1e-5, atol=1e-5 * scale)


def test_the_seed_decides_the_noise(untrained: mm.Backbone, three_scenes: list[mm.Scene]) -> None:
    pair = _pair(three_scenes[0], "image", "text")
    first, again, other = (
        mm.attribute(untrained, **pair, seed=seed, **SMALL)["image"].scores for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_the_order_of_the_two_inputs_does_not_matter(
    untrained: mm.Backbone, three_scenes: list[mm.Scene]
) -> None:
    pair = _pair(three_scenes[0], "image", "text")
    swapped = dict(reversed(list(pair.items())))
    one = mm.attribute(untrained, inputs=pair, **SMALL)
    two = mm.attribute(untrained, inputs=swapped, **SMALL)
    assert list(one) != list(two)
    for side in one:
        assert np.array_equal(one[side].scores, two[side].scores)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(
    method: str, untrained: mm.Backbone, three_scenes: list[mm.Scene]
) -> None:
    text = untrained["text"].module
    text.train()
    next(untrained["image"].module.parameters()).requires_grad_(False)
    before = _state(untrained)
    rng = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    mm.attribute(
        untrained, **_pair(three_scenes[0], "image", "text"), method=method, **_budget(method)
    )
    assert _state(untrained) == before
    assert torch.equal(torch.get_rng_state(), rng[0])
    assert np.random.get_state()[1].tolist() == rng[1]
    assert random.getstate() == rng[2]


class _Broken(Method):
    """Fails in the middle of a suffix."""

    name = "broken"
    unit = "none"

    def explain(self, side: Side) -> SideScores:
        tokens = side.tokens()
        side.suffix(tokens, torch.zeros(1, dtype=torch.long))
        raise RuntimeError("in the middle")


def test_the_model_is_left_as_it_was_after_an_exception(
    untrained: mm.Backbone, three_scenes: list[mm.Scene]
) -> None:
    before = _state(untrained)
    with pytest.raises(MethodError, match="in the middle"):
        mm.attribute(untrained, **_pair(three_scenes[0], "image", "text"), method=_Broken())
    assert _state(untrained) == before


def test_many_keeps_order_over_mixed_modalities(
    untrained: mm.Backbone, three_scenes: list[mm.Scene]
) -> None:
    kinds = [("image", "text"), ("audio", "text"), ("image", "text")]
    pairs = [_pair(scene, *kind) for scene, kind in zip(three_scenes, kinds, strict=True)]
    found = list(mm.attribute_many(untrained, iter(pairs), method="nib", progress=False))
    assert [tuple(ex) for ex in found] == kinds
    for pair, ex in zip(pairs, found, strict=True):
        alone = mm.attribute(untrained, **pair, method="nib")
        assert np.array_equal(ex["text"].scores, alone["text"].scores)


def test_a_broken_pair_names_itself_and_does_not_end_the_rest(
    untrained: mm.Backbone, three_scenes: list[mm.Scene]
) -> None:
    good = _pair(three_scenes[0], "image", "text")
    pairs = [good, {"image": "nowhere.png", "text": "a dog"}, good]
    with pytest.raises(InputError, match=r"pair 1: .*nowhere\.png"):
        list(mm.attribute_many(untrained, pairs, method="nib", progress=False))
    with pytest.warns(UserWarning, match=r"pair 1: .*nowhere\.png.*left out"):
        found = list(
            mm.attribute_many(untrained, pairs, method="nib", progress=False, on_error="warn")
        )
    assert [ex.index for ex in found] == [0, 2]
    given = {"method": "nib", "progress": False, "on_error": "return"}
    first, failed, last = mm.attribute_many(untrained, pairs, **given)
    assert isinstance(failed, mm.Failure)
    assert (failed.index, failed.sample) == (1, None)
    assert isinstance(failed.error, InputError)
    np.testing.assert_array_equal(first["image"].scores, last["image"].scores)
    with pytest.raises(InputError, match="a pair is a mapping"):
        list(mm.attribute_many(untrained, [3], method="nib", progress=False))


def test_results_carry_the_id_of_their_sample(
    untrained: mm.Backbone, three_scenes: list[mm.Scene]
) -> None:
    samples = [
        mm.Sample(f"s{k}", _pair(scene, "image", "text")) for k, scene in enumerate(three_scenes)
    ]
    found = list(mm.attribute_many(untrained, samples, method="random", progress=False))
    assert [(ex.sample, ex.index) for ex in found] == [("s0", 0), ("s1", 1), ("s2", 2)]
    named: list[Any] = [{"id": "a", **samples[0].inputs}, {"id": 3, **samples[1].inputs}]
    first, failed = mm.attribute_many(
        untrained, named, method="random", progress=False, on_error="return"
    )
    assert isinstance(failed, mm.Failure)
    assert first.sample == "a"
    assert "the id of a pair is a text, got '3'" in str(failed)
    data = mm.load_dataset("scenes", n=1)
    with pytest.raises(InputError, match=r"take two with sample\.pair"):
        list(mm.attribute_many(untrained, data, method="random", progress=False))


def test_a_mistyped_side_of_a_layer_is_an_error(
    untrained: mm.Backbone, three_scenes: list[mm.Scene]
) -> None:
    pair = _pair(three_scenes[0], "image", "text")
    with pytest.raises(OptionError, match=r"'imgae'.*image and text"):
        mm.attribute(untrained, inputs=pair, method="random", layer={"imgae": 1})
    with pytest.raises(OptionError, match="'audio'"):
        mm.attribute(untrained, inputs=pair, method="random", layer={"audio": 1})


def test_a_long_recording_keeps_its_own_time_axis(
    untrained: mm.Backbone, three_scenes: list[mm.Scene]
) -> None:
    audio = np.concatenate([scene.audio for scene in three_scenes] + [np.ones(5000, "float32")])
    ex = mm.attribute(untrained, audio=(audio, 16000), text="a dog", method="nib")
    seconds = ex["audio"].axes[1].values
    assert ex["audio"].scores.shape == (64, len(seconds))
    assert len(audio) / 16000 - 0.02 <= seconds[-1] <= len(audio) / 16000
    with pytest.raises(InputError, match="at most 61 s"):
        mm.attribute(untrained, audio=(np.tile(audio, 8), 16000), text="a dog", method="nib")


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({}, InputError, "exactly two"),
        ({"text": "a dog"}, InputError, "exactly two inputs make a pair, got 1 \\(text\\)"),
        ({"text": "a", "inputs": {"depth": 1}}, InputError, "does not embed depth"),
        ({"image": IMAGE, "text": "a dog", "layer": 9}, OptionError, "no layer 9; accepted: -1"),
        ({"image": IMAGE, "text": "a dog", "layer": 5}, OptionError, "same for any guide"),
        ({"image": IMAGE, "text": "a dog", "layer": {"text": 1.5}}, OptionError, "whole number"),
        ({"image": IMAGE, "text": "a dog", "method": "ca-m2bi"}, UnknownNameError, "'ca-m2ib'"),
        ({"image": IMAGE, "text": "a dog", "betta": 1}, OptionError, "beta"),
        ({"image": IMAGE, "text": "a dog", "beta": -1}, OptionError, "beta must be 1e-09 or more"),
        (
            {"image": IMAGE, "text": "a dog", "method": _Broken(), "beta": 1},
            OptionError,
            "as an object",
        ),
        ({"image": IMAGE, "text": " ".join(["dog"] * 40)}, InputError, "at most 23"),
    ],
)
def test_what_cannot_be_done_is_said(
    given: dict[str, Any],
    error: type[Exception],
    says: str,
    untrained: mm.Backbone,
    three_scenes: list[mm.Scene],
) -> None:
    filled = {k: three_scenes[0].image if v is IMAGE else v for k, v in given.items()}
    with pytest.raises(error, match=says):
        mm.attribute(untrained, **filled)


def test_a_method_object_is_as_good_as_a_name(
    untrained: mm.Backbone, three_scenes: list[mm.Scene]
) -> None:
    pair = _pair(three_scenes[0], "image", "text")
    by_name = mm.attribute(untrained, **pair, method="m2ib", beta=0.2, steps=3)
    method = mm.load_method("m2ib", beta=0.2, steps=3)
    by_object = mm.attribute(untrained, **pair, method=method)
    assert np.array_equal(by_name["text"].scores, by_object["text"].scores)
    assert by_name.provenance["options"] == by_object.provenance["options"]


def test_the_weights_hash_follows_the_weights(untrained: mm.Backbone) -> None:
    before = untrained.weights_hash()
    assert untrained.weights_hash() == before
    with torch.no_grad():
        next(untrained["text"].module.parameters()).add_(1.0)
    assert untrained.weights_hash() != before


def test_collapse_is_reported(untrained: mm.Backbone, three_scenes: list[mm.Scene]) -> None:
    pair = _pair(three_scenes[0], "image", "text")
    with pytest.warns(TrustWarning, match="changed its own target"):
        ex = mm.attribute(untrained, **pair, method="ca-m2ib-literal")
    assert any("changed its own target" in text for text in ex["image"].diagnostics["warnings"])
