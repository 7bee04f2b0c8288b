"""Which score is drawn in full colour: by the map alone, by the page, or by what matches reach.

Drawn from its least to its largest score, a map that holds next to nothing looks like one that
holds a match. On an absolute scale it stays dark.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

from mmattrib.calibration import scores_of
from mmattrib.errors import OptionError, brief, is_one_of
from mmattrib.types import Explanation

Scale: TypeAlias = Literal["map", "page", "absolute"]
"""``"map"``: from a map's own least to its own largest score. ``"page"``: from 0 to the largest
score of that unit on the page. ``"absolute"``: to the map's own largest score, but full colour
takes at least what matching pairs reach, see :func:`full_scores`."""

FULL_BITS: Final = 1.0
"""Least bits of a word or token in full colour, where no calibration says what matching pairs
reach. One bit answers one question of yes and no. A map that holds more stretches the scale."""
COSINE_SHARE: Final = 0.1
"""Share of the pair's cosine in full colour, for scores in cosine: one token in ten would make it
up. Scores of integrated gradients add up to the cosine less that without the input."""
LEAST_COSINE: Final = 0.01
"""Cosine in full colour at least."""
FLOOR: Final = 0.05
"""Share of the full colour below which a word is not coloured, and a map is called empty."""

NATURAL: Final[Mapping[str, float]] = {"bits": FULL_BITS, "cosine": LEAST_COSINE}
"""Unit -> least score in full colour, where nothing is known of the pair."""


def check_scale(scale: str) -> None:
    """Refuse a scale that is none.

    Raises:
        OptionError: it is none of :data:`Scale`.
    """
    if not is_one_of(scale, get_args(Scale)):
        raise OptionError(
            f"scale={brief(scale)}: accepted are {', '.join(map(repr, get_args(Scale)))}."
        )


def full_scores(
    explanation: Explanation, tops: Mapping[str, float], scale: Scale
) -> dict[str, float | None]:
    """The score of each side that is drawn in full colour; None for its own largest.

    Absolutely, that is what the maps of matching pairs reach where a calibration knows it
    (:attr:`mmattrib.calibration.ScoreEntry.full`), :data:`FULL_BITS` for other bits, and
    :data:`COSINE_SHARE` of the pair's cosine for scores in cosine; more where the map holds more.
    Each modality has a level of its own: a word of a caption that matches holds a fraction of the
    bits of a matching patch, and on the picture's scale every caption would look empty. Two sides
    of one modality share it, so that they can be compared; ``"page"`` compares all sides of a
    unit. Other units have no scale of their own.

    Args:
        explanation: whose maps are drawn.
        tops: side -> the largest score of its map, in size.
        scale: see :data:`Scale`.
    """
    if scale == "map":
        return dict.fromkeys(explanation)
    natural = _natural(explanation) if scale == "absolute" else dict.fromkeys(explanation, 0.0)
    groups = {
        side: (each.unit, each.modality if scale == "absolute" else "")
        for side, each in explanation.items()
    }
    highs: dict[tuple[str, str], float] = {}
    for side in natural:
        top = max(tops[side], natural[side])
        highs[groups[side]] = max(highs.get(groups[side], 0.0), top)
    return {side: highs.get(group) for side, group in groups.items()}


def _natural(explanation: Explanation) -> dict[str, float]:
    """Side -> score in full colour at least, where its unit has such a scale."""
    known = scores_of(explanation)
    found = {}
    for side, attribution in explanation.items():
        if side in known:
            found[side] = known[side].full
        elif attribution.unit == "cosine":
            found[side] = max(COSINE_SHARE * abs(explanation.similarity), LEAST_COSINE)
        elif attribution.unit in NATURAL:
            found[side] = NATURAL[attribution.unit]
    return found
