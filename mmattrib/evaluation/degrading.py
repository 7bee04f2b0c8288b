"""Maps of many pairs, kept on disk, and inputs with their highest scores taken away."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mmattrib.errors import InputError, TrustWarning, repr_of
from mmattrib.evaluation.candidates import Variant
from mmattrib.evaluation.measure import all_frozen, each_explained
from mmattrib.files import is_file, write_atomic
from mmattrib.many import Failure
from mmattrib.models.backbone import Backbone
from mmattrib.perturb import keep
from mmattrib.preparing import Prepared, side_encoder
from mmattrib.samples import Sample
from mmattrib.types import Attribution, BoolArray, RawInput

CHUNK: Final = 16
"""Pairs in a file of maps: what a crash can lose of them."""
PERCENTILE: Final = {"text": 50.0}
"""Scores above it are taken away: the paper's 50 for words (figure 3)."""
OTHERS: Final = 75.0
"""The paper's percentile for pixels, taken for sound and any other modality too."""


def percentile_of(modality: str, given: Mapping[str, float]) -> float:
    """The percentile of a modality: the one given, or the paper's."""
    return float(given.get(modality, PERCENTILE.get(modality, OTHERS)))


def highest(attribution: Attribution, percentile: float) -> BoolArray:
    """Which cells of a map score above a percentile of what the model saw.

    Cells at the percentile itself stay, so that a map with many equal scores takes less away, and a
    constant map nothing. CA-M2IB's paper, figure 3.

    Args:
        attribution: the map.
        percentile: from 0 to 100, with linear interpolation between scores.

    Returns:
        bool in the shape of its scores.

    Raises:
        InputError: a score is not finite.
    """
    scores, seen = attribution.scores.astype(np.float64), attribution.seen
    if not np.isfinite(scores).all():
        raise InputError("the map has scores that are not finite")
    if not seen.any():
        return np.zeros(scores.shape, dtype=bool)
    found: BoolArray = (scores > np.percentile(scores[seen], percentile)) & seen
    return found


def without(
    raw: RawInput, attribution: Attribution, taken: BoolArray, fill: str | None, seed: int = 0
) -> RawInput:
    """An input with some cells of its map taken away; itself where none is.

    Args:
        raw: the explained input.
        attribution: its map, for where the cells lie.
        taken: bool in the shape of the scores.
        fill: as for :func:`mmattrib.perturb.keep`.
        seed: of fills that draw.
    """
    if not taken.any():
        return raw
    return keep(
        raw, ~taken, axes=attribution.axes, words=attribution.words or None, fill=fill, seed=seed
    )


@dataclass
class Maps:
    """The maps of some pairs by one method.

    Attributes:
        found: for each pair side -> attribution; empty where the pair could not be explained.
        problems: number of the pair among them -> why it could not.
        seconds: that explaining took, when it was done.
    """

    found: list[Mapping[str, Attribution]] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    __repr__ = repr_of()


class MapCache:
    """Maps on disk, :data:`CHUNK` pairs a file: token scores, from which maps are laid again.

    A file belongs to one question (weights, data, method with every option, pair): its name and
    its content say which.
    """

    def __init__(self, folder: Path | None, identity: str) -> None:
        """Name the folder, or None to keep nothing, and what the maps depend on."""
        self.folder, self.identity = folder, identity

    def get(
        self,
        backbone: Backbone,
        samples: Sequence[Sample],
        prepared: Sequence[Prepared],
        variant: Variant,
        seed: int,
        progress: Any = None,
    ) -> Maps:
        """The maps of every pair, read where they are there, made and kept where they are not.

        Args:
            backbone: explains.
            samples: of two inputs each.
            prepared: the same, decoded.
            variant: the method.
            seed: of its noise.
            progress: called with the number of pairs of each chunk, or None.

        Raises:
            OptionError: an option or a layer that does not fit the backbone.
            InputError: a file of the folder is damaged.
        """
        maps = Maps()
        for start in range(0, len(samples), CHUNK):
            part = slice(start, start + CHUNK)
            path = self.folder and self.folder / f"{self.identity}-{start:06d}.safetensors"
            if path is None or not is_file(path):
                made = _explained(backbone, samples[part], prepared[part], variant, seed)
                if path is not None:
                    write_atomic(path, _bytes(made, f"{self.identity}-{start}"))
            else:
                made = _read(path, f"{self.identity}-{start}", backbone, prepared[part])
            maps.found += made.found
            maps.problems |= {start + k: told for k, told in made.problems.items()}
            maps.seconds += made.seconds
            if progress is not None:
                progress(len(prepared[part]))
        return maps


