"""How alike unrelated inputs are to a model, and what that says of a pair: match, or no match.

A cosine means nothing by itself: one model puts unrelated pictures and captions at -0.1, another at
0.2. A :class:`Calibration` holds what was measured on unrelated pairs; :func:`verdict` compares a
pair with it. Numpy alone, so that pages can be drawn from files without a model.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from mmattrib.errors import InputError, MmattribError, OptionError, brief, repr_of
from mmattrib.files import as_path, write_atomic
from mmattrib.lazy import np
from mmattrib.plugins import default_plugins

if TYPE_CHECKING:
    from mmattrib.types import Explanation

Level: TypeAlias = Literal["match", "weak", "no match", "unknown"]

LEVELS: Final = (5, 10, 25, 50, 75, 90, 95, 99)
"""Percentages at which a distribution is kept."""
NO_MATCH: Final = 95
"""A similarity that this percentage of unrelated pairs do not exceed is no match."""
WEAK: Final = 99
"""One above that, which this percentage of unrelated pairs do not exceed, is a weak match."""
LEAST_PAIRS: Final = 20
"""Fewest unrelated pairs that say anything of a 95 % quantile."""
MAX_ENTRIES: Final = 10_000

FORMAT: Final = "mmattrib-calibration"
VERSION: Final = 1

NOUNS = {"image": "picture", "audio": "recording", "text": "caption"}


def noun(modality: str) -> str:
    """What to call an input of this modality."""
    return NOUNS.get(modality, f"{modality} input")


def kind_of(modalities: Sequence[str]) -> str:
    """The kind of a pair, e.g. ``"image-text"``: both modalities, in no particular order."""
    return "-".join(sorted(modalities))


def setting_of(method: str, options: Mapping[str, Any], layer: int) -> str:
    """SHA-256 of what a side's scores depend on: method, options and layer.

    Not on the seed, nor on options of a registered method that only bound memory.
    """
    return settings_of(method, options, {"": layer})[""]


def settings_of(
    method: str, options: Mapping[str, Any], layers: Mapping[str, int]
) -> dict[str, str]:
    """:func:`setting_of` each side, side -> setting, at its layer."""
    silent = {"seed", *_bounds(method)}
    told = {name: value for name, value in options.items() if name not in silent}
    texts = {
        side: json.dumps([method, told, layer], sort_keys=True, default=str)
        for side, layer in layers.items()
    }
    return {side: hashlib.sha256(text.encode()).hexdigest() for side, text in texts.items()}


def _bounds(method: str) -> list[str]:
    """Options of a registered method that change no map but by rounding, such as `max_rows`."""
    try:
        made = default_plugins().registry.create("method", method)
    except MmattribError:  # not registered, or it cannot be made of its name alone
        return []
    options = getattr(made, "options", None)
    known = fields(options) if is_dataclass(options) else ()
    return [each.name for each in known if getattr(each.metadata.get("limits"), "resource", False)]


@dataclass(frozen=True)
class Distribution:
    """Some numbers, summarised.

    Attributes:
        n: how many.
        mean: of them.
        sd: their standard deviation.
        quantiles: at each percentage of :data:`LEVELS`.
    """

    n: int
    mean: float
    sd: float
    quantiles: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution:
        """Summarise numbers.

        Raises:
            OptionError: there is none, or one is not finite.
        """
        numbers = np.asarray(values, dtype=np.float64)
        if not numbers.size or not np.isfinite(numbers).all():
            raise OptionError(f"a distribution needs finite numbers, got {brief(numbers.tolist())}")
        quantiles = np.percentile(numbers, LEVELS)
        return cls(
            numbers.size,
            round(float(numbers.mean()), 6),
            round(float(numbers.std()), 6),
            tuple(round(float(each), 6) for each in quantiles),
        )

    def at(self, percentage: int) -> float:
        """The quantile at a percentage of :data:`LEVELS`."""
        return self.quantiles[LEVELS.index(percentage)]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        quantiles = {str(at): value for at, value in zip(LEVELS, self.quantiles, strict=True)}
        return {"n": self.n, "mean": self.mean, "sd": self.sd, "quantiles": quantiles}

    @classmethod
    def from_json(cls, value: Any) -> Distribution:
        """Read it back.

        Raises:
            InputError: the values are no distribution.
        """
        tree = _mapping(value, "a distribution")
        n, given = tree.get("n"), _mapping(tree.get("quantiles"), "quantiles")
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"a distribution of {brief(n)} numbers")
        quantiles = tuple(_number(given.get(str(at)), f"the {at} % quantile") for at in LEVELS)
        if list(quantiles) != sorted(quantiles):
            raise InputError("quantiles that do not rise")
        return cls(n, _number(tree.get("mean"), "mean"), _number(tree.get("sd"), "sd"), quantiles)


@dataclass(frozen=True)
class ScoreEntry:
    """What the maps of one side hold under one method, its options and a layer.

    Attributes:
        kind: of pair, see :func:`kind_of`.
        modality: of the explained side.
        method: its name.
        setting: see :func:`setting_of`.
        unit: of the scores.
        unrelated_total: the positive scores of a map added up, for unrelated pairs.
        unrelated_top: the largest score of a place (a word, or a token), for unrelated pairs.
        paired_top: the same for the data set's own pairs.
    """

    kind: str
    modality: str
    method: str
    setting: str
    unit: str
    unrelated_total: Distribution
    unrelated_top: Distribution
    paired_top: Distribution

    __repr__ = repr_of("kind", "modality", "method", "unit", "setting")

    @property
    def full(self) -> float:
        """The score that is drawn in full colour: what the largest score of three in four of the
        data set's pairs reaches, or of unrelated pairs where that is more."""
        return max(self.paired_top.at(25), self.unrelated_top.at(NO_MATCH))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            name: value.to_json() if isinstance(value, Distribution) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, value: Any) -> ScoreEntry:
        """Read it back.

        Raises:
            InputError: the values are no entry.
        """
        tree = _mapping(value, "an entry of scores")
        words = ("kind", "modality", "method", "setting", "unit")
        parts = ("unrelated_total", "unrelated_top", "paired_top")
        found: dict[str, Any] = {name: _text(tree.get(name), name) for name in words}
        found |= {name: Distribution.from_json(tree.get(name)) for name in parts}
        return cls(**found)


