"""The data that flows through the package: raw inputs, attributions and explanations.

Importing this module imports numpy alone, no torch.

Everything here is meant to be read, not changed: instances are frozen, their own arrays are
read-only and their mappings refuse changes. All of it can be pickled, deep-copied, and taken apart
with ``dataclasses.asdict``. Two instances are equal only if they are the same object (arrays have
no single answer to "equal"); compare what they hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from mmattrib.errors import InputError, check_size
from mmattrib.lazy import np, npt

if TYPE_CHECKING:
    from mmattrib.calibration import Verdict

Modality: TypeAlias = str
"""Name of a modality: ``"image"``, ``"text"``, ``"audio"``, or any other an encoder declares."""

SECOND = "_2"
"""What the second of two inputs of one modality adds to its side's name."""

FloatArray: TypeAlias = "npt.NDArray[np.float32]"
BoolArray: TypeAlias = "npt.NDArray[np.bool_]"
Size: TypeAlias = tuple[int, ...]
"""How many places a map has along each of its axes."""
JSONValue: TypeAlias = Any
"""Anything ``json.dumps`` takes: None, bool, int, float, str, lists and string-keyed mappings."""


@dataclass(frozen=True, eq=False)
class RawImage:
    """A decoded picture.

    Attributes:
        pixels: ``(H, W, 3)`` uint8, sRGB.
        name: what to call it in messages and reports, usually the file's name.
    """

    pixels: npt.NDArray[np.uint8]
    name: str = "image"
    modality: Modality = field(default="image", init=False)

    def __repr__(self) -> str:
        return f"RawImage({_quoted(self.name)}, {_by(np.shape(self.pixels)[:2])})"


@dataclass(frozen=True, eq=False)
class RawAudio:
    """A decoded recording.

    Attributes:
        samples: ``(T,)`` float32, mono, nominally in [-1, 1].
        sample_rate: in Hz.
        name: what to call it in messages and reports, usually the file's name.
    """

    samples: FloatArray
    sample_rate: int
    name: str = "audio"
    modality: Modality = field(default="audio", init=False)

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.sample_rate

    def __repr__(self) -> str:
        return f"RawAudio({_quoted(self.name)}, {self.seconds:.3g} s at {self.sample_rate} Hz)"


@dataclass(frozen=True, eq=False)
class RawText:
    """A caption.

    Attributes:
        text: the caption, with composed characters (NFC) where :mod:`mmattrib.io` made it;
            character spans refer to it.
        name: what to call it in messages and reports.
    """

    text: str
    name: str = "text"
    modality: Modality = field(default="text", init=False)

    def __repr__(self) -> str:
        return f"RawText({_quoted(self.text, 80)})"


@dataclass(frozen=True, eq=False)
class RawArray:
    """An input of any other modality: depth, thermal, IMU, the frames of a video.

    Attributes:
        values: float32, in the shape and the unit that the encoder of this modality asks for.
        modality: whose it is.
        name: what to call it in messages and reports, usually the file's name.
        rate: samples or frames a second along its time axis, in Hz, if it has one.
    """

    values: FloatArray
    modality: Modality
    name: str = "array"
    rate: float | None = None

    def __repr__(self) -> str:
        rate = "" if self.rate is None else f" at {self.rate:.6g} Hz"
        return (
            f"RawArray({_plain(self.modality)} {_quoted(self.name)}, "
            f"{_by(np.shape(self.values))}{rate})"
        )


