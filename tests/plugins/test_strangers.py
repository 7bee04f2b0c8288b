"""Methods, metrics and data sets of others: what they do wrong is one error that names them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as nnf
from toy_encoders import ToyImage, pictures

import mmattrib as mm
from mmattrib.datasets import Dataset, as_dataset
from mmattrib.engine import Guide
from mmattrib.errors import DatasetError, MethodError, MetricError, OptionError
from mmattrib.evaluation.candidates import candidates
from mmattrib.methods import Method, Side, SideScores
from mmattrib.metrics.base import Metric, check_metric


def raising(error: BaseException) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise error

    return call


ERRORS = [ValueError("oh"), SystemExit(3), GeneratorExit(), OSError("oh"), StopIteration()]
PASSED = [KeyboardInterrupt(), MemoryError(), torch.OutOfMemoryError(), UserWarning()]


# ------------------------------------------------------------------------------------ methods


def side() -> Side:
    encoder = ToyImage()
    inputs = encoder.preprocess(pictures()[:1])
    guide = Guide(nnf.normalize(torch.ones(1, 8)), torch.ones(1, 1, 8), torch.ones(1, 1) > 0)
    return Side(encoder, inputs, 0, guide, ("a",))


def method(**parts: Any) -> Method:
    parts = {"name": "mine", "unit": "u", **parts}
    made: Method = type("Mine", (Method,), {k: v for k, v in parts.items() if v is not ...})()
    return made


def giving(unit: Any = "u", diagnostics: Any = ({},), change: Any = lambda x: x) -> Any:
    def explain(_self: Any, given: Side) -> SideScores:
        return SideScores(change(torch.zeros(given.grid().valid.shape)), unit, diagnostics)

    return explain


def explain(made: Method) -> None:
    here = side()
    with here.encoder.frozen():
        made(here)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_what_a_method_raises_is_named(error: BaseException) -> None:
    with pytest.raises(MethodError, match=f"'mine' failed on the image .*{type(error).__name__}"):
        explain(method(explain=raising(error)))


@pytest.mark.parametrize("error", PASSED, ids=repr)
def test_what_says_nothing_of_a_method_is_raised_through(error: BaseException) -> None:
    with pytest.raises(type(error)):
        explain(method(explain=raising(error)))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (giving(diagnostics=("a",)), "'a' for diagnostics"),
        (giving(diagnostics=None), "None for diagnostics"),
        (giving(diagnostics=({"warnings": 5},)), "warnings are 5"),
        (giving(diagnostics=({"warnings": [5]},)), "warnings are a list"),
        (giving(change=lambda x: x.to_sparse()), "sparse_coo"),
        (giving(change=lambda x: x.to("meta")), "kind meta"),
        (giving(change=lambda x: x.to(torch.complex64)), "complex64"),
        (giving(change=lambda x: x.numpy()), "ndarray"),
        (giving(unit=None), "the unit None"),
        (lambda _self, _side: None, "None with scores"),
    ],
)
def test_what_a_method_gives_wrongly_is_named(given: Any, says: str) -> None:
    with pytest.raises(MethodError, match=f"'mine' gave .*{says}.*; accepted: "):
        explain(method(explain=given))


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"name": ...}, "method Mine has name = None"),
        ({"name": 5}, "method Mine has name = 5"),
        ({"requires": "attention"}, "requires = 'attention'"),
        ({"__init__": lambda _self: None}, "no options: its __init__ must call super"),
    ],
)
def test_an_attribute_that_a_method_lacks_is_named_before_any_work(parts: Any, says: str) -> None:
    made = method(explain=giving(), **parts)
    for use in (explain, mm.load_method, lambda m: candidates([m])):
        with pytest.raises(MethodError, match=says):
            use(made)


@pytest.mark.parametrize("name", ["describe", "default_layer"])
def test_the_rest_of_a_methods_contract_is_held_to(name: str) -> None:
    made = method(explain=giving(), **{name: raising(SystemExit(3))})
    with pytest.raises(MethodError, match=f"Mine: {name} failed with SystemExit: 3"):
        getattr(made, name)(*([side().encoder] if name == "default_layer" else []))


@pytest.mark.parametrize("value", [None, {"a": object()}, {5: 5}, {"a": [{"b": torch.zeros(1)}]}])
def test_what_describes_a_method_is_json(value: Any) -> None:
    with pytest.raises(MethodError, match=r"describe gave .*JSON values"):
        method(explain=giving(), describe=lambda _self: value).describe()


# ------------------------------------------------------------------------------------ metrics


def metric(**parts: Any) -> Metric:
    parts = {"name": "m", "summary": "s", "needs": frozenset(), **parts}
    made: Metric = type("Mine", (Metric,), {k: v for k, v in parts.items() if v is not ...})()
    return made


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_what_a_metric_raises_is_named(error: BaseException) -> None:
    with pytest.raises(MetricError, match=f"metric Mine: score failed .*{type(error).__name__}"):
        metric(score=raising(error)).score(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, "5", [1], torch.zeros(2), 1j, 10**400, object()])
def test_what_a_metric_gives_wrongly_is_named(value: Any) -> None:
    with pytest.raises(MetricError, match=r"metric Mine: score gave .*accepted: a number"):
        metric(score=lambda _self, _case: value).score(None)  # type: ignore[arg-type]


def test_an_infinite_number_is_the_samples_problem(untrained: mm.Backbone) -> None:
    found = mm.evaluate(
        untrained,
        mm.load_dataset("scenes", n=1),
        methods=["random"],
        metrics=[metric(score=lambda _self, _case: float("inf"))],
        pairs=[("image", "text")],
        progress=False,
    )
    assert "image|text, m: it gave inf" in str(found.problems[0])


@pytest.mark.parametrize(
    ("parts", "says"),
    [({"name": ...}, "name = None"), ({"name": 5}, "name = 5"), ({"needs": "truth"}, "needs")],
)
def test_an_attribute_that_a_metric_lacks_is_named(parts: Any, says: str) -> None:
    with pytest.raises(MetricError, match=f"metric Mine has {says}"):
        check_metric(metric(score=lambda _self, _case: 1.0, **parts))


def test_a_class_is_no_metric() -> None:
    with pytest.raises(OptionError, match=r"an instance of .*got the class Mine"):
        check_metric(type(metric(score=lambda _self, _case: 1.0)))


# ------------------------------------------------------------------------------------ data sets


def dataset(**parts: Any) -> Dataset:
    sample = mm.Sample("a", {"text": "a dog"})
    parts = {
        "name": "d",
        "__iter__": lambda _self: iter([sample]),
        "describe": lambda _self: {},
        **parts,
    }
    made: Dataset = type("Mine", (Dataset,), parts)()
    return made


def later(error: BaseException) -> Any:
    def samples(_self: Any) -> Iterator[mm.Sample]:
        yield mm.Sample("a", {"text": "a dog"})
        raise error

    return samples


@pytest.mark.parametrize("error", ERRORS[:4], ids=repr)
def test_what_a_data_set_raises_is_named(error: BaseException) -> None:
    with pytest.raises(DatasetError, match=f"Mine: __iter__ failed .*{type(error).__name__}"):
        list(dataset(__iter__=raising(error)))
    stream = iter(dataset(__iter__=later(error)))
    assert next(stream).id == "a"
    with pytest.raises(DatasetError, match=f"at sample 1, failed .*{type(error).__name__}"):
        next(stream)
    with pytest.raises(DatasetError, match="Mine: describe failed"):
        dataset(describe=raising(error)).fingerprint()


@pytest.mark.parametrize(
    ("parts", "use"),
    [
        ({"__iter__": lambda _self: None}, list),
        ({"__iter__": lambda _self: iter([1])}, list),
        ({"__iter__": lambda _self: iter([None])}, list),
        ({"describe": lambda _self: None}, lambda d: d.fingerprint()),
        ({"size": lambda _self: "a"}, lambda d: d.size()),
        ({"size": lambda _self: -1}, lambda d: d.size()),
        ({"head": lambda _self, _n: None}, lambda d: d.head(1)),
        ({"name": 5}, as_dataset),
        ({"first": "a"}, as_dataset),
    ],
)
def test_what_a_data_set_gives_wrongly_is_named(parts: Any, use: Callable[[Any], Any]) -> None:
    with pytest.raises(DatasetError, match="data set Mine"):
        use(dataset(**parts))


def test_a_stream_that_is_left_early_is_closed_as_usual() -> None:
    """Python closes a generator with GeneratorExit; that is nobody's fault."""
    closed: list[bool] = []

    def samples(_self: Any) -> Iterator[mm.Sample]:
        try:
            yield mm.Sample("a", {"text": "a dog"})
            yield mm.Sample("b", {"text": "a cat"})
        finally:
            closed.append(sys.exc_info()[0] is GeneratorExit)

    stream: Any = iter(dataset(__iter__=samples))
    next(stream)
    stream.close()
    del stream
    assert closed == [True]


def test_own_classes_are_left_as_they_are() -> None:
    from mmattrib.methods.rise import RISE

    assert not hasattr(RISE.describe, "__wrapped__")
