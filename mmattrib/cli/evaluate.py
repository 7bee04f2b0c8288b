"""``mmattrib evaluate``: methods on data sets, scored by metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mmattrib.cli.arguments import (
    Seed,
    parse_layers,
    together,
    with_backbone_options,
    with_config,
    with_data_options,
    with_device,
    with_layer,
    with_precision,
)
from mmattrib.cli.naming import (
    load_models,
    make_strict,
    open_datasets,
    parse_methods,
    parse_metrics,
    parse_pair,
    parse_several,
    refuse_twice,
    sides_of,
)
from mmattrib.cli.outputs import HomePath, check_file, check_outputs
from mmattrib.cli.speech import say
from mmattrib.errors import OptionError
from mmattrib.plugins.contained import contained

if TYPE_CHECKING:
    from mmattrib.datasets import Dataset
    from mmattrib.evaluation import Report, Results, Variant
    from mmattrib.models.backbone import Backbone

TABLES = (".txt", ".md", ".csv", ".tex")
NUMBERS = ".numbers.csv"
FIGURES = (".png", ".pdf")
SUFFIXES = (*TABLES, ".json", ".parquet")

_with_what = together(
    click.option(
        "--backbone", multiple=True, default=("tiny",), show_default=True,
        metavar="[LABEL=]NAME[:KEY=VALUE,...]",
        help="One of `mmattrib backbones`, with options of its own; repeated.",
    ),
    with_backbone_options,
    with_device,
    with_precision,
    click.option(
        "--deterministic/--together", default=None,
        help="Put every pair through the model by itself, or pairs of equal shapes together. "
        "Default: together on a graphics card alone.",
    ),
    click.option(
        "--data", multiple=True, default=("scenes",), show_default=True,
        metavar="[LABEL=]NAME[:KEY=VALUE,...]",
        help="One of `mmattrib datasets`, with options of its own; repeated.",
    ),
    with_data_options,
    click.option(
        "--strict", is_flag=True,
        help="Stop at the first broken entry of the data, named with its line, in place of "
        "leaving it out: strict=true of every data set.",
    ),
    click.option(
        "--limit", type=click.IntRange(min=1),
        help="How many samples of each, from the first on. Default: all, and 50 scenes.",
    ),
    click.option(
        "--method", "--methods", multiple=True, metavar="[LABEL=]NAME[:KEY=VALUE,...]",
        help="One of `mmattrib methods`, with options of its own, or 'all'; repeated. "
        "Default: all.",
    ),
    with_config,
    click.option(
        "--metric", "--metrics", multiple=True, metavar="NAME[:N]",
        help="One of `mmattrib metrics`, on the first N samples alone if given; or 'all'. "
        "Repeated. Default: those that need nothing but a known truth.",
    ),
    click.option(
        "--pair", multiple=True, metavar="A,B",
        help="Two kinds of input, e.g. image,text; repeated. Default: every pair in the "
        "first sample.",
    ),
    click.option(
        "--seed", type=Seed(), multiple=True,
        help="Of the methods' noise; repeated to average. Default: 0.",
    ),
    with_layer,
)  # fmt: skip
"""Options that say what is measured, on what."""


_with_how = together(
    click.option(
        "--baseline", metavar="METHOD",
        help="Show the paired difference of the others from it.",
    ),
    click.option(
        "--layout", type=click.Choice(["directions", "paper"]), default="directions",
        show_default=True,
        help="A table for each direction with a row for each method, or one as the "
        "paper's Table 1, with a column for each method.",
    ),
    click.option(
        "--error", type=click.Choice(["seeds", "samples"]), default="seeds",
        show_default=True,
        help="What standard errors are over. One seed gives none over seeds: then they "
        "are over samples.",
    ),
    click.option(
        "--resume", type=HomePath(path_type=Path),
        help="A file that keeps finished work: stop at any time, and call again to go on, "
        "with more methods or seeds if you like.",
    ),
    click.option(
        "--jobs", type=click.IntRange(min=1), default=1, show_default=True,
        help="Workers to share the work; no number depends on it but the seconds.",
    ),
    click.option(
        "--engine", type=click.Choice(["serial", "processes", "ray"]),
        help="What the workers are: this process alone, processes on this machine, or "
        "workers of Ray on one machine or many (extra `ray`), of which --device is then "
        "the device. Default: processes where --jobs is above 1.",
    ),
    click.option(
        "--out", multiple=True, type=HomePath(path_type=Path), metavar="FILE",
        help="A table (.txt, .md, .csv or .tex), or every number: .json, .parquet, "
        ".numbers.csv. May be repeated.",
    ),
    click.option(
        "--grid", multiple=True, type=HomePath(path_type=Path), metavar="FILE",
        help="A .png or .pdf of the first samples' maps, a column for each method. May be "
        "repeated.",
    ),
    click.option(
        "--grid-samples", type=click.IntRange(1, 20), default=6, show_default=True,
        help="How many.",
    ),
)  # fmt: skip
"""Options that say how it runs and what is written."""


@click.command()
@_with_what
@_with_how
@click.pass_context
def evaluate(
    context: click.Context,
    /,
    out: tuple[Path, ...],
    grid: tuple[Path, ...],
    resume: Path | None,
    baseline: str | None,
    layout: str,
    error: str,
    **given: Any,
) -> None:
    """Measure attribution methods on a data set.

    A metric compares each map with a known truth, or asks the model. Prints a table per direction:
    "image|text" explains the image, given the text. Mean and standard error, in percent where the
    metric is a share.
    """
    _check_files(out, grid, resume, given["config"])
    if not grid and context.get_parameter_source("grid_samples") is not ParameterSource.DEFAULT:
        raise OptionError("--grid-samples would have no effect without --grid FILE; give both")
    if baseline is not None and layout == "paper":
        raise OptionError("--baseline has no place in --layout paper; take the other layout")
    refuse_twice("--seed", given["seed"])
    pairs = [parse_pair(text) for text in given["pair"]]
    refuse_twice("--pair", [tuple(sorted(pair)) for pair in pairs])
    models = parse_several(given["backbone"], "backbone", "--backbone", given["backbone_option"])
    data = parse_several(given["data"], "dataset", "--data", given["data_option"])
    make_strict(data, given["strict"])
    layers = parse_layers(given["layer"], sides_of(pairs, models))
    metrics = parse_metrics(given["metric"])
    methods = parse_methods(given["method"], layers, given["config"])
    _check_baseline(baseline, methods)

    from mmattrib.evaluation import View, executor_for
    from mmattrib.evaluation import evaluate as measure
    from mmattrib.evaluation.tidy import check_parquet

    if any(path.suffix.lower() == ".parquet" for path in out):
        check_parquet()
    far = given["engine"] == "ray"  # the device is then that of its workers
    executor = executor_for(given["jobs"], given["engine"], given["device"] if far else None)
    how: dict[str, Any] = {name: given[name] for name in ("limit", "deterministic", "precision")}
    with contained():  # models, methods and metrics of others may print
        backbones = load_models(models, None if far else given["device"])
        datasets = open_datasets(data)
        found = measure(
            backbones,
            datasets,
            methods=methods or "all",
            metrics=metrics,
            pairs=pairs or None,
            layer=layers,
            seed=given["seed"] or 0,
            **{**how, "resume": resume, "engine": executor},
        )
    view = View(baseline=baseline, errors=error)  # type: ignore[arg-type]
    report = found.report(view, layout)  # type: ignore[arg-type]
    write_results(out, report, found)
    say(report.text(), newline=False)
    if grid:
        with contained():
            _draw(grid, found, backbones, datasets, given)


def _check_files(
    out: Sequence[Path], grid: Sequence[Path], resume: Path | None, config: Path | None
) -> None:
    if resume is not None:
        check_file(resume, "--resume", read=True)
    inputs = [path for path in (resume, config) if path is not None]
    check_outputs(out, suffixes=SUFFIXES, inputs=inputs)
    check_outputs(grid, suffixes=FIGURES, inputs=inputs, option="--grid")


def _draw(
    paths: Sequence[Path],
    found: Results,
    backbones: Mapping[str, Backbone],
    datasets: Mapping[str, Dataset],
    given: Mapping[str, Any],
) -> None:
    """Maps of the first samples of each data set, on each model, by the methods that were
    measured."""
    from mmattrib.evaluation import Variant
    from mmattrib.evaluation.pictures import comparison, stacked
    from mmattrib.files import write_atomic
    from mmattrib.render.gallery import gallery_bytes

    layers = parse_layers(given["layer"], tuple(m for b in backbones.values() for m in b))
    methods = parse_methods(given["method"], layers, given["config"])
    methods = methods or [Variant(name, name, {}, layers) for name in found.methods]
    both = {frozenset(direction.split("|")): direction for direction in reversed(found.directions)}
    pairs = [(d.partition("|")[0], d.partition("|")[2]) for d in reversed(both.values())]
    count = min(given["grid_samples"], given["limit"] or given["grid_samples"])
    seed = given["seed"][0] if given["seed"] else 0
    drawn = {
        f"{name}, {label}": comparison(model, data, methods, pairs, count=count, seed=seed)
        for name, data in datasets.items()
        for label, model in backbones.items()
    }
    for path in paths:
        kind = path.suffix.lower().removeprefix(".")
        write_atomic(path, gallery_bytes(stacked(drawn), kind))  # type: ignore[arg-type]


def write_results(out: Sequence[Path], report: Report, found: Results) -> None:
    """Write a report, or every number, in the form that each suffix names."""
    from mmattrib.evaluation.tidy import numbers_csv, numbers_parquet
    from mmattrib.files import write_atomic

    for path in out:
        suffix = path.suffix.lower()
        if path.name.lower().endswith(NUMBERS):
            data = numbers_csv(found)
        elif suffix == ".parquet":
            data = numbers_parquet(found)
        elif suffix == ".json":
            data = found.to_json().encode("utf-8")
        else:
            data = report.text(suffix).encode("utf-8")
        write_atomic(path, data)


def _check_baseline(baseline: str | None, methods: Sequence[Variant]) -> None:
    """A label starts with the name of its method; without methods every one is compared."""
    labels = [method.label for method in methods]
    if baseline is not None and labels and not any(baseline.startswith(n) for n in labels):
        raise OptionError(
            f"--baseline {baseline} is none of the methods; accepted: "
            f"{', '.join(dict.fromkeys(labels))}"
        )
