"""``mmattrib roar``: retrain a copy of a model without what a method calls important."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmattrib.cli.arguments import (
    Seed,
    parse_layers,
    parse_options,
    with_layer,
    with_model,
    with_samples,
)
from mmattrib.cli.naming import load_models, open_datasets, parse_methods, parse_several
from mmattrib.cli.outputs import HomePath, check_folder, check_outputs
from mmattrib.cli.speech import say
from mmattrib.plugins import default_plugins
from mmattrib.plugins.contained import contained
from mmattrib.types import SECOND

if TYPE_CHECKING:
    from mmattrib.evaluation import RoarResults

SUFFIXES = (".md", ".json")


@click.command()
@with_model
@with_samples
@click.option(
    "--limit",
    type=click.IntRange(min=5, max=50_000),
    help="How many samples, from the first on. Default: all, and 50 scenes.",
)
@click.option(
    "--method",
    multiple=True,
    metavar="[LABEL=]NAME[:KEY=VALUE,...]",
    help="One of `mmattrib methods`, with options of its own, or 'all'; repeated. Default: all.",
)
@click.option(
    "--direction",
    multiple=True,
    metavar="A|B",
    help="What is degraded: image|text the image, by its map given the text; image+text both. "
    "Repeated. Default: each side of every pair in the data.",
)
@click.option(
    "--control",
    multiple=True,
    metavar="NAME",
    help="'none' degrades nothing and must give 0; 'truth' takes away what the inputs share, where "
    "the data knows it. Repeated. Default: none.",
)
@with_layer
@click.option(
    "--seed",
    type=Seed(0),
    multiple=True,
    help="Of the split and the order of batches; repeated. Default: 0 to 4.",
)
@click.option(
    "--percentile",
    multiple=True,
    metavar="MODALITY=P",
    help="Scores above it are taken away. Default: 50 of text, 75 of others.",
)
@click.option(
    "--fill",
    multiple=True,
    metavar="MODALITY=NAME",
    help="What stands in, e.g. audio=mean-spectrum. Default: channel means, silence, a blank.",
)
@click.option(
    "--option",
    multiple=True,
    metavar="KEY=VALUE",
    help="Of the training: epochs or steps, lr, weight_decay, batch, held_out, scale, negatives "
    "(all, unlike), map_seed, checkpoint_seconds. Repeated.",
)
@click.option("--strict", is_flag=True, help="Stop at the first sample that cannot be used.")
@click.option(
    "--folder",
    required=True,
    type=HomePath(path_type=Path),
    help="Keeps maps, states of trainings and numbers: stop at any time, and call again to go on, "
    "with more methods, directions or seeds if you like.",
)
@click.option(
    "--out",
    multiple=True,
    type=HomePath(path_type=Path),
    metavar="FILE",
    help="A .md table or a .json file with every number. May be repeated.",
)
def roar(
    backbone: str,
    backbone_option: tuple[str, ...],
    device: str | None,
    data: str,
    data_option: tuple[str, ...],
    folder: Path,
    out: tuple[Path, ...],
    layer: tuple[str, ...],
    **given: Any,
) -> None:
    """Measure ROAR+: retrain a copy of the model without what a method calls important.

    A copy is fine-tuned on pairs whose highest scores are taken away, and another on the pairs as
    they are; both are measured on held-out pairs that are left as they are. The share by which the
    held-out loss is higher is ROAR+: a method that finds what the model learns from scores high.
    """
    check_folder(folder, "--folder")
    check_outputs(out, suffixes=SUFFIXES)
    models = parse_several([backbone], "backbone", "--backbone", backbone_option)
    datasets = parse_several([data], "dataset", "--data", data_option)
    embedded = default_plugins().registry.get("backbone", models[0].name).modalities
    sides = [side + more for side in embedded or ("image", "text") for more in ("", SECOND)]
    layers = parse_layers(layer, tuple(sides))
    methods = parse_methods(given["method"], layers)

    from mmattrib.evaluation import remove_and_retrain

    with contained():  # models, methods and data sets of others may print
        (model,) = load_models(models, device).values()
        (dataset,) = open_datasets(datasets).values()
        found = remove_and_retrain(
            model,
            dataset,
            folder=folder,
            methods=methods or "all",
            layer=layers,
            limit=given["limit"],
            strict=given["strict"],
            **_asked(given),
        )
    _write(out, found)
    say(found.table(), newline=False)


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """What is degraded and how it is trained, from the options of the command."""
    from mmattrib.evaluation.retraining import Recipe

    training = parse_options(given["option"], "--option")
    Recipe.of(**training)  # says what is none of its options
    percentiles = parse_options(given["percentile"], "--percentile")
    return {
        **training,
        "directions": given["direction"] or None,
        "controls": given["control"] or ("none",),
        "seeds": given["seed"] or (0, 1, 2, 3, 4),
        "percentiles": percentiles,
        "fills": parse_options(given["fill"], "--fill"),
    }


def _write(out: Sequence[Path], found: RoarResults) -> None:
    from mmattrib.files import write_atomic

    for path in out:
        text = found.table() if path.suffix.lower() == ".md" else found.to_json()
        write_atomic(path, text.encode("utf-8"))
