"""The tables of the pages, drawn from the kept numbers.

A page marks each table: ``<!-- table: NAME -->`` before it and ``<!-- end -->`` behind it. What
stands between is replaced by what the table's function gives; nothing else is touched.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from examples.study import benchmark, causes, rows, variance
from examples.study.kept import raw, unpacked
from examples.study.photographs import DIRECTIONS as PHOTOGRAPHS
from examples.study.photographs import Texts, label
from examples.study.protocol import DECIDING, DIRECTIONS, GROUPS, PROBES, RANKED
from examples.study.speed import TABLES as SPEED
from mmattrib.errors import OptionError
from mmattrib.evaluation import (
    Results,
    View,
    against,
    load_retrained,
    markdown,
)
from mmattrib.evaluation.sheets import row
from mmattrib.evaluation.statistics import Numbers, bootstrap_interval

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (
    ROOT / "docs" / "method.md",
    ROOT / "docs" / "performance.md",
    ROOT / "docs" / "roar.md",
    ROOT / "docs" / "benchmark.md",
    Path(__file__).parent / "results.md",
)
SHIPPED: Final = ("shipped",)
OURS: Final = "ca-m2ib"
ZERO: Final = "ca-m2ib around zero"
"""The default before, with which the stamps, the ablation and the shares were measured."""
_MARKED: Final = re.compile(r"(<!-- table: ([^>]+) -->\n\n)(.*?)((?:\n\n)?<!-- end -->)", re.DOTALL)
_USUAL: Final = (*RANKED, *PROBES, "seconds", "capacity_bits")
_SHOWN: Final = ("image|text", "image|audio", "audio|text", "audio|image", "text|image",
                 "text|audio")  # fmt: skip


def retraining(name: str = "roar") -> str:
    """ROAR+ on `tiny`, of the methods of one run."""
    with unpacked(name) as plain:
        return load_retrained(plain).table().rstrip("\n")


def everything(
    name: str, dataset: str = "final/one", backbones: Sequence[str] = (),
    metrics: Sequence[str] = _USUAL,
) -> str:  # fmt: skip
    """Every method and direction of one set of scenes."""
    results = raw(name)
    view = View(
        dataset=dataset,
        directions=[d for d in DIRECTIONS if _known(results, d, dataset)],
        metrics=[m for m in metrics if _filled(results, m)],
        backbones=backbones,
        groups=GROUPS,
    )
    return markdown(results, view).rstrip("\n")


def _known(results: Results, direction: str, dataset: str) -> bool:
    return any(results.measured(method, direction, dataset) for method in results.methods)


def _filled(results: Results, metric: str) -> bool:
    return any(
        column.metric == metric and not np.isnan(values).all()
        for column, values in results.columns.items()
    )


def leads(
    name: str, backbones: Sequence[str] = (), rivals: Sequence[str] = (),
    among: Sequence[str] = (), variant: str = OURS,
) -> str:  # fmt: skip
    """How far a variant leads others; corrected for all of ``among``, ``rivals`` shown."""
    view = View(dataset="final/one", directions=DIRECTIONS, metrics=DECIDING, backbones=backbones)
    lines = against(raw(name), variant, among, view).rstrip("\n").split("\n")
    shown = [line for line in lines[2:] if not rivals or _rival(line) in rivals]
    shown.sort(key=lambda line: rivals.index(_rival(line)) if rivals else 0)
    return "\n".join([*lines[:2], *shown])


def _rival(line: str) -> str:
    return line.split("|")[1].strip().rpartition(" (")[0]


def summary() -> str:
    """The shipped checkpoint at a glance."""
    results = raw("final")

    def mean(method: str, direction: str, metric: str, bold: bool = False) -> str:
        value = results.mean(method, direction, metric, backbone="shipped", dataset="final/one")
        text = f"{100 * value[0]:.1f}"
        return f"**{text}**" if bold else text

    def several(direction: str, metric: str, methods: Sequence[str]) -> str:
        return ", ".join(mean(m, direction, metric, m == OURS) for m in methods)

    lines = [
        "| | object top-1: chance, M2IB, NIB, **ours**, oracle | of oracle | iou: M2IB, NIB, "
        "**ours** | auc | energy | prompt sensitivity: M2IB, **ours** | "
        "stability: M2IB, **ours** |",
        row(["---"] * 8).replace("|", "|"),
    ]
    for direction in _SHOWN:
        ours, oracle = (
            results.mean(m, direction, "object_top1", backbone="shipped", dataset="final/one")[0]
            for m in (OURS, "oracle")
        )
        cells = [
            direction,
            several(direction, "object_top1", ("chance", "m2ib", "nib", OURS, "oracle")),
            f"{100 * ours / oracle:.1f}",
            *(several(direction, m, ("m2ib", "nib", OURS)) for m in ("iou", "auc", "energy")),
            *(several(direction, m, ("m2ib", OURS)) for m in PROBES),
        ]
        lines.append(row(cells))
    return "\n".join(lines)


def photographs(texts: Texts) -> str:
    """Every method on the photographs."""
    view = View(
        dataset=label(texts),
        directions=PHOTOGRAPHS[texts],
        metrics=(*RANKED, "seconds", "capacity_bits"),
    )
    return markdown(raw(f"photographs-{texts}"), view).rstrip("\n")


def photograph_leads(texts: Texts, rivals: Sequence[str] = ()) -> str:
    """How far `ca-m2ib` leads the others on the photographs."""
    view = View(dataset=label(texts), directions=PHOTOGRAPHS[texts], metrics=RANKED)
    return against(raw(f"photographs-{texts}"), "ca-m2ib", rivals, view).rstrip("\n")


def guidance_by_frequency() -> str:
    """What guidance earns on photographs, by how many pairs name the category."""
    results, name = raw("photographs-categories"), label("categories")
    categories = [each.partition("-")[2] for each in results.samples[name].values()]
    often = Counter(categories)
    counts = np.array([often[each] for each in categories])
    lines = ["| category named in | n | " + " | ".join(RANKED) + " |", row(["---"] * 7)]
    for told, kept in (
        ("one pair", counts == 1),
        ("two to four pairs", (counts > 1) & (counts < 5)),
        ("five pairs and more", counts >= 5),
    ):
        cells = []
        for metric in RANKED:
            ours, without = (
                results.values(m, "image|text", metric, dataset=name)[kept]
                for m in (OURS, "ca-m2ib without guidance")
            )
            mean, low, high = bootstrap_interval(ours - without)
            cells.append(f"{100 * mean:+.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        lines.append(row([told, str(int(kept.sum())), *cells]))
    return "\n".join(lines)


def photograph_prices(texts: Texts) -> str:
    """The price of information on the photographs."""
    view = View(
        dataset=label(texts), directions=PHOTOGRAPHS[texts], metrics=(*RANKED, "capacity_bits")
    )
    return markdown(raw(f"photographs-price-{texts}"), view).rstrip("\n")


def choices() -> str:
    """Each choice of the default changed by itself, on photographs and on search scenes."""
    photos, scenes = raw("worlds-photographs"), raw("worlds-scenes")
    words = ("text|image",)
    three = ("image|text", "image|audio", "audio|image")

    def mean(results: Results, method: str, metric: str, directions: Sequence[str]) -> str:
        if method not in results.methods:
            return ""
        columns = [results.values(method, d, metric) for d in directions]
        return f"{100 * np.nanmean(np.mean(columns, axis=0)):.1f}"

    names = " | ".join(RANKED)
    heads = (
        f"| | photographs: {names} | pictures and sounds of scenes: {names} | words: auc | energy"
    )
    lines = [heads + " |", row(["---"] * 13)]
    for method in dict.fromkeys((*photos.methods, *scenes.methods)):
        if method == causes.BY_RULE:
            continue
        cells = [method]
        cells += [mean(photos, method, metric, ("image|text",)) for metric in RANKED]
        cells += [mean(scenes, method, metric, three) for metric in RANKED]
        cells += [mean(scenes, method, metric, words) for metric in ("auc", "energy")]
        lines.append(row(cells))
    return "\n".join(lines)


def photograph_layers() -> str:
    """The rivals at every layer that was tried on the photographs."""
    view = View(dataset=label("categories"), directions=PHOTOGRAPHS["categories"], metrics=RANKED)
    return markdown(raw("photographs-layers"), view).rstrip("\n")


def worlds() -> str:
    """Methods side by side on all worlds, each row on what all of them were measured on."""
    methods = ("m2ib", "nib", ZERO, OURS)
    final, scenes = raw("final"), "final/one"
    words = [d for d in _SHOWN if d.startswith("text|")]
    rows: list[tuple[str, Results, str, Sequence[str], Sequence[str | None]]] = []
    kinds: dict[str, Sequence[str]] = {"pictures, sounds": _SHOWN[:4], "words": words}
    pairs: tuple[tuple[Texts, str, str], ...] = (
        ("categories", "image|text", "pictures given a category"),
        ("captions", "image|text", "pictures given a caption"),
        ("captions", "text|image", "words of a caption"),
    )
    for backbone in (*SHIPPED, *_SEEDS):
        for what, directions in kinds.items():
            rows.append((f"scenes, {backbone}: {what}", final, scenes, directions, (backbone,)))
    for texts, direction, what in pairs:
        results = raw(f"photographs-{texts}")
        rows.append((f"photographs: {what}", results, label(texts), (direction,), (None,)))
    names = "M2IB, NIB, around zero, **ca-m2ib**"
    lines = [f"| {names} | n | " + " | ".join(RANKED) + " |", row(["---"] * 7)]
    for name, results, dataset, directions, backbones in rows:
        cells, count = [], 0
        for metric in RANKED:
            columns = np.stack(
                [
                    [
                        results.values(m, d, metric, b, dataset)
                        for d in directions
                        for b in backbones
                    ]
                    for m in methods
                ]
            )  # methods, directions, samples
            known = np.isfinite(columns).all(axis=0)
            count = max(count, int(known.any(axis=0).sum()))
            if not known.any():  # of words, object top-1: all that is named is shared
                cells.append("")
                continue
            shown = [f"{100 * float(column[known].mean()):.1f}" for column in columns]
            cells.append(", ".join([*shown[:-1], f"**{shown[-1]}**"]))
        lines.append(row([name, str(count), *cells]))
    return "\n".join(lines)


def nothing_shared() -> str:
    """Bits per map where one class is shared, and where none is."""
    results = raw("final")

    def bits(method: str, direction: str, dataset: str) -> float:
        return results.mean(
            method, direction, "capacity_bits", backbone="shipped", dataset=dataset
        )[0]

    lines = [
        "| | `ca-m2ib`: one shared, none shared | M2IB: one shared, none shared |",
        "| --- | --- | --- |",
    ]
    for direction in _SHOWN:
        ours = [bits(OURS, direction, name) for name in ("final/one", "final/none")]
        theirs = [bits("m2ib", direction, name) for name in ("final/one", "final/none")]
        lines.append(
            row([direction, f"{ours[0]:.1f}, {ours[1]:.2f}", f"{theirs[0]:.0f}, {theirs[1]:.0f}"])
        )
    return "\n".join(lines)


def ablation() -> str:
    """Variants of the method: means of three directions, and words beside them."""
    results = raw("ablation")
    three = ("image|text", "image|audio", "audio|image")

    def mean(method: str, metric: str, directions: Sequence[str]) -> float:
        columns = [results.values(method, d, metric) for d in directions]
        values = np.mean(columns, axis=0)
        return float(values[~np.isnan(values)].mean())

    lines = [
        "| | object top-1 | iou | auc | energy | bits | words: auc | energy |",
        row(["---"] * 8),
    ]
    for method in results.methods:
        cells = [f"{100 * mean(method, metric, three):.1f}" for metric in DECIDING]
        cells.append(f"{mean(method, 'capacity_bits', three):.0f}")
        cells += [f"{100 * mean(method, metric, ['text|image']):.1f}" for metric in DECIDING[2:]]
        lines.append(row([method, *cells]))
    return "\n".join(lines)


def kept_means() -> str:
    """A price for all against shares of the match: means on what every variant was measured on."""
    results = raw("keep")

    def column(method: str, metric: str, directions: Sequence[str]) -> Numbers:
        """One number for each checkpoint, scene and direction; NaN where a variant lacks it."""
        tables = [
            np.stack(
                [
                    results.values(m, d, metric, backbone, "search/one")
                    for backbone in results.backbones
                    for d in directions
                ]
            )
            for m in results.methods
        ]
        lacking = np.isnan(tables).any(axis=0)
        found: Numbers = tables[results.methods.index(method)][~lacking]
        return found

    words = [d for d in _SHOWN if d.startswith("text|")]
    others = [d for d in _SHOWN if d not in words]
    names = "object top-1 | iou | auc | energy | pointing | bits: mean, median | shut"
    lines = [f"| | {names} | words: {names} |", row(["---"] * 15)]
    for method in results.methods:
        cells = [method]
        for directions in (others, words):
            cells += [f"{100 * column(method, m, directions).mean():.1f}" for m in RANKED]
            bits = column(method, "capacity_bits", directions)
            cells.append(f"{bits.mean():.0f}, {np.median(bits):.0f}")
            cells.append(f"{100 * (bits == 0).mean():.0f}")
        lines.append(row(cells))
    return "\n".join(lines)


def kept_against_price(backbones: Sequence[str], metrics: Sequence[str]) -> str:
    """What the share of 0.9 changes, scene by scene."""
    view = View(dataset="search/one", directions=_SHOWN, metrics=metrics, backbones=backbones)
    return against(raw("keep"), "keep 0.9", ["beta 3"], view).rstrip("\n")


def kept_of_nothing() -> str:
    """Bits per map where one class is shared, and where none is, at a price and at a share."""
    results = raw("keep")
    names = ("search/one", "search/none")
    lines = ["| | beta 3: one shared, none shared | keep 0.9: one shared, none shared | "
             "keep 0.9: shut, none shared |", row(["---"] * 4)]  # fmt: skip
    for direction in _SHOWN:
        cells = [direction]
        for method in ("beta 3", "keep 0.9"):
            bits = [
                results.values(method, direction, "capacity_bits", "shipped", name)
                for name in names
            ]
            cells.append(", ".join(f"{np.nanmean(each):.1f}" for each in bits))
        cells.append(f"{100 * (bits[1] == 0).sum() / np.isfinite(bits[1]).sum():.0f}")
        lines.append(row(cells))
    return "\n".join(lines)


_SEEDS: Final = ("tiny-seed1", "tiny-seed2")
_DROPS: Final = ("confidence_drop", "confidence_increase")
TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "summary": summary,
    "leads, shipped, nearest": partial(leads, "final", SHIPPED, ("nib", "m2ib", "ca-m2ib-literal")),
    "leads, all, nearest": partial(leads, "final", (), ("nib", "m2ib")),
    "leads, stamps, nearest": partial(leads, "stamps", (), ("nib", "m2ib"), (), ZERO),
    "worlds": worlds,
    "leads, around zero": partial(leads, "final", (), (ZERO,), (ZERO,)),
    "photographs, categories": partial(photographs, "categories"),
    "photographs, captions": partial(photographs, "captions"),
    "photographs, leads": partial(photograph_leads, "categories"),
    "photographs, captions, leads": partial(photograph_leads, "captions"),
    "photographs, layers": photograph_layers,
    "photographs, guidance": guidance_by_frequency,
    "photographs, two": partial(photographs, "two"),
    "photographs, two things": causes.two_things,
    "rules": causes.rules,
    "channel": causes.channel,
    "noise": causes.noise,
    "head": causes.head,
    "choices": choices,
    "photographs, prices": partial(photograph_prices, "categories"),
    "photographs, captions, prices": partial(photograph_prices, "captions"),
    "nothing shared": nothing_shared,
    "retraining": retraining,
    "retraining, others": partial(retraining, "roar-others"),
    "retraining, sound": partial(retraining, "roar-sound"),
    "retraining, sound, on a processor": partial(retraining, "roar-sound-processor"),
    "ablation": ablation,
    "kept, means": kept_means,
    "kept, all": partial(kept_against_price, (), RANKED),
    "kept, shipped": partial(kept_against_price, SHIPPED, (*RANKED, "stability")),
    "kept, nothing shared": kept_of_nothing,
    **{f"final, {c}": partial(everything, "final", "final/one", (c,)) for c in (*SHIPPED, *_SEEDS)},
    **{f"leads, {c}": partial(leads, "final", (c,)) for c in (*SHIPPED, *_SEEDS)},
    "leads, all": partial(leads, "final"),
    "confidence": partial(everything, "final", "final/one", SHIPPED, _DROPS),
    "none shared": partial(everything, "final", "final/none", (), ("capacity_bits", "cosine")),
    "two shared": partial(everything, "final", "final/two"),
    "stamps": partial(everything, "stamps"),
    "leads, stamps": partial(leads, "stamps", variant=ZERO),
    "layers": partial(everything, "layers", "search/one", (), DECIDING),
    "ablation, all": partial(
        everything, "ablation", "search/one", (), (*RANKED, "seconds", "capacity_bits")
    ),
    **SPEED,
    **benchmark.tables(raw),
    "rows": rows.table,
    "variance": variance.table,
}
"""Every table that a page may mark, by name."""


def redraw(*, check: bool = False) -> list[Path]:
    """Draw every marked table anew.

    Args:
        check: change no file.

    Returns:
        Pages that change, or would.

    Raises:
        OptionError: a page marks a table that does not exist.
    """
    changed = []
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = _MARKED.sub(_drawn, old)
        if new != old:
            changed.append(page)
            if not check:
                page.write_text(new, encoding="utf-8")
    return changed


def _drawn(found: re.Match[str]) -> str:
    name = found[2]
    if name not in TABLES:
        raise OptionError(f"no table is named {name!r}: {', '.join(TABLES)}")
    return f"{found[1]}{TABLES[name]()}\n\n<!-- end -->"
