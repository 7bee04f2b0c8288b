"""``mmattrib attribute``: explain one pair of inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mmattrib.cli.arguments import (
    checked_device,
    parse_layers,
    parse_options,
    refuse_own_keywords,
    with_backbone,
    with_backbone_options,
    with_config,
    with_device,
    with_layer,
    with_method,
    with_method_options,
    with_out,
    with_precision,
    with_seed,
)
from mmattrib.cli.listing import json_option
from mmattrib.cli.outputs import HomePath, check_outputs
from mmattrib.cli.speech import say, tell
from mmattrib.cli.summary import describe, summarise
from mmattrib.errors import InputError, OptionError
from mmattrib.plugins import Entry, default_plugins
from mmattrib.plugins.contained import contained
from mmattrib.types import SECOND, RawInput

if TYPE_CHECKING:
    from mmattrib.evaluation import Variant


@click.command()
@with_backbone
@click.option("--image", type=HomePath(), help="A picture, in any format that pillow reads.")
@click.option("--audio", type=HomePath(), help="A recording, in any format libsndfile reads.")
@click.option("--text", help="A caption.")
@click.option("--text-file", type=HomePath(), help="A UTF-8 file that holds a caption.")
@click.option(
    "--input",
    "more",
    multiple=True,
    metavar="SIDE=VALUE",
    help="An input of any modality that the backbone embeds: a file, e.g. depth=map.npy, or a "
    "caption, e.g. text='a cat'. A second input of one modality is its name with _2: "
    "image_2=b.png. May be repeated.",
)
@with_method
@with_seed
@with_layer
@with_method_options
@with_config
@with_backbone_options
@with_device
@with_precision
@click.option(
    "--calibration",
    type=HomePath(path_type=Path),
    metavar="FILE",
    help="What `mmattrib calibrate` wrote for this backbone; it says whether the two inputs match "
    "at all. Default: the backbone's own, if it ships one.",
)
@with_out
@json_option
@click.pass_context
def attribute(
    context: click.Context,
    backbone: str,
    image: str | None,
    audio: str | None,
    text: str | None,
    text_file: str | None,
    more: tuple[str, ...],
    method: str,
    seed: int,
    layer: tuple[str, ...],
    option: tuple[str, ...],
    config: Path | None,
    backbone_option: tuple[str, ...],
    device: str | None,
    precision: str,
    calibration: Path | None,
    out: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Explain which parts of two inputs made a model match them.

    Give exactly two inputs, by --image, --audio, --text (or --text-file) and --input. Both sides
    are explained.
    """
    given = chosen_pair(image=image, audio=audio, text=text, text_file=text_file, more=more)
    registry = default_plugins().registry
    entry = registry.require("backbone", backbone)
    modalities = {side: modality_of(side, entry) for side in given}
    files = [v for s, v in given.items() if isinstance(v, Path) or modalities[s] != "text"]
    files += [path for path in (calibration, config) if path is not None]
    check_outputs(out, inputs=map(Path, files))
    options = parse_options(option, "--option")
    backbone_options = parse_options(backbone_option, "--backbone-option")
    registry.check_options("backbone", backbone, backbone_options, "--backbone-option")
    layers = parse_layers(layer, tuple(dict.fromkeys([*given, *modalities.values()])))
    registry.require("method", method)
    inputs = decode(given, modalities)
    variant = None if config is None else configured(context, config)

    import mmattrib

    refuse_own_keywords(options, mmattrib.attribute)
    known = None if calibration is None else mmattrib.load_calibration(calibration)
    if device is not None:
        backbone_options["device"] = checked_device(device)
    with contained():  # models and methods of others may print
        model = mmattrib.load_backbone(backbone, **backbone_options)
        if known is not None:
            model.calibration = known
        made, layer_of = (method, layers) if variant is None else _of(variant, seed, given)
        given_so: dict[str, Any] = {"seed": seed, "layer": layer_of, "precision": precision}
        explanation = mmattrib.attribute(model, inputs=inputs, method=made, **given_so, **options)
        written = [explanation.save(path) for path in out]
    summary = summarise(explanation, written)
    if as_json:
        tell(summary)
    else:
        say(describe(summary))


def _of(variant: Variant, seed: int, sides: Iterable[str]) -> tuple[Any, Any]:
    return variant.make(seed), variant.layers_for(tuple(sides))


def configured(context: click.Context, config: Path) -> Variant:
    """The method of a plan that names one.

    Raises:
        OptionError: it names several, or the command line says something of the method too.
    """
    from mmattrib.evaluation.plans import read_plan

    said = [
        f"--{name}"
        for name in ("method", "option", "layer")
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]
    if said:
        raise OptionError(
            f"--config {config} says which method, options and layers; leave {' and '.join(said)} "
            "out"
        )
    variants = read_plan(config)
    if len(variants) != 1:
        raise OptionError(
            f"--config {config} names {len(variants)} methods "
            f"({', '.join(v.label for v in variants[:5])}); one pair is explained by one: name a "
            "file of one, as `mmattrib tune` writes it"
        )
    return variants[0]


def chosen_pair(
    *,
    image: str | None,
    audio: str | None,
    text: str | None,
    text_file: str | None,
    more: Sequence[str] = (),
) -> dict[str, str | Path]:
    """The two inputs by side; a caption is a string, a file of one is a path.

    Raises:
        InputError: not exactly two inputs, or two for one side.
        OptionError: an ``--input`` is not ``SIDE=VALUE``.
    """
    named = {"image": image, "audio": audio, "text": text}
    given: dict[str, str | Path] = {k: value for k, value in named.items() if value is not None}
    said = {side: f"--{side}" for side in given}
    others: list[tuple[str, str, str | Path]] = []
    if text_file is not None:
        others.append(("--text-file", "text", Path(text_file)))
    others += [(f"--input {side}", side, value) for side, value in map(_named_input, more)]
    for flag, side, value in others:
        if side in given:
            second = "" if side.endswith(SECOND) else f", or name a second one {side}{SECOND}"
            raise InputError(
                f"both {said[side]} and {flag} were given, for one side; give one of them{second}"
            )
        given[side], said[side] = value, flag
    if len(given) != 2:
        raise InputError(
            f"exactly two inputs make a pair, got {len(given)} ({', '.join(given) or 'none'}); "
            "give two of --image, --audio, --text (or --text-file) and --input SIDE=VALUE"
        )
    return given


def _named_input(text: str) -> tuple[str, str]:
    side, equals, value = text.partition("=")
    if not equals or not side.isidentifier():
        raise OptionError(
            f"--input {text} is not SIDE=VALUE; write it like depth=map.npy, or image_2=b.png"
        )
    return side, value


def modality_of(side: str, backbone: Entry) -> str:
    """The modality of a side of a pair.

    Raises:
        InputError: the backbone does not embed it.
    """
    embedded = backbone.modalities
    modality = side if side in embedded else side.removesuffix(SECOND)
    if embedded and modality not in embedded:
        raise InputError(
            f"backbone {backbone.name!r} does not embed {modality}; it embeds "
            f"{', '.join(embedded)}. `mmattrib backbones` lists others"
        )
    return modality


def decode(given: Mapping[str, str | Path], modalities: Mapping[str, str]) -> dict[str, RawInput]:
    """Read both inputs, so that a bad one is named before a model is loaded.

    Raises:
        InputError: one cannot be read.
    """
    from mmattrib.io import load

    return {side: load(modalities[side], source) for side, source in given.items()}
