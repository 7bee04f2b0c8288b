"""The stopwatch: phases add up to the whole, and what is fitted to numbers is what made them."""

from __future__ import annotations

import pytest

from mmattrib.benchmark import watch as watch_module
from mmattrib.benchmark.run import Plan, exponent, exponents, ratios
from mmattrib.benchmark.watch import GUIDE, LOOP, PREFIX, Spent, Watch
from mmattrib.errors import OptionError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets; CPU time runs twice as fast."""
    now = [0.0]
    monkeypatch.setattr(watch_module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(watch_module.time, "process_time", lambda: 2 * now[0])
    return now


def test_the_loop_is_what_no_other_phase_takes_and_a_phase_within_a_phase_is_the_outer_ones(
    clock: list[float],
) -> None:
    watch = Watch()
    with watch.phase(LOOP):
        clock[0] += 1
        with watch.phase(PREFIX):
            clock[0] += 10
            with watch.phase(GUIDE):
                clock[0] += 100
        clock[0] += 1000
        with watch.phase(GUIDE):
            clock[0] += 10_000
    assert {name: spent.seconds for name, spent in watch.spent.items()} == {
        PREFIX: 110,
        GUIDE: 10_000,
        LOOP: 1001,
    }
    assert watch.spent[LOOP].cpu == 2002
    assert sum(spent.seconds for spent in watch.spent.values()) == clock[0]


def test_a_phase_that_raises_is_counted_and_left(clock: list[float]) -> None:
    watch = Watch()

    def failing() -> None:
        with watch.phase(PREFIX):
            clock[0] += 3
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    with watch.phase(GUIDE):
        clock[0] += 4
    assert (watch.spent[PREFIX].seconds, watch.spent[GUIDE].seconds) == (3, 4)


def test_spent_adds() -> None:
    one = Spent(1, 2, 3)
    one.add(Spent(10, 20, 30), -2)
    assert one == Spent(-19, -38, -57)


def test_an_exponent_is_that_of_the_power_law_and_none_of_one_point() -> None:
    assert exponent([(x, 5 * x**1.5) for x in (2, 3, 7)]) == pytest.approx(1.5)
    assert exponent([(2, 1.0), (2, 3.0)]) is None
    assert exponent([]) is None


def _row(label: str, method: str, **numbers: float) -> dict[str, object]:
    return {"label": label, "method": method, **numbers}


def test_ratios_are_of_what_was_measured_in_the_same_run() -> None:
    rows = [
        _row("M2IB as published", "", cpu_seconds=100, seconds=60, gflop=5000),
        _row("ca-m2ib", "ca-m2ib", cpu_seconds=5, seconds=3, gflop=250),
        _row("nib", "nib", cpu_seconds=1, seconds=1, gflop=50),  # without its rival
        _row("random", "random", cpu_seconds=1, seconds=1, gflop=0),
    ]
    (found,) = ratios(rows)
    assert found == {
        "label": "ca-m2ib", "against": "M2IB as published",
        "cpu_seconds": 20, "seconds": 20, "gflop": 20,
    }  # fmt: skip


def test_growth_is_told_by_method_and_by_what_grew() -> None:
    behind = [
        {"label": "m2ib", "layers": {"image": layer, "text": layer},
         "phases": {LOOP: {"cpu_seconds": 3.0 * (11 - layer), "gflop": (11 - layer) ** 2}}}
        for layer in (1, 5, 9)
    ]  # fmt: skip
    found = exponents({
        "model": {"towers": {"image": {"blocks": 12}, "text": {"blocks": 12}}},
        "layers": behind,
        "batches": [{"label": "nib", "pairs": n, "cpu_seconds": 2.0 * n} for n in (1, 4)],
        "growth": {"rows": [], "tokens": []},
    })  # fmt: skip
    told = {(each["label"], each["of"]): (each["cpu_seconds"], each["gflop"]) for each in found}
    assert told["m2ib", "blocks behind the layer"] == (pytest.approx(1), pytest.approx(2))
    assert told["nib", "pairs"] == (pytest.approx(1), None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ()}, "methods are one name or more"),
        ({"methods": ("nib", "nib")}, "each once"),
        ({"batches": (0,)}, "batches must be a whole number from 1"),
        ({"batches": (2000,)}, "to 1024"),
        ({"layers": (-1,)}, "layers must be"),
        ({"rounds": 0}, "rounds must be"),
        ({"steps": 11}, "steps must be a whole number from 1 to 10"),
    ],
    ids=["none", "twice", "no-pair", "many-pairs", "layer", "rounds", "steps"],
)
def test_a_plan_is_held_to_its_bounds(given: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Plan(**given)
