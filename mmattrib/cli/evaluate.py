"""``mmattrib evaluate``: methods against scenes whose truth is known."""

from __future__ import annotations

from pathlib import Path

import click

from mmattrib.cli.attribute import checked_device, parse_layers, parse_options
from mmattrib.cli.outputs import check_outputs
from mmattrib.errors import OptionError
from mmattrib.plugins import default_plugins

SUFFIXES = (".md", ".json")
MODALITIES = ("image", "audio", "text")  # what scenes hold


@click.command()
@click.option("--backbone", default="tiny", show_default=True, help="One of `mmattrib backbones`.")
@click.option(
    "--backbone-option",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the backbone, e.g. a checkpoint. May be repeated.",
)
@click.option("--device", help="Where to compute. Default: the backbone's choice.")
@click.option("--method", multiple=True, help="One of `mmattrib methods`; repeated. Default: all.")
@click.option("--metric", multiple=True, help="One of `mmattrib metrics`; repeated. Default: all.")
@click.option(
    "--pair",
    multiple=True,
    metavar="A,B",
    help="Two modalities, e.g. image,text; repeated. Default: all three pairs.",
)
@click.option(
    "--scenes", "n", type=click.IntRange(min=1), default=50, show_default=True, help="How many."
)
@click.option("--scene-seed", type=int, default=0, show_default=True, help="Which scenes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the methods' noise.")
@click.option(
    "--layer",
    multiple=True,
    metavar="[MODALITY=]N",
    help="Layer to explain, e.g. image=1, or 1 for all; -1 is the embedding output. "
    "Default: each encoder's own choice.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file that keeps finished work: stop at any time, and call again to go on.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes to share the work.",
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
    method: tuple[str, ...],
    metric: tuple[str, ...],
    pair: tuple[str, ...],
    n: int,
    scene_seed: int,
    seed: int,
    layer: tuple[str, ...],
    resume: Path | None,
    jobs: int,
    out: tuple[Path, ...],
) -> None:
    """Score methods on held-out scenes that share one class.

    Prints a table per direction: "image|text" explains the image, guided by the text. Mean and
    standard error in percent.
    """
    check_outputs(out, suffixes=SUFFIXES)
    options = parse_options(backbone_option, "--backbone-option")
    pairs = [_pair(text) for text in pair]
    layers = parse_layers(layer, MODALITIES)
    registry = default_plugins().registry
    registry.require("backbone", backbone)
    for name in method:
        registry.require("method", name)
    for name in metric:
        registry.require("metric", name)

    import mmattrib
    from mmattrib.evaluation.benchmark import PAIRS
    from mmattrib.files import write_atomic

    if device is not None:
        options["device"] = checked_device(device)
    found = mmattrib.evaluate(
        mmattrib.load_backbone(backbone, **options),
        mmattrib.scenes(n, seed=scene_seed),
        methods=method or "all",
        metrics=metric or "all",
        pairs=pairs or PAIRS,
        layer=layers,
        seed=seed,
        resume=resume,
        jobs=jobs,
    )
    table = found.table()
    for path in out:
        text = table if path.suffix.lower() == ".md" else found.to_json()
        write_atomic(path, text.encode("utf-8"))
    click.echo(table, nl=False)


def _pair(text: str) -> tuple[str, str]:
    first, comma, second = text.partition(",")
    if not (first and comma and second) or "," in second or first == second:
        raise OptionError(f"--pair {text} is not two modalities; write it like image,text")
    return first, second
