"""``mmattrib reproduce``: the paper's table and figures, on its data or on one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmattrib.cli.arguments import with_config, with_device, with_jobs
from mmattrib.cli.evaluate import NUMBERS, TABLES, write_results
from mmattrib.cli.naming import Named, load_models, open_datasets, parse_named
from mmattrib.cli.outputs import HomePath, check_folder
from mmattrib.cli.speech import say
from mmattrib.errors import OptionError
from mmattrib.plugins import default_plugins
from mmattrib.plugins.contained import contained

if TYPE_CHECKING:
    from mmattrib.datasets import Dataset
    from mmattrib.evaluation import Results, Variant
    from mmattrib.evaluation.presets import Part
    from mmattrib.models.backbone import Backbone
    from mmattrib.render.gallery import Gallery

WHAT = ("table1", "fig2", "fig3", "fig4", "tuning")
_FIGURE_SAMPLES = {"fig2": 4, "fig3": 2, "fig4": 2}


@dataclass(frozen=True)
class _Job:
    """A part with what it is run on."""

    part: Part
    data: Named
    backbone: Named
    own_backbone: bool


@click.command()
@click.argument("what", type=click.Choice(WHAT))
@click.option(
    "--data",
    multiple=True,
    required=True,
    metavar="NAME[=DIR]",
    help="ms-cxr=DIR or cc=DIR (Conceptual Captions), the paper's; scenes, which needs no files; "
    "or another of `mmattrib datasets` with its folder. Repeated.",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="NAME=FILE",
    help="cxr=FILE, CXR-RePaIR's for ms-cxr; cc=FILE or a name on the hub, in place of "
    "openai/clip-vit-base-patch32.",
)
@click.option(
    "--backbone",
    metavar="NAME[:KEY=VALUE,...]",
    help="In place of the paper's models, at its own layers. Default: clip, cxr-repair, and tiny "
    "for all other data.",
)
@with_device
@click.option(
    "--limit", type=click.IntRange(min=1), help="Pairs of each data set. Default: the paper's."
)
@click.option("--seeds", type=click.IntRange(1, 100), help="How many. Default: the paper's ten.")
@click.option(
    "--quick",
    is_flag=True,
    help="Four samples and two seeds, one sample in a figure, to see that it runs.",
)
@with_config
@with_jobs
@click.option(
    "--out",
    type=HomePath(path_type=Path),
    default="reproduced",
    show_default=True,
    metavar="DIR",
    help="Folder for tables, figures and finished work: call again to go on.",
)
def reproduce(what: str, out: Path, **given: Any) -> None:
    """Run one of the paper's experiments with the paper's settings.

    table1 measures and puts the published numbers beside; fig2 shows methods side by side, fig3
    what the tests of confidence and ROAR+ do to inputs, fig4 maps of pictures and captions given
    a sound; tuning tries layers and prices as its appendix does. --config adds the methods of a
    file, such as `mmattrib tune` writes, to table1 and fig2.
    """
    check_folder(out, "--out")
    jobs = _jobs(given["data"], given["weights"], given["backbone"])
    if given["config"] is not None and what not in ("table1", "fig2"):
        raise OptionError(f"--config would have no effect on {what}; leave it out")
    if given["seeds"] is not None and what not in ("table1", "tuning"):
        raise OptionError(f"--seeds would have no effect on {what}; leave it out")
    jobs = [replace(job, part=_sized(job.part, given)) for job in jobs]
    out.mkdir(exist_ok=True)
    with contained():  # models, methods and data sets of others may print
        if what == "table1":
            found = _table1(jobs, out, given)
        elif what == "tuning":
            found = _tuning(jobs, out, given)
        else:
            found = _figure(what, jobs, out, given)
    say(found)


def _jobs(data: Sequence[str], weights: Sequence[str], backbone: str | None) -> list[_Job]:
    from mmattrib.evaluation.presets import PARTS, Part

    files = _by_name(weights, "--weights")
    found: list[_Job] = []
    for key, folder in _by_name(data, "--data").items():
        part = PARTS.get(key) or Part(key, key, "tiny")
        if part.dataset != "scenes" and not folder:
            raise OptionError(f"--data {key} names no folder; write it like {key}=DIR")
        options = {"folder": folder} if folder else {}
        default_plugins().registry.require("dataset", part.dataset)
        default_plugins().registry.check_options("dataset", part.dataset, options, "--data")
        model = Named(part.backbone, {})
        if backbone is not None:
            model = parse_named(backbone, "--backbone", labels=False)
        elif part.weights in files:
            model.options["checkpoint"] = files.pop(part.weights)
        elif part.backbone == "cxr-repair":
            raise OptionError("--data ms-cxr needs the weights of CXR-RePaIR: --weights cxr=FILE")
        default_plugins().registry.require("backbone", model.name)
        found.append(_Job(part, Named(part.dataset, options, key), model, backbone is not None))
    if files:
        raise OptionError(
            f"--weights {next(iter(files))} belongs to none of the data; accepted: cxr with "
            "ms-cxr, cc with cc, and neither beside --backbone"
        )
    return found


def _by_name(texts: Sequence[str], option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or (equals and not value) or (option == "--weights" and not equals):
            raise OptionError(f"{option} {text} is not NAME=PLACE; write it like cc=DIR")
        if name in found:
            raise OptionError(f"{option} {name} is given twice; give it once")
        found[name] = value
    return found


def _sized(part: Part, given: Mapping[str, Any]) -> Part:
    from mmattrib.evaluation.presets import QUICK_SAMPLES, QUICK_SEEDS

    if given["quick"] and (given["limit"] or given["seeds"]):
        raise OptionError("--quick says how many samples and seeds; leave --limit and --seeds out")
    if given["quick"]:
        return replace(part, samples=QUICK_SAMPLES, seeds=QUICK_SEEDS)
    seeds = part.seeds if given["seeds"] is None else tuple(range(given["seeds"]))
    return replace(part, samples=given["limit"] or part.samples, seeds=seeds)


def _opened(job: _Job, given: Mapping[str, Any]) -> tuple[Backbone, Dataset]:
    (model,) = load_models([job.backbone], given["device"]).values()
    (data,) = open_datasets([job.data]).values()
    return model, data


def _methods(job: _Job, given: Mapping[str, Any]) -> tuple[list[Variant], list[str]]:
    from mmattrib.evaluation.plans import read_plan
    from mmattrib.evaluation.presets import table_methods

    found, missing = table_methods(job.part, job.own_backbone)
    return found + ([] if given["config"] is None else read_plan(given["config"])), missing


def _table1(jobs: Sequence[_Job], out: Path, given: Mapping[str, Any]) -> str:
    from mmattrib.evaluation import View, evaluate
    from mmattrib.evaluation.presets import beside_published, table_metrics

    parts: list[Results] = []
    missing: list[str] = []
    for job in jobs:
        model, data = _opened(job, given)
        methods, missing = _methods(job, given)
        parts.append(
            evaluate(
                {job.backbone.name: model},
                {job.part.key: data},
                methods=methods,
                metrics=list(table_metrics().values()),
                pairs=None if job.part.key not in ("ms-cxr", "cc") else [("image", "text")],
                seed=job.part.seeds,
                limit=job.part.samples,
                resume=out / f"table1-{job.part.key}.jsonl",
                jobs=given["jobs"],
                keep_going=True,
            )
        )
    found = joined(parts)
    report = beside_published(found, missing, View(errors="seeds"))
    names = [f"table1{suffix}" for suffix in (*TABLES, NUMBERS)]
    write_results([out / name for name in names], report, found)
    return f"{report.text()}Wrote {', '.join(names)} to {out}"


def joined(parts: Sequence[Results]) -> Results:
    """Results of different data sets as one."""
    from mmattrib.evaluation import Results

    columns = {column: values for each in parts for column, values in each.columns.items()}
    samples = {label: names for each in parts for label, names in each.samples.items()}
    problems = tuple(problem for each in parts for problem in each.problems)
    left_out = {what: why for each in parts for what, why in each.left_out.items()}
    provenance = {"parts": [dict(each.provenance) for each in parts]}
    return Results(columns, samples, provenance, problems, left_out)


def _tuning(jobs: Sequence[_Job], out: Path, given: Mapping[str, Any]) -> str:
    from mmattrib.cli.tune import listing, told
    from mmattrib.evaluation.plans import write_plan
    from mmattrib.evaluation.presets import LITERAL, tuning_grid
    from mmattrib.evaluation.tuning import CONFIDENCE, tune
    from mmattrib.files import write_atomic
    from mmattrib.render.surface import surface_bytes

    lines = []
    for job in jobs:
        model, data = _opened(job, given)
        shortest = min(encoder.num_layers for encoder in model.values())
        for method in (LITERAL, "ca-m2ib"):
            name = f"tuning-{job.part.key}-{method}"
            found = tune(
                model, data, tuning_grid(method, shortest, given["quick"]), CONFIDENCE,
                pairs=[("image", "text")], limit=min(job.part.samples, 100),
                seed=job.part.seeds[0], resume=out / f"{name}.jsonl", jobs=given["jobs"],
            )  # fmt: skip
            what = {"backbone": job.backbone.name, "data": job.part.key}
            plan = write_plan([found.chosen()], told(found, what, "reproduce tuning"))
            write_atomic(out / f"{name}.toml", plan.encode("utf-8"))
            for kind in ("png", "pdf"):
                picture = surface_bytes(found.surfaces(), kind)
                write_atomic(out / f"{name}.{kind}", picture)
            lines.append(f"{name}\n\n{listing(found)}")
    return "\n".join([*lines, f"Wrote plans and surfaces to {out}"])


def _figure(what: str, jobs: Sequence[_Job], out: Path, given: Mapping[str, Any]) -> str:
    from mmattrib.files import write_atomic
    from mmattrib.render.gallery import gallery_bytes

    lines = []
    for job in jobs:
        gallery = _gallery(what, job, given)
        for kind in ("pdf", "png"):
            path = out / f"{what}-{job.part.key}.{kind}"
            write_atomic(path, gallery_bytes(gallery, kind))
            lines.append(f"Wrote {path}")
    return "\n".join(lines)


def _gallery(what: str, job: _Job, given: Mapping[str, Any]) -> Gallery:
    from mmattrib.evaluation.pictures import comparison, degradation

    model, data = _opened(job, given)
    methods, _ = _methods(job, given)
    count = 1 if given["quick"] else given["limit"] or _FIGURE_SAMPLES[what]
    if what == "fig2":
        return comparison(model, data, methods, [("image", "text")], count=count)
    if what == "fig3":
        (ours,) = (method for method in methods if method.label == "ca-m2ib")
        return degradation(model, data, ours, [("image", "text")], count=count)
    if "audio" not in model.modalities:
        raise OptionError(
            f"fig4 explains pictures and captions given a sound, and {job.backbone.name} embeds "
            f"{', '.join(model.modalities)}; give --backbone imagebind or tiny, and data with sound"
        )
    pairs = [("image", "audio"), ("text", "audio")]
    shown = [method for method in methods if method.label in ("m2ib", "ca-m2ib")]
    return comparison(model, data, shown, pairs, count=count, sides=("image", "text"))
