"""Many pairs: one by one or together, read ahead, and shared among processes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from telling_methods import Telling

import mmattrib as mm
import mmattrib.many
from mmattrib.errors import InputError, OptionError
from mmattrib.evaluation import Serial
from mmattrib.methods.pace import Pace
from mmattrib.models.turns import turn
from mmattrib.preparing import prepare

SMALL: Mapping[str, Mapping[str, int]] = {
    "ca-m2ib": {"points": 4, "guide_points": 2, "draws_behind": 2},
    "m2ib": {"steps": 3, "samples": 2},
    "nib": {"steps": 3},
    "integrated-gradients": {"steps": 3},
}

TOGETHER = 5e-5
"""Of a map's largest score: float32 sums in another order."""

pytestmark = pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")


@pytest.fixture
def pairs(three_scenes: list[mm.Scene]) -> list[dict[str, Any]]:
    """Four pictures with captions."""
    captions = ("a dog", "a red dog beside two bells", "a cat", "a drum")
    pictures = [scene.image for scene in three_scenes] + [three_scenes[0].image[::-1].copy()]
    return [{"image": one, "text": text} for one, text in zip(pictures, captions, strict=True)]


def many(backbone: mm.Backbone, pairs: list[Any], method: Any, **given: Any) -> list[Any]:
    options = SMALL.get(method, {}) if isinstance(method, str) else {}
    return list(
        mm.attribute_many(backbone, pairs, method=method, progress=False, **options, **given)
    )


def gap(found: mm.Explanation, expected: mm.Explanation) -> float:
    """The largest difference of any side, as a share of its largest score."""
    gaps = []
    for side, own in expected.items():
        ours, scores = found[side].token_scores[own.content], own.token_scores[own.content]
        gaps.append(float(np.abs(ours - scores).max() / np.abs(scores).max()))
    return max(gaps)


def _each(quick: tuple[str, ...], longer: tuple[str, ...]) -> list[Any]:
    return [*quick, *(pytest.param(name, marks=pytest.mark.slow) for name in longer)]


@pytest.mark.parametrize(
    "method",
    _each(("ca-m2ib", "chefer"), ("m2ib", "nib", "saliency", "grad-cam", "legrad", "grad-eclip")),
)
def test_pairs_together_have_the_maps_that_they_have_alone(
    method: str, untrained: mm.Backbone, pairs: list[dict[str, Any]]
) -> None:
    alone = many(untrained, pairs[:3], method)
    together = many(untrained, pairs[:3], method, deterministic=False)
    for found, expected in zip(together, alone, strict=True):
        assert gap(found, expected) < TOGETHER
        assert found.similarity == pytest.approx(expected.similarity, abs=1e-5)
        assert found.provenance["deterministic"] is False
        assert expected.provenance["deterministic"] is True
        for side, own in expected.items():
            assert found[side].diagnostics.keys() == own.diagnostics.keys()


def test_a_processor_takes_pairs_one_by_one_bit_for_bit(
    untrained: mm.Backbone, pairs: list[dict[str, Any]]
) -> None:
    usual = many(untrained, pairs[:2], "nib")
    asked = many(untrained, pairs[:2], "nib", deterministic=True, precision="full", readers=2)
    for found, expected in zip(asked, usual, strict=True):
        assert gap(found, expected) == 0
        assert found.provenance["precision"] == expected.provenance["precision"] == "full"


