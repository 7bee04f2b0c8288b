"""What a case does: makes its input from a random generator, and calls the public API with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import mmattrib as mm
from examples.fuzz.corpus import CAPTION, RATE, pixels
from examples.fuzz.mutate import TEXTS, Rng, caption, mutated, odd, odd_array
from mmattrib.cli import main
from mmattrib.cli.summary import summarise
from mmattrib.evaluation.plans import read_plan
from mmattrib.evaluation.results import load_results
from mmattrib.io import load as load_raw
from mmattrib.plugins import default_plugins
from mmattrib.workers import MOST_JOBS

SMALL = {"points": 4, "guide_points": 2, "draws_behind": 2, "steps": 3, "samples": 2}
"""What the other options of a method are set to, so that a case which takes 5 s hangs and is not
one that is slow by its defaults."""

MOST = 20
"""Whole numbers above this are given to what checks options, and not run with: a thousand steps
are a fair wish that takes a while."""


class Bench:
    """What every case may use: the corpus, the model and a folder of its own.

    Attributes:
        corpus: name -> bytes.
        folder: emptied before each case.
        told: what the case gave, for a report.
    """

    def __init__(self, corpus: Mapping[str, bytes], folder: Path) -> None:
        """Load the model."""
        self.corpus, self.folder = corpus, folder
        self.tiny = mm.load_backbone("tiny")
        self.told: list[str] = []

    def note(self, value: Any) -> Any:
        """Keep a short form of a value for the report, and give it back."""
        text = repr(value) if not isinstance(value, bytes) else f"{len(value)} bytes"
        self.told.append(text if len(text) < 500 else f"{text[:500]}… ({len(text)})")
        return value

    def file(self, names: Callable[[str], bool], rng: Rng) -> Path:
        """A mutated file of the corpus, written to the folder."""
        known = sorted(filter(names, self.corpus))
        name = known[int(rng.integers(len(known)))]
        data = self.corpus[name]
        changer = TEXTS.get(name.rpartition(".")[2])
        if changer is not None and rng.random() < 0.7:
            changed = changer(data.decode(), rng).encode("utf-8", "surrogatepass")
        else:
            changed = mutated(data, rng)
        path = self.folder / name
        path.write_bytes(changed)
        self.note(name)
        return path

    def attribute(self, **given: Any) -> mm.Explanation:
        """An explanation by the quickest method."""
        return mm.attribute(self.tiny, **{"method": "random", **given})


def _starts(*starts: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(starts)


def picture(bench: Bench, rng: Rng) -> None:
    """A picture's file."""
    bench.attribute(image=bench.file(_starts("picture."), rng), text=CAPTION)


def sound(bench: Bench, rng: Rng) -> None:
    """A recording's file."""
    bench.attribute(audio=bench.file(_starts("sound."), rng), text=CAPTION)


def scan(bench: Bench, rng: Rng) -> None:
    """A DICOM file."""
    if "scan.dcm" in bench.corpus:
        bench.attribute(image=bench.file(_starts("scan."), rng), text=CAPTION)


def array_file(bench: Bench, rng: Rng) -> None:
    """A file of an array."""
    load_raw("depth", bench.file(_starts("array."), rng))


def text_file(bench: Bench, rng: Rng) -> None:
    """A caption's file."""
    bench.attribute(text=bench.file(_starts("caption."), rng), image=pixels())


def saved(bench: Bench, rng: Rng) -> None:
    """A saved explanation, shown again."""
    explanation = mm.load(bench.file(_starts("seen.", "heard."), rng))
    repr(explanation)
    summarise(explanation)
    for side in explanation:
        _ = explanation[side].scores
    if rng.random() < 0.3:
        explanation.save(bench.folder / "again.html")


def pairs(bench: Bench, rng: Rng) -> None:
    """A folder of pairs."""
    (bench.folder / "a.png").write_bytes(bench.corpus["picture.png"])
    bench.file(_starts("pairs."), rng)
    for sample in itertools.islice(mm.load_dataset("pairs", folder=bench.folder), 3):
        repr(sample)


INDICES: Mapping[str, tuple[str, str]] = {
    "rows.jsonl": ("manifest", "path"),
    "shard.tar": ("webdataset", "path"),
    "radiographs.json": ("ms-cxr", "annotations"),
    "frames.json": ("vgg-ss", "annotations"),
    "findings.json": ("chexlocalize", "annotations"),
    "events.tsv": ("desed", "annotations"),
    "phrases.xml": ("flickr30k-entities", ""),
    "sentences.txt": ("flickr30k-entities", ""),
}
"""File of the corpus -> the data set whose index it is, and the option that names it."""


