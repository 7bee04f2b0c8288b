"""The data that flows through the package: raw inputs, attributions and explanations.

Importing this module imports numpy alone, no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Modality: TypeAlias = str
"""Name of a modality: ``"image"``, ``"text"``, ``"audio"``, or any other an encoder declares."""

FloatArray: TypeAlias = npt.NDArray[np.float32]
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


@dataclass(frozen=True)
class Word:
    """A word of a caption and its character span ``text[start:end]``."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Attribution:
    """Raw scores of one input, on that input's own axes. Normalising is the renderer's work.

    Attributes:
        modality: of the explained input.
        scores: image ``(H, W)``; audio ``(mel, frames)``, row 0 the lowest frequency;
            text ``(words,)``; another modality as its encoder's grid says. float32, in ``unit``. A
            cell holds the (interpolated) score of the token that covers it; a word holds the sum
            over its tokens.
        unit: ``"bits"`` for a bottleneck's capacity per token; otherwise the method's own.
        axes: one :class:`Axis` per dimension of ``scores``.
        token_scores: ``(N,)`` float32 score of each token of the layer in token order, NaN where
            a token is padding.
        layer: the 0-based block whose output was explained; -1 is the embedding output.
        words: for text, the words in order; empty otherwise.
        diagnostics: numbers about how the map came about, e.g. ``clean_cosine``, ``cosine_start``,
            ``cosine_end``, ``fit_start``, ``fit_end``, ``capacity_bits``, ``losses``,
            ``warnings``. JSON values only.
    """

    modality: Modality
    scores: FloatArray
    unit: str
    axes: tuple[Axis, ...]
    token_scores: FloatArray
    layer: int
    words: tuple[Word, ...] = ()
    diagnostics: Mapping[str, JSONValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "diagnostics", MappingProxyType(dict(self.diagnostics)))
        for array in (self.scores, self.token_scores):
            array.setflags(write=False)


@dataclass(frozen=True, eq=False)
class Explanation(Mapping[str, Attribution]):
    """What made two inputs match: one attribution for each side of the pair, from one call.

    A mapping from side to :class:`Attribution`. A side is named by its modality; the second of two
    inputs of one modality is named, e.g., ``"image_2"``.

    Attributes:
        attributions: side -> attribution, in the order the inputs were given.
        inputs: side -> raw input, for rendering.
        similarity: cosine of the two embeddings, in [-1, 1].
        provenance: how to get the same numbers again: backbone, weights' hash, method and every
            option, layers, seed, versions, seconds. JSON values only.
    """

    attributions: Mapping[str, Attribution]
    inputs: Mapping[str, RawInput]
    similarity: float
    provenance: Mapping[str, JSONValue]

    def __post_init__(self) -> None:
        for name in ("attributions", "inputs", "provenance"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __getitem__(self, side: str) -> Attribution:
        return self.attributions[side]

    def __iter__(self) -> Iterator[str]:
        return iter(self.attributions)

    def __len__(self) -> int:
        return len(self.attributions)

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
            OptionError: no form has this suffix, or an unknown option.
        """
        from mmattrib.plugins.saving import save

        return save(self, path, **options)

    def _repr_html_(self) -> str:
        """Show the explanation in a notebook."""
        from mmattrib.plugins.loading import default_plugins

        shown: bytes = default_plugins().registry.create("writer", "notebook")(self)
        return shown.decode("utf-8")
