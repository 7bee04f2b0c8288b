"""Explanations built by hand: rendering needs no model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mmattrib.placement import EvenCells, PlanePlacement, WordPlacement, from_map
from mmattrib.types import (
    Attribution,
    Axis,
    Explanation,
    RawAudio,
    RawImage,
    RawInput,
    RawText,
    Word,
)

Side = tuple[RawInput, Attribution]


def image_side(height: int = 48, width: int = 64, name: str = "field.jpg") -> Side:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    scores = rng.random((height, width)).astype(np.float32)
    axes = (
        Axis("y", "px", np.arange(height, dtype=np.float32) + 0.5),
        Axis("x", "px", np.arange(width, dtype=np.float32) + 0.5),
    )
    diagnostics = {"clean_cosine": 0.5, "losses": [1.0, 0.1 + 0.2, float("nan")], "warnings": []}
    return RawImage(pixels, name), from_map(
        "image", scores, "bits", axes, layer=2, diagnostics=diagnostics
    )


def audio_side(seconds: float = 1.0, rate: int = 16000, name: str = "bell.flac") -> Side:
    rng = np.random.default_rng(2)
    time = np.arange(int(seconds * rate)) / rate
    samples = 0.5 * np.sin(2 * np.pi * 1000 * time) + 0.05 * rng.standard_normal(len(time))
    frames = int(seconds * 50)
    axes = (
        Axis("frequency", "Hz", np.geomspace(50, 7800, 16).astype(np.float32)),
        Axis("time", "s", (np.arange(frames) / 50).astype(np.float32)),
    )
    scores = rng.random((16, frames)).astype(np.float32)
    return RawAudio(samples.astype(np.float32), rate, name), from_map(
        "audio", scores, "bits", axes, layer=1
    )


def text_side(text: str = "a brass bell, in a field", name: str = "text") -> Side:
    words = tuple(Word(m.group(), *m.span()) for m in re.finditer(r"[\w<>/()&\"']+|[^\w\s]", text))
    scores = np.linspace(0.0, 3.0, len(words), dtype=np.float32)
    tokens = np.concatenate([[np.nan], scores, [np.nan]]).astype(np.float32)
    owners = np.concatenate([[-1], np.arange(len(words)), [-1]]).astype(np.int32)
    placement = WordPlacement(words, owners)
    return RawText(text, name), Attribution("text", "bits", tokens, owners >= 0, placement, -1)


def seen_in_part(
    box: tuple[int, int, int, int], height: int = 40, width: int = 120, name: str = "wide.png"
) -> Side:
    """A picture of 4 x 4 patches of which the model saw only rows and columns of ``box``: top,
    left, bottom, right."""
    top, left, bottom, right = box
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    axes = (
        Axis("y", "px", np.arange(height, dtype=np.float32) + 0.5),
        Axis("x", "px", np.arange(width, dtype=np.float32) + 0.5),
    )
    cells = (EvenCells(4, height, top, bottom), EvenCells(4, width, left, right))
    placement = PlanePlacement(axes, cells, np.arange(1, 17, dtype=np.int32).reshape(4, 4))
    scores, content = rng.random(17).astype(np.float32), np.arange(17) > 0
    return RawImage(pixels, name), Attribution("image", "bits", scores, content, placement, 9)


def pair(*sides: Side, **provenance: Any) -> Explanation:
    facts: dict[str, Any] = {
        "backbone": "tiny",
        "method": "ca-m2ib",
        "seed": 0,
        "options": {"beta": 0.1, "steps": 10, "layers": {"image": 2, "audio": None}},
        "seconds": 1.0 / 3.0,
    }
    return Explanation(
        {attribution.modality: attribution for _, attribution in sides},
        {attribution.modality: raw for raw, attribution in sides},
        0.1 + 0.2,
        {**facts, **provenance},
    )


def with_scores(side: Side, change: Callable[[np.ndarray], np.ndarray], unit: str = "bits") -> Side:
    """The same side with another map, a token for every place."""
    raw, attribution = side
    scores = np.asarray(change(np.array(attribution.scores)), dtype=np.float32)
    axes = () if attribution.words else attribution.axes
    made = from_map(attribution.modality, scores, unit, axes, words=attribution.words)
    return raw, replace(made, layer=attribution.layer, diagnostics=attribution.diagnostics)
