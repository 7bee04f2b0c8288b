"""What workers cannot be sent, and where the iterator of the work fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from small_tiny import small_tiny
from telling_methods import Telling

import mmattrib as mm
from mmattrib.errors import OptionError, WorkerError
from mmattrib.workers import Workers

PAIR = {"image": np.zeros((8, 8, 3), np.uint8), "text": "a dog"}


class OwnError(Exception):
    """An error of the caller's own."""


def failing(count: int) -> Iterator[dict[str, Any]]:
    for _ in range(count):
        yield PAIR
    raise OwnError("the disk is gone")


def all_of(found: Iterator[Any]) -> tuple[list[Any], Exception | None]:
    got: list[Any] = []
    try:
        got.extend(found)
    except Exception as error:
        return got, error
    return got, None


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"readers": 2},
        {"readers": 2, "batch_size": 2},
        {"deterministic": False, "batch_size": 2},
    ],
    ids=lambda given: ", ".join(given) or "default",
)
def test_pairs_before_an_iterators_own_error_are_explained(given: dict[str, Any]) -> None:
    found, error = all_of(
        mm.attribute_many(small_tiny(), failing(5), method=Telling(), progress=False, **given)
    )
    assert [each.index for each in found] == [0, 1, 2, 3, 4]
    assert type(error) is OwnError


def _double(_given: object, item: Any, _tell: object) -> Any:
    return {"lambda": lambda: item} if item == "unsendable" else item * 2


def test_workers_do_what_came_before_an_error_and_tell_what_cannot_be_sent() -> None:
    def items() -> Iterator[Any]:
        yield from (1, lambda: 2, "unsendable", 4, 5)
        raise OwnError("the disk is gone")

    found, error = all_of(Workers(1, _double, None).run(items(), in_order=True))
    assert type(error) is OwnError
    results = [result for _, result in found]
    assert (results[0], *results[3:]) == (2, 8, 10)
    assert [type(result) for result in results[1:3]] == [WorkerError] * 2
    for result, what in zip(results[1:3], ("an item", "what came of"), strict=True):
        assert str(result).startswith(what)
        assert "cannot be pickled" in str(result)
        assert "use jobs=1" in str(result)


@pytest.mark.slow
def test_a_pair_that_cannot_be_sent_costs_no_other() -> None:
    pairs = [PAIR, {"image": lambda: 1, "text": "x", "id": "odd"}, PAIR]
    found = list(
        mm.attribute_many(
            small_tiny(), pairs, method=Telling(), progress=False, jobs=2, on_error="return"
        )
    )
    assert [each.index for each in found] == [0, 1, 2]
    assert isinstance(found[1], mm.Failure)
    assert found[1].sample == "odd"
    assert isinstance(found[1].error, WorkerError)


@pytest.mark.parametrize("call", ["attribute_many", "evaluate"])
def test_a_model_that_cannot_be_sent_is_told(call: str) -> None:
    model = small_tiny()
    model["image"].module.act = lambda x: x  # type: ignore[assignment]
    samples = [mm.Sample("a", PAIR), mm.Sample("b", PAIR)]

    def run() -> None:
        if call == "attribute_many":
            list(mm.attribute_many(model, samples, method=Telling(), jobs=2, progress=False))
            return
        mm.evaluate(model, samples, methods=["random"], metrics=["auc"], jobs=2, progress=False,
                    pairs=[("image", "text")])  # fmt: skip

    with pytest.raises(OptionError, match=r"backbone.* cannot be pickled .*lambda.*use jobs=1"):
        run()


def test_processes_that_do_not_start_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise OSError("no process is left")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", none_left)
    with pytest.raises(WorkerError, match=r"no worker process could be started .*no process is"):
        list(Workers(2, _double, None).run([1, 2]))
