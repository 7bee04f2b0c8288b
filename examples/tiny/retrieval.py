"""How well `tiny` recognises: retrieval between modalities, and the occlusion oracle.

The oracle asks the model alone, without any attribution method: in scenes that share one class,
does taking the shared object away lower the cosine most? Where it does, a map that points
elsewhere is the method's failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from mmattrib.backbones.tiny.model import TinyModel, normalise_image, normalise_log_mel
from mmattrib.backbones.tiny.tokenizer import WordTokenizer
from mmattrib.datasets.scenes import (
    MEL,
    Bank,
    Scene,
    SceneOptions,
    Split,
    generate,
    part_names,
    scene_of,
)
from mmattrib.datasets.scenes.specs import draw_spec

PAIRS: Final = (("image", "text"), ("audio", "text"), ("image", "audio"))
#: Two shared classes, and one class more on each side that the others lack.
MULTI: Final = SceneOptions(shared=2, image_distractors=(1, 1), audio_distractors=(1, 1),
                            text_distractors=(1, 1))  # fmt: skip
_BATCH: Final = 64


def scene_inputs(scenes: Sequence[Scene], modality: str, tokenizer: WordTokenizer) -> Tensor:
    """One modality's model inputs for some scenes, batch first."""
    if modality == "image":
        return normalise_image(torch.stack([torch.from_numpy(s.image) for s in scenes]))
    if modality == "audio":
        wave = torch.stack([torch.from_numpy(s.audio) for s in scenes])
        return normalise_log_mel(MEL.log_mel(MEL.power(wave)))
    return torch.tensor([tokenizer(s.caption).ids for s in scenes])


@torch.no_grad()
def embed_scenes(
    model: TinyModel, scenes: Sequence[Scene], modality: str, tokenizer: WordTokenizer
) -> Tensor:
    """L2-normalised embeddings (n, D) of one modality of some scenes."""
    tower = model.tower(modality)
    parts = []
    for at in range(0, len(scenes), _BATCH):
        parts.append(tower(scene_inputs(scenes[at : at + _BATCH], modality, tokenizer)).float())
    return F.normalize(torch.cat(parts), dim=-1)


def retrieval_accuracy(a: Tensor, b: Tensor) -> float:
    """Share of rows whose nearest row of the other side is their own, mean of both ways."""
    similarity = a @ b.T
    own = torch.arange(len(a))
    hits = (similarity.argmax(1) == own).float() + (similarity.argmax(0) == own).float()
    return float(hits.mean() / 2)


def _accuracies(
    pools: Sequence[Sequence[Scene]], embed: Callable[[Sequence[Scene], str], Tensor]
) -> dict[str, float]:
    """Retrieval per pair of modalities, mean over pools; ``embed`` makes rows of length 1."""
    totals = {f"{a}-{b}": 0.0 for a, b in PAIRS}
    for pool in pools:
        e = {m: embed(pool, m) for m in ("image", "audio", "text")}
        for a, b in PAIRS:
            totals[f"{a}-{b}"] += retrieval_accuracy(e[a], e[b]) / len(pools)
    return totals


def single_object(
    model: TinyModel,
    tokenizer: WordTokenizer,
    bank: Bank,
    split: Split = "heldout",
    draws: int = 5,
    seed: int = 0,
) -> dict[str, float]:
    """Retrieval among one lone-object scene per class, mean over `draws` sets of renderings."""
    pools = [
        [scene_of([name], seed, d, split, bank) for name in bank.class_names] for d in range(draws)
    ]
    return _accuracies(pools, partial(embed_scenes, model, tokenizer=tokenizer))


def multi_pools(
    bank: Bank, split: Split, pools: int, size: int, seed: int, unambiguous: bool
) -> list[list[Scene]]:
    """Pools of scenes that share two classes each, no two of a pool the same two.

    With distractors on each side, two classes of one scene often stand together in another one
    too, which then matches as well as the right one. `unambiguous` leaves such scenes out of the
    pool, so that each has one right answer.
    """
    out: list[list[Scene]] = []
    index = 0
    for _ in range(pools):
        pool: dict[tuple[str, ...], Scene] = {}
        while len(pool) < size:
            # Rejecting what is drawn first is quick; a scene may be drawn again to be recognisable.
            first = draw_spec(bank, seed, index, split, MULTI)
            index += 1
            if unambiguous and _clashes((first.image, first.audio, first.text), pool.values()):
                continue
            scene = generate(seed, index - 1, split, MULTI, bank)
            if unambiguous and _clashes(_held(scene), pool.values()):
                continue
            pool.setdefault(scene.shared, scene)
        out.append(list(pool.values()))
    return out