@dataclass(frozen=True)
class Calibration:
    """What a backbone says of unrelated pairs. Made by ``mmattrib calibrate``.

    Attributes:
        backbone: its name.
        weights_sha256: of its weights: for others the numbers do not hold.
        source: the data that the pairs came from, in words.
        similarities: kind of pair -> cosines of unrelated pairs.
        scores: what maps hold, one entry per kind, side, method and setting.
    """

    backbone: str
    weights_sha256: str
    source: str
    similarities: Mapping[str, Distribution]
    scores: tuple[ScoreEntry, ...] = ()

    def __repr__(self) -> str:
        kinds = brief(list(self.similarities), 120)
        return f"Calibration({brief(self.backbone)}: {kinds}, {len(self.scores)} entries of scores)"

    def entry(
        self, modalities: Mapping[str, str], method: str, settings: Mapping[str, str]
    ) -> dict[str, Any] | None:
        """What it knows of one kind of pair, as an explanation's provenance keeps it.

        Args:
            modalities: side -> modality, of both sides.
            method: the method's name.
            settings: side -> :func:`setting_of`, of the sides that are explained.

        Returns:
            JSON values, or None where this kind of pair was not measured.
        """
        kind = kind_of(tuple(modalities.values()))
        known = self.similarities.get(kind)
        if known is None:
            return None
        scores = {
            side: found.to_json()
            for side, setting in settings.items()
            if (found := self._scores(kind, modalities[side], method, setting)) is not None
        }
        return {
            "kind": kind,
            "source": self.source,
            "similarity": known.to_json(),
            "scores": scores,
        }

    def _scores(self, kind: str, modality: str, method: str, setting: str) -> ScoreEntry | None:
        wanted = (kind, modality, method, setting)
        for each in self.scores:
            if (each.kind, each.modality, each.method, each.setting) == wanted:
                return each
        return None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "backbone": self.backbone,
            "weights_sha256": self.weights_sha256,
            "source": self.source,
            "similarities": {kind: each.to_json() for kind, each in self.similarities.items()},
            "scores": [each.to_json() for each in self.scores],
        }

    @classmethod
    def from_json(cls, value: Any) -> Calibration:
        """Read it back.

        Raises:
            InputError: the values are no calibration, or one of another version.
        """
        tree = _mapping(value, "a calibration")
        if tree.get("format") != FORMAT:
            raise InputError(f"no {FORMAT}: its format is {brief(tree.get('format'))}")
        if tree.get("version") != VERSION:
            raise InputError(
                f"version {brief(tree.get('version'))}, this release of mmattrib reads {VERSION}"
            )
        kinds = _mapping(tree.get("similarities"), "similarities")
        scores = tree.get("scores")
        if not isinstance(scores, list) or max(len(kinds), len(scores)) > MAX_ENTRIES:
            raise InputError(f"no list of scores, or more than {MAX_ENTRIES} entries")
        return cls(
            _text(tree.get("backbone"), "backbone"),
            _text(tree.get("weights_sha256"), "weights_sha256"),
            _text(tree.get("source"), "source"),
            {_text(kind, "kind"): Distribution.from_json(each) for kind, each in kinds.items()},
            tuple(map(ScoreEntry.from_json, scores)),
        )

    def save(self, path: str | Path) -> Path:
        """Write a JSON file that :func:`mmattrib.load_calibration` reads.

        Raises:
            OptionError: it cannot be written there.
        """
        text = json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n"
        return write_atomic(as_path(path, "save").expanduser(), text.encode("utf-8"))


