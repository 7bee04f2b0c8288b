"""Measuring maps: one variant, one backbone, one pair of modalities, a chunk of scenes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from examples.study.confidence import confidence
from examples.study.protocol import RANKED, Kind, Split, protocol_scene, protocol_scenes
from mmattrib.datasets.scenes.generator import Scene, part_names
from mmattrib.errors import InputError
from mmattrib.evaluation.benchmark import raw_input, scene_truth
from mmattrib.explain import Layers, attribute_many, load_method
from mmattrib.methods import Method, Side, SideScores
from mmattrib.metrics import Metric
from mmattrib.models.backbone import Backbone
from mmattrib.models.encoder import Encoder
from mmattrib.plugins import default_plugins
from mmattrib.types import Attribution, Explanation, JSONValue, RawInput

Row: TypeAlias = dict[str, dict[str, float]]
"""Direction -> name -> number, for one scene."""
Floats: TypeAlias = npt.NDArray[np.float64]

_FAR: Final = 200  # scenes to look through for a wrong guide; one in two or three will do


@dataclass(frozen=True)
class Variant:
    """A method with options and layers, under a name of its own.

    Attributes:
        name: what tables call it.
        method: as registered.
        options: the method's own; defaults for the others.
        layer: as for :func:`mmattrib.attribute`; None for each encoder's own choice.
    """

    name: str
    method: str
    options: Mapping[str, JSONValue]
    layer: Layers = None

    def make(self, seed: int = 0) -> Method:
        """The method itself.

        Raises:
            UnknownNameError: no such method.
            OptionError: no such option, or one out of range.
        """
        return load_method(self.method, seed, **self.options)


def measure_chunk(
    backbone: Backbone,
    variant: Variant,
    pair: tuple[str, str],
    split: Split,
    kind: Kind,
    start: int,
    size: int,
    probes: int = 0,
) -> list[Row]:
    """Measure a variant on ``size`` scenes of the protocol.

    Args:
        backbone: embeds both modalities.
        variant: what to measure.
        pair: two modalities; both directions are measured.
        split: of the protocol.
        kind: of scenes.
        start: number of the first scene.
        size: how many.
        probes: for so many of them, from the first on, measure ``tsens`` and ``stability`` too.

    Returns:
        One row per scene; see :func:`measure`.
    """
    scenes = protocol_scenes(split, kind, size, start)

    def following(index: int) -> Scene:
        return protocol_scene(split, kind, start + index)

    return measure(
        backbone, variant.make, pair, scenes, variant.layer, probes=probes, following=following
    )


def measure(
    backbone: Backbone,
    make: Callable[[int], Method],
    pair: tuple[str, str],
    scenes: Sequence[Scene],
    layer: Layers = None,
    *,
    probes: int = 0,
    following: Callable[[int], Scene] | None = None,
) -> list[Row]:
    """Measure a method on scenes.

    Args:
        backbone: embeds both modalities.
        make: seed -> the method.
        pair: two modalities; both directions are measured.
        scenes: whose truth is known.
        layer: as for :func:`mmattrib.attribute`.
        probes: for so many scenes, from the first on, measure ``tsens`` and ``stability`` too.
        following: place in ``scenes`` -> scene, past their end too: where wrong guides come from.
            Needed with ``probes``.

    Returns:
        One row per scene: for each direction the ranked metrics, ``confidence_drop`` and
        ``confidence_increase`` (fractions), ``capacity_bits`` (sum of the positive scores of
        content tokens, in bits), ``cosine`` of the clean pair, ``seconds`` for both maps, and
        where asked for ``tsens`` (1 - Spearman correlation with the map under a wrong guide) and
        ``stability`` (Spearman correlation of the maps under seeds 0 and 1), both over content
        tokens. NaN where a number does not apply; see :func:`rank_correlation` for constant maps.
    """
    if probes and following is None:
        raise InputError("probes need `following`, which says where wrong guides come from")
    found = _explain(backbone, make(0), scenes, pair, layer)
    metrics = _metrics()
    rows: list[Row] = []
    with ExitStack() as stack:
        for modality in pair:
            stack.enter_context(backbone[modality].frozen())
        for scene, explanation in zip(scenes, found, strict=True):
            rows.append(
                {
                    f"{side}|{other}": _numbers(backbone, scene, explanation, side, other, metrics)
                    for side, other in (pair, pair[::-1])
                }
            )
    if probes and following is not None:
        head = scenes[:probes]
        clean = found[: len(head)]
        for direction, column in _probe(backbone, make, pair, head, layer, clean, following):
            for row, values in zip(rows, column, strict=False):
                row[direction].update(values)
    return rows


def _explain(
    backbone: Backbone,
    method: Method,
    scenes: Sequence[Scene],
    pair: tuple[str, str],
    layer: Layers,
    guides: Sequence[Scene] | None = None,
) -> list[Explanation]:
    """Explanations of pairs; the second modality comes from ``guides`` where they are given."""
    first, second = pair
    raws = [
        {first: raw_input(scene, first), second: raw_input(guide, second)}
        for scene, guide in zip(scenes, guides or scenes, strict=True)
    ]
    return list(attribute_many(backbone, raws, method=method, layer=layer, progress=False))


def _metrics() -> tuple[Metric, ...]:
    registry = default_plugins().registry
    return tuple(registry.create("metric", name) for name in RANKED)


def _numbers(
    backbone: Backbone,
    scene: Scene,
    explanation: Explanation,
    side: str,
    other: str,
    metrics: Sequence[Metric],
) -> dict[str, float]:
    """Every number of one map but the probes."""
    attribution, encoder = explanation[side], backbone[side]
    truth = scene_truth(scene, attribution)
    known = bool(truth.mask.any())  # with nothing shared there is nothing to find
    values = {m.name: m(attribution.scores, truth) if known else float("nan") for m in metrics}
    raw = explanation.inputs
    with torch.no_grad():
        guide = backbone[other].embed(backbone[other].preprocess([raw[other]]))[0]
    clean = explanation.similarity
    drop, increase = confidence(encoder, raw[side], attribution, guide, clean)
    values["confidence_drop"], values["confidence_increase"] = drop, increase
    values["capacity_bits"] = capacity_bits(
        attribution, content_tokens(encoder, raw[side], attribution)
    )
    values["cosine"] = clean
    values["seconds"] = float(explanation.provenance["seconds"])
    return values


def content_tokens(
    encoder: Encoder, raw: RawInput, attribution: Attribution
) -> npt.NDArray[np.bool_]:
    """``(N,)`` which of an attribution's tokens stand for a part of the input."""
    grid = encoder.grid(encoder.preprocess([raw]), attribution.layer)
    content: npt.NDArray[np.bool_] = grid.content[0].cpu().numpy()
    return content


