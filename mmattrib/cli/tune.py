"""``mmattrib tune``: choose the layers and options of a method on a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmattrib.cli.arguments import (
    Seed,
    parse_options,
    refuse_own_keywords,
    with_jobs,
    with_method,
    with_method_options,
    with_model,
    with_samples,
)
from mmattrib.cli.evaluate import FIGURES
from mmattrib.cli.naming import load_models, open_datasets, parse_pair, parse_several, refuse_twice
from mmattrib.cli.outputs import HomePath, check_file, check_outputs
from mmattrib.cli.speech import say
from mmattrib.errors import OptionError
from mmattrib.plugins import default_plugins
from mmattrib.plugins.contained import contained

if TYPE_CHECKING:
    from mmattrib.evaluation.tuning import Tuned
    from mmattrib.models.backbone import Backbone

_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)  # of a price's default, where nothing says what to vary


@click.command()
@with_model
@with_samples
@with_method
@with_method_options
@click.option(
    "--layer",
    multiple=True,
    metavar="[MODALITY=]N,N,...",
    help="Layers to try, for all kinds of input together or for one; repeated. Default: all but "
    "the last.",
)
@click.option(
    "--vary",
    multiple=True,
    metavar="KEY=VALUE,VALUE,...",
    help="An option of the method with the values to try, e.g. beta=0.3,1,3 or sigma=0.5,1; "
    "repeated: every combination is tried. Default: beta around its default.",
)
@click.option(
    "--plan",
    type=HomePath(path_type=Path),
    metavar="FILE",
    help="A TOML file that names the variants to try, in place of --layer and --vary.",
)
@click.option(
    "--metric",
    multiple=True,
    help="One of `mmattrib metrics`; repeated: the mean of a variant's places by each decides. "
    "Default: auc. 'm2ib' stands for confidence_drop and confidence_increase, which need no "
    "known truth.",
)
@click.option("--pair", multiple=True, metavar="A,B", help="As for `mmattrib evaluate`.")
@click.option("--seed", type=Seed(), multiple=True, help="As for `mmattrib evaluate`.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="How many samples, from the first on. Final figures belong to others.",
)
@click.option(
    "--search",
    type=click.Choice(["halving", "grid"]),
    default="halving",
    show_default=True,
    help="Measure on few samples, keep the better half, and go on with twice as many; or measure "
    "everything on all of them.",
)
@click.option("--resume", type=HomePath(path_type=Path), help="A file that keeps finished work.")
@with_jobs
@click.option(
    "--surface",
    multiple=True,
    type=HomePath(path_type=Path),
    metavar="FILE",
    help="A .png or .pdf of the metric over two settings. May be repeated.",
)
@click.option(
    "--out",
    required=True,
    type=HomePath(path_type=Path),
    metavar="FILE",
    help="A .toml file with what was chosen, for --config of `mmattrib attribute`, `evaluate` and "
    "`reproduce`.",
)
def tune(out: Path, surface: tuple[Path, ...], resume: Path | None, **given: Any) -> None:
    """Choose layers and options of a method for each kind of input.

    Prints the variants from the best to the worst, for each kind of input that is explained.
    """
    from mmattrib.files import write_atomic

    if resume is not None:
        check_file(resume, "--resume", read=True)
    inputs = [path for path in (resume, given["plan"]) if path is not None]
    check_outputs([out], inputs=inputs, suffixes=(".toml",))
    check_outputs(surface, inputs=[*inputs, out], suffixes=FIGURES, option="--surface")
    pairs = [parse_pair(text) for text in given["pair"]]
    refuse_twice("--seed", given["seed"])
    refuse_twice("--metric", given["metric"])
    models = parse_several([given["backbone"]], "backbone", "--backbone", given["backbone_option"])
    data = parse_several([given["data"]], "dataset", "--data", given["data_option"])
    default_plugins().registry.require("method", given["method"])
    options = {**parse_options(given["option"], "--option"), **_varied(given["vary"])}
    layers = _layers(given["layer"])
    if given["plan"] is not None and (options or layers is not None):
        raise OptionError("--plan says what is tried; leave --layer, --vary and --option out")

    from mmattrib.evaluation.plans import read_plan, write_plan
    from mmattrib.evaluation.tuning import CONFIDENCE, grid
    from mmattrib.evaluation.tuning import tune as search
    from mmattrib.loading import load_method
    from mmattrib.render.surface import surface_bytes

    refuse_own_keywords(options, load_method)
    metrics = [n for name in given["metric"] or ("auc",) for n in _named(name, CONFIDENCE)]
    for name in metrics:
        default_plugins().registry.require("metric", name)
    with contained():
        (model,) = load_models(models, given["device"]).values()
        (dataset,) = open_datasets(data).values()
        if given["plan"] is not None:
            variants = read_plan(given["plan"])
        else:
            tried = _or_default(given["method"], options, layers, model)
            variants = grid(given["method"], *tried)
        found = search(
            model, dataset, variants, metrics, pairs=pairs or None, seed=given["seed"] or 0,
            limit=given["limit"], eta=2 if given["search"] == "halving" else None,
            resume=resume, jobs=given["jobs"],
        )  # fmt: skip
    chosen = found.chosen()
    write_atomic(out, write_plan([chosen], told(found, given)).encode("utf-8"))
    for path in surface:
        kind = path.suffix.lower().removeprefix(".")
        write_atomic(path, surface_bytes(found.surfaces(), kind))  # type: ignore[arg-type]
    say(listing(found), newline=False)
    say("\n".join(f"Wrote {path}" for path in (out, *surface)))


def told(found: Tuned, given: Mapping[str, Any], command: str = "tune") -> list[str]:
    """What a plan says of where it comes from."""
    return [
        f"Chosen by `mmattrib {command}`: {given['backbone']} on {found.samples} samples of "
        f"{given['data']}, by {' and '.join(found.metrics)}, of {len(found.grid)} variants.",
        "Layer and options of each kind of input are those that explained it best.",
    ]


def listing(found: Tuned, most: int = 10) -> str:
    """The best variants of each modality, as text."""
    from mmattrib.evaluation.sheets import Cell, Report, Table
    from mmattrib.evaluation.tables import arrow, in_percent

    tables = []
    for modality, trials in found.trials.items():
        rows: list[list[str | Cell]] = [
            [
                trial.variant.label,
                *(
                    Cell(100 * value) if in_percent(name) else Cell(value, decimals=3)
                    for name, value in trial.means.items()
                ),
            ]
            for trial in trials[:most]
        ]
        columns = ["variant", *(f"{name}{arrow(name)}" for name in found.metrics)]
        tables.append(Table(f"{modality} explained", columns, rows))
    rounds = ", then ".join(f"{count} variants on {n} samples" for count, n in found.rounds)
    notes = [f"given up: {label}: {why}" for label, why in found.failures.items()]
    return Report([f"Measured {rounds}."], tables, notes).text()


def _named(name: str, confidence: Sequence[str]) -> Sequence[str]:
    return confidence if name == "m2ib" else (name,)


def _varied(texts: Sequence[str]) -> dict[str, list[Any]]:
    found = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or "" in values.split(","):
            raise OptionError(f"--vary {text} is not KEY=VALUE,VALUE; write it like beta=0.3,1,3")
        each = [parse_options([f"{key}={v}"], "--vary") for v in values.split(",")]
        (name,) = each[0]
        if name in found:
            raise OptionError(f"--vary {text} gives {name!r} again; give it once")
        found[name] = [one[name] for one in each]
    return found


def _layers(texts: Sequence[str]) -> Any:
    """Layers to try: a list for all kinds of input, or one for each that is named."""
    found: dict[str, list[int]] = {}
    for text in texts:
        modality, equals, numbers = text.rpartition("=")
        try:
            layers = [int(number) for number in numbers.split(",")]
        except ValueError:
            raise OptionError(
                f"--layer {text} is no list of whole numbers; write it like 0,1,2 or image=0,1"
            ) from None
        if not equals and len(texts) > 1:
            raise OptionError(f"--layer {text} stands for every kind of input; give it alone")
        if modality in found:
            raise OptionError(f"--layer {text} names {modality!r} again; give it once")
        found[modality] = layers
    return found.get("", found or None)


def _or_default(
    method: str, options: dict[str, Any], layers: Any, model: Backbone
) -> tuple[Any, dict[str, Any]]:
    """Layers and options to try where nothing was said of either."""
    if layers is not None or any(isinstance(value, list) for value in options.values()):
        return layers, options
    from mmattrib.loading import load_method

    beta = load_method(method, **options).describe().get("beta")
    if isinstance(beta, float) and "beta" not in options:
        options = {**options, "beta": [float(f"{beta * factor:.3g}") for factor in _FACTORS]}
    shortest = min(encoder.num_layers for encoder in model.values())
    return list(range(-1, shortest - 1)), options
