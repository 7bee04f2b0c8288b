"""Insertion and deletion: the match while places come or go in the order of the map.

Petsiuk et al. 2018 (RISE), deletion and insertion: the area under the curve of the model's
score, here the cosine with the guide, against the share of places that were inserted or deleted.

Both are written for any function of masks (:func:`curve_area`). Places of equal score have no order
of their own: where a step of the curve cuts through such places they are taken once from the first
on and once from the last on, and the two areas are averaged. A constant map then scores as chance
does (exactly so where the model is linear), which one order of reading would not give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mmattrib.errors import OptionError, brief, check_whole, is_one_of
from mmattrib.lazy import np, npt
from mmattrib.metrics.base import MODEL, Case, CostlyMetric
from mmattrib.perturb import FILLS
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.types import BoolArray, FloatArray

STEPS = 224
"""Steps of a curve: RISE's code takes 224 pixels a step of pictures of 224 x 224."""

MOST_STEPS = 100_000


def step_counts(places: int, steps: int) -> npt.NDArray[np.int64]:
    """``(S + 1,)``: how many places are marked after each step, from none to all.

    S is ``steps``, or the number of places where that is smaller. The counts from the two ends
    mirror each other.
    """
    steps = max(1, min(steps, places))
    half = np.arange(steps // 2 + 1) * places / steps
    first = np.floor(half + 0.5).astype(np.int64)
    last = places - first[: steps + 1 - len(first)][::-1]
    counts: npt.NDArray[np.int64] = np.concatenate([first, last])
    if steps % 2 == 0:
        counts[steps // 2] = places // 2
    return counts


def orders(scores: npt.NDArray[np.floating[Any]], steps: int) -> list[npt.NDArray[np.int64]]:
    """The order in which a map's places are marked, highest first; two where ties need them.

    Args:
        scores: of any shape; values that are not finite are never marked.
        steps: of the curve.

    Returns:
        One array of flat indices; where a step cuts through places of equal score, a second one in
        which such places stand the other way round.
    """
    flat = np.asarray(scores, dtype=np.float64).ravel()
    known = np.flatnonzero(np.isfinite(flat))
    values = flat[known]
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    cuts = step_counts(len(known), steps)[1:-1]
    forward = known[order].astype(np.int64)
    if not len(cuts) or not (ranked[cuts - 1] == ranked[cuts]).any():
        return [forward]
    other = len(known) - 1 - np.argsort(-values[::-1], kind="stable")
    return [forward, known[other].astype(np.int64)]


def ladder(shape: tuple[int, ...], order: npt.NDArray[np.int64], steps: int) -> Iterator[BoolArray]:
    """Masks from no place to all of ``order``, each with the places that are marked by then."""
    marked = np.zeros(int(np.prod(shape)), dtype=np.bool_)
    done = 0
    for count in step_counts(len(order), steps):
        marked[order[done:count]] = True
        done = int(count)
        yield marked.reshape(shape).copy()


def trapezoid(values: npt.ArrayLike) -> float:
    """Area under evenly spaced values on [0, 1], between them by straight lines."""
    wide = np.asarray(values, dtype=np.float64)
    return float((wide[1:] + wide[:-1]).mean() / 2) if len(wide) > 1 else float(wide[0])


def curve_area(
    scores: npt.NDArray[np.floating[Any]],
    measure: Callable[[Iterable[BoolArray]], npt.ArrayLike],
    *,
    steps: int = STEPS,
    insert: bool,
) -> float:
    """Area under the insertion or the deletion curve of a map.

    Args:
        scores: of any shape; values that are not finite are neither inserted nor deleted.
        measure: masks in the shape of the scores, True where the input is kept -> one number each.
        steps: at most; a map of fewer places has as many steps as places.
        insert: places come, the highest scores first; otherwise they go.

    Returns:
        The area, in the unit of ``measure``; NaN for a map without a finite score.

    >>> weights = np.array([3.0, 1.0])
    >>> linear = lambda masks: [float((weights * mask).sum()) for mask in masks]
    >>> curve_area(weights, linear, insert=True), curve_area(weights, linear, insert=False)
    (2.5, 1.5)
    """
    if not np.isfinite(scores).any():
        return float("nan")
    areas = []
    for order in orders(scores, steps):
        masks = ladder(scores.shape, order, steps)
        kept = masks if insert else (~mask for mask in masks)
        areas.append(trapezoid(measure(kept)))
    return float(np.mean(areas))


class _Curve(CostlyMetric):
    """What both share.

    Attributes:
        fills: the fill of each kind of input where none is asked for; others take their first.
    """

    needs = frozenset({MODEL})
    insert: bool
    fills: dict[str, str]

    def __init__(self, steps: int = STEPS, fill: str | None = None) -> None:
        """Options.

        Args:
            steps: of the curve at most; an input of fewer places has as many as places.
            fill: what stands in where the input is not kept, a name in mmattrib.perturb.FILLS;
                inputs that have no such fill, or all if None, take the metric's own.

        Raises:
            OptionError: a number of steps out of range, or no such fill.
        """
        self.steps = check_whole(steps, "steps", 1, MOST_STEPS)
        known = dict.fromkeys(name for table in FILLS.values() for name in table)
        if fill is not None and not is_one_of(fill, known):
            raise OptionError(f"no fill {brief(fill)}; accepted: {', '.join(known)}, or None")
        self.fill = fill

    def fill_of(self, modality: str) -> str | None:
        """The fill for inputs of a modality: the one asked for where that modality has it."""
        table = FILLS.get(modality, FILLS["array"])
        return self.fill if self.fill in table else self.fills.get(modality)

    def measure(self, case: Case) -> float:
        fill = self.fill_of(case.attribution.modality)
        scores = np.where(case.attribution.seen, case.attribution.scores, np.nan)

        def measure(masks: Iterable[BoolArray]) -> FloatArray:
            return case.kept_cosines(masks, fill=fill)

        return curve_area(scores, measure, steps=self.steps, insert=self.insert)

    def describe(self) -> dict[str, Any]:
        return {"steps": self.steps, "fill": self.fill}


class Insertion(_Curve):
    """Area under the insertion curve, in units of the cosine; higher is better.

    Starts from the blurred picture, from silence, or from a caption of blanks (Petsiuk et al. 2018:
    a blurred canvas, since sharp shapes on an even one look like objects).
    """

    name = "insertion"
    summary = "mean cosine while the highest-scored places are put back one after another"
    insert = True
    fills = {"image": "blur"}  # noqa: RUF012


class Deletion(_Curve):
    """Area under the deletion curve, in units of the cosine; lower is better.

    Pictures fade into their mean colour, recordings into silence, words into blanks.
    """

    name = "deletion"
    summary = "mean cosine while the highest-scored places are taken away one after another"
    higher_is_better = False
    insert = False
    fills = {}  # noqa: RUF012


@hookimpl
def register_metrics(register: Register) -> None:
    """Register insertion and deletion."""
    for metric in (Insertion, Deletion):
        register(metric.name, metric, summary=metric.summary)