def indices(bench: Bench, rng: Rng) -> None:
    """An index of a data set, or a shard."""
    for place in ("a.png", "frames/a.png", "a.wav", "audio/a.wav"):
        path = bench.folder / place
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bench.corpus["picture.png" if path.suffix == ".png" else "sound.wav"])
    name = sorted(INDICES)[int(rng.integers(len(INDICES)))]
    (data, option), path = INDICES[name], bench.file(_starts(name), rng)
    options: dict[str, Any] = {option: path} if option else {"folder": bench.folder}
    if data in ("ms-cxr", "vgg-ss", "chexlocalize"):
        options["folder"] = bench.folder
    if data == "desed":
        options["audio"] = bench.folder
    if not option:
        for own, place in (
            ("phrases.xml", "Annotations/a.xml"),
            ("sentences.txt", "Sentences/a.txt"),
        ):
            target = bench.folder / place
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes() if own == name else bench.corpus[own])
    found = mm.load_dataset(data, **options)
    found.fingerprint()
    for sample in itertools.islice(found, 3):
        repr(sample)


def store(bench: Bench, rng: Rng) -> None:
    """A file that an evaluation goes on from."""
    path = bench.file(_starts("store."), rng)
    if rng.random() < 0.5:
        load_results(path).table()
        return
    mm.evaluate(bench.tiny, mm.load_dataset("scenes", n=1), methods=["random"], metrics=["auc"],
                pairs=[("image", "text")], resume=path, progress=False).table()  # fmt: skip


def checkpoint(bench: Bench, rng: Rng) -> None:
    """Weights of the model."""
    model = mm.load_backbone("tiny", checkpoint=str(bench.file(_starts("weights."), rng)))
    mm.attribute(model, image=pixels(), text=CAPTION, method="random")


def plan(bench: Bench, rng: Rng) -> None:
    """A plan of the study."""
    read_plan(bench.file(_starts("plan."), rng))


def words(bench: Bench, rng: Rng) -> None:
    """A caption, with a known word before it in most cases."""
    text = caption(rng)
    if rng.random() < 0.7:
        text = f"dog {text}"
    explanation = bench.attribute(image=pixels(), text=bench.note(text))
    summarise(explanation)
    if rng.random() < 0.1:
        explanation.save(bench.folder / "a.html")
        mm.load(explanation.save(bench.folder / "a.json"))


def arrays(bench: Bench, rng: Rng) -> None:
    """An array in place of a picture or a recording."""
    value = odd_array(rng)
    bench.note((type(value).__name__, getattr(value, "shape", None), getattr(value, "dtype", None)))
    if rng.random() < 0.5:
        bench.attribute(image=value, text=CAPTION)
        return
    rate = bench.note(RATE if rng.random() < 0.6 else odd(rng))
    bench.attribute(audio=(value, rate), text=CAPTION)


def method_options(bench: Bench, rng: Rng) -> None:
    """An option of a method with an odd value."""
    registry = default_plugins().registry
    entries = registry.usable("method", research=True)
    entry = entries[int(rng.integers(len(entries)))]
    names = list(entry.factory.__self__.Options.__dataclass_fields__)  # type: ignore[attr-defined]
    names = names or ["seed"]
    name = names[int(rng.integers(len(names)))]
    value = odd(rng) if rng.random() < 0.7 else _number(rng)
    bench.note((entry.name, name, value))
    given: dict[str, Any] = {other: SMALL[other] for other in names if other in SMALL}
    method = mm.load_method(entry.name, **{**given, name: value})
    if not isinstance(value, int) or abs(value) <= MOST:
        bench.attribute(image=pixels(), text=CAPTION, method=method)


def _number(rng: Rng) -> float | int:
    power = float(rng.uniform(-12, 12))
    value = float(10.0**power * rng.choice([-1, 1]))
    return int(value) if rng.random() < 0.5 else value


