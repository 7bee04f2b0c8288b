"""ROAR+: remove what a method calls important from training pairs, fine-tune, and measure the loss.

CA-M2IB's paper, section 4.3: the model is fine-tuned once on the original training pairs and once
on degraded ones, with the contrastive loss of its pretraining. Both are measured on held-out pairs
that are left as they are; ROAR+ is ``(l_c - l_o) / l_o`` of the two losses. A method that finds
what the model learns from takes it away, so that more is better.

:func:`remove_and_retrain` is the front; ``mmattrib roar`` is thin over it.

>>> import mmattrib as mm, tempfile
>>> from mmattrib.evaluation import remove_and_retrain
>>> tiny = mm.load_backbone("tiny")
>>> with tempfile.TemporaryDirectory() as folder:
...     found = remove_and_retrain(
...         tiny, mm.load_dataset("scenes", n=5), folder=folder, methods=["random"],
...         directions=["text|audio"], seeds=[0], steps=1, batch=2, progress=False)
>>> [row.roar for row in found.rows if row.method == "none"]
[0.0]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from tqdm.auto import tqdm

from mmattrib import __version__
from mmattrib.errors import EncoderError, InputError, MmattribError, OptionError, check_switch
from mmattrib.evaluation.candidates import Methods, Variant, digest
from mmattrib.evaluation.degrading import (
    MapCache,
    Maps,
    blank_attribution,
    highest,
    without,
)
from mmattrib.evaluation.measure import SampleRow
from mmattrib.evaluation.retraining import Checkpoint, Pairs, Recipe, Trained, retrain
from mmattrib.evaluation.roar_plan import Question, question
from mmattrib.evaluation.roar_results import CLEAN, NONE, TRUTH, RoarResults, is_training
from mmattrib.evaluation.run import Data
from mmattrib.evaluation.store import Store
from mmattrib.explain import Layers
from mmattrib.files import as_path
from mmattrib.models.backbone import Backbone
from mmattrib.models.encoder import EncoderInputs
from mmattrib.models.parameters import TrainableCopy
from mmattrib.models.turns import ordinary_tensors, turn
from mmattrib.preparing import Prepared, prepare, side_encoder
from mmattrib.provenance import versions
from mmattrib.types import Attribution, BoolArray, JSONValue, RawInput

if TYPE_CHECKING:
    from mmattrib.samples import Sample

MOST_PAIRS: Final = 50_000
"""Most pairs of a run: the held-out loss compares each with each."""
MOST_BYTES: Final = 8 * 1024**3
"""Most memory for decoded and preprocessed inputs, which are held while a pair of sides runs."""


def remove_and_retrain(
    backbone: Backbone,
    data: Data,
    *,
    folder: str | Path,
    methods: Methods = "all",
    directions: Sequence[str] | None = None,
    controls: Sequence[str] = (NONE,),
    layer: Layers = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    limit: int | None = None,
    percentiles: Mapping[str, float] | None = None,
    fills: Mapping[str, str] | None = None,
    strict: bool = False,
    progress: bool = True,
    **recipe: Any,
) -> RoarResults:
    """Measure ROAR+ of methods; stop it at any time and call it again to go on.

    A copy of the model is trained; the model itself is left as it was. On one thread the same
    arguments give the same numbers, interrupted or not.

    Args:
        backbone: its parameters are float32, and its ``embed`` is differentiable.
        data: a data set, or samples: those to train on and those to hold out.
        folder: keeps maps, states of trainings and numbers; made if it does not exist.
        methods: as for :func:`mmattrib.evaluate`; more may be added by a later call.
        directions: ``"image|text"`` degrades the image, by its map given the text,
            ``"image+text"`` both. If None, each side of every pair that the model embeds.
        controls: ``"none"`` takes nothing away and must give 0; ``"truth"`` what is shared.
        layer: of the maps, as for :func:`mmattrib.attribute`.
        seeds: of the split and of the order of the batches.
        limit: how many samples, from the first on; all if None.
        percentiles: modality -> scores above it are taken away; 50 for text, 75 for others.
        fills: modality -> what stands in, of :data:`mmattrib.perturb.FILLS`; the first if None.
        strict: the first sample that cannot be used ends the run; otherwise one that cannot be
            read is left out, one that a method cannot explain stays whole, and both are counted.
        progress: show a progress bar on standard error.
        **recipe: as :class:`mmattrib.evaluation.retraining.Recipe` names them.

    Raises:
        OptionError: an option that does not fit, or a folder of another run.
        InputError: too few pairs that can be read.
        EncoderError: the model cannot be copied or trained.
    """
    check_switch(progress, "progress")
    asked = question(
        backbone, data, methods, directions, controls, layer, seeds, limit,
        {} if percentiles is None else percentiles, {} if fills is None else fills,
        Recipe.of(**recipe), check_switch(strict, "strict"),
    )  # fmt: skip
    place = as_path(folder, "remove_and_retrain", "folder").expanduser()
    with Store(place / "roar.jsonl", asked.head()) as store:
        store.name({label: each.id for label, each in asked.variants.items()})
        with tqdm(total=asked.size(), unit="training", disable=not progress) as bar:
            found = [
                entry
                for pair in asked.directions
                for entry in _PairRun(asked, pair, place, store, bar).entries()
            ]
    _check_unchanged(backbone, asked.weights)
    return RoarResults.of(found, asked.describe())


def _check_unchanged(backbone: Backbone, weights: str) -> None:
    if backbone.weights_hash() != weights:
        raise EncoderError(
            f"the weights of {backbone.name!r} changed while a copy of it was trained: something "
            "in it is shared with its copy; make copy.deepcopy(encoder) copy its parameters"
        )


@dataclass
class _Degraded:
    """Pairs from which something was taken, and how much of them.

    Attributes:
        pairs: preprocessed.
        removed: side -> mean share of what the model saw, over the pairs.
        unmade: pairs that stayed whole because a map or an input could not be made.
        seconds: that the maps took, when they were made.
        problem: why, of the first.
    """

    pairs: Pairs
    removed: dict[str, float] = field(default_factory=dict)
    unmade: int = 0
    seconds: float = 0.0
    problem: str | None = None


class _PairRun:
    """Every training on one pair of sides. Nothing is read or copied before it is needed."""

    def __init__(
        self, asked: Question, pair: tuple[str, str], folder: Path, store: Store, bar: Any
    ) -> None:
        self.asked, self.pair, self.folder, self.store, self.bar = asked, pair, folder, store, bar
        self.count: float | None = None

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every entry of the store, measured where it is not there."""
        for seed in self.asked.seeds:
            yield self._entry(CLEAN, CLEAN, "-".join(self.pair), seed, self._clean)
        rows = {name: name for name in self.asked.controls}
        rows |= {label: each.id for label, each in self.asked.variants.items()}
        for label, identity in rows.items():
            for direction in self.asked.directions[self.pair]:
                degraded = cache(partial(self._degraded, label, direction))  # once for all seeds
                for seed in self.asked.seeds:
                    yield self._entry(label, identity, direction, seed, degraded)

    def _entry(
        self, label: str, identity: str, direction: str, seed: int, pairs: Callable[[], _Degraded]
    ) -> dict[str, Any]:
        asked = self.asked
        task: dict[str, JSONValue] = {
            "candidate": identity,
            "backbone": asked.backbone.name,
            "weights": asked.weights,
            "dataset": asked.fingerprint,
            "pair": list(self.pair),
            "direction": direction,
            "seed": seed,
            "start": asked.dataset.first,
            "version": __version__,
            "recipe": digest([asked.recipe.describe(), asked.percentiles, asked.fills]),
        }
        name = digest(task)
        checkpoint = Checkpoint(self.folder / "trainings" / f"{name}.safetensors", name)
        known = list(filter(is_training, self.store.find(name)))
        entry = dict(known[-1]) if known else None
        if entry is None:
            entry = self._measured(label, direction, seed, pairs(), task, name, checkpoint)
        checkpoint.remove()  # also where a crash came between the two
        self.bar.update()
        self._check_same(entry)
        return entry

    def _check_same(self, entry: Mapping[str, Any]) -> None:
        """Losses compare only where the same samples were split.

        Raises:
            OptionError: another number of them could be read then and now.
        """
        (numbers,) = entry["rows"][0]["values"].values()
        self.count = self.count or numbers["pairs"]
        if numbers["pairs"] != self.count:
            raise OptionError(
                f"{self.store.path} has trainings on {numbers['pairs']:.0f} and on "
                f"{self.count:.0f} pairs of {' and '.join(self.pair)}: other samples can be read "
                "now than then. Put them back, or name another folder"
            )

    def _measured(
        self,
        label: str,
        direction: str,
        seed: int,
        degraded: _Degraded,
        task: Mapping[str, JSONValue],
        name: str,
        checkpoint: Checkpoint,
    ) -> dict[str, Any]:
        self.bar.set_description(f"{label}, {direction}, seed {seed}")
        recipe, scale = self.asked.recipe, self.asked.scale(self.pair)
        made = retrain(
            self._copy, degraded.pairs, self._data.pairs, recipe, scale, seed, checkpoint
        )
        numbers = _numbers(made, degraded, len(self._data.samples))
        stamp: dict[str, JSONValue] = {
            "method": label,
            "backbone": self.asked.backbone.name,
            "dataset": next(iter(self.asked.plan.context.datasets)),
            "scale": scale,
            "threads": torch.get_num_threads(),
            "device": self.asked.device,
            "versions": versions(),
        }
        row = SampleRow("held-out", {direction: numbers}, degraded.problem or self._data.problem)
        return self.store.put(name, task, stamp, [row])

    def _clean(self) -> _Degraded:
        return _Degraded(self._data.pairs)

    @cached_property
    def _copy(self) -> TrainableCopy:
        backbone = self.asked.backbone
        modalities = dict.fromkeys(side_encoder(backbone, side).modality for side in self.pair)
        return TrainableCopy(backbone, tuple(modalities))

    @cached_property
    def _data(self) -> _Data:
        return _read(self.asked, self.pair)

    def _maps(self, variant: Variant) -> Maps:
        asked = self.asked
        seed = asked.recipe.map_seed if variant.make().draws else 0
        identity = digest(
            {
                "weights": asked.weights,
                "dataset": asked.fingerprint,
                "start": asked.dataset.first,
                "samples": [sample.id for sample in self._data.samples],
                "pair": list(self.pair),
                "method": variant.describe(seed),
                "version": __version__,
            }
        )
        self.bar.set_description(f"maps of {variant.label}, {'-'.join(self.pair)}")
        cache = MapCache(self.folder / "maps", identity)
        return cache.get(
            asked.backbone, self._data.samples, self._data.prepared, variant, seed,
            lambda count: self.bar.refresh(),
        )  # fmt: skip

    def _degraded(self, label: str, direction: str) -> _Degraded:
        """The pairs without what a method or a control calls important on the degraded sides."""
        if label == NONE:
            return self._clean()
        first, second = direction.replace("+", "|").split("|")
        sides = (first,) if "|" in direction else (first, second)
        maps = None if label == TRUTH else self._maps(self.asked.variants[label])
        data, made = self._data, _Degraded(self._data.pairs)
        made.seconds = 0.0 if maps is None else maps.seconds
        inputs = {side: [p.inputs[side] for p in data.prepared] for side in self.pair}
        shares: dict[str, list[float]] = {side: [] for side in sides}
        for place, pair in enumerate(data.prepared):
            try:
                found = self._reduced(place, pair, sides, maps)
            except MmattribError as error:
                if self.asked.strict or isinstance(error, OptionError):
                    raise type(error)(f"sample {data.samples[place].id!r}: {error}") from error
                made.unmade += 1
                made.problem = made.problem or f"{data.samples[place].id}: {error}"
                continue
            for side, (reduced, share) in found.items():
                inputs[side][place] = reduced
                shares[side].append(share)
        made.removed = {s: sum(each) / len(each) for s, each in shares.items() if each}
        made.pairs = Pairs(
            inputs[self.pair[0]], inputs[self.pair[1]], data.pairs.modalities, data.pairs.shown
        )
        return made

    def _reduced(
        self, place: int, pair: Prepared, sides: Sequence[str], maps: Maps | None
    ) -> dict[str, tuple[EncoderInputs, float]]:
        found = {}
        for side in sides:
            if maps is None:
                attribution, taken = self._truth(place, pair, side)
            elif place in maps.problems:
                raise InputError(maps.problems[place])
            else:
                attribution = maps.found[place][side]
                taken = highest(attribution, self.asked.percentiles[attribution.modality])
            seen = attribution.seen
            share = float(taken[seen].mean()) if seen.any() else 0.0
            found[side] = (self._again(pair, side, attribution, taken, place), share)
        return found

    def _truth(self, place: int, pair: Prepared, side: str) -> tuple[Attribution, BoolArray]:
        known = self._data.samples[place].truth.get(side)
        if known is None:
            raise OptionError(
                f"the control 'truth' takes away what is shared, and nothing is known of {side}; "
                "leave the control out, or take data with a truth"
            )
        where = blank_attribution(self.asked.backbone, pair, side)
        return where, known.on(where).mask & where.seen

    def _again(
        self, pair: Prepared, side: str, attribution: Attribution, taken: BoolArray, place: int
    ) -> EncoderInputs:
        """A side preprocessed again without what is taken; as it was where nothing is."""
        fill = self.asked.fills[attribution.modality]
        reduced = without(pair.raw[side], attribution, taken, fill, place)
        if reduced is pair.raw[side]:
            return pair.inputs[side]
        encoder = side_encoder(self.asked.backbone, side)
        with turn(), ordinary_tensors(encoder.module):
            return encoder.preprocess([reduced])


