"""Measuring what a backbone says of unrelated pairs: the numbers behind "these do not match"."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np

from mmattrib.calibration import (
    LEAST_PAIRS,
    Calibration,
    Distribution,
    ScoreEntry,
    kind_of,
    setting_of,
    total,
)
from mmattrib.datasets.base import as_dataset
from mmattrib.errors import InputError, OptionError, TrustWarning, check_whole
from mmattrib.explain import Layers
from mmattrib.io import load as load_raw
from mmattrib.loading import load_method
from mmattrib.many import attribute_many
from mmattrib.preparing import side_encoder
from mmattrib.samples import Sample
from mmattrib.types import SECOND, Attribution

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.datasets.base import Dataset
    from mmattrib.methods import Method
    from mmattrib.models.backbone import Backbone


def calibrate(
    backbone: Backbone,
    data: Dataset | Iterable[Sample],
    *,
    limit: int | None = 300,
    maps: int = 40,
    method: str | Method = "ca-m2ib",
    layer: Layers = None,
    seed: int = 0,
    **options: Any,
) -> Calibration:
    """Measure cosines and maps of unrelated pairs; :meth:`Dataset.unrelated` says what they are.

    Give data whose neighbouring samples differ: where nothing is known of what inputs show, an
    unrelated input is that of the next sample.

    Args:
        backbone: whose unrelated pairs are measured. Its ``calibration`` is left as it is.
        data: a data set, or samples of two inputs or more that belong together.
        limit: how many samples, from the first on; all if None.
        maps: how many of them are explained too, once as they are and once with an unrelated
            guide, so that pages know how much a map of unrelated inputs holds; 0 for none.
        method: as for :func:`mmattrib.attribute`. What is known of maps holds for this method,
            these options and layers alone; cosines hold for any.
        layer: as for :func:`mmattrib.attribute`.
        seed: of the method's noise.
        **options: the method's own.

    Returns:
        A :class:`Calibration` of every kind of pair in the data, two inputs of one kind included.

    Raises:
        OptionError: fewer than 20 unrelated pairs of every kind, or a number out of range.
    """
    from mmattrib.models.backbone import check_backbone

    check_backbone(backbone)
    if check_whole(maps, "maps") and maps < LEAST_PAIRS:
        raise OptionError(f"maps must be 0 or at least {LEAST_PAIRS}, got {maps}")
    dataset = as_dataset(data)
    dataset = dataset if limit is None else dataset.head(limit)
    made = load_method(method, seed, **options)
    cosines, count = pair_cosines(backbone, dataset)
    known = {kind: found for kind, found in cosines.items() if len(found) >= LEAST_PAIRS}
    if not known:
        most = max(map(len, cosines.values()), default=0)
        raise OptionError(
            f"the data gave {most} unrelated pairs; at least {LEAST_PAIRS} of one kind are needed. "
            f"It has {count} samples: give more of them, each with two inputs that "
            f"{backbone.name!r} embeds ({', '.join(backbone.modalities)})"
        )
    entries: list[ScoreEntry] = []
    if maps:
        for kind in known:
            entries += _entries(backbone, dataset.head(maps), kind, made, layer)
    return Calibration(
        backbone.name,
        backbone.weights_hash(),
        f"{count} samples of {dataset.name!r}, fingerprint {dataset.fingerprint()[:16]}",
        {kind: Distribution.of(found) for kind, found in known.items()},
        tuple(entries),
    )


def pair_cosines(
    backbone: Backbone, dataset: Dataset, unrelated: bool = True
) -> tuple[dict[str, list[float]], int]:
    """Cosines of pairs, one for each kind of pair in each sample.

    Args:
        backbone: embeds both sides.
        dataset: of inputs that belong together; says which are unrelated.
        unrelated: pair each input with an unrelated one, of its own kind too; otherwise with the
            others of its sample.

    Returns:
        Kind of pair -> cosines; and how many samples there were.
    """
    found: dict[str, list[float]] = {}
    count = 0
    for number, sample in dataset.numbered():
        count += 1
        known: dict[str, Tensor] = {}
        for explained, guide in combinations_with_replacement(_sides(backbone, sample), 2):
            try:
                if explained not in known:
                    known[explained] = _embedding(backbone, explained, sample.inputs[explained])
                if unrelated:
                    other = dataset.unrelated(number, sample, explained, guide)
                else:
                    other = None if explained == guide else sample.inputs[guide]
                if other is None:
                    continue
                cosine = float((known[explained] * _embedding(backbone, guide, other)).sum())
            except InputError as error:
                warnings.warn(f"{sample.id!r} is left out: {error}", stacklevel=3)
                break
            kind = kind_of((_modality(explained), _modality(guide)))
            found.setdefault(kind, []).append(cosine)
    return found, count


def _sides(backbone: Backbone, sample: Sample) -> list[str]:
    return [side for side in sample.inputs if _modality(side) in backbone]


def _modality(side: str) -> str:
    return side.removesuffix(SECOND)


def _embedding(backbone: Backbone, side: str, given: Any) -> Tensor:
    import torch

    encoder = side_encoder(backbone, side)
    with warnings.catch_warnings(), encoder.frozen(), torch.no_grad():
        warnings.simplefilter("ignore", TrustWarning)
        inputs = encoder.preprocess([load_raw(encoder.modality, given)])
        return encoder.embed(inputs)[0].double().cpu()


def _entries(
    backbone: Backbone, dataset: Dataset, kind: str, method: Method, layer: Layers
) -> Iterator[ScoreEntry]:
    """What the maps of one kind of pair hold, one entry for each side."""
    paired: list[dict[str, Any]] = []
    unrelated: list[dict[str, Any]] = []
    for number, sample in dataset.numbered():
        sides = next((two for two in _pairs(backbone, sample) if _kind(two) == kind), None)
        if sides is None:
            continue
        paired.append({side: sample.inputs[side] for side in sides})
        other = dataset.unrelated(number, sample, *sides)
        if other is not None:
            unrelated.append({sides[0]: sample.inputs[sides[0]], sides[1]: other})
    if min(len(paired), len(unrelated)) < LEAST_PAIRS:
        return
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        for name, pairs in (("paired", paired), ("unrelated", unrelated)):
            explained = attribute_many(
                backbone, pairs, method=method, layer=layer, progress=False, on_error="warn"
            )
            found[name] = list(explained)
    if min(map(len, found.values())) < LEAST_PAIRS:
        return
    for side, attribution in found["unrelated"][0].items():
        own = [each[side] for each in found["unrelated"]]
        yield ScoreEntry(
            kind,
            attribution.modality,
            method.name,
            setting_of(method.name, method.describe(), attribution.layer),
            attribution.unit,
            Distribution.of([total(each.token_scores[each.content]) for each in own]),
            Distribution.of([_top(each) for each in own]),
            Distribution.of([_top(each[side]) for each in found["paired"]]),
        )


def _pairs(backbone: Backbone, sample: Sample) -> Iterator[tuple[str, str]]:
    sides = _sides(backbone, sample)
    return ((a, b) for number, a in enumerate(sides) for b in sides[number + 1 :])


def _kind(sides: tuple[str, str]) -> str:
    return kind_of(tuple(map(_modality, sides)))


def _top(attribution: Attribution) -> float:
    """The largest score of a place: of a word, or of a token."""
    own = attribution.scores if attribution.words else attribution.token_scores
    finite = own[np.isfinite(own)]
    return float(np.abs(finite).max(initial=0.0))
