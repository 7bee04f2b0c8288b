"""Scenes as a data set: a stream of samples whose truth is known exactly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmattrib.datasets.base import Dataset
from mmattrib.datasets.reading import as_path, one_of
from mmattrib.datasets.scenes.bank import SPLITS, Bank, Split
from mmattrib.datasets.scenes.generator import Scene, generate
from mmattrib.datasets.scenes.specs import MODALITIES, SceneOptions
from mmattrib.errors import OptionError, brief, check_whole
from mmattrib.samples import Sample, Truth
from mmattrib.types import JSONValue, RawInput

_FAR = 200
"""Scenes to look through for an unrelated guide; one in two or three will do."""
_KEPT = 128
"""Scenes that are kept: unrelated guides come from those that follow."""


class ScenesDataset(Dataset):
    """The scenes of a seed: picture, recording and caption, and what they share.

    Scene number k is the same scene in any stream of the same seed, split, options and bank.
    """

    name = "scenes"

    def __init__(
        self,
        n: int = 50,
        seed: int = 0,
        *,
        first: int = 0,
        split: Split = "heldout",
        options: SceneOptions | None = None,
        shared: int | None = 1,
        bank: Bank | str | Path | None = None,
    ) -> None:
        """Choose scenes; nothing is drawn before a sample is asked for.

        Args:
            n: how many.
            seed: which stream.
            first: number of the first one.
            split: ``"heldout"`` for drawings and sounds that `tiny` never saw, or ``"train"``.
            options: how scenes are composed; in place of ``shared``.
            shared: how many classes the inputs of a scene share.
            bank: of drawings and sounds, or the folder of one; the shipped bank if None.

        Raises:
            OptionError: a number out of range, or both ``options`` and ``shared``.
        """
        for label, value, least in (("n", n, 1), ("first", first, 0)):
            check_whole(value, label, least)
        check_whole(seed, "seed", -(2**63), 2**64 - 1)
        if options is not None and shared != 1:
            raise OptionError("give either options or shared; options say how many are shared")
        self.n, self.seed, self.first, self.split = n, seed, first, split
        one_of(split, "split", SPLITS)
        if not isinstance(options, SceneOptions | None):
            raise OptionError(f"options must be SceneOptions, got {brief(options)}")
        self.options = options or SceneOptions(shared=shared)
        self.bank = bank if isinstance(bank, Bank | None) else Bank.load(as_path(bank, "bank"))
        self._kept: OrderedDict[int, Scene] = OrderedDict()

    def scene(self, number: int) -> Scene:
        """Scene number ``number`` of the stream, within the data set or beyond it."""
        if number not in self._kept:
            self._kept[number] = generate(self.seed, number, self.split, self.options, self.bank)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[number]

    def __iter__(self) -> Iterator[Sample]:
        for number in range(self.first, self.first + self.n):
            yield sample_of(self.scene(number))

    def size(self) -> int:
        return self.n

    def head(self, limit: int) -> ScenesDataset:
        return ScenesDataset(
            limit, self.seed, first=self.first, split=self.split, options=self.options,
            bank=self.bank,
        )  # fmt: skip

    def describe(self) -> dict[str, JSONValue]:
        bank = self.bank or Bank.shipped()
        options = {name: _listed(value) for name, value in asdict(self.options).items()}
        return {
            "seed": self.seed,
            "split": self.split,
            "options": options,
            "bank": bank.fingerprint(),
        }

    def unrelated(self, number: int, sample: Sample, explained: str, guide: str) -> Any | None:
        """The guide of the next scene that names nothing of the explained input.

        It may lie past the end of the data set, so that it does not depend on where that ends.
        """
        held = {part.name for part in self.scene(number).parts(explained)} - {None}
        for step in range(1, _FAR):
            other = self.scene(number + step)
            if not held & {part.name for part in other.parts(guide)}:
                return other.input(guide)
        return None

    def without(self, sample: Sample, side: str, part: int, raw: RawInput) -> RawInput | None:
        """The input drawn again without one part; all else stays where it was."""
        return self.scene(int(sample.tags["index"])).without(side, part).input(side)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict()}  # drawn again where they are needed


def sample_of(scene: Scene) -> Sample:
    """A scene as a sample of three inputs, each with its truth."""
    return Sample(
        f"{scene.split}-{scene.seed}-{scene.index}",
        {modality: scene.input(modality) for modality in MODALITIES},
        {modality: Truth(scene.parts(modality)) for modality in MODALITIES},
        {"seed": scene.seed, "index": scene.index, "split": scene.split},
    )


def _listed(value: Any) -> JSONValue:
    return list(value) if isinstance(value, tuple) else value