RawInput: TypeAlias = RawImage | RawAudio | RawText | RawArray


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of an attribution.

    Attributes:
        name: ``"y"``, ``"x"``, ``"frequency"``, ``"time"`` or ``"word"``.
        unit: ``"px"``, ``"Hz"``, ``"s"`` or ``""``.
        values: ``(n,)`` centre of each cell along the axis, in ``unit``.
    """

    name: str
    unit: str
    values: FloatArray

    def at(self, count: int) -> Axis:
        """The same axis cut into ``count`` equal places instead of its own.

        Centres are interpolated linearly between the axis's own, and go on beyond the outermost.

        Raises:
            InputError: ``count`` is no whole number of places, or more than a map may have.
        """
        count = check_size((count,), (len(self.values),), (self.name,))[0]
        known = np.asarray(self.values, dtype=np.float64)
        if count == len(known):
            return self
        if len(known) < 2:
            return Axis(self.name, self.unit, np.resize(self.values, count).astype(np.float32))
        places = (np.arange(count) + 0.5) * (len(known) / count) - 0.5
        first, last = known[1] - known[0], known[-1] - known[-2]
        beyond = np.minimum(places, 0.0) * first + np.maximum(places - (len(known) - 1), 0.0) * last
        values = np.interp(places, np.arange(len(known)), known) + beyond
        return Axis(self.name, self.unit, values.astype(np.float32))

    def __repr__(self) -> str:
        known = np.asarray(self.values)
        ends = f", {known[0]:.6g} to {known[-1]:.6g} {_plain(self.unit)}" if len(known) else ""
        return f"Axis({_plain(self.name)}, {len(known)} places{ends.rstrip()})"


@dataclass(frozen=True)
class Word:
    """A word of a caption and its character span ``text[start:end]``."""

    text: str
    start: int
    end: int


class Placement(ABC):
    """Where the tokens of one input lie on it: on pixels, time x frequency, words.

    :mod:`mmattrib.placement` holds the kinds; an encoder's grid gives the one of its input.

    Attributes:
        axes: one :class:`Axis` per axis of the input, at the input's own size.
        words: for text, the words in order; empty otherwise.
    """

    axes: tuple[Axis, ...]
    words: tuple[Word, ...]

    @property
    def shape(self) -> Size:
        """The input's own size: the number of places along each axis."""
        return tuple(len(axis.values) for axis in self.axes)

    def sized(self, size: Size | None) -> Size:
        """The size that was meant: the input's own for None, otherwise the one given.

        Raises:
            InputError: it is no whole number of places for each axis, or too many in all.
        """
        if size is None:
            return self.shape
        return check_size(size, self.shape, [axis.name for axis in self.axes])

    @abstractmethod
    def check(self, count: int) -> None:
        """Make sure that this is a placement of ``count`` tokens.

        Raises:
            InputError: it names tokens that do not exist.
        """

    @abstractmethod
    def lay(self, scores: FloatArray, content: BoolArray, size: Size | None = None) -> FloatArray:
        """Lay token scores on the input.

        Args:
            scores: ``(N,)``; only content tokens are read.
            content: ``(N,)`` the tokens that stand for a part of the input.
            size: of the map; the input's own if None.

        Returns:
            float32 of that size; 0 where the model saw nothing.

        Raises:
            InputError: ``size`` is none that this placement can be laid at.
        """

    @abstractmethod
    def seen(self, content: BoolArray, size: Size | None = None) -> BoolArray:
        """Where some content token stands for the input; arguments as for :meth:`lay`."""

    def seen_share(self, content: BoolArray) -> float:
        """The share of the input's places that were seen, in [0, 1]."""
        seen = self.seen(content)
        return float(seen.mean()) if seen.size else 1.0


