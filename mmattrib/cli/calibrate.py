"""``mmattrib calibrate``: what unrelated pairs look like to a backbone."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from mmattrib.calibration import LEAST_PAIRS
from mmattrib.cli.arguments import (
    parse_layers,
    parse_options,
    refuse_own_keywords,
    with_layer,
    with_method,
    with_method_options,
    with_model,
    with_samples,
    with_seed,
)
from mmattrib.cli.naming import load_models, open_datasets, parse_several
from mmattrib.cli.outputs import HomePath, check_outputs
from mmattrib.cli.speech import say
from mmattrib.errors import OptionError
from mmattrib.plugins import default_plugins
from mmattrib.plugins.contained import contained


@click.command()
@with_model
@with_samples
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    help="How many samples, from the first on; 20 pairs of one kind at least.",
)
@click.option(
    "--maps",
    type=click.IntRange(min=0),
    default=40,
    show_default=True,
    help="How many of them are explained too, so that pages know what an empty map holds: 20 or "
    "more; 0 for none, which is much quicker.",
)
@with_method
@with_method_options
@with_layer
@with_seed
@click.option(
    "--out",
    required=True,
    type=HomePath(path_type=Path),
    metavar="FILE",
    help="A .json file, for `mmattrib attribute --calibration`.",
)
@click.pass_context
def calibrate(
    context: click.Context,
    backbone: str,
    backbone_option: tuple[str, ...],
    device: str | None,
    data: str,
    data_option: tuple[str, ...],
    limit: int,
    maps: int,
    method: str,
    option: tuple[str, ...],
    layer: tuple[str, ...],
    seed: int,
    out: Path,
) -> None:
    """Measure unrelated pairs, so that pages can say that two inputs do not match.

    Every sample is paired with an input of another one that has nothing to do with it. Where the
    data does not say what its inputs show, that is the next sample: give samples in mixed order.
    """
    check_outputs([out], suffixes=(".json",))
    if not maps:
        _refuse_idle(context)
    models = parse_several([backbone], "backbone", "--backbone", backbone_option)
    datasets = parse_several([data], "dataset", "--data", data_option)
    method_options = parse_options(option, "--option")
    registry = default_plugins().registry
    registry.require("method", method)
    layers = parse_layers(layer, registry.get("dataset", datasets[0].name).modalities)

    import mmattrib

    refuse_own_keywords(method_options, mmattrib.load_method)
    with contained():  # models, methods and data sets of others may print
        (dataset,) = open_datasets(datasets).values()
        made_by = mmattrib.load_method(method, seed, **method_options)
        (model,) = load_models(models, device).values()
        made = mmattrib.calibrate(
            model,
            dataset,
            limit=limit,
            maps=maps,
            method=made_by,
            layer=layers,
        )
    made.save(out)
    for kind, known in made.similarities.items():
        say(
            f"{kind}: of {known.n} unrelated pairs 95 % have a cosine of at most "
            f"{known.at(95):.3f}, 99 % of at most {known.at(99):.3f}"
        )
    say(f"Wrote {out}")


def _refuse_idle(context: click.Context) -> None:
    """Without maps nothing is explained: refuse what says how."""
    idle = [
        f"--{name}"
        for name in ("method", "option", "layer", "seed")
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]
    if idle:
        raise OptionError(
            f"{' and '.join(idle)} would have no effect: with --maps 0 nothing is explained; "
            f"leave {'it' if len(idle) == 1 else 'them'} out, or give --maps {LEAST_PAIRS} or more"
        )