def capacity_bits(attribution: Attribution, content: npt.NDArray[np.bool_]) -> float:
    """Sum of the positive scores of content tokens, in bits; NaN for scores of another unit."""
    if attribution.unit != "bits":
        return float("nan")
    scores = attribution.token_scores[content].astype(np.float64)
    return float(np.maximum(scores, 0.0).sum())


def ranks(values: npt.NDArray[Any]) -> Floats:
    """Ranks from 1; ties get the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean: Floats = np.cumsum(counts) - (counts - 1) / 2
    return mean[inverse]


def rank_correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Spearman's rank correlation with average ranks for ties.

    NaN where either side is constant. Its ranks say nothing, and calling that "uncorrelated" would
    flatter a map that never changes: it would pass for one that follows its guide.

    Args:
        a: ``(n,)``.
        b: ``(n,)``.
    """
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale > 0 else float("nan")


def wrong_guide(place: int, following: Callable[[int], Scene], explained: str, guide: str) -> Scene:
    """The next scene whose guide side shares no class with the explained side of scene ``place``.

    Raises:
        InputError: there is none within reach.
    """
    held = set(part_names(following(place), explained)) - {None}
    for step in range(1, _FAR):
        scene = following(place + step)
        if not held & set(part_names(scene, guide)):
            return scene
    raise InputError(f"no wrong guide among the {_FAR} scenes after scene {place}")


class _OneSide(Method):
    """A method that explains one modality only: the other side's map would be thrown away."""

    name = "one-side"
    unit = "none"
    Options: ClassVar[type[Any]] = Method.Options

    def __init__(self, inner: Method, modality: str) -> None:
        super().__init__(inner.options)
        self._inner, self._modality = inner, modality

    def default_layer(self, encoder: Encoder) -> int:
        return self._inner.default_layer(encoder)

    def explain(self, side: Side) -> SideScores:
        if side.encoder.modality == self._modality:
            return self._inner(side)
        zeros = torch.zeros(side.grid().valid.shape)
        return SideScores(zeros, "none", tuple({"warnings": []} for _ in side.keys))


def _probe(
    backbone: Backbone,
    make: Callable[[int], Method],
    pair: tuple[str, str],
    scenes: Sequence[Scene],
    layer: Layers,
    clean: Sequence[Explanation],
    following: Callable[[int], Scene],
) -> list[tuple[str, list[dict[str, float]]]]:
    """``tsens`` and ``stability`` of both directions."""
    reseeded = _explain(backbone, make(1), scenes, pair, layer)
    columns = []
    for side, other in (pair, pair[::-1]):
        guides = [wrong_guide(i, following, side, other) for i in range(len(scenes))]
        alone = _OneSide(make(0), side)
        wrong = _explain(backbone, alone, scenes, (side, other), layer, guides)
        column = []
        for right, misled, again in zip(clean, wrong, reseeded, strict=True):
            content = content_tokens(backbone[side], right.inputs[side], right[side])
            scores = [e[side].token_scores[content] for e in (right, misled, again)]
            column.append(
                {
                    "tsens": 1.0 - rank_correlation(scores[0], scores[1]),
                    "stability": rank_correlation(scores[0], scores[2]),
                }
            )
        columns.append((f"{side}|{other}", column))
    return columns