@dataclass(frozen=True)
class Verdict:
    """Whether two inputs match, as far as the model's unrelated pairs tell.

    Attributes:
        level: ``"match"``, ``"weak"``, ``"no match"``, or ``"unknown"`` without a calibration.
        sentence: the same in words, with the numbers.
        similarity: cosine of the pair.
        unrelated: cosines of unrelated pairs of the same kind; None where unknown.
        maps: side -> what its map holds beside those of unrelated pairs, in words.
    """

    level: Level
    sentence: str
    similarity: float
    unrelated: Distribution | None
    maps: Mapping[str, str]


def verdict(explanation: Explanation, calibration: Calibration | None = None) -> Verdict:
    """Say whether the two inputs of an explanation match.

    The rule: a similarity at or below the 95 % quantile of unrelated pairs of the same kind is no
    match; one above it and at or below the 99 % quantile is a weak match; one above that is a
    match. So about one unrelated pair in twenty is not told as one, and one in a hundred is called
    a match.

    Args:
        explanation: of both sides.
        calibration: of the explanation's backbone; None takes the numbers that the explanation
            was given when it was computed.

    Raises:
        OptionError: the calibration is of another backbone or of other weights.
    """
    if not hasattr(explanation, "similarity"):
        raise OptionError(
            f"verdict takes an explanation, as mm.attribute gives it, got a "
            f"{type(explanation).__name__}"
        )
    if calibration is not None and not isinstance(calibration, Calibration):
        raise OptionError(
            f"a calibration is what mm.load_calibration(path) reads, got a "
            f"{type(calibration).__name__}"
        )
    names = _names(explanation)
    entry = _entry(explanation, calibration)
    cosine = explanation.similarity
    known = None
    if entry is not None:
        try:
            known = Distribution.from_json(entry.get("similarity"))
        except InputError:  # a file of strangers: what it says of itself cannot be read
            known = None
    if known is None or not math.isfinite(cosine):
        model = str(explanation.provenance.get("backbone", "the model"))[:80]
        sentence = (
            f"Whether they match is unknown: their cosine is {_shown(cosine)}, and which cosines "
            f"unrelated {names} have in {model} has not been measured. `mmattrib calibrate` "
            "measures it."
        )
        return Verdict("unknown", sentence, cosine, None, {})
    low, high = known.at(NO_MATCH), known.at(WEAK)
    level = level_of(cosine, known)
    digits = _digits(cosine, low, high)
    below = (
        f"{NO_MATCH} % of {known.n} unrelated {names} stay at or below {_shown(low, digits)}"
        + ("" if level == "no match" else f", {WEAK} % at or below {_shown(high, digits)}")
    )
    opening = {
        "match": "They match",
        "weak": "They match weakly",
        "no match": "These two do not match",
    }[level]
    sentence = f"{opening}: cosine {_shown(cosine, digits)}; {below}."
    return Verdict(
        level, sentence, cosine, known, _maps(explanation, scores_of(explanation, entry))
    )


