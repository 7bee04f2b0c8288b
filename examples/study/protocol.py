"""The protocol as data: which scenes, which directions, which metrics decide."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from mmattrib.datasets.scenes import Bank, SceneOptions, ScenesDataset
from mmattrib.errors import OptionError

Phase: TypeAlias = Literal["search", "final"]
Sharing: TypeAlias = Literal["one", "two", "none"]

#: Seed of the scenes of each phase. A method is chosen on `search`; `final` is looked at once.
SEEDS: Final[dict[Phase, int]] = {"search": 7001, "final": 9001}
#: How many classes the two sides of a scene share.
SHARED: Final[dict[Sharing, SceneOptions]] = {
    "one": SceneOptions(),
    "two": SceneOptions(shared=2),
    "none": SceneOptions(shared=0),
}
PAIRS: Final = (("image", "text"), ("audio", "text"), ("image", "audio"))
#: "explained|guide", both ways of every pair of modalities.
DIRECTIONS: Final = tuple(direction for a, b in PAIRS for direction in (f"{a}|{b}", f"{b}|{a}"))
#: Metrics with a known truth, higher is better. The first four decide.
RANKED: Final = ("object_top1", "iou", "auc", "energy", "pointing")
DECIDING: Final = RANKED[:4]
#: Whether a map depends on its guide, and whether it depends on the seed of the noise.
PROBES: Final = ("prompt_sensitivity", "stability")
#: Numbers that are given beside the others and never rank a method.
REPORTED: Final = ("confidence_drop", "confidence_increase", "seconds", "capacity_bits", "cosine")
#: Every number that is measured per scene and direction.
METRICS: Final = (*RANKED, *PROBES, *REPORTED)
#: Scenes of a search, unless told otherwise.
SEARCH_SCENES: Final = 64
#: Scenes of each kind in the final comparison.
FINAL_SCENES: Final = 500
#: Number of the first of them.
FIRST_FINAL: Final = 500
#: Directions that are averaged for the overall tables.
GROUPS: Final = {
    "mean over image and audio explained": tuple(
        d for d in DIRECTIONS if not d.startswith("text|")
    ),
    "mean over text explained": tuple(d for d in DIRECTIONS if d.startswith("text|")),
}


def label(phase: Phase, sharing: Sharing) -> str:
    """What results call the scenes of a phase."""
    return f"{phase}/{sharing}"


def protocol_scenes(
    phase: Phase, sharing: Sharing, n: int, start: int = 0, bank: Bank | None = None
) -> ScenesDataset:
    """Scenes number ``start`` to ``start + n - 1`` of a phase.

    All use sprites, sounds and backgrounds that training never saw. No scene belongs to two
    phases.

    Args:
        phase: ``"search"`` or ``"final"``.
        sharing: ``"one"``, ``"two"`` or ``"none"``: how many classes are shared.
        n: how many.
        start: the first one's number.
        bank: of drawings and sounds; the shipped one if None.

    Raises:
        OptionError: an unknown phase or sharing, or a number out of range.
    """
    for what, given, accepted in (("phase", phase, Phase), ("sharing", sharing, Sharing)):
        if given not in get_args(accepted):
            raise OptionError(f"{what} {given!r}: accepted are {', '.join(get_args(accepted))}")
    return ScenesDataset(n, SEEDS[phase], first=start, options=SHARED[sharing], bank=bank)