def test_pairs_of_equal_shapes_go_together_and_keep_their_order(
    untrained: mm.Backbone, pairs: list[dict[str, Any]]
) -> None:
    pairs = [
        pair if at % 2 else {**pair, "image_2": pair["image"]} for at, pair in enumerate(pairs)
    ]
    for pair in pairs[::2]:  # another kind of pair, in turns
        del pair["text"]
    some = [*pairs[:2], {"image": "nowhere.png", "text": "a dog"}, *pairs[2:]]
    found = many(untrained, some, Telling(), deterministic=False, on_error="return")
    assert [each.index for each in found] == [0, 1, 2, 3, 4]
    assert isinstance(found.pop(2), mm.Failure)
    assert [each["image"].diagnostics["pairs"] for each in found] == [2, 2, 2, 2]
    assert ["text" in each for each in found] == [False, True, False, True]
    halves = many(untrained, pairs, Telling(), deterministic=False, batch_size=2)
    assert [each["image"].diagnostics["pairs"] for each in halves] == [1, 1, 1, 1]
    alone = many(untrained, pairs, Telling())
    assert [each["image"].diagnostics["pairs"] for each in alone] == [1, 1, 1, 1]


def test_one_call_of_the_tower_embeds_pairs_that_go_together(
    untrained: mm.Backbone, pairs: list[dict[str, Any]]
) -> None:
    sizes: list[int] = []
    tower = untrained["image"].module
    handle = tower.register_forward_hook(lambda _m, args, _out: sizes.append(len(args[0])))
    try:
        many(untrained, pairs[::2], "random", deterministic=False)
        together, sizes[:] = list(sizes), []
        many(untrained, pairs[::2], "random")
    finally:
        handle.remove()
    assert max(together) == 2
    assert max(sizes) == 1


def test_half_precision_is_of_the_suffix_alone_and_can_be_left_off(
    untrained: mm.Backbone, pairs: list[dict[str, Any]]
) -> None:
    full = mm.attribute(untrained, **pairs[1], method="nib", precision="full")
    auto = mm.attribute(untrained, **pairs[1], method="nib")
    half = mm.attribute(untrained, **pairs[1], method="nib", precision="half")
    assert gap(auto, full) == 0
    assert half.provenance["precision"] == "bfloat16"
    assert half.similarity == full.similarity  # the whole tower's, untouched
    for side, own in full.items():
        found = half[side].token_scores[own.content]
        assert found.dtype == np.float32
        assert not np.array_equal(found, own.token_scores[own.content])
        assert np.corrcoef(found, own.token_scores[own.content])[0, 1] > 0.99


def test_what_the_device_decides() -> None:
    cpu, card = torch.device("cpu"), torch.device("cuda", 0)
    assert not Pace().takes_together(cpu)
    assert Pace().takes_together(card)
    assert not Pace(deterministic=True).takes_together(card)
    assert Pace(deterministic=False).takes_together(cpu)
    assert Pace().half(cpu) is None
    assert Pace(precision="full").half(card) is None
    assert Pace(precision="half").half(cpu) is torch.bfloat16
    assert Pace(True, "half").describe([cpu]) == {"deterministic": True, "precision": "bfloat16"}
    assert Pace().asked() == {}
    assert Pace(False).asked() == {"deterministic": False}


@pytest.mark.parametrize("able", [(7, 5), (9, 0)])
def test_half_is_taken_where_a_card_has_units_for_it(
    able: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: able)
    expected = torch.bfloat16 if able == (9, 0) else None
    assert Pace().half(torch.device("cuda", 0)) is expected


class Bar:
    """A progress bar that remembers when it moved."""

    events: list[str] = []  # noqa: RUF012
    disable, n, initial = False, 0, 0

    def __init__(self, **_given: Any) -> None:
        self.events.clear()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_error: object) -> None:
        return None

    def update(self, count: int = 1) -> None:
        self.events.append(f"moved {count}")


class Seen(Telling):
    """Tells the bar's list when a side is explained."""

    def explain(self, side: Any) -> Any:
        Bar.events.append("explained")
        return super().explain(side)


def test_the_bar_moves_with_every_pair(
    untrained: mm.Backbone, pairs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmattrib.many, "tqdm", Bar)
    many(untrained, pairs, Seen())
    assert Bar.events == ["explained", "explained", "moved 1"] * 4