class ReadOnlyDict(dict[Any, Any]):
    """A dict that refuses changes, and can be pickled, copied and written as JSON."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("this mapping is read-only; change a copy: dict(mapping)")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)


@dataclass(frozen=True, eq=False)
class Attribution:
    """Raw scores of one input's tokens, and where these tokens lie on the input.

    What is kept is small, whatever the size of the input; :attr:`scores` lays it on the input's
    own axes when asked, :meth:`scores_at` at another size. Normalising is the renderer's work.

    Attributes:
        modality: of the explained input.
        unit: ``"bits"`` for a bottleneck's capacity per token; otherwise the method's own.
        token_scores: ``(N,)`` float32 score of each token of the layer in token order, in
            ``unit``; NaN where a token is padding.
        content: ``(N,)`` bool, the tokens that stand for a part of the input; others (CLS,
            registers, padding) lie nowhere.
        placement: where the tokens lie.
        layer: the 0-based block whose output was explained; -1 is the embedding output.
        diagnostics: numbers about how the map came about, e.g. ``clean_cosine``, ``cosine_start``,
            ``cosine_end``, ``fit_start``, ``fit_end``, ``capacity_bits``, ``losses``,
            ``warnings``. JSON values only.

    Raises:
        InputError: token scores, content and placement do not fit each other.
    """

    modality: Modality
    unit: str
    token_scores: FloatArray
    content: BoolArray
    placement: Placement
    layer: int
    diagnostics: Mapping[str, JSONValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scores = np.asarray(self.token_scores, dtype=np.float32)
        content = np.asarray(self.content, dtype=bool)
        if scores.ndim != 1 or scores.shape != content.shape:
            raise InputError(
                f"token_scores {scores.shape} and content {content.shape} must both be (tokens,)"
            )
        self.placement.check(len(scores))
        kept = {"token_scores": scores, "content": content, "diagnostics": self.diagnostics}
        self.__setstate__(kept)

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}  # no laid map

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        for name in ("token_scores", "content"):
            self.__dict__[name] = _read_only(self.__dict__[name])
        self.__dict__["diagnostics"] = ReadOnlyDict(self.diagnostics)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """One :class:`Axis` per dimension of :attr:`scores`."""
        return self.placement.axes

    @property
    def words(self) -> tuple[Word, ...]:
        """For text, the words in order; empty otherwise."""
        return self.placement.words

    @property
    def shape(self) -> Size:
        """The shape of :attr:`scores`, without laying them."""
        return self.placement.shape

    @cached_property
    def scores(self) -> FloatArray:
        """The map at the input's own size, float32 in :attr:`unit`, read-only.

        Image ``(H, W)``; audio ``(mel, frames)``, row 0 the lowest frequency; text ``(words,)``;
        another modality as its encoder's grid says. A cell holds the (interpolated) score of the
        token that covers it; a word holds the sum over its tokens. What the model never saw had no
        influence: it is 0 here, and False in :attr:`seen`.
        """
        return _read_only(self.scores_at(None))

    def scores_at(self, size: Size | None) -> FloatArray:
        """The map at another size, at a cost that grows with that size alone.

        Args:
            size: places along each axis, e.g. ``(240, 320)``; the input's own if None. Where a
                place spans several tokens it holds their mean. Words have no other size.

        Raises:
            InputError: ``size`` is no whole number of places for each axis, or too many.
        """
        return self.placement.lay(self.token_scores, self.content, size)

    @cached_property
    def seen(self) -> BoolArray:
        """The part of the input that the model saw at all: bool in the shape of :attr:`scores`.

        A word that no token stands for was not seen.
        """
        return _read_only(self.seen_at(None))

    def seen_at(self, size: Size | None) -> BoolArray:
        """:attr:`seen` at another size; a place counts as seen if at least half of it was.

        Raises:
            InputError: as :meth:`scores_at`.
        """
        return self.placement.seen(self.content, size)

    @cached_property
    def seen_share(self) -> float:
        """How much of the input the model saw, as a fraction of its places."""
        return self.placement.seen_share(self.content)

    def axes_at(self, size: Size | None) -> tuple[Axis, ...]:
        """:attr:`axes` at another size.

        Raises:
            InputError: as :meth:`scores_at`.
        """
        counts = self.placement.sized(size)
        return tuple(axis.at(count) for axis, count in zip(self.axes, counts, strict=True))

    def __repr__(self) -> str:
        own = self.token_scores[self.content]
        own = own[np.isfinite(own)]
        unit = _plain(self.unit)
        if self.unit == "bits":
            total = f"{float(np.maximum(own, 0.0).sum(dtype=np.float64)):.3g} bits"
        else:
            total = f"at most {float(own.max(initial=-np.inf)):.3g} {unit}" if own.size else "empty"
        where = f"layer {self.layer}, {int(self.content.sum())} tokens"
        return f"Attribution({_sized(self)}, {total.strip()}, {where})"


@dataclass(frozen=True, eq=False)
class Explanation(Mapping[str, Attribution]):
    """What made two inputs match: one attribution for each side of the pair, from one call.

    A mapping from side to :class:`Attribution`. A side is named by its modality; the second of two
    inputs of one modality is named, e.g., ``"image_2"``. Equal only to itself.

    Attributes:
        attributions: side -> attribution, in the order the inputs were given.
        inputs: side -> raw input, for rendering.
        similarity: cosine of the two embeddings, in [-1, 1].
        provenance: how to get the same numbers again: backbone, weights' hash, method and every
            option, layers, seed, versions, seconds. JSON values only.
        sample: id of the sample that was explained, if it had one.
        index: its place among the pairs that were given, from 0; None for a single pair.
    """

    attributions: Mapping[str, Attribution]
    inputs: Mapping[str, RawInput]
    similarity: float
    provenance: Mapping[str, JSONValue]
    sample: str | None = None
    index: int | None = None

    # Mapping compares the attributions, which are equal only to themselves.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __post_init__(self) -> None:
        for name in ("attributions", "inputs", "provenance"):
            object.__setattr__(self, name, ReadOnlyDict(getattr(self, name)))

    def __getitem__(self, side: str) -> Attribution:
        return self.attributions[side]

    def __iter__(self) -> Iterator[str]:
        return iter(self.attributions)

    def __len__(self) -> int:
        return len(self.attributions)

    def __repr__(self) -> str:
        sides = " + ".join(_sized(attribution) for attribution in self.attributions.values())
        made = " on ".join(
            _plain(str(self.provenance[name]))
            for name in ("method", "backbone")
            if isinstance(self.provenance.get(name), str)
        )
        known = [sides, f"similarity {self.similarity:.3g}", made]
        known += [f"sample {_quoted(self.sample, 20)}"] if self.sample is not None else []
        inner = ", ".join(part for part in known if part)
        return f"Explanation({inner if len(inner) <= 107 else inner[:106] + '…'})"

    @property
    def verdict(self) -> Verdict:
        """Whether the two inputs match at all, by the rule of :func:`mmattrib.verdict`.

        ``"unknown"`` where the backbone had no calibration when this was computed.
        """
        from mmattrib.calibration import verdict

        return verdict(self)

    def save(self, path: str | Path, **options: JSONValue) -> Path:
        """Write the explanation; the suffix chooses the form.

        Args:
            path: ``.npz`` and ``.json`` hold everything and load again with
                :func:`mmattrib.load`; ``.png`` is a figure, ``.html`` a self-contained page.
                `mmattrib writers` lists what else plugins add.
            **options: of that form, e.g. ``title=`` of a page.

        Returns:
            The path written. The file appears whole or not at all.

        Raises:
            OptionError: no form has this suffix, it cannot be written there, or an unknown option.
        """
        from mmattrib.plugins.saving import save

        return save(self, path, **options)

    def _repr_html_(self) -> str:
        """Show the explanation in a notebook."""
        from mmattrib.plugins.loading import default_plugins

        shown: bytes = default_plugins().registry.create("writer", "notebook")(self)
        return shown.decode("utf-8")


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view that cannot be written to; the caller's own array stays as it is."""
    view = array.view()
    view.setflags(write=False)
    return view


def _sized(attribution: Attribution) -> str:
    """``"image 480x640"``, ``"text 5 words"``."""
    modality = _plain(attribution.modality)
    if [axis.name for axis in attribution.axes] == ["word"]:
        return f"{modality} {len(attribution.words)} words"
    return f"{modality} {_by(attribution.shape)}"


def _by(shape: Size) -> str:
    return "x".join(map(str, shape)) if len(shape) <= 5 else f"{len(shape)} axes"


def _plain(text: str, limit: int = 20) -> str:
    """A name fit for one short line."""
    clean = "".join(c if c.isprintable() else "?" for c in str(text))
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _quoted(text: str, limit: int = 40) -> str:
    return f"'{_plain(text, limit)}'"