def _explained(
    backbone: Backbone,
    samples: Sequence[Sample],
    prepared: Sequence[Prepared],
    variant: Variant,
    seed: int,
) -> Maps:
    started = time.perf_counter()
    first, second = prepared[0].raw
    maps = Maps()
    numbered = [(int(p.index or 0), s) for s, p in zip(samples, prepared, strict=True)]
    with all_frozen(backbone), warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)  # many maps: their numbers tell
        made = each_explained(
            backbone,
            numbered,
            (first, second),
            variant.make(seed),
            variant.layers_for((first, second)),
        )
        for place, result in enumerate(made):
            if isinstance(result, Failure):
                maps.problems[place] = str(result.error)
                maps.found.append({})
            else:
                maps.found.append(dict(result.explanation.attributions))
    maps.seconds = time.perf_counter() - started
    return maps


def _bytes(maps: Maps, identity: str) -> bytes:
    tensors, layers = {}, {}
    for place, found in enumerate(maps.found):
        for side, attribution in found.items():
            key = f"{place}.{side}"
            tensors[key] = torch.from_numpy(np.array(attribution.token_scores, dtype=np.float32))
            layers[key] = attribution.layer
    told = {
        "maps": identity,
        "layers": json.dumps(layers),
        "problems": json.dumps(maps.problems),
        "seconds": repr(maps.seconds),
    }
    made: bytes = save(tensors, told)
    return made


def _read(path: Path, identity: str, backbone: Backbone, prepared: Sequence[Prepared]) -> Maps:
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            if told.get("maps") != identity:
                raise ValueError("they are of another question")
            layers = json.loads(told["layers"])
            problems = {int(k): str(v) for k, v in json.loads(told["problems"]).items()}
            maps = Maps([], problems, float(told["seconds"]))
            for place, pair in enumerate(prepared):
                sides = () if place in problems else tuple(pair.raw)
                maps.found.append(
                    {
                        side: _laid(file, f"{place}.{side}", backbone, pair, side, layers)
                        for side in sides
                    }
                )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no maps of this run ({error}); delete it to make them again"
        ) from error
    return maps


def _laid(
    file: Any, key: str, backbone: Backbone, pair: Prepared, side: str, layers: Mapping[str, int]
) -> Attribution:
    """Token scores of a file with the placement that their encoder gives."""
    layer = layers[key]
    grid = side_encoder(backbone, side).grid(pair.inputs[side], layer)
    content = grid.content[0].numpy()
    if tuple(file.get_slice(key).get_shape()) != content.shape:
        raise ValueError(f"{key} has another number of tokens")
    scores = file.get_tensor(key).float().numpy()
    return Attribution(
        pair.raw[side].modality, "", scores, content.copy(), grid.placement(0), layer
    )


def blank_attribution(backbone: Backbone, pair: Prepared, side: str) -> Attribution:
    """A map of zeros at an encoder's default layer, for where its cells lie."""
    encoder = side_encoder(backbone, side)
    layer = encoder.check_layer(encoder.default_layer)
    grid = encoder.grid(pair.inputs[side], layer)
    content = grid.content[0].numpy().copy()
    scores = np.zeros(content.shape, dtype=np.float32)
    return Attribution(pair.raw[side].modality, "", scores, content, grid.placement(0), layer)
