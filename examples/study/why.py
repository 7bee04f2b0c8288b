"""Why a method leads more in one world than in another: the channel, the noise and the head.

For each pair, with the guide's embedding as the target: how much of the match is there at some
rates of the channel, and how well the slopes at each rate alone locate; what the embedding behind
nothing but noise still tells of its input, by the noise's width; and for photographs both, and the
maps of two methods, with the head's softmax made sharper and softer. One line a pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tqdm.auto import tqdm

import mmattrib as mm
from examples.study.photographs import PAIR, pairs
from examples.study.protocol import protocol_scenes
from mmattrib.engine.noise import PairNoise
from mmattrib.engine.objective import cosine_gradient
from mmattrib.explain import explain
from mmattrib.loading import load_method
from mmattrib.methods.base import Method, Side, SideScores
from mmattrib.methods.ca_m2ib import CAM2IB, embedding_behind, prior_of
from mmattrib.metrics import Case, auc, iou, pointing_game, rectified_energy
from mmattrib.models import Backbone
from mmattrib.preparing import prepare
from mmattrib.samples import Sample

RATES: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
SIGMAS: Final = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0)
TAUS: Final = (1.0, 2.0, 4.0)
DRAWS: Final = 8
START: Final = 128
"""The first search scene, as for the other tables of choices."""
LAYERS: Final[dict[str, int | None]] = {"ca-m2ib": None, "nib": 19}
"""Of the methods whose maps are made."""
_SCORES: Final = {"iou": iou, "auc": auc, "energy": rectified_energy, "pointing": pointing_game}


class Along(CAM2IB):
    """Slopes of ``ca-m2ib`` at one rate after the other, and the embedding behind noise alone."""

    name = "along"

    def explain(self, side: Side) -> SideScores:
        content = side.grid().content
        found = [self._at(side, rate) for rate in (0.0, *RATES)]
        mask = (~content).float().to(side.tokens().device)
        behind = [
            embedding_behind(side, mask, replace(self.options, sigma=sigma)) for sigma in SIGMAS
        ]
        with torch.no_grad():
            clean = side.suffix(side.tokens(), torch.arange(len(side), device="cpu")).float()
        goal = side.guide.embedding.to(clean)
        rows = [
            {
                "fit": [*(fit[pair] for fit, _ in found), float(clean[pair] @ goal[pair])],
                "slopes": [slopes[pair].tolist() for _, slopes in found[1:]],
                "behind": [embedding[pair].tolist() for embedding in behind],
                "clean": clean[pair].tolist(),
            }
            for pair in range(len(side))
        ]
        return self.scored(torch.stack([slopes for _, slopes in found]).mean(0), rows)

    def _at(self, side: Side, rate: float) -> tuple[list[float], torch.Tensor]:
        """The mean cosine at one rate, and the slopes there, ``(B, N)``."""
        options, grid, tokens = self.options, side.grid(), side.tokens().float()
        prior, one = prior_of(side, options), grid.valid.new_ones(len(side), 1)
        drawn = PairNoise(side.keys, one, tokens.shape[-1], DRAWS, seed=options.seed,
                          antithetic=True, purpose="slopes").draw()  # fmt: skip
        fits, slopes = [], []
        for pair, goal in enumerate(side.guide.embedding.float()):
            own = prior.select(torch.tensor([pair], device="cpu"))
            z = rate * tokens[pair] + (1 - rate) * own.restore(drawn[pair].to(tokens))
            rows = torch.full((DRAWS,), pair, dtype=torch.long, device="cpu")
            gradient = cosine_gradient(z, side.suffix, rows, goal.expand(DRAWS, -1))
            slopes.append((gradient * (tokens[pair] - own.mean)).sum(-1).mean(0))
            with torch.no_grad():
                fits.append(float((side.suffix(z, rows).float() @ goal).mean()))
        content = grid.content.to(tokens.device)
        return fits, torch.stack(slopes).where(content, tokens.new_zeros(()))


def softened(tau: float) -> Backbone:
    """``conse`` with softmax(logits / τ): its τ is 2, so its last layer is scaled by 2 / τ."""
    model = mm.load_backbone("conse")
    tower: Any = model["image"].module
    with torch.no_grad():
        for each in tower.net._fc.parameters():
            each.mul_(2 / tau)
    return model


def measure_why(photographs: Path, out: Path, *, count: int = 20) -> None:
    """Append a line for every pair that the file lacks.

    Args:
        photographs: a folder in COCO's layout.
        out: the file.
        count: how many photographs, with the first category of each, and search scenes of
            ``tiny-seed1``.
    """
    told = out.read_text(encoding="utf-8") if out.exists() else ""
    known = {(row["world"], row["id"]) for row in map(json.loads, told.splitlines())}
    with out.open("a", encoding="utf-8") as file:
        for world, model, sample, side, guide, methods in _work(photographs, count, known):
            row = {"world": world, "id": sample.id}
            row |= _measured(model, sample.pair(side, guide), side, guide, methods)
            file.write(json.dumps(row) + "\n")
            file.flush()


def _work(
    photographs: Path, count: int, known: set[tuple[str, str]]
) -> Iterator[tuple[str, Backbone, Sample, str, str, Sequence[str]]]:
    """World, model, sample, sides and methods of what is not known yet."""
    weights = Path(__file__).parent / "weights" / "tiny-seed1.safetensors"
    tiny = mm.load_backbone("tiny", checkpoint=str(weights))
    for sample in tqdm(list(protocol_scenes("search", "one", count, START)), unit="scene"):
        for side, guide in (("image", "text"), ("audio", "text"), ("text", "image")):
            if (f"scenes: {side}|{guide}", sample.id) not in known:
                yield f"scenes: {side}|{guide}", tiny, sample, side, guide, ()
    firsts: dict[Any, Sample] = {}
    for sample in pairs(photographs, "categories", mm.load_backbone("conse")):
        firsts.setdefault(sample.inputs["image"], sample)
    models = {f"photographs, tau {tau:g}": softened(tau) for tau in TAUS}
    for sample in tqdm(list(islice(firsts.values(), count)), unit="photograph"):
        for world, model in models.items():
            if (world, sample.id) not in known:
                yield world, model, sample, *PAIR, tuple(LAYERS)


def _measured(
    model: Backbone, sample: Sample, side: str, guide: str, methods: Sequence[str]
) -> dict[str, Any]:
    made: list[tuple[Method, int | None]] = [(Along(), None)]
    made += [(load_method(name), LAYERS[name]) for name in methods]
    prepared = prepare(model, sample)
    cases = []
    for method, layer in made:
        layers = None if layer is None else {side: layer}
        (found,) = explain(model, [prepared], method, layers, [side])
        cases.append(Case(sample, found.explanation, side, guide))
    told = dict(cases[0].attribution.diagnostics)
    located = []
    for slopes in told.pop("slopes"):
        laid = replace(cases[0].attribution, token_scores=np.asarray(slopes, np.float32))
        scores = laid.scores if laid.seen.all() else laid.scores[laid.seen]
        located.append(_scored(cases[0], scores))
    row: dict[str, Any] = {"fit": [round(x, 6) for x in told["fit"]], "at": located}
    row["behind"] = [[round(x, 4) for x in each] for each in told["behind"]]
    row["clean"] = [round(x, 4) for x in told["clean"]]
    row["methods"] = {
        name: _scored(case, case.scores) for name, case in zip(methods, cases[1:], strict=True)
    }
    if methods:
        tower: Any = model[side].module
        with torch.no_grad(), model[side].frozen():
            logits = tower.net(prepared.inputs[side]["pixels"])
        row["share"] = round(float(torch.softmax(logits / 2, -1).max()), 5)
    return row


def _scored(case: Case, scores: Any) -> dict[str, float]:
    known = case.truth
    if known is None:
        return {}
    return {name: round(score(scores, known.mask), 5) for name, score in _SCORES.items()}
