"""What the tests of decoding read: pictures, tones and files, and how damage may end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from PIL import Image

from mmattrib.errors import InputError

RawT = TypeVar("RawT")


RED, WHITE = (255, 0, 0), (255, 255, 255)


def corners(height: int = 24, width: int = 40) -> np.ndarray:
    """A picture whose four corners differ: red, green, blue, yellow, clockwise from top left."""
    pixels = np.full((height, width, 3), 128, dtype=np.uint8)
    h, w = height // 2, width // 2
    pixels[:h, :w], pixels[:h, w:] = RED, (0, 255, 0)
    pixels[h:, w:], pixels[h:, :w] = (0, 0, 255), (255, 255, 0)
    return pixels


def tone(rate: int = 16000, seconds: float = 0.5, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype("f4")


def decoded_or_refused(load: Callable[[Path], RawT], data: bytes, name: str) -> RawT | None:
    """What ``load`` makes of a file, or None where it refuses it in one line."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return load(write(Path(folder) / name, data))
        except InputError as error:
            message = str(error)
    assert "\n" not in message
    assert name in message
    return None


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def sound(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def picture(path: Path) -> Path:
    Image.fromarray(corners()).save(path, "png")
    return path
