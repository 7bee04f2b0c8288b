"""``mmattrib bench``: what explanations cost here, beside the published code."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmattrib.cli.arguments import (
    checked_device,
    parse_options,
    with_backbone_options,
    with_device,
)
from mmattrib.cli.listing import json_option
from mmattrib.cli.naming import refuse_twice
from mmattrib.cli.outputs import HomePath, check_outputs
from mmattrib.cli.speech import say, tell
from mmattrib.errors import OptionError
from mmattrib.files import write_atomic
from mmattrib.plugins import default_plugins
from mmattrib.plugins.contained import contained

if TYPE_CHECKING:
    from mmattrib.benchmark import Plan

_METHODS = ("m2ib", "ca-m2ib", "nib")


@click.command()
@click.option(
    "--backbone",
    help="One of `mmattrib backbones`. Default: CLIP ViT-B/32 at full size with random weights, "
    "made in memory.",
)
@with_backbone_options
@with_device
@click.option(
    "--method",
    multiple=True,
    metavar="NAME",
    help=f"One of `mmattrib methods`. May be repeated. Default: {', '.join(_METHODS)}, the first "
    "two beside M2IB as published, the third beside NIB.",
)
@click.option(
    "--batch",
    multiple=True,
    type=click.IntRange(1, 1024),
    help="Pairs given together. May be repeated. Default: 1, 4, 16, 64.",
)
@click.option(
    "--layer",
    multiple=True,
    type=click.IntRange(0, 1000),
    help="A further layer to explain, where the towers have it. May be repeated. Default: 1, 5, 9.",
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="Of torch. Default: as many as torch takes."
)
@click.option("--quick", is_flag=True, help="One pair and the ratios alone; two minutes.")
@click.option(
    "--profile",
    is_flag=True,
    help="In place of it all: the operations that a pair is spent in, phase by phase.",
)
@click.option(
    "--out", type=HomePath(path_type=Path), metavar="FILE", help="A .json file of all the numbers."
)
@json_option
def bench(
    backbone: str | None,
    backbone_option: tuple[str, ...],
    device: str | None,
    method: tuple[str, ...],
    batch: tuple[int, ...],
    layer: tuple[int, ...],
    threads: int | None,
    quick: bool,
    profile: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure what explanations cost on this machine, beside the published code.

    Everything is run in turn, and CPU time stands beside time. M2IB as published runs the whole
    model at each step; with --quick one of its ten equal steps stands for all.
    """
    check_outputs([] if out is None else [out], suffixes=(".json",))
    for option, values in (("--method", method), ("--batch", batch), ("--layer", layer)):
        refuse_twice(option, values)
    idle = [
        option
        for option, given in (
            ("--quick", quick and profile),
            ("--batch", batch and (quick or profile)),
            ("--layer", layer and (quick or profile)),
        )
        if given
    ]
    if idle:
        raise OptionError(
            f"{' and '.join(idle)} would have no effect with --{'profile' if profile else 'quick'}"
            "; leave out one or the other"
        )
    options = parse_options(backbone_option, "--backbone-option")
    registry = default_plugins().registry
    for name in method:
        registry.require("method", name)
    if backbone is not None:
        registry.require("backbone", backbone)
        registry.check_options("backbone", backbone, options, "--backbone-option")
    elif options:
        raise OptionError("--backbone-option belongs to a --backbone; name one")
    methods = method or _METHODS
    with contained():  # models and methods of others may print
        found, text = _measured(
            backbone, options, device, threads, _plan(methods, batch, layer, quick), profile
        )
    if out is not None:
        write_atomic(out, (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())
        say(f"Wrote {out}", err=True)
    if as_json:
        tell(found)
    else:
        say(text)


def _plan(
    methods: tuple[str, ...], batches: tuple[int, ...], layers: tuple[int, ...], quick: bool
) -> Plan:
    from mmattrib.benchmark import QUICK, Plan

    if quick:
        return replace(QUICK, methods=methods)
    usual = Plan()
    return Plan(methods, batches or usual.batches, layers or usual.layers)


def _measured(
    backbone: str | None,
    options: dict[str, Any],
    device: str | None,
    threads: int | None,
    plan: Plan,
    profile: bool,
) -> tuple[Any, str]:
    """The numbers, and what is printed of them."""
    import torch

    from mmattrib.benchmark import random_clip, run_benchmark, run_profile, tables
    from mmattrib.loading import load_backbone

    if threads is not None:
        torch.set_num_threads(threads)
    where = None if device is None else checked_device(device)
    progress = partial(say, err=True)
    progress("loading the model" if backbone is not None else "making CLIP ViT-B/32")
    options = options if where is None else {**options, "device": where}
    model = random_clip(**options) if backbone is None else load_backbone(backbone, **options)
    if profile:
        profiled = run_profile(model, plan.methods)
        return profiled, tables.profile(profiled)
    numbers = run_benchmark(model, plan, progress, {"name": backbone, "options": options})
    return numbers, tables.report(numbers)
