"""``python -m examples.study``: sweep, oracle and table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click

from examples.study.measure import Variant
from examples.study.plan import choose, read_plan
from examples.study.protocol import FINAL_SCENES, SEARCH_SCENES, Kind, Split
from examples.study.results import load_results
from examples.study.sweep import Checkpoint, Scope, sweep
from examples.study.table import View, against, markdown
from mmattrib.errors import MmattribError, OptionError
from mmattrib.evaluation.benchmark import PAIRS


class _Group(click.Group):
    """Turns the package's own errors into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MmattribError as error:
            raise click.UsageError(str(error)) from error


@click.group(cls=_Group)
def main() -> None:
    """Compare methods on scenes whose truth is known, and search for better ones."""


def _measuring(function: Any) -> Any:
    """Options of the commands that measure."""
    options = [
        click.option("--out", "folder", type=click.Path(path_type=Path), required=True,
                     metavar="DIR", help="Holds the results; call again to go on."),
        click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True,
                     help="Processes, one thread each."),
        click.option("--n", type=click.IntRange(min=1),
                     help=f"How many scenes. Default: {SEARCH_SCENES} to search on, "
                          f"{FINAL_SCENES} of the final table."),
        click.option("--start", type=click.IntRange(min=0), default=0, show_default=True,
                     help="Number of the first scene."),
        click.option("--split", type=click.Choice(get_args(Split)), default="search",
                     show_default=True, help="Scenes to search on, or those of the final table."),
        click.option("--kind", type=click.Choice(get_args(Kind)), default="one",
                     show_default=True, help="How many classes a scene shares."),
        click.option("--pair", "pairs", multiple=True, metavar="A,B",
                     help="e.g. image,text; repeated. Default: all three."),
        click.option("--backbone", default="tiny", show_default=True,
                     help="One of `mmattrib backbones`."),
        click.option("--checkpoint", "files", multiple=True, metavar="FILE",
                     help="A checkpoint of it, or 'shipped'; repeated. Default: shipped."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@main.command("sweep")
@click.argument("plan", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_measuring
@click.option("--variant", "patterns", multiple=True, metavar="NAME",
              help="Only this variant; * and ? match. Repeated. Default: all.")  # fmt: skip
@click.option("--probes", type=click.IntRange(min=0), default=0, show_default=True,
              help="Measure tsens and stability on so many scenes.")  # fmt: skip
@click.option("--oracle", is_flag=True, help="Measure chance and the occlusion oracle too.")
@click.option("--fresh", is_flag=True,
              help="Measure again what other source code measured.")  # fmt: skip
@click.option("--baseline", metavar="NAME", help="Compare the others with it in the table.")
def sweep_command(
    plan: Path,
    patterns: tuple[str, ...],
    probes: int,
    oracle: bool,
    fresh: bool,
    baseline: str | None,
    **given: Any,
) -> None:
    """Measure every variant of PLAN, a TOML file, and print the table."""
    variants = choose(read_plan(plan), patterns)
    if baseline is not None and baseline not in [v.name for v in variants]:
        raise OptionError(f"--baseline {baseline} is not among the variants")
    _measure(variants, given, probes=probes, oracle=oracle, fresh=fresh, baseline=baseline)


@main.command("oracle")
@_measuring
def oracle_command(**given: Any) -> None:
    """Measure chance and the occlusion oracle: what the model itself relies on."""
    _measure([], given, oracle=True)


def _measure(
    variants: Sequence[Variant],
    given: dict[str, Any],
    *,
    probes: int = 0,
    oracle: bool = False,
    fresh: bool = False,
    baseline: str | None = None,
) -> None:
    pairs = tuple(_pair(text) for text in given["pairs"]) or PAIRS
    count = given["n"] or (FINAL_SCENES if given["split"] == "final" else SEARCH_SCENES)
    scope = Scope(count, given["start"], given["split"], given["kind"], pairs, probes)
    checkpoints = [
        Checkpoint.of(None if file == "shipped" else file, given["backbone"])
        for file in given["files"] or ("shipped",)
    ]
    outcome = sweep(
        variants, checkpoints, scope, given["folder"], jobs=given["jobs"], oracle=oracle,
        fresh=fresh,
    )  # fmt: skip
    if outcome.outdated:
        click.echo(
            f"{outcome.outdated} of {outcome.kept} finished chunks were measured with other source "
            "code of mmattrib.engine or mmattrib.methods; --fresh measures them again.",
            err=True,
        )
    if outcome.done or outcome.kept:
        view = View(baseline=baseline, split=scope.split, kind=scope.kind)
        click.echo(markdown(load_results(given["folder"]), view), nl=False)
    for task, message in outcome.failures.items():
        click.echo(f"failed: {task}: {message}", err=True)
    if outcome.failures:
        raise SystemExit(1)


@main.command("table")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--direction", "directions", multiple=True, help="e.g. image|text; repeated.")
@click.option("--metric", "metrics", multiple=True, help="Repeated. Default: all measured.")
@click.option("--checkpoint", "checkpoints", multiple=True, metavar="LABEL",
              help="Average over these alone; repeated. Default: all.")  # fmt: skip
@click.option("--baseline", metavar="NAME", help="Compare the others with it.")
@click.option("--split", type=click.Choice(get_args(Split)), default="search", show_default=True)
@click.option("--kind", type=click.Choice(get_args(Kind)), default="one", show_default=True)
def table_command(folder: Path, **given: Any) -> None:
    """Print the results of DIR as Markdown."""
    click.echo(markdown(load_results(folder), View(**given)), nl=False)


@main.command("against")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--variant", default="ca-m2ib", show_default=True, help="The one that is compared.")
@click.option("--rival", "rivals", multiple=True, help="With which; repeated. Default: all.")
@click.option("--metric", "metrics", multiple=True, help="Repeated. Default: those that decide.")
@click.option("--checkpoint", "checkpoints", multiple=True, metavar="LABEL",
              help="Average over these alone; repeated. Default: all.")  # fmt: skip
@click.option("--split", type=click.Choice(get_args(Split)), default="search", show_default=True)
@click.option("--kind", type=click.Choice(get_args(Kind)), default="one", show_default=True)
def against_command(folder: Path, variant: str, rivals: tuple[str, ...], **given: Any) -> None:
    """Print how far one variant leads the others, direction by direction."""
    click.echo(against(load_results(folder), variant, rivals, View(**given)), nl=False)


def _pair(text: str) -> tuple[str, str]:
    for pair in PAIRS:
        if text.split(",") in (list(pair), list(pair[::-1])):
            return pair
    accepted = " ".join(",".join(pair) for pair in PAIRS)
    raise OptionError(f"--pair {text}: accepted are {accepted}")


if __name__ == "__main__":
    main(prog_name="python -m examples.study")