def _held(scene: Scene) -> tuple[Sequence[str | None], ...]:
    return tuple(part_names(scene, m) for m in ("image", "audio", "text"))


def _clashes(held: Sequence[Sequence[str | None]], pool: Iterable[Scene]) -> bool:
    """Whether some scene of the pool has, in another modality, two classes in common."""
    named = [{name for name in names if name is not None} for names in held]
    return any(
        len(mine & set(theirs)) >= 2
        for other in pool
        for k, mine in enumerate(named)
        for j, theirs in enumerate(_held(other))
        if j != k
    )


def multi_object(
    model: TinyModel,
    tokenizer: WordTokenizer,
    bank: Bank,
    split: Split = "heldout",
    pools: int = 10,
    size: int = 64,
    seed: int = 1,
    unambiguous: bool = True,
) -> dict[str, float]:
    """Retrieval out of `size` scenes with two shared classes and a distractor on each side."""
    return _accuracies(
        multi_pools(bank, split, pools, size, seed, unambiguous),
        partial(embed_scenes, model, tokenizer=tokenizer),
    )


def multi_object_ceiling(
    bank: Bank,
    split: Split = "heldout",
    pools: int = 10,
    size: int = 64,
    seed: int = 1,
    unambiguous: bool = True,
) -> dict[str, float]:
    """What `multi_object` would give a model that recognises every object without error.

    Its embedding of a scene is the normalised sum of one axis per class present; ties are broken
    at random. Below 1 where pools are ambiguous.
    """
    names = bank.class_names
    noise = random.Random(0)

    def embed(pool: Sequence[Scene], modality: str) -> Tensor:
        rows = torch.zeros(len(pool), len(names))
        for row, scene in zip(rows, pool, strict=True):
            for name in classes_of(scene, modality):
                row[names.index(name)] = 1.0 + 1e-4 * noise.random()
        return F.normalize(rows, dim=-1)

    return _accuracies(multi_pools(bank, split, pools, size, seed, unambiguous), embed)


def classes_of(scene: Scene, modality: str) -> list[str]:
    """The named classes that one modality of a scene holds."""
    return [name for name in part_names(scene, modality) if name is not None]


def occlusion_oracle(
    model: TinyModel,
    tokenizer: WordTokenizer,
    bank: Bank,
    split: Split = "heldout",
    n: int = 300,
    seed: int = 2,
) -> dict[str, float]:
    """Share of scenes where removing the one shared class lowers the cosine most.

    Keys "explained|guide", six directions. Scenes whose explained side holds one object only
    are left out: there is nothing to choose from.
    """
    pool = [generate(seed, index, split, bank=bank) for index in range(n)]
    clean = {m: embed_scenes(model, pool, m, tokenizer) for m in ("image", "audio", "text")}
    out: dict[str, float] = {}
    for explained in ("image", "audio", "text"):
        removed, owner, is_shared = [], [], []
        for row, scene in enumerate(pool):
            for k, name in enumerate(part_names(scene, explained)):
                removed.append(scene.without(explained, k))
                owner.append(row)
                is_shared.append(name in scene.shared)
        left = embed_scenes(model, removed, explained, tokenizer)
        for guide in ("image", "audio", "text"):
            if guide == explained:
                continue
            cosine = (left * clean[guide][owner]).sum(-1).tolist()
            lowest: dict[int, tuple[float, bool]] = {}
            for value, row, shared in zip(cosine, owner, is_shared, strict=True):
                lowest[row] = min(lowest.get(row, (2.0, False)), (value, shared))
            counted = [hit for row, (_, hit) in lowest.items() if owner.count(row) > 1]
            out[f"{explained}|{guide}"] = sum(counted) / max(1, len(counted))
    return out
