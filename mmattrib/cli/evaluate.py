"""``mmattrib evaluate``: methods on a data set, scored by metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmattrib.cli.arguments import (
    checked_device,
    named_method,
    parse_layers,
    parse_options,
    with_backbone,
    with_backbone_options,
    with_data,
    with_data_options,
    with_device,
    with_layer,
)
from mmattrib.cli.outputs import check_file, check_outputs
from mmattrib.cli.speech import say
from mmattrib.errors import OptionError
from mmattrib.plugins import Entry, default_plugins
from mmattrib.plugins.contained import contained
from mmattrib.types import SECOND

if TYPE_CHECKING:
    from mmattrib.evaluation import Results
    from mmattrib.evaluation.executors import Engine

SUFFIXES = (".md", ".json")


@click.command()
@with_backbone
@with_backbone_options
@with_device
@with_data
@with_data_options
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="How many samples, from the first on. Default: all, and 50 scenes.",
)
@click.option(
    "--method",
    multiple=True,
    metavar="NAME[:KEY=VALUE,...]",
    help="One of `mmattrib methods`, with options of its own; repeated. Default: all.",
)
@click.option(
    "--metric",
    multiple=True,
    metavar="NAME[:N]",
    help="One of `mmattrib metrics`, on the first N samples alone if given; or 'all'. Repeated. "
    "Default: those that need nothing but a known truth.",
)
@click.option(
    "--pair",
    multiple=True,
    metavar="A,B",
    help="Two kinds of input, e.g. image,text; repeated. Default: every pair in the data.",
)
@click.option(
    "--seed",
    type=int,
    multiple=True,
    help="Of the methods' noise; repeated to average. Default: 0.",
)
@with_layer
@click.option(
    "--baseline", metavar="METHOD", help="Show the paired difference of the others from it."
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    help="A file that keeps finished work: stop at any time, and call again to go on, "
    "with more methods if you like.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Workers to share the work; no number depends on it but the seconds.",
)
@click.option(
    "--engine",
    type=click.Choice(["serial", "processes", "ray"]),
    help="What the workers are: this process alone, processes on this machine, or workers of Ray "
    "on one machine or many (extra `ray`), of which --device is then the device. Default: "
    "processes where --jobs is above 1.",
)
@click.option(
    "--out",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A .md table or a .json file with every number. May be repeated.",
)
def evaluate(
    backbone: str,
    backbone_option: tuple[str, ...],
    device: str | None,
    data: str,
    data_option: tuple[str, ...],
    limit: int | None,
    method: tuple[str, ...],
    metric: tuple[str, ...],
    pair: tuple[str, ...],
    seed: tuple[int, ...],
    layer: tuple[str, ...],
    baseline: str | None,
    resume: Path | None,
    jobs: int,
    engine: Engine | None,
    out: tuple[Path, ...],
) -> None:
    """Measure attribution methods on a data set.

    A metric compares each map with a known truth, or asks the model. Prints a table per direction:
    "image|text" explains the image, given the text. Mean and standard error, in percent where the
    metric is a share.
    """
    _check_files(resume, out)
    _refuse_twice("--seed", seed)
    _refuse_twice("--pair", [tuple(sorted(_pair(text))) for text in pair])
    options = parse_options(backbone_option, "--backbone-option")
    data_options = parse_options(data_option, "--data-option")
    pairs = [_pair(text) for text in pair]
    registry = default_plugins().registry
    registry.check_options("backbone", backbone, options, "--backbone-option")
    registry.check_options("dataset", data, data_options, "--data-option")
    wanted = [named_method(text) for text in method]
    for name, _ in wanted:
        registry.require("method", name)
    _check_baseline(baseline, [name for name, _ in wanted])
    metrics = _metrics(metric)

    import mmattrib
    from mmattrib.evaluation import Variant, View, evaluate, executor_for

    layers = parse_layers(layer, _sides(pairs, registry.get("backbone", backbone)))
    executor = executor_for(jobs, engine, device if engine == "ray" else None)
    options |= {} if device is None or engine == "ray" else {"device": checked_device(device)}
    with contained():  # models, methods and metrics of others may print
        found = evaluate(
            mmattrib.load_backbone(backbone, **options),
            mmattrib.load_dataset(data, **data_options),
            methods=[Variant(name, name, given, layers) for name, given in wanted] or "all",
            metrics=metrics,
            pairs=pairs or None,
            layer=layers,
            seed=seed or 0,
            limit=limit,
            resume=resume,
            engine=executor,
        )
    table = found.table(View(baseline=baseline))
    _write(out, table, found)
    say(table, newline=False)


def _check_files(resume: Path | None, out: Sequence[Path]) -> None:
    if resume is not None:
        check_file(resume, "--resume", read=True)
    check_outputs(out, suffixes=SUFFIXES, inputs=[] if resume is None else [resume])


def _write(out: Sequence[Path], table: str, found: Results) -> None:
    from mmattrib.files import write_atomic

    for path in out:
        text = table if path.suffix.lower() == ".md" else found.to_json()
        write_atomic(path, text.encode("utf-8"))


def _check_baseline(baseline: str | None, methods: Sequence[str]) -> None:
    """A label starts with the name of its method; without methods every one is compared."""
    if baseline is not None and methods and not any(baseline.startswith(n) for n in methods):
        raise OptionError(
            f"--baseline {baseline} is none of the methods; accepted: "
            f"{', '.join(dict.fromkeys(methods))}"
        )


def _metrics(texts: Sequence[str]) -> Any:
    """Metrics from ``NAME`` or ``NAME:N``; None for the default."""
    if "all" in texts:
        if len(texts) > 1:
            raise OptionError("--metric all stands for every metric; give it alone")
        return "all"
    registry, found = default_plugins().registry, dict[str, int | None]()
    for text in texts:
        name, colon, number = text.partition(":")
        registry.require("metric", name)
        if name in found:
            raise OptionError(f"--metric {name} is given twice; give it once")
        if colon and not number.isdecimal():
            raise OptionError(f"--metric {text}: {number!r} is no number of samples")
        found[name] = int(number) if colon else None
    return found or None


def _refuse_twice(option: str, values: Sequence[Any]) -> None:
    for value in values:
        if values.count(value) > 1:
            given = ",".join(value) if isinstance(value, tuple) else value
            raise OptionError(f"{option} {given} is given twice; give it once")


def _sides(pairs: Sequence[tuple[str, str]], backbone: Entry) -> tuple[str, ...]:
    """What a layer may be named for."""
    sides = [side for pair in pairs for side in pair] or backbone.modalities or ("image", "text")
    return tuple(dict.fromkeys(n for side in sides for n in (side, side.removesuffix(SECOND))))


def _pair(text: str) -> tuple[str, str]:
    first, comma, second = text.partition(",")
    if not (first and comma and second) or "," in second or first == second:
        raise OptionError(f"--pair {text} is not two modalities; write it like image,text")
    return first, second