def test_the_bar_of_an_evaluation_moves_with_every_pair(
    untrained: mm.Backbone, pairs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["mmattrib.evaluation.run"], "tqdm", Bar)
    samples = [mm.Sample(f"s{number}", pair) for number, pair in enumerate(pairs)]
    samples.insert(1, mm.Sample("broken", {"image": "nowhere.png", "text": "a dog"}))
    executor = Serial()
    found = mm.evaluate(
        untrained, samples, methods=[Seen()], metrics=["auc"], engine=executor,
        pairs=[("image", "text")],
    )  # fmt: skip
    assert len(found.problems) == 1
    one = ["explained", "explained", "moved 1"]
    assert Bar.events == [*one, "moved 1", *one * 3, "moved 0"]
    assert "told" not in vars(executor)


def test_the_next_batch_is_read_while_one_is_explained(
    untrained: mm.Backbone, pairs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, str]] = []
    second = threading.Event()

    def watched(backbone: mm.Backbone, pair: Any, index: int) -> Any:
        read.append((index, threading.current_thread().name))
        found = prepare(backbone, pair, index)
        if index == 3:
            second.set()
        return found

    class Waiting(Telling):
        def explain(self, side: Any) -> Any:
            assert second.wait(60)  # within the model's turn, and the readers go on
            return super().explain(side)

    monkeypatch.setattr(mmattrib.many, "prepare", watched)
    found = many(untrained, pairs, Waiting(), readers=1, batch_size=2)
    assert [each.index for each in found] == [0, 1, 2, 3]
    assert {name.partition("_")[0] for _, name in read} == {"mmattrib-reader"}


def test_reading_waits_for_no_model(untrained: mm.Backbone, pairs: list[dict[str, Any]]) -> None:
    done = threading.Event()

    def read() -> None:
        prepare(untrained, pairs[0])
        done.set()

    with turn():
        threading.Thread(target=read, daemon=True).start()
        assert done.wait(60)


def test_readers_end_with_the_iterator(untrained: mm.Backbone, pairs: list[dict[str, Any]]) -> None:
    def endless() -> Iterator[dict[str, Any]]:
        while True:
            yield pairs[0]

    found = mm.attribute_many(
        untrained, endless(), method="random", readers=2, batch_size=2, progress=False
    )
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("mmattrib-reader")]


@pytest.mark.slow
def test_processes_share_pairs_with_one_thread_each(
    untrained: mm.Backbone, pairs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmattrib.many, "tqdm", Bar)
    some = [{"id": "first", **pairs[0]}, {"image": "nowhere.png", "text": "a dog"}, *pairs[1:]]
    found = many(untrained, some, Telling(), jobs=2, on_error="return")
    failed = found.pop(1)
    assert (failed.index, type(failed.error)) == (1, InputError)
    assert [each.index for each in found] == [0, 2, 3, 4]
    assert found[0].sample == "first"
    assert {each["image"].diagnostics["threads"] for each in found} == {1}
    assert Bar.events == ["moved 1"] * 5


@pytest.mark.slow
def test_processes_give_the_maps_of_one(
    untrained: mm.Backbone, pairs: list[dict[str, Any]]
) -> None:
    here = many(untrained, pairs, "ca-m2ib")
    shared = many(untrained, pairs, "ca-m2ib", jobs=2)
    assert [gap(found, expected) for found, expected in zip(shared, here, strict=True)] == [0] * 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jobs": 0}, "jobs"),
        ({"jobs": 2, "readers": 1}, "readers=1 would have no effect"),
        ({"jobs": 2, "deterministic": False}, "deterministic=False would have no effect"),
        ({"readers": -1}, "readers"),
        ({"deterministic": "no"}, "deterministic must be True or False, or None"),
        ({"precision": "quarter"}, "precision must be one of auto, full, half"),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_what_cannot_be_done_is_said(
    given: dict[str, Any], message: str, untrained: mm.Backbone, pairs: list[dict[str, Any]]
) -> None:
    with pytest.raises(OptionError, match=message):
        many(untrained, pairs, "random", **given)
