"""Tables of all methods: numbers made up so that what they must say is known."""

from __future__ import annotations

import numpy as np
import pytest

from examples.study import benchmark
from examples.study.agreement import DRAWS, Agreement
from examples.study.protocol import DIRECTIONS, FIRST_FINAL
from mmattrib.evaluation import Column, Results
from mmattrib.metrics.sensitivity import rank_correlation

METHODS = ("ca-m2ib", "nib", "m2ib", "random")
SIZE = 40


def made(metrics: dict[str, list[float]], size: int = SIZE) -> Results:
    """Numbers that are each method's mean and a spread that is the same for all."""
    spread = np.linspace(-0.01, 0.01, size)
    columns = {
        Column(benchmark.LABEL, "shipped", method, None, direction, metric): mean + spread
        for metric, means in metrics.items()
        for method, mean in zip(METHODS, means, strict=True)
        for direction in DIRECTIONS
    }
    samples = {FIRST_FINAL + i: f"scene-{i}" for i in range(size)}
    return Results(columns, {benchmark.LABEL: samples})


def cells(table: str, name: str) -> list[str]:
    """What stands behind a name in a table."""
    (found,) = [line for line in table.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def test_every_registered_method_is_compared_once() -> None:
    labels = [each.label for each in benchmark.variants()]
    registered = [e.name for e in benchmark.default_plugins().registry.usable("method")]
    assert labels == registered


def test_means_and_half_intervals() -> None:
    results = made({"auc": [0.9, 0.8, 0.7, 0.5]})
    mean, scenes = cells(benchmark.means(results, ["auc"], "words"), "nib")
    assert mean.startswith("80.0 ± 0.")
    assert scenes == str(SIZE)
    assert cells(benchmark.by_direction(results, "auc"), "m2ib")[0].startswith("70.0 ± 0.")


def test_other_scenes_and_checkpoints_do_not_count() -> None:
    few = made({"auc": [0.9, 0.8, 0.7, 0.5]}, benchmark.SCENES + 30)
    for column in few.columns:
        few.columns[column][benchmark.SCENES :] = 0.0
    other = {c._replace(backbone="another"): 0 * v for c, v in few.columns.items()}
    results = Results({**few.columns, **other}, few.samples)
    # 70 of all, a little less of the first scenes, and far less with what must not count.
    assert cells(benchmark.by_direction(results, "auc"), "m2ib")[0].startswith("69.9")


def test_a_lead_is_bold_where_its_corrected_interval_leaves_out_zero() -> None:
    means = {key: [0.9, 0.8, 0.9, 0.5] for key in benchmark.RANKED}
    table = benchmark.significance(made(means))
    assert set(cells(table, "nib")) == {"**+10.0**"}
    assert set(cells(table, "m2ib")) == {"+0.0"}


@pytest.mark.parametrize("kind", sorted(benchmark.KINDS))
def test_metrics_agree_where_they_order_methods_alike(kind: str) -> None:
    known = made({key: [0.9, 0.8, 0.7, 0.5] for key in benchmark.RANKED})
    # Of the first two less is better: one agrees with the truth, the other is its opposite.
    asked = made({"confidence_drop": [1, 2, 3, 4], "deletion": [4, 3, 2, 1]})
    sources = {**dict.fromkeys(benchmark.RANKED, known), **dict.fromkeys(asked.metrics, asked)}
    alike = Agreement(sources, known.methods, benchmark.KINDS[kind])
    table = alike.table()
    head = [cell.strip() for cell in table.splitlines()[0].strip("|").split("|")][1:]
    found = dict(zip(head, cells(table, "auc"), strict=True))
    assert found["confidence_drop"] == "1.00"
    assert found["deletion"] == "-1.00"
    assert found["energy"] == "1.00"
    sure = cells(alike.with_truth(), "deletion")
    assert all(cell.startswith("-1.00 (-1.00 to ") for cell in sure)


def test_a_resampled_correlation_is_that_of_the_resample() -> None:
    """Ties, and numbers that are not there, as `rank_correlation` of the means has them."""
    draw = np.random.default_rng(3)
    methods, numbers = ["a", "b", "c", "d", "e"], {}
    for metric in ("auc", "ad"):
        for method in methods:
            values = draw.integers(0, 3, 12).astype(float)
            values[draw.random(12) < 0.2] = np.nan
            numbers[Column("d", "m", method, None, "text|image", metric)] = values
    results = Results(numbers, {"d": {n: f"scene-{n}" for n in range(12)}})
    found = Agreement({"auc": results, "ad": results}, methods, ["text|image"]).correlations(
        "auc", "ad"
    )
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), DRAWS)
    for number, picked in ((0, np.arange(12)), (7, np.repeat(np.arange(12), counts[6]))):
        means = [
            [np.nanmean(results.values(m, "text|image", metric)[picked]) for m in methods]
            for metric in ("auc", "ad")
        ]
        expected = -rank_correlation(
            *(np.array(each).round(12) for each in means)
        )  # less is better
        assert found[number] == pytest.approx(expected)
