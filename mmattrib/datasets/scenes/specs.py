"""The classes that a scene holds in each modality, chosen before anything is drawn."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from mmattrib.datasets.scenes.bank import Bank, Split
from mmattrib.errors import OptionError, check_whole

MODALITIES: Final = ("image", "audio", "text")
#: At most so many objects, events or mentions in one scene.
MAX_OBJECTS: Final = 4


@dataclass(frozen=True)
class SceneOptions:
    """How scenes are composed.

    `shared`: classes present in all three modalities, 0-4, or None for a random 1 or 2.
    `image_distractors`, `audio_distractors`, `text_distractors`: least and most classes that
    stand in that modality only. `unnamed`: chance of one more object (sound) that belongs to no
    class, in image and audio each. `check`: draw again until every object is recognisable.
    Raises OptionError for values out of range.
    """

    shared: int | None = 1
    image_distractors: tuple[int, int] = (1, 3)
    audio_distractors: tuple[int, int] = (1, 2)
    text_distractors: tuple[int, int] = (1, 2)
    unnamed: float = 0.3
    check: bool = True

    def __post_init__(self) -> None:
        if self.shared is not None:
            check_whole(self.shared, "shared", 0, MAX_OBJECTS)
        for name in ("image_distractors", "audio_distractors", "text_distractors"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= MAX_OBJECTS:
                raise OptionError(
                    f"{name}={(low, high)}: accepted is (least, most) with "
                    f"0 <= least <= most <= {MAX_OBJECTS}."
                )
        if not 0 <= self.unnamed <= 1:
            raise OptionError(f"unnamed={self.unnamed}: accepted is a chance from 0 to 1.")


@dataclass(frozen=True)
class SceneSpec:
    """Classes per modality in drawing order; None is an object that belongs to no class.

    `key` seeds everything drawn from here on; `bank` is where the classes come from.
    """

    key: str
    split: Split
    shared: tuple[str, ...]
    image: tuple[str | None, ...]
    audio: tuple[str | None, ...]
    text: tuple[str, ...]
    bank: Bank

    def rng(self, part: str) -> random.Random:
        """A generator of its own for one part of the scene, so that parts stay independent."""
        return random.Random(f"{self.key}:{part}")


def draw_spec(
    bank: Bank, seed: int, index: int, split: Split, options: SceneOptions, attempt: int = 0
) -> SceneSpec:
    """The classes of scene `index`: a function of its arguments alone."""
    key = f"{seed}:{index}:{split}:{attempt}"
    return _compose(bank, key, split, options, random.Random(f"{key}:spec"))


def draw_training_spec(
    bank: Bank, seed: int, step: int, row: int, single: float, shared2: float
) -> SceneSpec:
    """A training scene: `single` and `shared2` are the chances of a lone object, of two shared.

    Otherwise up to two distractors per modality, and unnamed objects: the mix that measuring
    scenes come from, and easier ones. A function of its arguments alone.
    """
    key = f"train:{seed}:{step}:{row}"
    rng = random.Random(f"{key}:spec")
    if rng.random() < single:
        options = SceneOptions(1, (0, 0), (0, 0), (0, 0), unnamed=0.0)
    elif rng.random() < shared2:
        options = SceneOptions(2, (0, 2), (0, 2), (0, 2), unnamed=0.25)
    else:
        options = SceneOptions(1, (0, 3), (0, 2), (0, 2), unnamed=0.3)
    return _compose(bank, key, "train", options, rng)


def _compose(
    bank: Bank, key: str, split: Split, options: SceneOptions, rng: random.Random
) -> SceneSpec:
    names = list(bank.class_names)
    rng.shuffle(names)
    count = options.shared if options.shared is not None else rng.choice((1, 2))
    shared, rest = names[:count], names[count:]

    def modality(bounds: tuple[int, int]) -> list[str]:
        extra = min(rng.randint(*bounds), MAX_OBJECTS - count)
        if len(shared) < count or len(rest) < extra:
            raise OptionError(
                f"{options} can take more classes than the {len(names)} of this bank: "
                "ask for fewer distractors."
            )
        members = shared + [rest.pop(0) for _ in range(extra)]
        rng.shuffle(members)
        return members

    image, audio = modality(options.image_distractors), modality(options.audio_distractors)
    text = modality(options.text_distractors)

    def with_unnamed(members: list[str]) -> tuple[str | None, ...]:
        out: list[str | None] = list(members)
        if len(out) < MAX_OBJECTS and rng.random() < options.unnamed:
            out.insert(rng.randrange(len(out) + 1), None)
        return tuple(out)

    return SceneSpec(
        key,
        split,
        tuple(sorted(shared)),
        with_unnamed(image),
        with_unnamed(audio),
        tuple(text),
        bank,
    )
