"""What is of a wrong type is refused by name before any work, by every public function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmattrib as mm
from mmattrib.errors import MmattribError, OptionError
from mmattrib.evaluation import Column, Results, executor_for, remove_and_retrain
from mmattrib.evaluation.retraining import Recipe
from mmattrib.evaluation.store import Store, read_entries
from mmattrib.metrics.curves import Insertion
from mmattrib.perturb import keep
from mmattrib.plugins import default_plugins
from mmattrib.plugins.registry import Registry
from mmattrib.types import RawImage, RawText

PAIR = {"image": np.zeros((8, 8, 3), np.uint8), "text": "a dog"}
WRONG = [None, 5, [], {}, "tiny", object()]


def registry() -> Registry:
    return default_plugins().registry


@pytest.mark.parametrize("given", WRONG, ids=lambda given: type(given).__name__)
@pytest.mark.parametrize(
    "use",
    [
        lambda b: mm.attribute(b, **PAIR, method="random"),
        lambda b: list(mm.attribute_many(b, [PAIR], method="random")),
        lambda b: mm.evaluate(b, [mm.Sample("a", PAIR)]),
        lambda b: mm.calibrate(b, [mm.Sample("a", PAIR)]),
    ],
)
def test_what_is_no_backbone_is_refused(use: Callable[[Any], Any], given: Any) -> None:
    with pytest.raises(OptionError, match="backbone"):
        use(given)


@pytest.mark.parametrize(
    "given", [None, 5, [], b"x", np.zeros(3)], ids=lambda given: type(given).__name__
)
@pytest.mark.parametrize(
    "use",
    [
        lambda _b, x: mm.load(x),
        lambda _b, x: mm.load_calibration(x),
        lambda _b, x: mm.load_backbone(x),
        lambda _b, x: mm.load_method(x),
        lambda _b, x: mm.load_dataset(x),
        lambda _b, x: mm.verdict(x),
        lambda _b, x: mm.Backbone(x),
        lambda _b, x: mm.Backbone({"image": x}),
        lambda _b, x: mm.Sample(x, x),
        lambda _b, x: mm.Variant("a", "random", x),
        lambda b, x: setattr(b, "calibration", 5 if x is None else x),
        lambda b, x: list(mm.attribute_many(b, 5 if isinstance(x, list) else x, method="random")),
        lambda b, _x: list(mm.attribute_many(b, [PAIR], progress=np.zeros(3))),  # type: ignore[arg-type]
        lambda b, _x: mm.evaluate(b, [mm.Sample("a", PAIR)], progress=np.zeros(3)),  # type: ignore[arg-type]
    ],
)
def test_what_is_of_a_wrong_type_is_refused(
    untrained: mm.Backbone, use: Callable[[Any, Any], Any], given: Any
) -> None:
    with pytest.raises(MmattribError):
        use(untrained, given)


@pytest.fixture(scope="module")
def results() -> Results:
    column = Column("scenes", "tiny", "random", 0, "image|text", "auc")
    return Results({column: np.array([0.5])}, {"scenes": {0: "a"}})


@pytest.mark.parametrize(
    "given",
    [np.zeros(0), np.zeros((2, 2)), np.array("auc"), {"auc": 1}, 5],
    ids=["empty", "table", "scalar", "mapping", "number"],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda _e, r, x: r.values(x, "image|text", "auc"),
        lambda _e, r, x: r.values("random", x, "auc"),
        lambda _e, r, x: r.values("random", "image|text", x),
        lambda _e, r, x: r.values("random", "image|text", "auc", dataset=x),
        lambda _e, _r, x: mm.load_dataset("scenes", n=1, split=x),
        lambda _e, _r, x: executor_for(1, x),
        lambda _e, _r, x: keep(RawText("a dog", "caption"), np.ones(2), fill=x),
        lambda _e, _r, x: Insertion(fill=x),
        lambda e, _r, x: e.save("never.html", scale=x),
    ],
)
def test_what_is_no_word_is_none_of_the_accepted_words(
    explanation: mm.Explanation, results: Results, use: Callable[..., Any], given: Any
) -> None:
    """An array is compared element by element, and a mapping cannot be looked up."""
    with pytest.raises(OptionError):
        use(explanation, results, given)


class Unwritable:
    """Its own code fails whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


