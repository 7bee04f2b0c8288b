"""From an attribution's raw scores to a heatmap: a normalised picture, with what was normalised."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mmattrib.errors import OptionError, repr_of
from mmattrib.lazy import np, npt
from mmattrib.render.scales import FLOOR, NATURAL, Scale, check_scale
from mmattrib.types import FloatArray

# Below this many bits a score is rounding error of a float32 sum, not information.
_NOTHING = 1e-6
# A spread below this fraction of the largest score is rounding error of float32 (eps 1.2e-7).
_FLAT = 1e-6


@dataclass(frozen=True, eq=False)
class Heatmap:
    """A normalised attribution.

    Attributes:
        values: same shape as the scores, float32 in [0, 1].
        low: the raw score drawn as 0, in the attribution's unit.
        high: the raw score drawn as 1; scores above it are drawn as 1 too.
        signed: the scores have both signs; 0.5 stands for a score of zero.
        clipped: some scores lie outside ``[low, high]``.
        informative: False where nothing can be told from the map (all zero, all equal).
        notes: what a reader must know about the map, as sentences.
        scale: how it was scaled; ``"map"`` too where the unit has no scale of its own.
    """

    values: FloatArray
    low: float
    high: float
    signed: bool
    clipped: bool
    informative: bool
    notes: tuple[str, ...]
    scale: Scale = "map"

    __repr__ = repr_of()

    @property
    def floor(self) -> float:
        """Strength in [0, 1] below which a score counts as nothing on this scale."""
        return 0.0 if self.scale == "map" else FLOOR

    @property
    def strength(self) -> FloatArray:
        """How far each cell is from a score of zero, in [0, 1]."""
        if not self.signed:
            return self.values
        away: FloatArray = np.abs(2.0 * self.values - 1.0).astype(np.float32)
        return away

    @property
    def weights(self) -> FloatArray:
        """The non-negative part in [0, 1]: how strongly each cell supports the match."""
        if not self.signed:
            return self.values
        positive: FloatArray = np.clip(2.0 * self.values - 1.0, 0.0, 1.0).astype(np.float32)
        return positive


def heatmap(
    scores: npt.NDArray[np.floating],
    unit: str = "bits",
    clip: float | None = None,
    seen: npt.NDArray[np.bool_] | None = None,
    scale: Scale = "absolute",
    full: float | None = None,
) -> Heatmap:
    """Normalise raw scores to [0, 1].

    Bits cannot be negative, so negative rounding error is cut off and the rest is scaled: from 0
    to ``full``, or as far as the largest score if that is more; with ``scale="map"`` from its least
    to its largest score. Scores of other units that have both signs keep them: they are scaled
    symmetrically around zero, which lands on 0.5.

    Args:
        scores: raw scores of any shape; values that are not finite count as missing.
        unit: the attribution's unit; only ``"bits"`` is known to have no sign.
        clip: percentile in (50, 100]: scores beyond it are drawn as the largest. A few extreme
            cells then do not hide the rest. None clips nothing.
        seen: where the model saw the input; the rest is drawn as zero and does not count in the
            range of the scores. Everywhere if None.
        scale: see :data:`mmattrib.render.scales.Scale`.
        full: the score drawn in full colour, if no score is larger; None takes that of the unit
            (1 bit, a cosine of 0.01), and scales other units by the map. Not for ``scale="map"``.

    Raises:
        OptionError: ``clip`` or ``scale`` is out of range.
    """
    check_scale(scale)
    if clip is not None and not 50.0 < clip <= 100.0:
        raise OptionError(f"clip={clip}: accepted is a percentile above 50 and up to 100, or None.")
    raw = np.asarray(scores, dtype=np.float64)
    finite = np.isfinite(raw)
    notes = []
    if seen is not None:
        raw, finite = np.where(seen, raw, 0.0), finite & seen
    missing = ~finite if seen is None else seen & ~finite
    if missing.any():
        count = int(missing.sum())
        notes.append(f"{count} of {raw.size} scores are not finite numbers and are drawn as zero.")
    if not finite.any():
        notes.append("No information: there is no score to draw.")
        return Heatmap(_blank(raw), 0.0, 0.0, False, False, False, tuple(notes))
    if scale == "map":
        full = None
    elif full is None:
        full = NATURAL.get(unit)
    signed = unit != "bits" and float(raw[finite].min()) < 0.0
    heat = (_signed if signed else _unsigned)(raw, finite, clip, notes, full)
    return heat if full is None else _empty_or_not(replace(heat, scale=scale), raw[finite], unit)


def _empty_or_not(heat: Heatmap, present: npt.NDArray[np.float64], unit: str) -> Heatmap:
    """A map whose largest score is next to nothing on its scale, called empty."""
    top = float(np.abs(present).max())
    if not heat.informative or top >= FLOOR * heat.high:
        return heat
    said = (
        f"Empty map: its largest score, {top:.2g} {unit}, is next to nothing on the scale of this "
        f"page, where full colour stands for {heat.high:.3g}."
    )
    return replace(heat, informative=False, notes=(*heat.notes, said))


def _blank(raw: npt.NDArray[np.float64], value: float = 0.0) -> FloatArray:
    return np.full(raw.shape, value, dtype=np.float32)


def _unsigned(
    raw: npt.NDArray[np.float64],
    finite: npt.NDArray[np.bool_],
    clip: float | None,
    notes: list[str],
    full: float | None,
) -> Heatmap:
    positive = np.maximum(np.where(finite, raw, 0.0), 0.0)
    present = positive[finite]
    low, top = float(present.min()), float(present.max())
    if top <= _NOTHING:
        notes.append("No information: every score is zero.")
        return Heatmap(_blank(raw), 0.0, full or 0.0, False, False, False, tuple(notes))
    if top - low <= _FLAT * top:
        notes.append(f"No information: every score is the same ({top:.3g}), nothing stands out.")
        return Heatmap(_blank(raw), low, top, False, False, False, tuple(notes))
    high = top if clip is None else float(np.percentile(present, clip))
    if high - low <= _FLAT * top:
        high = top
    if full is not None:
        low, high = 0.0, max(high, full)
    values = np.clip((positive - low) / (high - low), 0.0, 1.0)
    values[~finite] = 0.0
    return Heatmap(values.astype(np.float32), low, high, False, high < top, True, tuple(notes))


def _signed(
    raw: npt.NDArray[np.float64],
    finite: npt.NDArray[np.bool_],
    clip: float | None,
    notes: list[str],
    full: float | None,
) -> Heatmap:
    filled = np.where(finite, raw, 0.0)
    sizes = np.abs(filled[finite])
    top = float(sizes.max())
    limit = top if clip is None else float(np.percentile(sizes, clip)) or top
    limit = max(limit, full or 0.0)
    spread = float(filled[finite].max() - filled[finite].min())
    if spread <= _FLAT * top:
        notes.append(
            f"No information: every score is the same ({filled[finite][0]:.3g}), "
            "nothing stands out."
        )
        return Heatmap(_blank(raw, 0.5), -limit, limit, True, False, False, tuple(notes))
    values = 0.5 + 0.5 * np.clip(filled / limit, -1.0, 1.0)
    return Heatmap(values.astype(np.float32), -limit, limit, True, limit < top, True, tuple(notes))
