"""The protocol as data: which scenes, which directions, which metrics decide."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, TypeAlias, get_args

from mmattrib.datasets.scenes import Scene, SceneOptions, generate
from mmattrib.errors import OptionError
from mmattrib.evaluation.benchmark import PAIRS

Split: TypeAlias = Literal["search", "final"]
Kind: TypeAlias = Literal["one", "two", "none"]

#: Seed of the scenes of each split. A method is chosen on `search`; `final` is looked at once.
SEEDS: Final[dict[Split, int]] = {"search": 7001, "final": 9001}
#: How many classes the two sides of a scene share.
KINDS: Final[dict[Kind, SceneOptions]] = {
    "one": SceneOptions(),
    "two": SceneOptions(shared=2),
    "none": SceneOptions(shared=0),
}
#: "explained|guide", both ways of every pair of modalities.
DIRECTIONS: Final = tuple(direction for a, b in PAIRS for direction in (f"{a}|{b}", f"{b}|{a}"))
#: Metrics with a known truth, higher is better. The first four decide.
RANKED: Final = ("specificity", "iou", "auc", "energy", "pointing")
DECIDING: Final = RANKED[:4]
#: Numbers that are given beside the others and never rank a method.
REPORTED: Final = ("confidence_drop", "confidence_increase", "seconds", "capacity_bits", "cosine")
#: Whether a map depends on its guide, and whether it depends on the seed of the noise.
PROBES: Final = ("tsens", "stability")
#: Every number that is measured per scene and direction.
METRICS: Final = (*RANKED, *PROBES, *REPORTED)
#: Scenes of a search, unless told otherwise.
SEARCH_SCENES: Final = 64
#: Scenes of each kind in the final comparison.
FINAL_SCENES: Final = 500


def protocol_scenes(split: Split, kind: Kind, n: int, start: int = 0) -> list[Scene]:
    """Scenes number ``start`` to ``start + n - 1`` of a split and a kind.

    All use sprites, sounds and backgrounds that training never saw. No scene belongs to two
    splits.

    Args:
        split: ``"search"`` or ``"final"``.
        kind: ``"one"``, ``"two"`` or ``"none"``: how many classes are shared.
        n: how many.
        start: the first one's number.

    Raises:
        OptionError: an unknown split or kind, or a negative number.
    """
    check_set(split, kind)
    if n < 0 or start < 0:
        raise OptionError(f"n={n}, start={start}: accepted are whole numbers, 0 or more")
    return [protocol_scene(split, kind, index) for index in range(start, start + n)]


def check_set(split: str, kind: str) -> None:
    """Refuse a split or a kind that the protocol has not.

    Raises:
        OptionError: with the accepted names.
    """
    for what, given, accepted in (("split", split, Split), ("kind", kind, Kind)):
        if given not in get_args(accepted):
            raise OptionError(f"{what} {given!r}: accepted are {', '.join(get_args(accepted))}")


@lru_cache(maxsize=128)  # every variant of a sweep asks for the same ones, chunk by chunk
def protocol_scene(split: Split, kind: Kind, index: int) -> Scene:
    """Scene number ``index`` of a split and a kind; kept by the process that drew it."""
    return generate(SEEDS[split], index, "heldout", KINDS[kind])