UNWRITABLE = {
    "huge": 10**6000,
    "negative": -(10**6000),
    "long": "9" * 100_000,
    "object": Unwritable(),
    "list": [10**6000],
    "mapping": {"image": 10**6000},
}
IMAGE = RawImage(PAIR["image"])  # type: ignore[arg-type]
ECHOED: dict[str, Callable[[mm.Backbone, Any], object]] = {
    "layer": lambda b, x: mm.attribute(b, **PAIR, method="random", layer=x),
    "seed": lambda _b, x: mm.load_method("random", seed=x),
    "steps": lambda _b, x: mm.load_method("nib", steps=x),
    "keep": lambda _b, x: mm.load_method("ca-m2ib", keep=x),
    "name": lambda _b, x: mm.load_method(x),
    "on_error": lambda b, x: list(mm.attribute_many(b, [], on_error=x)),
    "fill": lambda _b, x: keep(IMAGE, np.ones((8, 8)), fill=x),
    "lr": lambda _b, x: Recipe.of(lr=x),
    "roar percentiles": lambda b, x: remove_and_retrain(b, [], folder=".", percentiles=x),
    "roar fills": lambda b, x: remove_and_retrain(b, [], folder=".", fills=x),
    "variants": lambda b, x: mm.evaluate(b, [mm.Sample("a", PAIR)], methods=x),
    "threshold": lambda _b, x: registry().create("metric", "localization", threshold=x),
    "share": lambda _b, x: registry().create("metric", "faithfulness_correlation", share=x),
    "percentiles": lambda _b, x: registry().create("metric", "road", percentiles=x),
}


@pytest.mark.parametrize("given", UNWRITABLE)
@pytest.mark.parametrize("name", ECHOED)
def test_what_cannot_be_written_is_refused_in_a_short_message(
    untrained: mm.Backbone, name: str, given: str
) -> None:
    with pytest.raises(MmattribError) as caught:
        ECHOED[name](untrained, UNWRITABLE[given])
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("path", [None, 5])
def test_a_path_is_text_or_a_path(explanation: mm.Explanation, path: Any) -> None:
    with pytest.raises(OptionError, match="save takes the path of a file, got"):
        explanation.save(path)


def factory(
    folder: str | Path = ".",
    least: float = 0.0,
    count: int | None = None,
    strict: bool = False,
    several: tuple[str, ...] = (),
) -> dict[str, Any]:
    return locals()


@pytest.mark.parametrize(
    ("option", "accepted", "refused"),
    [
        ("folder", ["a", Path("a")], [5, None, [], b"a"]),
        ("least", [1, 0.5, np.float32(1)], ["abc", None, [], np.zeros(2), True]),
        ("count", [3, None, np.int64(3)], [1.5, "3", False]),
        ("strict", [True, False], ["yes", 1, None]),
        ("several", [(), [], 5], []),  # says too much to be checked here
    ],
)
def test_options_have_the_types_that_a_factory_says(
    option: str, accepted: list[Any], refused: list[Any]
) -> None:
    registry = Registry()
    registry.register("dataset", "mine", factory)
    for value in accepted:
        assert registry.create("dataset", "mine", **{option: value})[option] is value
    for value in refused:
        with pytest.raises(OptionError, match=f"dataset 'mine': {option} must be .*, got"):
            registry.create("dataset", "mine", **{option: value})


def entry(**changed: Any) -> dict[str, Any]:
    task = {"candidate": "c", "weights": "w", "version": "1", "start": 0, "seed": None, "size": 1}
    row = {"sample": "a", "values": {"image|text": {"auc": changed.get("value", 0.5)}}}
    stamp = {"backbone": "b", "dataset": "d"}
    return {"id": "i", "task": task, "stamp": stamp, "rows": [row] * changed.get("rows", 1)}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"value": float("inf")}, "auc of 'a', image|text is inf"),
        ({"value": float("nan")}, "is nan"),
        ({"rows": 2}, "2 rows for a task of 1 samples"),
        ({"rows": 0}, "0 rows for a task of 1 samples"),
    ],
)
def test_a_store_names_the_line_that_no_evaluation_writes(
    tmp_path: Path, changed: Any, says: str
) -> None:
    path = tmp_path / "store.jsonl"
    with Store(path, {}) as store:
        store._append(entry())
        store._append(entry(**changed))
    with pytest.raises(OptionError) as caught:
        list(read_entries(path))
    assert f"{path}, line 3: " in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("seed", [10**26, -(10**26), [0, 2**63]])
def test_a_seed_that_no_generator_takes_is_refused(untrained: mm.Backbone, seed: Any) -> None:
    with pytest.raises(OptionError, match="seed must be a whole number from"):
        mm.evaluate(untrained, [mm.Sample("a", PAIR)], methods=["random"], seed=seed)
