"""The data types: short to look at, read-only, and fit to be copied and sent."""

from __future__ import annotations

import copy
import io
import json
import pickle
from dataclasses import asdict, replace
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from render_examples import audio_side, image_side, pair, seen_in_part, text_side

from mmattrib.types import Axis, Explanation, RawArray, RawAudio, RawImage, RawText, ReadOnlyDict


def made() -> Explanation:
    return pair(seen_in_part((0, 40, 40, 80)), text_side(), warnings=["a", "b"])


def sent(example: Explanation) -> Explanation:
    return example


def through_a_process(example: Explanation) -> Explanation:
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(sent, (example,))


def through_torch(example: Explanation) -> Explanation:
    buffer = io.BytesIO()
    torch.save(example, buffer)
    buffer.seek(0)
    found: Explanation = torch.load(buffer, weights_only=False)
    return found


@pytest.mark.parametrize(
    "way",
    [
        lambda example: pickle.loads(pickle.dumps(example)),
        lambda example: pickle.loads(pickle.dumps(example, protocol=2)),
        copy.deepcopy,
        copy.copy,
        through_torch,
        through_a_process,
    ],
)
def test_an_explanation_can_be_copied_and_sent(way: object) -> None:
    example = replace(made(), sample="pair-7", index=7)
    assert example["image"].scores.any()  # a map that was laid is not sent
    back = way(example)  # type: ignore[operator]
    assert list(back) == list(example)
    assert (back.sample, back.index) == ("pair-7", 7)
    assert back.provenance == example.provenance
    for side in example:
        np.testing.assert_array_equal(back[side].scores, example[side].scores)
        np.testing.assert_array_equal(back[side].seen, example[side].seen)
        assert repr(back[side].diagnostics) == repr(example[side].diagnostics)
        assert not back[side].token_scores.flags.writeable
    with pytest.raises(TypeError, match="read-only"):
        back.provenance["method"] = "another"
    assert len(pickle.dumps(example["image"])) < 5000


def test_asdict_gives_plain_values() -> None:
    found = asdict(made())
    assert found["similarity"] == made().similarity
    assert found["attributions"]["image"]["token_scores"].shape == (17,)
    assert found["attributions"]["image"]["placement"]["cells"][1]["start"] == 40
    assert found["inputs"]["text"]["text"] == made().inputs["text"].text
    json.dumps(found["provenance"])


def test_nothing_kept_can_be_changed_and_nothing_given_is_locked() -> None:
    scores = np.zeros(17, np.float32)
    attribution = replace(made()["image"], token_scores=scores)
    scores[0] = 1.0  # the caller's own array stays writeable
    for array in (attribution.token_scores, attribution.scores, attribution.seen):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    for change in (
        lambda kept: kept.update(a=1),
        lambda kept: kept.pop("a"),
        lambda kept: kept.clear(),
        lambda kept: kept.setdefault("a", 1),
        lambda kept: kept.__delitem__("a"),
        lambda kept: kept.__ior__({"a": 1}),
    ):
        with pytest.raises(TypeError, match="read-only"):
            change(ReadOnlyDict(a=0))


def test_an_explanation_equals_itself_alone_and_can_be_a_key() -> None:
    example = made()
    assert example == example
    assert example != copy.copy(example)
    assert {example: 1}[example] == 1


def test_reprs_are_one_short_line() -> None:
    long = "x" * 500 + "\n\x1b[31m"
    pixels = np.zeros((480, 640, 3), np.uint8)
    hostile = pair(image_side(name=long), text_side(long), method=long, backbone=long)
    shown = [
        RawImage(pixels, long),
        RawAudio(np.zeros(16000, np.float32), 16000, long),
        RawText(long),
        RawArray(np.zeros((8, 20, 30, 3), np.float32), long, long, 6.0),
        Axis(long, long, np.arange(640, dtype=np.float32)),
        Axis("x", "px", np.zeros(0, np.float32)),
        made(),
        replace(made(), sample=long),
        hostile,
        *made().values(),
        *hostile.values(),
        replace(audio_side()[1], unit=long),
    ]
    for value in shown:
        assert len(repr(value)) <= 120, repr(value)
        assert repr(value).isprintable()
    assert len(repr([made(), made()])) < 250
    assert str(made()) == repr(made())


def test_reprs_say_what_matters() -> None:
    example = made()
    bits = example["image"].token_scores[1:].sum()
    said = f"Attribution(image 40x120, {bits:.3g} bits, layer 9, 16 tokens)"
    assert repr(example["image"]) == said
    assert repr(example) == (
        "Explanation(image 40x120 + text 7 words, similarity 0.3, ca-m2ib on tiny)"
    )
    assert repr(example.inputs["image"]) == "RawImage('wide.png', 40x120)"
    assert repr(example["image"].axes[1]) == "Axis(x, 120 places, 0.5 to 119.5 px)"
