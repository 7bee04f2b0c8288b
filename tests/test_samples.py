"""Samples: truth in the shape of a map, whatever form it was given in."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from render_examples import audio_side, image_side, pair, text_side

import mmattrib as mm
from mmattrib.errors import InputError
from mmattrib.samples import BoxRegion, MaskRegion, Part, Sample, SpanRegion, TimeRegion, Truth
from mmattrib.types import Attribution, Axis


def image() -> Attribution:
    return pair(image_side(), text_side())["image"]


def audio() -> Attribution:
    return pair(audio_side(), text_side())["audio"]


def text() -> Attribution:
    return pair(image_side(), text_side())["text"]


def test_a_box_holds_the_pixels_whose_centres_it_holds() -> None:
    found = BoxRegion(top=1.0, left=2.4, bottom=3.0, right=4.6).on(image())
    rows, columns = np.nonzero(found)
    assert set(rows) == {1, 2}
    assert set(columns) == {2, 3, 4}, "columns with centres 2.5, 3.5 and 4.5"
    assert not BoxRegion(-9, -9, -1, -1).on(image()).any()
    assert BoxRegion(-9, -9, 10_000, 10_000).on(image()).all()


def test_onset_and_offset_lie_on_the_axis_of_time() -> None:
    map_ = audio()
    seconds = map_.axes[1].values
    found = TimeRegion(float(seconds[2]), float(seconds[5])).on(map_)
    assert found.shape == map_.shape
    assert np.flatnonzero(found.any(0)).tolist() == [2, 3, 4]
    assert (found.all(0) == found.any(0)).all(), "every band of frequency"


def test_a_span_holds_the_words_that_it_touches() -> None:
    map_ = text()
    first, second = map_.words[:2]
    found = SpanRegion(first.end - 1, second.start + 1).on(map_)
    assert np.flatnonzero(found).tolist() == [0, 1]
    assert not SpanRegion(first.end, first.end).on(map_).any()


def test_a_mask_on_other_axes_is_looked_up_by_the_nearest_cell() -> None:
    map_ = audio()
    coarse = tuple(
        Axis(a.name, a.unit, np.linspace(a.values[0], a.values[-1], 3).astype(np.float32))
        for a in map_.axes
    )
    values = np.zeros((3, 3), bool)
    values[0, 2] = True
    found = MaskRegion(values, coarse).on(map_)
    rows, columns = (axis.values for axis in map_.axes)
    near = [np.abs(c.values[:, None] - own).argmin(0) for c, own in zip(coarse, (rows, columns),
                                                                      strict=True)]  # fmt: skip
    expected = np.logical_and.outer(near[0] == 0, near[1] == 2)
    assert (found == expected).mean() > 0.99
    own = MaskRegion(np.ones(map_.shape, bool)).on(map_)
    assert own.all()


@pytest.mark.parametrize(
    ("region", "map_"),
    [
        (BoxRegion(0, 0, 1, 1), "audio"),
        (BoxRegion(0, 0, 1, 1), "text"),
        (TimeRegion(0, 1), "image"),
        (SpanRegion(0, 1), "audio"),
        (MaskRegion(np.ones((2, 2), bool)), "image"),
    ],
)
def test_a_region_of_another_kind_of_input_is_refused(region: object, map_: str) -> None:
    made = {"image": image, "audio": audio, "text": text}[map_]()
    with pytest.raises(InputError):
        region.on(made)  # type: ignore[attr-defined]


def test_shared_parts_make_the_mask_and_others_only_stand_beside() -> None:
    map_ = image()
    truth = Truth(
        (
            Part((BoxRegion(0, 0, 2, 2), BoxRegion(4, 4, 6, 6)), True, "cat"),
            Part(BoxRegion(2, 2, 4, 4), False, "dog"),
        )
    )
    masks = truth.on(map_)
    assert masks.shared == (True, False)
    assert (masks.mask == masks.parts[0]).all()
    assert masks.mask.sum() == 8
    assert truth.names == {"cat", "dog"}
    where = np.zeros(map_.shape, bool)
    where[:3, :3] = True
    assert masks.within(where).mask.sum() == 4


def test_a_sample_gives_two_of_its_inputs() -> None:
    known = {"image": Truth(()), "audio": Truth(())}
    sample = Sample("s", {"image": "a.png", "audio": "b.wav", "text": "c"}, known)
    two = sample.pair("text", "image")
    assert list(two.inputs) == ["text", "image"]
    assert list(two.truth) == ["image"]
    with pytest.raises(InputError, match=r"'s' has no 'depth'; it has image, audio, text"):
        sample.pair("image", "depth")
    assert repr(sample) == "Sample('s': image, audio, text, truth of image, audio)"
    again = pickle.loads(pickle.dumps(next(iter(mm.load_dataset("scenes", n=1)))))
    assert isinstance(again, Sample)
