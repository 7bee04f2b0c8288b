"""Random subsets: whether what a map adds up to goes with what the match loses.

Parts of an input, one for each token or word, are taken away in random subsets; a faithful map's
scores, added over the subset, go with the fall of the cosine. All three numbers compare these two
columns, so that their cores take arrays alone.

- faithfulness correlation (Bhatt et al. 2020, definition 3, "faithfulness"): Pearson's correlation
  over subsets of one size;
- sensitivity-n (Ancona et al. 2018): the same for several sizes n, averaged;
- infidelity (Yeh et al. 2019, eq. 1): the mean squared difference of the two columns, with the map
  scaled to the model's unit first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from mmattrib.errors import OptionError, brief, check_whole
from mmattrib.lazy import np, npt
from mmattrib.metrics.base import MODEL, Case, CostlyMetric
from mmattrib.placement import PlanePlacement
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.types import Attribution, BoolArray

Floats: TypeAlias = "npt.NDArray[np.float64]"
Ints: TypeAlias = "npt.NDArray[np.intp]"

SUBSETS = 100
"""Random subsets: as Ancona et al. 2018, and Quantus' default for Bhatt et al. 2020."""

MOST_SUBSETS = 1_000_000
LEAST_PARTS = 3
"""Below this many parts there are too few subsets to compare."""


def parts_of(attribution: Attribution) -> tuple[Ints, Floats]:
    """Cut an input into the parts that its map tells apart.

    Returns:
        The number of the part that each place belongs to, in the shape of the map, -1 where the
        model saw nothing; and ``(parts,)`` the score of each. A part is a word with the sum of its
        tokens' scores, or the cell of a token with that token's score; for a placement of another
        kind, a place of the map.
    """
    placement, seen = attribution.placement, attribution.seen
    if isinstance(placement, PlanePlacement):
        rows = [
            cells.own(count) for cells, count in zip(placement.cells, placement.shape, strict=True)
        ]
        owner = placement.order[np.ix_(*(np.maximum(row, 0) for row in rows))]
        values: npt.NDArray[Any] = attribution.token_scores
    else:
        owner = np.arange(seen.size, dtype=np.int32).reshape(seen.shape)
        values = attribution.scores.ravel()
    numbers, inverse = np.unique(owner[seen], return_inverse=True)
    labels = np.full(seen.shape, -1, dtype=np.intp)
    labels[seen] = inverse
    return labels, values[numbers].astype(np.float64)


def random_subsets(parts: int, size: int, count: int, random: np.random.Generator) -> BoolArray:
    """``(count, parts)`` bool: subsets of ``size`` parts each, drawn without replacement."""
    ranks = random.random((count, parts)).argsort(axis=1).argsort(axis=1)
    return np.asarray(ranks < size)


def correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Pearson's correlation; NaN where either side is constant.

    Args:
        a: ``(n,)``.
        b: ``(n,)``.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.size == 0 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale > 0 else float("nan")


def infidelity(sums: npt.ArrayLike, drops: npt.ArrayLike, *, scaled: bool = True) -> float:
    """Mean of (sum of the map over what was taken away - fall of the score) squared.

    Yeh et al. 2019, eq. 1, where the perturbation sets a random subset of the parts to their
    baseline.

    Args:
        sums: ``(n,)`` the map's scores added over each subset.
        drops: ``(n,)`` how far the score fell when it was taken away.
        scaled: multiply the map by the number of 0 or more that makes the result least, for maps
            in another unit than the score. A map that points the other way is multiplied by 0.

    >>> infidelity([1.0, 2.0], [10.0, 20.0])
    0.0
    >>> infidelity([1.0, 2.0], [1.0, 4.0], scaled=False)
    2.0
    """
    x, y = np.asarray(sums, dtype=np.float64), np.asarray(drops, dtype=np.float64)
    factor = 1.0
    if scaled:
        power = float((x**2).sum())
        factor = max(0.0, float((x * y).sum()) / power) if power > 0 else 0.0
    return float(((factor * x - y) ** 2).mean())


def sizes_of(parts: int, count: int, most: float = 0.8) -> list[int]:
    """At most ``count`` different sizes from 1 to ``most`` of the parts, evenly on a log scale."""
    top = max(1, min(parts - 1, round(most * parts)))
    return sorted({round(size) for size in np.geomspace(1, top, count)})


