"""``mmattrib roar``: retrain a copy of a model without what a method calls important."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmattrib.cli.arguments import (
    Seed,
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
from mmattrib.cli.outputs import HomePath, check_folder, check_outputs
from mmattrib.cli.speech import say
from mmattrib.plugins import default_plugins
from mmattrib.plugins.contained import contained
from mmattrib.types import SECOND

if TYPE_CHECKING:
    from mmattrib.evaluation import RoarResults

SUFFIXES = (".md", ".json")


@click.command()
@with_backbone
@with_backbone_options
@with_device
@with_data
@with_data_options
@click.option(
    "--limit",
    type=click.IntRange(min=5, max=50_000),
    help="How many samples, from the first on. Default: all, and 50 scenes.",
)
@click.option(
    "--method",
    multiple=True,
    metavar="NAME[:KEY=VALUE,...]",
    help="One of `mmattrib methods`, with options of its own; repeated. Default: all.",
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
    options = parse_options(backbone_option, "--backbone-option")
    data_options = parse_options(data_option, "--data-option")
    registry = default_plugins().registry
    registry.check_options("backbone", backbone, options, "--backbone-option")
    registry.check_options("dataset", data, data_options, "--data-option")
    wanted = [named_method(text) for text in given["method"]]
    for name, _ in wanted:
        registry.require("method", name)
    embedded = registry.get("backbone", backbone).modalities or ("image", "text")
    layers = parse_layers(layer, tuple(s + more for s in embedded for more in ("", SECOND)))

    import mmattrib
    from mmattrib.evaluation import Variant, remove_and_retrain

    if device is not None:
        options["device"] = checked_device(device)
    with contained():  # models, methods and data sets of others may print
        found = remove_and_retrain(
            mmattrib.load_backbone(backbone, **options),
            mmattrib.load_dataset(data, **data_options),
            folder=folder,
            methods=[Variant(name, name, own, layers) for name, own in wanted] or "all",
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
