"""The protocol: splits that share no scene, kinds that share what they say."""

from __future__ import annotations

import numpy as np
import pytest

from examples.study.protocol import DIRECTIONS, SEEDS, Kind, protocol_scenes
from mmattrib.datasets.scenes.generator import part_names
from mmattrib.errors import OptionError


def test_search_and_final_share_no_scene() -> None:
    assert len(set(SEEDS.values())) == len(SEEDS)
    search, final = (protocol_scenes(split, "one", 4) for split in SEEDS)
    assert not {s.caption for s in search} & {s.caption for s in final}
    for a in search:
        assert not any(np.array_equal(a.image, b.image) for b in final)


@pytest.mark.parametrize(("kind", "count"), [("one", 1), ("two", 2), ("none", 0)])
def test_a_kind_shares_what_it_says(kind: Kind, count: int) -> None:
    for scene in protocol_scenes("search", kind, 3):
        held = [set(part_names(scene, m)) - {None} for m in ("image", "audio", "text")]
        assert len(scene.shared) == count
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert held[a] & held[b] == set(scene.shared)


def test_a_scene_does_not_depend_on_where_the_range_starts() -> None:
    whole, tail = protocol_scenes("search", "one", 3), protocol_scenes("search", "one", 1, start=2)
    assert tail[0].caption == whole[2].caption
    np.testing.assert_array_equal(tail[0].audio, whole[2].audio)


def test_six_directions() -> None:
    names = ("image", "audio", "text")
    assert set(DIRECTIONS) == {f"{a}|{b}" for a in names for b in names if a != b}


@pytest.mark.parametrize(
    ("args", "says"),
    [(("train", "one", 1), "search, final"), (("final", "three", 1), "one, two, none"),
     (("final", "one", -1), "0 or more")],
)  # fmt: skip
def test_what_the_protocol_has_not_is_refused(args: tuple[str, str, int], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        protocol_scenes(*args)  # type: ignore[arg-type]