def level_of(cosine: float, unrelated: Distribution) -> Level:
    """The rule of :func:`verdict` on a cosine and those of unrelated pairs."""
    if cosine <= unrelated.at(NO_MATCH):
        return "no match"
    return "weak" if cosine <= unrelated.at(WEAK) else "match"


def scores_of(
    explanation: Explanation, entry: Mapping[str, Any] | None = None
) -> dict[str, ScoreEntry]:
    """Side -> what is known of the maps of unrelated pairs, where it is known.

    Args:
        explanation: of both sides.
        entry: from :meth:`Calibration.entry`; None takes the explanation's own.
    """
    given = explanation.provenance.get("calibration") if entry is None else entry
    scores = given.get("scores") if isinstance(given, Mapping) else None
    found = {}
    for side, attribution in explanation.items():
        try:
            known = ScoreEntry.from_json(scores.get(side) if isinstance(scores, Mapping) else None)
        except InputError:  # unknown, or a file of strangers
            continue
        if known.unit == attribution.unit:
            found[side] = known
    return found


def total(scores: Any) -> float:
    """The positive scores of a map's content tokens, added up."""
    own = np.asarray(scores, dtype=np.float64)
    return float(np.maximum(own[np.isfinite(own)], 0.0).sum())


def _maps(explanation: Explanation, known: Mapping[str, ScoreEntry]) -> dict[str, str]:
    said = {}
    for side, entry in known.items():
        attribution = explanation[side]
        holds = total(attribution.token_scores[attribution.content])
        usual = entry.unrelated_total
        said[side] = (
            f"This map holds {holds:.3g} {entry.unit}; {NO_MATCH} % of {usual.n} maps of unrelated "
            f"pairs hold {usual.at(NO_MATCH):.3g} or less."
        )
    return said


def _entry(explanation: Explanation, calibration: Calibration | None) -> Mapping[str, Any] | None:
    provenance = explanation.provenance
    if calibration is None:
        own = provenance.get("calibration")
        return own if isinstance(own, Mapping) else None
    made_by = provenance.get("weights_sha256")
    if made_by != calibration.weights_sha256:
        raise OptionError(
            f"the calibration is of {calibration.backbone!r} with weights "
            f"{calibration.weights_sha256[:12]}, the explanation of "
            f"{brief(provenance.get('backbone'))} with {str(made_by)[:12]}; give the one that was "
            "made of these weights"
        )
    modalities = {side: raw.modality for side, raw in explanation.inputs.items()}
    options = provenance.get("options") or {}
    method = str(provenance.get("method"))
    layers = {side: each.layer for side, each in explanation.items()}
    settings = settings_of(method, options, layers)
    return calibration.entry(modalities, method, settings)


def _names(explanation: Explanation) -> str:
    modalities = [raw.modality for raw in explanation.inputs.values()] or list(explanation)
    return " and ".join(dict.fromkeys(f"{noun(each)}s" for each in modalities))


def _digits(cosine: float, *borders: float) -> int:
    """Two decimals, or more where the cosine would look like a border that it is not."""
    for digits in (2, 3, 4):
        if all(round(cosine, digits) != round(at, digits) for at in borders if at != cosine):
            return digits
    return 6


def _shown(value: float, digits: int = 2) -> str:
    shown = f"{value:.{digits}f}"
    return (shown.lstrip("-") if float(shown) == 0 else shown).replace("-", "−")


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{brief(value)} where {what} belongs")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > 4000:
        raise InputError(f"{brief(value)} where the text {what!r} belongs")
    return value


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{brief(value)} where the number {what!r} belongs")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{brief(value)} where the finite number {what!r} belongs")
    return number