def evaluate_arguments(bench: Bench, rng: Rng) -> None:
    """An argument of `evaluate` with an odd value."""
    given: dict[str, Any] = {
        "data": mm.load_dataset("scenes", n=1), "methods": ["random"], "metrics": ["auc"],
        "pairs": [("image", "text")], "layer": None, "seed": 0, "limit": 1, "resume": None,
        "jobs": 1,
    }  # fmt: skip
    name = list(given)[int(rng.integers(len(given)))]
    value = bench.note((name, odd(rng)))[1]
    if name == "jobs" and isinstance(value, int) and 1 < value <= MOST_JOBS:
        return  # processes of their own, which no limit of this one binds
    if name in ("metrics", "methods") and isinstance(value, str) and value == "all":
        return  # meant so, and slow
    in_folder = name == "resume" and isinstance(value, str) and value in ("x", "\ud800")
    given[name] = bench.folder / value if in_folder else value
    mm.evaluate(bench.tiny, progress=False, **given).table()


def attribute_arguments(bench: Bench, rng: Rng) -> None:
    """An argument of `attribute` or `attribute_many` with an odd value."""
    given: dict[str, Any] = {"image": pixels(), "text": CAPTION}
    names = ("image", "text", "audio", "inputs", "method", "layer", "seed", "batch_size",
             "on_error", "pairs", "layer")  # fmt: skip
    name = names[int(rng.integers(len(names)))]
    value = bench.note((name, odd(rng)))[1]
    if name in ("batch_size", "on_error"):
        found = mm.attribute_many(bench.tiny, [given], progress=False, method="random",
                                  **{name: value})  # fmt: skip
        list(found)
    elif name == "pairs":
        list(mm.attribute_many(bench.tiny, [value], progress=False, method="random"))
    else:
        bench.attribute(**{**given, name: value})


def factories(bench: Bench, rng: Rng) -> None:
    """Options of data sets, metrics and backbones with odd values; names that are none."""
    value = bench.note(odd(rng))
    which = int(rng.integers(5))
    if which == 0:
        mm.load_dataset(
            "scenes", **{str(rng.choice(["n", "seed", "first", "split", "bank"])): value}
        )
    elif which == 1:
        mm.load_dataset("pairs", folder=value)
    elif which == 2:
        mm.load_backbone("tiny", **{str(rng.choice(["checkpoint", "device"])): value})
    elif which == 3:
        mm.load_backbone(value)
    else:
        mm.load_method(value)


def command_line(bench: Bench, rng: Rng) -> None:
    """Arguments of the program."""
    picture_file = bench.folder / "a.png"
    picture_file.write_bytes(bench.corpus["picture.png"])
    (bench.folder / "a.npz").write_bytes(bench.corpus["seen.npz"])
    base = ["attribute", "--image", str(picture_file), "--text", "a dog", "--method", "random"]
    pieces = [
        "--json", "--layer", "1", "image=1", "--option", "beta=1", "--seed", "-1", "--out",
        str(bench.folder / "b.json"), "--input", "image_2=a.png", "text=x", "--device", "cpu",
        "cuda", "--bogus", "", "\x1b[31m", caption(rng)[:20], "--text-file", "--audio", "\0",
        "=", "x=",
        str(bench.folder), "/dev/null", "1" * 400, "--backbone-option", "checkpoint=nowhere", "--",
    ]  # fmt: skip
    heads = (base, ["show", str(bench.folder / "a.npz")], ["methods"], ["backbones", "tiny"],
             ["metrics"], ["plugins"], ["datasets", "pairs"])  # fmt: skip
    arguments = list(heads[int(rng.integers(len(heads)))])
    for _ in range(int(rng.integers(0, 4))):
        at = int(rng.integers(1, len(arguments) + 1))
        arguments.insert(at, pieces[int(rng.integers(len(pieces)))])
    bench.note(arguments)
    found = CliRunner().invoke(main, arguments, prog_name="mmattrib")
    if found.exit_code not in (0, 2) or "Traceback" in found.output:
        raise AssertionError(f"exit code {found.exit_code}: {found.output[-400:]}")
    found.stdout.encode("utf-8")


TARGETS: dict[str, Callable[[Bench, Rng], None]] = {
    "picture files": picture,
    "sound files": sound,
    "saved explanations": saved,
    "captions": words,
    "arrays": arrays,
    "method options": method_options,
    "DICOM files": scan,
    "array files": array_file,
    "caption files": text_file,
    "folders of pairs": pairs,
    "indices of data sets": indices,
    "evaluation stores": store,
    "checkpoints": checkpoint,
    "plans": plan,
    "arguments of evaluate": evaluate_arguments,
    "arguments of attribute": attribute_arguments,
    "options of factories": factories,
    "command lines": command_line,
}
"""Kind of case -> what it does. Cases of every kind take turns."""
