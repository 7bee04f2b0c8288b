"""``mmattrib attribute``: explain one pair of inputs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from mmattrib.cli.listing import json_option
from mmattrib.cli.outputs import SUFFIXES, check_outputs
from mmattrib.cli.speech import say, tell
from mmattrib.cli.summary import describe, summarise
from mmattrib.errors import InputError, OptionError
from mmattrib.plugins import Entry, default_plugins
from mmattrib.plugins.contained import contained
from mmattrib.plugins.registry import did_you_mean
from mmattrib.types import SECOND, RawInput

out_option = click.option(
    "--out",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"A file to write; its suffix says what: {', '.join(SUFFIXES)}. May be repeated; a file "
    "that exists is replaced.",
)


@click.command()
@click.option("--backbone", default="tiny", show_default=True, help="One of `mmattrib backbones`.")
@click.option("--image", type=click.Path(), help="A picture, in any format that pillow reads.")
@click.option("--audio", type=click.Path(), help="A recording, in any format libsndfile reads.")
@click.option("--text", help="A caption.")
@click.option("--text-file", type=click.Path(), help="A UTF-8 file that holds a caption.")
@click.option(
    "--input",
    "more",
    multiple=True,
    metavar="SIDE=VALUE",
    help="An input of any modality that the backbone embeds: a file, e.g. depth=map.npy, or a "
    "caption, e.g. text='a cat'. A second input of one modality is its name with _2: "
    "image_2=b.png. May be repeated.",
)
@click.option("--method", default="ca-m2ib", show_default=True, help="One of `mmattrib methods`.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the method's noise.")
@click.option(
    "--layer",
    multiple=True,
    metavar="[MODALITY=]N",
    help="Layer to explain, e.g. image=1, or 1 for both sides; -1 is the embedding output. "
    "Default: each encoder's own choice.",
)
@click.option(
    "--option",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the method, e.g. beta=0.1. May be repeated.",
)
@click.option(
    "--backbone-option",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the backbone, e.g. a checkpoint. May be repeated.",
)
@click.option(
    "--device", help="Where to compute, e.g. cpu or cuda. Default: the backbone's choice."
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What `mmattrib calibrate` wrote for this backbone; it says whether the two inputs match "
    "at all. Default: the backbone's own, if it ships one.",
)
@out_option
@json_option
def attribute(
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
    backbone_option: tuple[str, ...],
    device: str | None,
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
    files = [
        Path(value)
        for side, value in given.items()
        if isinstance(value, Path) or modalities[side] != "text"
    ]
    files += [calibration] if calibration is not None else []
    check_outputs(out, inputs=files)
    options = parse_options(option, "--option")
    backbone_options = parse_options(backbone_option, "--backbone-option")
    layers = parse_layers(layer, tuple(dict.fromkeys([*given, *modalities.values()])))
    registry.require("method", method)
    inputs = decode(given, modalities)

    import mmattrib

    _refuse_own_keywords(options, mmattrib.attribute)
    known = None if calibration is None else mmattrib.load_calibration(calibration)
    if device is not None:
        backbone_options["device"] = checked_device(device)
    with contained():  # models and methods of others may print
        model = mmattrib.load_backbone(backbone, **backbone_options)
        if known is not None:
            model.calibration = known
        explanation = mmattrib.attribute(
            model, inputs=inputs, method=method, seed=seed, layer=layers, **options
        )
        written = [explanation.save(path) for path in out]
    summary = summarise(explanation, written)
    if as_json:
        tell(summary)
    else:
        say(describe(summary))


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


def parse_layers(texts: Sequence[str], modalities: tuple[str, ...]) -> dict[str, int] | int | None:
    """Layers from ``MODALITY=N`` or ``N``.

    Raises:
        OptionError: not a whole number, a modality that is not in the pair, or one named twice.
    """
    layers: dict[str, int] = {}
    for text in texts:
        modality, equals, number = text.rpartition("=")
        try:
            layer = int(number)
        except ValueError:
            raise OptionError(
                f"--layer {text} gives no whole number; accepted: N, or MODALITY=N such as "
                f"{modalities[0]}=1"
            ) from None
        if not equals:
            if len(texts) > 1:
                raise OptionError(
                    f"--layer {text} stands for both sides; give it alone, or name the modality, "
                    f"e.g. {modalities[0]}={layer}"
                )
            return layer
        if modality not in modalities:
            raise OptionError(
                f"--layer {text} names {modality!r}, which is not in the pair; accepted: "
                f"{' and '.join(modalities)}"
            )
        if modality in layers:
            raise OptionError(f"--layer {text} names {modality!r} again; give one layer for it")
        layers[modality] = layer
    return layers or None


def parse_options(texts: Sequence[str], what: str) -> dict[str, Any]:
    """Options from ``KEY=VALUE``; a value that is JSON (numbers, true, lists) is read as such.

    Raises:
        OptionError: no ``=``, a key that is no name, or one given twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key.isidentifier():
            raise OptionError(f"{what} {text} is not KEY=VALUE; write it like beta=0.1")
        if key in options:
            raise OptionError(f"{what} {text} gives {key!r} again; give it once")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def _refuse_own_keywords(options: dict[str, Any], function: Any) -> None:
    """Options share one call with the inputs, so names of the call's own are not options."""
    own = [name for name in inspect.signature(function).parameters if name != "options"]
    for key in options:
        if key in own:
            flag = did_you_mean(key, ["--seed", "--layer", "--method", "--backbone"])
            raise OptionError(f"--option {key}=... is not an option of a method.{flag}")


def checked_device(device: str) -> str:
    """A device that torch can compute on here.

    Raises:
        OptionError: torch does not know it, or has none.
    """
    import torch

    try:
        torch.zeros(1, dtype=torch.float32, device=device).add(1).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["cpu"]
        if torch.cuda.is_available():
            here += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            here.append("mps")
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise OptionError(
            f"--device {device} cannot be used here ({reason}); accepted: {', '.join(here)}"
        ) from error
    return device
