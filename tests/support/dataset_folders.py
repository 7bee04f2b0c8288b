"""Pictures, sounds, tables and masks as files, of which tests of readers make folders."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

WIDTH, HEIGHT = 32, 24


def picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 0) -> Path:
    """A picture of noise; width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), "uint8")
    Image.fromarray(noise).save(path)
    return path


def sound(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    """A recording of noise at 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, round(16000 * seconds))
    soundfile.write(path, noise.astype(np.float32), 16000)
    return path


def text(path: Path, *lines: str) -> Path:
    """Lines of text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def written(path: Path, value: Any) -> Path:
    """A value as JSON."""
    return text(path, json.dumps(value))


def compressed(mask: np.ndarray) -> str:
    """COCO's compressed run lengths, as its documentation tells."""
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    counts = np.diff([0, *edges, len(flat)]).tolist()
    text = ""
    for at, count in enumerate(counts):
        value = count - counts[at - 2] if at > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 * more) + 48)
    return text


def encoded_picture(seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), "uint8")
    Image.fromarray(noise).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def encoded_sound(seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 0.1, 16000).astype(np.float32)
    soundfile.write(buffer := io.BytesIO(), noise, 16000, format="FLAC")
    return buffer.getvalue()
