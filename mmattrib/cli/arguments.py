"""What several commands ask for in the same words, and how the text of it is read."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from mmattrib.cli.outputs import SUFFIXES, HomePath
from mmattrib.errors import SEEDS, OptionError, check_seed
from mmattrib.plugins.registry import did_you_mean

_F = TypeVar("_F", bound=Callable[..., Any])


def together(*options: Callable[[Any], Any]) -> Callable[[_F], _F]:
    """Several options as one decorator; help shows them in this order."""

    def decorate(function: _F) -> _F:
        """Add the options to a command."""
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


with_backbone = click.option(
    "--backbone", default="tiny", show_default=True, help="One of `mmattrib backbones`."
)
with_backbone_options = click.option(
    "--backbone-option",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the backbone, e.g. a checkpoint. May be repeated.",
)
with_device = click.option(
    "--device", help="Where to compute, e.g. cpu or cuda. Default: the backbone's choice."
)
with_precision = click.option(
    "--precision", type=click.Choice(["auto", "full", "half"]), default="auto", show_default=True,
    help="Of what lies behind the explained layer: the model's own, or bfloat16. auto: half on "
    "graphics cards with units for it.",
)  # fmt: skip
with_model = together(with_backbone, with_backbone_options, with_device)
with_data = click.option(
    "--data", default="scenes", show_default=True, help="One of `mmattrib datasets`."
)
with_data_options = click.option(
    "--data-option",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the data set, e.g. folder=DIR of pairs, or seed=1 of scenes. May be "
    "repeated.",
)
with_samples = together(with_data, with_data_options)
with_method = click.option(
    "--method", default="ca-m2ib", show_default=True, help="One of `mmattrib methods`."
)
with_method_options = click.option(
    "--option",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the method, e.g. beta=0.1. May be repeated.",
)


class Seed(click.types.IntParamType):
    """A whole number that a generator of noise takes, so that another is refused before any work.

    No ``click.IntRange``: help would show bounds of nineteen digits.
    """

    def __init__(self, least: int = SEEDS[0]) -> None:
        self.least = least

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """The number.

        Raises:
            OptionError: out of range.
        """
        return check_seed(super().convert(value, param, ctx), "--seed", self.least)


with_seed = click.option(
    "--seed", type=Seed(), default=0, show_default=True, help="Of the method's noise."
)
with_jobs = click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes."
)
with_layer = click.option(
    "--layer",
    multiple=True,
    metavar="[MODALITY=]N",
    help="Layer to explain, e.g. image=1, or 1 for all; -1 is the embedding output. "
    "Default: each encoder's own choice.",
)
with_config = click.option(
    "--config",
    type=HomePath(path_type=Path),
    metavar="FILE",
    help="A TOML file of methods with options and layers, such as `mmattrib tune` writes.",
)
with_out = click.option(
    "--out",
    multiple=True,
    type=HomePath(path_type=Path),
    metavar="FILE",
    help=f"A file to write; its suffix says what: {', '.join(SUFFIXES)}. May be repeated; a file "
    "that exists is replaced.",
)


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


def refuse_own_keywords(options: dict[str, Any], function: Any) -> None:
    """Options of a method share one call with what has flags of its own, which is no option.

    Raises:
        OptionError: one of them is such a name, e.g. ``seed``.
    """
    own = [name for name in inspect.signature(function).parameters if name != "options"]
    for key in options:
        if key in own:
            flag = did_you_mean(key, ["--seed", "--layer", "--method", "--backbone"])
            raise OptionError(f"--option {key}=... is not an option of a method.{flag}")
