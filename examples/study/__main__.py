"""``python -m examples.study``: sweep, references, table, against and pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from examples.study.benchmark import KINDS, SCENES, ask, asked_metrics, means, measure_costs
from examples.study.kept import raw
from examples.study.pages import redraw
from examples.study.photographs import DIRECTIONS as PHOTOGRAPHS
from examples.study.photographs import Texts, measure, model_card
from examples.study.photographs import label as photographs_label
from examples.study.protocol import (
    DECIDING,
    DIRECTIONS,
    FINAL_SCENES,
    GROUPS,
    METRICS,
    PAIRS,
    PROBES,
    RANKED,
    SEARCH_SCENES,
    Phase,
    Sharing,
    label,
)
from examples.study.sweep import FILE, REFERENCES, Scope, checkpoints, sweep
from examples.study.variance import measure_variance
from mmattrib.datasets.scenes import Bank
from mmattrib.errors import MmattribError, OptionError
from mmattrib.evaluation import Candidate, Outcome, Results, View, against, load_results, markdown
from mmattrib.evaluation.plans import choose, read_plan

_F = TypeVar("_F", bound=Callable[..., Any])


class _Group(click.Group):
    """Turns the package's own errors into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (MmattribError, OSError) as error:
            raise click.UsageError(" ".join(str(error).split())) from error


@click.group(cls=_Group)
def main() -> None:
    """Compare methods on scenes whose truth is known, and search for better ones."""


def _measuring(function: _F) -> _F:
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
        *_SCENES,
        click.option("--pair", "pairs", multiple=True, metavar="A,B",
                     help="e.g. image,text; repeated. Default: all three."),
        click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True,
                     help="Of the methods' noise; repeated."),
        click.option("--bank", type=click.Path(path_type=Path), metavar="DIR",
                     help="Drawings and sounds of your own. Default: the shipped ones."),
        click.option("--backbone", default="tiny", show_default=True,
                     help="One of `mmattrib backbones`."),
        click.option("--checkpoint", "files", multiple=True, metavar="FILE",
                     help="A checkpoint of it, or 'shipped'; repeated. Default: shipped."),
    ]  # fmt: skip
    return _with(options)(function)


