"""The protocol: phases that share no scene, scenes that share what they say."""

from __future__ import annotations

import numpy as np
import pytest

from examples.study.protocol import DIRECTIONS, SEEDS, Sharing, protocol_scenes
from mmattrib.errors import OptionError


def test_search_and_final_share_no_scene() -> None:
    assert len(set(SEEDS.values())) == len(SEEDS)
    search, final = (list(protocol_scenes(phase, "one", 4)) for phase in SEEDS)
    assert not {s.inputs["text"].text for s in search} & {s.inputs["text"].text for s in final}
    for a in search:
        pixels = a.inputs["image"].pixels
        assert not any(np.array_equal(pixels, b.inputs["image"].pixels) for b in final)


@pytest.mark.parametrize(("sharing", "count"), [("one", 1), ("two", 2), ("none", 0)])
def test_scenes_share_what_they_say(sharing: Sharing, count: int) -> None:
    for sample in protocol_scenes("search", sharing, 3):
        held = [sample.truth[side].names for side in ("image", "audio", "text")]
        shared = {part.name for part in sample.truth["image"].parts if part.shared}
        assert len(shared) == count
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert held[a] & held[b] == shared


def test_a_scene_does_not_depend_on_where_the_range_starts() -> None:
    whole, tail = protocol_scenes("search", "one", 3), protocol_scenes("search", "one", 1, start=2)
    (last,) = tail
    assert last.id == list(whole)[2].id
    np.testing.assert_array_equal(
        last.inputs["audio"].samples, list(whole)[2].inputs["audio"].samples
    )
    assert tail.fingerprint() == whole.fingerprint()


def test_six_directions() -> None:
    names = ("image", "audio", "text")
    assert set(DIRECTIONS) == {f"{a}|{b}" for a in names for b in names if a != b}


@pytest.mark.parametrize(
    ("args", "says"),
    [(("train", "one", 1), "search, final"), (("final", "three", 1), "one, two, none"),
     (("final", "one", -1), "from 1 to")],
)  # fmt: skip
def test_what_the_protocol_has_not_is_refused(args: tuple[str, str, int], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        protocol_scenes(*args)  # type: ignore[arg-type]
