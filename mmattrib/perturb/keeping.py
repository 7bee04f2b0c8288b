"""`keep`: one call that reduces any raw input by weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from mmattrib.errors import InputError, OptionError, brief, is_one_of
from mmattrib.lazy import np, npt
from mmattrib.perturb.array import ARRAY_FILLS, array_keeper
from mmattrib.perturb.audio import AUDIO_FILLS, audio_keeper
from mmattrib.perturb.fills import Fill
from mmattrib.perturb.image import IMAGE_FILLS, image_keeper
from mmattrib.perturb.text import TEXT_FILLS, text_keeper
from mmattrib.perturb.weights import checked, is_hard
from mmattrib.types import (
    Axis,
    FloatArray,
    RawArray,
    RawAudio,
    RawImage,
    RawInput,
    RawText,
    Word,
)

_Raw = TypeVar("_Raw", bound=RawInput)

FILLS: Final[Mapping[str, Mapping[str, Fill[Any]]]] = MappingProxyType(
    {
        "image": MappingProxyType(IMAGE_FILLS),
        "audio": MappingProxyType(AUDIO_FILLS),
        "text": MappingProxyType(TEXT_FILLS),
        "array": MappingProxyType(ARRAY_FILLS),
    }
)
"""Per kind of input, name -> fill; the first of each kind is its default. ``"array"`` stands for
every modality that comes as a :class:`mmattrib.types.RawArray`."""

_KINDS: Final[dict[type, str]] = {
    RawImage: "image",
    RawAudio: "audio",
    RawText: "text",
    RawArray: "array",
}
_TOKEN_FILLS: Final = "embedding and pad of mmattrib.perturb.tokens"


def keep(
    raw: _Raw,
    weights: npt.ArrayLike,
    *,
    axes: Sequence[Axis] | None = None,
    words: Sequence[Word] | None = None,
    fill: str | None = None,
    seed: int = 0,
) -> _Raw:
    """Keep of an input what its weights say; a fill stands in for the rest.

    With weight w a place holds ``input * w + fill * (1 - w)``. Weights of one give the input back
    (pictures, captions and arrays bit for bit; recordings to 1e-4 of full scale, the rounding of
    the short-time spectrum's round trip), weights of zero give the fill alone.

    Args:
        raw: a decoded input.
        weights: in [0, 1], bool or numbers, on the input's own axes. Picture: ``(H, W)`` of its
            pixels, or ``(rows, columns)`` with ``axes``. Recording: ``(rows, columns)``, row 0 the
            lowest frequency, or ``(columns,)``; with ``axes``. Caption: ``(words,)``, 0 or 1.
            Array: in the shape of its values, or of their first or last axes.
        axes: picture: (y, x) centres of the map's cells in px of the picture, None for one weight
            per pixel; recording: (frequency in Hz, time in s) or (time in s,). Between the centres
            weights are interpolated linearly, beyond the ends the outermost cell holds. Captions
            and arrays do not use them.
        words: of a caption, in order; other inputs do not use them. An attribution's ``axes`` and
            ``words`` can be given for any input.
        fill: a name in ``FILLS``; None for the first of the modality: ``"mean"``, ``"silence"``,
            ``"blank"``, ``"mean"``. ``"pad"`` and ``"embedding"``, which change tokens and not the
            caption, are in :mod:`mmattrib.perturb.tokens`.
        seed: of fills that draw at random. The same seed draws the same.

    Returns:
        A new input of the same kind, name and size.

    Raises:
        OptionError: an unknown fill; weights out of range, of a shape that does not fit, or soft
            where only hard ones are accepted; axes or words that are missing or do not fit.
        InputError: the input is of no kind that can be perturbed.

    >>> from mmattrib.types import RawText, Word
    >>> words = (Word("a", 0, 1), Word("red", 2, 5), Word("dog", 6, 9))
    >>> keep(RawText("a red dog"), [1, 0, 1], words=words).text
    'a # dog'
    """
    one = np.asarray(weights)[None]
    return next(_kept(raw, one, axes, words, fill, seed, share=False))


def keep_many(
    raw: _Raw,
    weights: npt.ArrayLike | Iterator[npt.ArrayLike],
    *,
    axes: Sequence[Axis] | None = None,
    words: Sequence[Word] | None = None,
    fill: str | None = None,
    seed: int = 0,
) -> Iterator[_Raw]:
    """One input kept by many weights: what :func:`keep` gives for each row, in order.

    What rows have in common is done once: the fill (noise is the same in all rows), and the
    short-time spectrum of a recording, which is held meanwhile (32 bytes a sample, twice that with
    ``"mean-spectrum"``). Inputs are made one at a time, as they are asked for.

    Args:
        raw: a decoded input.
        weights: ``(R, ...)``, each row as for :func:`keep`; or an iterator over such rows, which
            are then taken and checked one at a time, as the inputs are asked for.
        axes: as for :func:`keep`.
        words: as for :func:`keep`.
        fill: as for :func:`keep`.
        seed: as for :func:`keep`.

    Raises:
        OptionError: as for :func:`keep`; at the call, but for a shape that does not fit, which is
            said at the first input.
        InputError: as for :func:`keep`.
    """
    rows = weights if isinstance(weights, Iterator) else np.asarray(weights)
    return _kept(raw, rows, axes, words, fill, seed, share=True)


def _kept(
    raw: _Raw,
    weights: npt.NDArray[Any] | Iterator[npt.ArrayLike],
    axes: Sequence[Axis] | None,
    words: Sequence[Word] | None,
    fill: str | None,
    seed: int,
    share: bool,
) -> Iterator[_Raw]:
    chosen = _fill_of(raw, fill)
    rows: Iterable[FloatArray]
    if isinstance(weights, Iterator):
        rows = (_checked(row, raw, chosen) for row in weights)
    elif weights.ndim == 0:
        raise OptionError(f"{raw.name}: got one number for weights of many inputs; give rows.")
    else:
        rows = _checked(weights, raw, chosen)
    keeper = _keeper(raw, axes, words, chosen, seed, share)
    return (cast(_Raw, keeper(row)) for row in rows)


def _checked(weights: npt.ArrayLike, raw: RawInput, fill: Fill[Any]) -> FloatArray:
    """Weights in [0, 1], and hard ones where the fill takes no others."""
    found = checked(weights, raw.name)
    if not fill.soft and not is_hard(found):
        raise OptionError(
            f"{raw.name}: this fill takes weights of 0 or 1 alone; top_weights makes them of "
            f"scores. Soft weights are taken by other fills of pictures; of a caption by "
            f"{_TOKEN_FILLS}."
        )
    return found


def _fill_of(raw: RawInput, fill: str | None) -> Fill[Any]:
    kind = next((name for known, name in _KINDS.items() if isinstance(raw, known)), None)
    if kind is None:
        raise InputError(
            f"{type(raw).__name__} cannot be perturbed; accepted: RawImage, RawAudio, RawText and "
            "RawArray. mmattrib.io decodes files and arrays to them."
        )
    table = FILLS[kind]
    name = next(iter(table)) if fill is None else fill
    if not is_one_of(name, table):
        more = f"; of tokens: {_TOKEN_FILLS}" if kind == "text" else ""
        raise OptionError(
            f"{raw.name}: no fill {brief(name)} for {raw.modality}; accepted: "
            f"{', '.join(table)}{more}."
        )
    return table[name]


def _keeper(
    raw: RawInput,
    axes: Sequence[Axis] | None,
    words: Sequence[Word] | None,
    fill: Fill[Any],
    seed: int,
    share: bool,
) -> Callable[[FloatArray], RawInput]:
    """Weights of one row -> the input kept by them."""
    random = np.random.default_rng(seed)
    if isinstance(raw, RawImage):
        return image_keeper(raw, axes, fill.function, random)
    if isinstance(raw, RawAudio):
        return audio_keeper(raw, axes, fill.function, random, share)
    if isinstance(raw, RawText):
        return text_keeper(raw, words, fill.function)
    return array_keeper(raw, fill.function)