class _Subsets(CostlyMetric):
    """What the three share: every map of an input of one shape meets the same subsets."""

    needs = frozenset({MODEL})
    percent = False

    def __init__(self, subsets: int = SUBSETS, seed: int = 0) -> None:
        self.subsets = check_whole(subsets, "subsets", 2, MOST_SUBSETS)
        self.seed = check_whole(seed, "seed", 0, 2**63 - 1)

    def describe(self) -> dict[str, Any]:
        return {"subsets": self.subsets, "seed": self.seed}

    def columns(self, case: Case, removed: BoolArray) -> tuple[Floats, Floats]:
        """The map's sums over the parts of each row, and the falls of the cosine without them."""
        labels, values = parts_of(case.attribution)
        inside = labels >= 0

        def kept() -> Any:
            for row in removed:
                yield ~(inside & row[labels])

        left = case.kept_cosines(kept()).astype(np.float64)
        return removed.astype(np.float64) @ values, case.clean - left

    def correlations(self, case: Case, sizes: Sequence[int]) -> list[float]:
        """Pearson's correlation of the two columns for each size of subset."""
        random = np.random.default_rng(self.seed)
        parts = len(parts_of(case.attribution)[1])
        drawn = [random_subsets(parts, size, self.subsets, random) for size in sizes]
        sums, drops = self.columns(case, np.concatenate(drawn))
        return [
            correlation(x, y)
            for x, y in zip(np.split(sums, len(sizes)), np.split(drops, len(sizes)), strict=True)
        ]


class FaithfulnessCorrelation(_Subsets):
    """Pearson's correlation over random subsets of one size (Bhatt et al. 2020, definition 3).

    NaN for a constant map and for inputs of fewer than three parts.
    """

    name = "faithfulness_correlation"
    summary = (
        "correlation of the map's sum over random parts with the fall of the cosine without them"
    )

    def __init__(self, subsets: int = SUBSETS, share: float = 0.25, seed: int = 0) -> None:
        """Options.

        Args:
            subsets: how many are drawn.
            share: of the parts in each subset, between 0 and 1; at least one part, never all.
            seed: of the draw.
        """
        super().__init__(subsets, seed)
        if isinstance(share, bool) or not isinstance(share, float | int) or not 0 < share < 1:
            raise OptionError(f"share must be a number between 0 and 1, got {brief(share)}")
        self.share = float(share)

    def measure(self, case: Case) -> float:
        parts = len(parts_of(case.attribution)[1])
        if parts < LEAST_PARTS:
            return float("nan")
        return self.correlations(case, [min(parts - 1, max(1, round(self.share * parts)))])[0]

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "share": self.share}


class SensitivityN(_Subsets):
    """Mean over sizes n of the correlation over random subsets of n parts (Ancona et al. 2018).

    Sizes run from one part to four fifths of them on a log scale, as in the paper's figures. NaN as
    for :class:`FaithfulnessCorrelation`.
    """

    name = "sensitivity_n"
    summary = "faithfulness correlation for subsets of many sizes n, averaged (sensitivity-n)"

    def __init__(self, subsets: int = SUBSETS, sizes: int = 10, seed: int = 0) -> None:
        """Options.

        Args:
            subsets: how many are drawn of each size.
            sizes: how many sizes at most.
            seed: of the draw.
        """
        super().__init__(subsets, seed)
        self.sizes = check_whole(sizes, "sizes", 1, 1000)

    def measure(self, case: Case) -> float:
        parts = len(parts_of(case.attribution)[1])
        if parts < LEAST_PARTS:
            return float("nan")
        found = np.array(self.correlations(case, sizes_of(parts, self.sizes)))
        known = found[np.isfinite(found)]
        return float(known.mean()) if len(known) else float("nan")

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "sizes": self.sizes}


class Infidelity(_Subsets):
    """:func:`infidelity` over random halves of the parts, in squared units of the cosine."""

    name = "infidelity"
    summary = "mean squared difference of the map's sum over random parts and the cosine's fall"
    higher_is_better = False

    def __init__(self, subsets: int = SUBSETS, scaled: bool = True, seed: int = 0) -> None:
        """Options.

        Args:
            subsets: how many are drawn; each part is in one with probability one half.
            scaled: as for :func:`infidelity`; False for maps in units of the cosine.
            seed: of the draw.
        """
        super().__init__(subsets, seed)
        if not isinstance(scaled, bool):
            raise OptionError(f"scaled must be true or false, got {brief(scaled)}")
        self.scaled = scaled

    def measure(self, case: Case) -> float:
        parts = len(parts_of(case.attribution)[1])
        if parts < LEAST_PARTS:
            return float("nan")
        removed = np.random.default_rng(self.seed).random((self.subsets, parts)) < 0.5
        return infidelity(*self.columns(case, removed), scaled=self.scaled)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "scaled": self.scaled}


@hookimpl
def register_metrics(register: Register) -> None:
    """Register faithfulness correlation, sensitivity-n and infidelity."""
    for metric in (FaithfulnessCorrelation, SensitivityN, Infidelity):
        register(metric.name, metric, summary=metric.summary)