def _numbers(made: Trained, degraded: _Degraded, pairs: int) -> dict[str, float]:
    numbers = {
        "loss": made.loss,
        "before": made.before,
        "steps": float(made.steps),
        "pairs": float(pairs),
        "unmade": float(degraded.unmade),
        "seconds": made.seconds,
        "map_seconds": degraded.seconds,
        "peak_mb": peak_mb(),
    }
    return numbers | {f"removed_{side}": share for side, share in degraded.removed.items()}


def peak_mb() -> float:
    """The most memory that this process has held so far, in MB; NaN where nobody counts it."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) / (1024**2 if sys.platform == "darwin" else 1024)


@dataclass(frozen=True)
class _Data:
    """The pairs of two sides that could be read, decoded and preprocessed."""

    samples: Sequence[Sample]
    prepared: Sequence[Prepared]
    pairs: Pairs
    problem: str | None


def _read(asked: Question, pair: tuple[str, str]) -> _Data:
    """Decode every sample of a data set.

    Raises:
        InputError: fewer than three pairs; with ``strict``, one that cannot be read.
        OptionError: more pairs than are held at once.
    """
    dataset = asked.dataset
    samples, prepared, problems, held = [], [], [], 0
    for number, sample in dataset.numbered():
        try:
            two = sample.pair(*pair)
            made = prepare(asked.backbone, two, number)
        except MmattribError as error:
            if asked.strict:
                raise type(error)(f"sample {number}, {sample.id!r}: {error}") from error
            problems.append(f"{sample.id}: {error}")
            continue
        samples.append(two)
        prepared.append(made)
        held += sum(_size(made.raw[s], made.inputs[s]) for s in pair)
        if len(prepared) > MOST_PAIRS or held > MOST_BYTES:
            raise OptionError(
                f"more than {MOST_PAIRS} pairs, or {MOST_BYTES // 1024**3} GB of them decoded, "
                f"cannot be held at once; give limit={len(prepared) - 1} or less"
            )
    if len(prepared) < 4:
        told = f"; the first that cannot: {problems[0]}" if problems else ""
        raise InputError(f"{len(prepared)} pairs of {' and '.join(pair)} can be read{told}")
    modalities = (prepared[0].raw[pair[0]].modality, prepared[0].raw[pair[1]].modality)
    shown = _shown(samples, pair) if asked.recipe.negatives == "unlike" else None
    first, second = ([p.inputs[side] for p in prepared] for side in pair)
    problem = f"{len(problems)} left out, first {problems[0]}" if problems else None
    return _Data(samples, prepared, Pairs(first, second, modalities, shown), problem)


def _size(raw: RawInput, inputs: EncoderInputs) -> int:
    arrays = (getattr(raw, name, None) for name in ("pixels", "samples", "values"))
    tensors = sum(value.nbytes for value in inputs.tensors.values())
    return tensors + sum(int(array.nbytes) for array in arrays if array is not None)


def _shown(samples: Sequence[Sample], pair: tuple[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
    names = [
        [sample.truth[side].names if side in sample.truth else frozenset() for sample in samples]
        for side in pair
    ]
    known = sorted(set().union(*names[0], *names[1]))
    if not known:
        raise OptionError(
            "negatives='unlike' leaves out pairs that share what their truths name, and the truths "
            "of these samples name nothing; give negatives='all'"
        )
    sides = [
        torch.tensor(
            [[float(name in own) for name in known] for own in side],
            dtype=torch.float32,
            device="cpu",
        )
        for side in names
    ]
    return sides[0], sides[1]