def _with(options: Sequence[Any]) -> Callable[[_F], _F]:
    def decorate(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_SCENES = (
    click.option("--phase", type=click.Choice(get_args(Phase)), default="search",
                 show_default=True, help="Scenes to search on, or those of the final table."),
    click.option("--sharing", type=click.Choice(get_args(Sharing)), default="one",
                 show_default=True, help="How many classes a scene shares."),
)  # fmt: skip
_SHOWN = (
    click.option("--metric", "metrics", multiple=True, type=click.Choice(METRICS),
                 help="Repeated."),
    click.option("--checkpoint", "backbones", multiple=True, metavar="LABEL",
                 help="Average over these alone; repeated. Default: all."),
)  # fmt: skip


@main.command("sweep")
@click.argument("plan", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_measuring
@click.option("--variant", "patterns", multiple=True, metavar="NAME",
              help="Only this variant; * and ? match. Repeated. Default: all.")  # fmt: skip
@click.option("--probes", type=click.IntRange(min=0), default=0, show_default=True,
              help="Measure prompt sensitivity and stability on so many scenes.")  # fmt: skip
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
    if baseline is not None and baseline not in [v.label for v in variants]:
        raise OptionError(f"--baseline {baseline} is not among the variants")
    measured: list[Candidate] = [*variants, *(REFERENCES if oracle else ())]
    _measure(measured, given, probes=probes, fresh=fresh, baseline=baseline)


@main.command("photographs")
@click.argument("plan", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("photographs", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--out", "folder", type=click.Path(path_type=Path), required=True,
              metavar="DIR", help="Holds the results; call again to go on.")  # fmt: skip
@click.option("--texts", type=click.Choice(get_args(Texts)), default="categories",
              show_default=True, help="What each photograph is paired with.")  # fmt: skip
@click.option("--variant", "patterns", multiple=True, metavar="NAME",
              help="Only this variant; * and ? match. Repeated. Default: all.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="Only so many pairs.")
@click.option("--split", help="Of one of COCO's own releases, e.g. val2017.")
@click.option("--backbone", default="conse", show_default=True,
              help="One of `mmattrib backbones`.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True,
              help="Processes, one thread each.")  # fmt: skip
@click.option("--fresh", is_flag=True,
              help="Measure again what other source code measured.")  # fmt: skip
@click.option("--baseline", metavar="NAME", help="Compare the others with it in the table.")
def photographs_command(
    plan: Path,
    photographs: Path,
    folder: Path,
    texts: Texts,
    patterns: tuple[str, ...],
    baseline: str | None,
    **given: Any,
) -> None:
    """Measure every variant of PLAN on the photographs of FOLDER, in COCO's layout."""
    outcome = measure(choose(read_plan(plan), patterns), photographs, texts, folder, **given)
    results = _load(folder)
    view = View(
        dataset=photographs_label(texts),
        directions=PHOTOGRAPHS[texts],
        compared=RANKED,
        baseline=baseline,
    )
    click.echo(markdown(results, view), nl=False)
    _report(outcome)


@main.command("card")
@click.argument("photographs", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--split", help="Of one of COCO's own releases, e.g. val2017.")
@click.option("--backbone", default="conse", show_default=True,
              help="One of `mmattrib backbones`.")  # fmt: skip
def card_command(photographs: Path, split: str | None, backbone: str) -> None:
    """Print how well a model matches the photographs of FOLDER with their captions."""
    click.echo(model_card(photographs, backbone, split))


@main.command("why")
@click.argument("photographs", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE",
              help="Holds a line for each pair; call again to go on.")  # fmt: skip
@click.option("--n", "count", type=click.IntRange(min=1), default=20, show_default=True,
              help="How many photographs, and how many search scenes.")  # fmt: skip
def why_command(photographs: Path, out: Path, count: int) -> None:
    """Measure channel, noise and head on photographs of FOLDER and on scenes of tiny-seed1."""
    from examples.study.why import measure_why

    measure_why(photographs, out, count=count)


@main.command("oracle")
@_measuring
def oracle_command(**given: Any) -> None:
    """Measure chance and the occlusion oracle: what the model itself relies on."""
    _measure(REFERENCES, given)


def _measure(
    candidates: Sequence[Candidate],
    given: dict[str, Any],
    *,
    probes: int = 0,
    fresh: bool = False,
    baseline: str | None = None,
) -> None:
    pairs = tuple(_pair(text) for text in given["pairs"]) or PAIRS
    count = given["n"] or (FINAL_SCENES if given["phase"] == "final" else SEARCH_SCENES)
    bank = Bank.load(given["bank"]) if given["bank"] else None
    scope = Scope(
        count, given["start"], given["phase"], given["sharing"], pairs, probes, bank, given["seeds"]
    )
    files = [None if file == "shipped" else file for file in given["files"] or ("shipped",)]
    models = checkpoints(files, given["backbone"])
    outcome = sweep(candidates, models, scope, given["folder"], jobs=given["jobs"], fresh=fresh)
    if outcome.outdated:
        click.echo(
            f"{outcome.outdated} of {outcome.kept} finished tasks were measured with other source "
            "code of mmattrib.engine or mmattrib.methods; --fresh measures them again.",
            err=True,
        )
    if outcome.done or outcome.kept:
        results = _load(given["folder"])
        click.echo(markdown(results, _view(results, given, baseline=baseline)), nl=False)
    _report(outcome)


def _report(outcome: Outcome) -> None:
    for task, message in outcome.failures.items():
        click.echo(f"failed: {task}: {message}", err=True)
    if outcome.failures:
        raise SystemExit(1)


def _load(folder: Path) -> Results:
    path = folder / FILE
    if not path.exists():
        raise OptionError(f"{folder} holds no {FILE}; `python -m examples.study sweep` writes one")
    return load_results(path)


def _view(results: Results, given: dict[str, Any], **more: Any) -> View:
    """The protocol's order of directions and metrics, of those that were measured."""
    measured = [d for d in DIRECTIONS if d in results.directions]
    return View(
        **{
            "dataset": label(given["phase"], given["sharing"]),
            "directions": tuple(given.get("directions") or measured),
            "metrics": tuple(given.get("metrics") or ()),
            "backbones": tuple(given.get("backbones") or ()),
            "compared": (*RANKED, *PROBES),
            "groups": GROUPS,
            **more,
        }
    )


@main.command("ask")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option("--n", type=click.IntRange(1, SCENES), default=SCENES, show_default=True,
              help="On the first so many of the scenes of docs/benchmark.md.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True,
              help="Processes, one thread each.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="Where to compute, e.g. cuda.")
def ask_command(file: Path, n: int, jobs: int, device: str) -> None:
    """Ask `tiny` about the maps of every method; FILE holds the answers, call again to go on."""
    results = ask(file, n, jobs, device)
    for kind in KINDS:
        click.echo(f"{kind}\n\n{means(results, asked_metrics(results), kind)}\n")


@main.command("cost")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option("--n", type=click.IntRange(1, SCENES), default=4, show_default=True,
              help="On so many scenes.")  # fmt: skip
def cost_command(file: Path, n: int) -> None:
    """Measure CPU seconds of both maps of a pair, of every method, on one thread."""
    for method, seconds in measure_costs(file, n).items():
        click.echo(f"{method}: {sorted(seconds)[len(seconds) // 2]:.2f}")


@main.command("variance")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option("--n", type=click.IntRange(1, SEARCH_SCENES), default=4, show_default=True,
              help="On so many search scenes.")  # fmt: skip
def variance_command(file: Path, n: int) -> None:
    """Measure whether the rows of ca-m2ib could be spent better, on scenes; JSON goes to FILE."""
    for name, numbers in measure_variance(file, n).items():
        click.echo(f"{name}: {numbers}")


@main.command("album")
@click.argument("photographs", type=click.Path(path_type=Path), metavar="FOLDER")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.jpg")
@click.option("--results", "folder", type=click.Path(path_type=Path), metavar="DIR",
              help="Of `photographs` on this folder. Default: the kept numbers.")  # fmt: skip
@click.option("--count", type=click.IntRange(min=1, max=20), default=4, show_default=True,
              help="How many of the worst, and of those around the median.")  # fmt: skip
@click.option("--photographs", "shown", is_flag=True, help="Draw the photographs under the maps.")
def album_command(
    photographs: Path, out: Path, folder: Path | None, count: int, shown: bool
) -> None:
    """Draw the worst maps of ca-m2ib on photographs and those in the middle, beside its rivals'."""
    from examples.study.album import draw

    results = raw("photographs-categories") if folder is None else _load(folder)
    draw(photographs, results, out, count=count, shown=shown)


@main.command("table")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--direction", "directions", multiple=True, type=click.Choice(DIRECTIONS),
              help="Repeated. Default: all measured.")  # fmt: skip
@_with(_SHOWN)
@click.option("--baseline", metavar="NAME", help="Compare the others with it.")
@_with(_SCENES)
def table_command(folder: Path, baseline: str | None, **given: Any) -> None:
    """Print the results of DIR as Markdown."""
    results = _load(folder)
    click.echo(markdown(results, _view(results, given, baseline=baseline)), nl=False)


@main.command("against")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--variant", default="ca-m2ib", show_default=True, help="The one that is compared.")
@click.option("--rival", "rivals", multiple=True, help="With which; repeated. Default: all.")
@_with(_SHOWN)
@_with(_SCENES)
def against_command(folder: Path, variant: str, rivals: tuple[str, ...], **given: Any) -> None:
    """Print how far one variant leads the others, direction by direction."""
    results = _load(folder)
    view = _view(results, given, metrics=tuple(given["metrics"] or DECIDING))
    click.echo(against(results, variant, rivals, view), nl=False)


@main.command("pages")
@click.option("--check", is_flag=True, help="Change nothing; fail where a table would change.")
def pages_command(check: bool) -> None:
    """Redraw every marked table of the docs and of results.md from the kept numbers."""
    changed = redraw(check=check)
    for page in changed:
        click.echo(f"{page} {'has other tables than its numbers give' if check else 'is redrawn'}")
    if check and changed:
        raise SystemExit(1)


def _pair(text: str) -> tuple[str, str]:
    for pair in PAIRS:
        if text.split(",") in (list(pair), list(pair[::-1])):
            return pair
    accepted = " ".join(",".join(pair) for pair in PAIRS)
    raise OptionError(f"--pair {text}: accepted are {accepted}")


if __name__ == "__main__":
    main(prog_name="python -m examples.study")
