"""Scenes whose truth is known, made of the drawings and sounds of a bank.

Names are imported when they are first used, so that importing this package imports neither torch
nor pillow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmattrib.lazy import lazy_names
from mmattrib.plugins.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from mmattrib.datasets.scenes.bank import SPLITS, Bank, Split
    from mmattrib.datasets.scenes.captions import Mention
    from mmattrib.datasets.scenes.dataset import ScenesDataset
    from mmattrib.datasets.scenes.generator import (
        MEL,
        Scene,
        SceneObject,
        SoundEvent,
        generate,
        part_names,
        scene_of,
        scenes,
    )
    from mmattrib.datasets.scenes.specs import MODALITIES, SceneOptions

_HOME = {
    "MEL": "generator",
    "MODALITIES": "specs",
    "SPLITS": "bank",
    "Bank": "bank",
    "Mention": "captions",
    "Scene": "generator",
    "SceneObject": "generator",
    "ScenesDataset": "dataset",
    "SceneOptions": "specs",
    "SoundEvent": "generator",
    "Split": "bank",
    "generate": "generator",
    "part_names": "generator",
    "scene_of": "generator",
    "scenes": "generator",
}

__all__ = [
    "MEL",
    "MODALITIES",
    "SPLITS",
    "Bank",
    "Mention",
    "Scene",
    "SceneObject",
    "SceneOptions",
    "ScenesDataset",
    "SoundEvent",
    "Split",
    "generate",
    "part_names",
    "scene_of",
    "scenes",
]


__getattr__ = lazy_names(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # pluggy looks for hooks here


def _load(
    n: int = 50,
    seed: int = 0,
    *,
    first: int = 0,
    split: Split = "heldout",
    options: SceneOptions | None = None,
    shared: int | None = 1,
    bank: Bank | str | Path | None = None,
) -> ScenesDataset:
    """Choose scenes; nothing is drawn before a sample is asked for.

    Args:
        n: how many.
        seed: which stream.
        first: number of the first one.
        split: ``"heldout"`` for drawings and sounds that `tiny` never saw, or ``"train"``.
        options: how scenes are composed, from Python; in place of ``shared``.
        shared: how many classes the inputs of a scene share.
        bank: the folder of other drawings and sounds than the shipped ones.
    """
    from mmattrib.datasets.scenes.dataset import ScenesDataset

    return ScenesDataset(
        n, seed, first=first, split=split, options=options, shared=shared, bank=bank
    )


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``scenes``."""
    register(
        "scenes",
        _load,
        summary="generated pictures, recordings and captions of which it is known what they share",
        modalities=("image", "audio", "text"),
    )
