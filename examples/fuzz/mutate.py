"""Mutations: of bytes, of JSON, of captions, and values that nobody should pass."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

Rng = np.random.Generator

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_PARTS = re.compile(r"\w+|\s|[^\w\s]")
_WORDS = (
    "", "0", "-1", "1e999", "nan", "9" * 30, "9" * 5000, "x" * 3000, "image", "text", "audio",
    "a.png", "../a.png", "/dev/zero", ".", "\0", "\n", "\r", '"', "'", ",", ";", "=", "[", "]", "{",
    "}", "#", "\u202e", "\ufeff", "\ud800", "é", "true", "name", "variant", "boxes", "mask",
    "9 9 1 1", "1 2 3", "random",
)  # fmt: skip
_RANGES = (
    (0x00, 0x7F), (0x80, 0xFF), (0x300, 0x36F), (0x590, 0x6FF), (0x900, 0xEFF), (0x1100, 0x11FF),
    (0x200B, 0x206F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xD800, 0xDFFF),
    (0xE000, 0xF8FF), (0xFE00, 0xFE0F), (0xFFF0, 0xFFFF), (0x1F300, 0x1FAFF), (0xE0000, 0xE01EF),
    (0x10FFF0, 0x10FFFF),
)  # fmt: skip


def mutated(data: bytes, rng: Rng) -> bytes:
    """The bytes with one to eight changes."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        _change(found, rng)
    return bytes(found)


def _change(data: bytearray, rng: Rng) -> None:
    """One change in place: a bit, a byte, a number, a piece left out, doubled, moved or cut off."""
    if not data:
        data.extend(rng.bytes(8))
        return
    # Headers decide most; half of the changes fall among the first 200 bytes.
    reach = len(data) if rng.random() < 0.5 else min(len(data), 200)
    at, kind = int(rng.integers(reach)), int(rng.integers(8))
    size = int(rng.integers(1, 33))
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        data[at] = int(rng.integers(256))
    elif kind in (2, 3):
        number = int(rng.choice(np.array(_NUMBERS)))
        width = int(rng.choice([2, 4, 8]))
        data[at : at + width] = (number % 256**width).to_bytes(
            width, "big" if kind == 2 else "little"
        )
    elif kind == 4:
        del data[at : at + size]
    elif kind == 5:
        data[at:at] = data[at : at + size] * int(rng.integers(1, 4))
    elif kind == 6:
        data[at : at + size] = rng.bytes(size)
    else:
        del data[max(1, at) :]


def mutated_json(text: str, rng: Rng) -> str:
    """A JSON text with one to three of its values replaced, or keys left out."""
    tree = json.loads(text)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(tree))
        if not places:
            break
        holder, key = places[int(rng.integers(len(places)))]
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = _json_value(rng)
    return json.dumps(tree)


def mutated_lines(text: str, rng: Rng) -> str:
    """A text of one JSON value a line: one of them mutated, left out, doubled or cut short."""
    lines = text.splitlines()
    at, kind = int(rng.integers(len(lines))), rng.random()
    if kind < 0.7:
        lines[at] = mutated_json(lines[at], rng)
    elif kind < 0.8:
        del lines[at]
    elif kind < 0.9:
        lines.append(lines[at])
    else:
        lines[at] = lines[at][: int(rng.integers(1, len(lines[at])))]
    return "\n".join(lines) + "\n"


def mutated_text(text: str, rng: Rng) -> str:
    """A text with one to three of its words, numbers or signs replaced, left out or doubled."""
    parts = _PARTS.findall(text)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(parts)))
        kind = rng.random()
        if kind < 0.2:
            parts[at] = ""
        elif kind < 0.4:
            parts[at] *= 2
        elif kind < 0.6:
            parts[at] = parts[int(rng.integers(len(parts)))]
        else:
            parts[at] = _WORDS[int(rng.integers(len(_WORDS)))]
    return "".join(parts)


TEXTS: dict[str, Callable[[str, Rng], str]] = {
    "json": mutated_json,
    "jsonl": mutated_lines,
    "csv": mutated_text,
    "toml": mutated_text,
    "txt": mutated_text,
}
"""Suffix -> how a text of that kind is changed and stays one: changed bytes seldom get past the
decoder."""


def _places(tree: Any, depth: int = 0) -> Any:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree[:20])
    for key, value in list(pairs):
        yield tree, key
        if isinstance(value, dict | list) and depth < 8:
            yield from _places(value, depth + 1)


def _json_value(rng: Rng) -> Any:
    values: tuple[Any, ...] = (
        None, True, -1, 0, 2, 1e308, math.nan, math.inf, 10**9, 10**30, "", "x", "image", [], {},
        [[1, 2], [3]], [1.5] * 50, {"a": 1}, "1" * 3000, -(2**63), 0.5, "float32", [2**31, 2**31],
        ["image"], "\ud800", "é\u202e",
    )  # fmt: skip
    return values[int(rng.integers(len(values)))]


def caption(rng: Rng) -> str:
    """Text of one to sixty characters from a few parts of Unicode, known words among them."""
    words = ("dog", "a cat", "ocean wave", "rain", "café", "\u0301", "\u200d", "👩‍👩‍👧", "\n", "  ")
    found = []
    for _ in range(int(rng.integers(1, 12))):
        if rng.random() < 0.3:
            found.append(words[int(rng.integers(len(words)))])
            continue
        low, high = _RANGES[int(rng.integers(len(_RANGES)))]
        count = int(rng.integers(1, 6))
        found.append("".join(chr(int(c)) for c in rng.integers(low, high + 1, count)))
    text = "".join(found)
    return text * 2000 if rng.random() < 0.02 else text


def odd(rng: Rng) -> Any:
    """A value that an argument may be given by mistake."""
    values: tuple[Any, ...] = (
        None, True, False, -1, 0, 1, 2, 3, 7, 0.5, -0.5, 10**9, 10**12, 10**30, -(10**18), 1e308,
        -1e308, 1e-320, math.nan, math.inf, -math.inf, "", "x", "\0", "1", "1e999", "nan", "true",
        "None", b"x", (), [], {}, set(), object(), len, ..., 1j, "1" * 5000, Path("nowhere"), "all",
        np.float32(1), np.int64(2), np.array([]), np.array(3), np.zeros((2, 2)), torch.tensor(1.0),
        torch.zeros(0), [1, 2], {"image": 1}, {"image": None}, ["random"], ("image", "text"),
        sys.maxsize, range(3), iter(()), "image", "\ud800", "a\nb",
    )  # fmt: skip
    return values[int(rng.integers(len(values)))]


def odd_array(rng: Rng) -> Any:
    """An array of any kind of number and shape, or a list."""
    kinds = ("u1", "u2", "i1", "i4", "i8", "f2", "f4", "f8", "?", "c8", "U3", "O")
    shapes = ((), (0,), (1,), (40,), (40, 40), (40, 40, 3), (40, 40, 4), (40, 40, 1), (3, 40, 40),
              (1, 1, 3), (2, 9000), (9000,), (9000, 2), (1, 40, 40, 3), (40, 0, 3), (40, 40, 5),
              (16000, 9), (1, 3000, 3), (4097, 1))  # fmt: skip
    shape = shapes[int(rng.integers(len(shapes)))]
    kind = kinds[int(rng.integers(len(kinds)))]
    scale = float(rng.choice([0.0, 1.0, 255.0, 1e4, 1e30]))
    with np.errstate(all="ignore"):
        values = (rng.normal(0.5, 0.5, shape) * scale).astype(np.float64)
        if rng.random() < 0.2 and values.size:
            values.flat[0] = float(rng.choice([np.nan, np.inf, -np.inf]))
        if kind == "U3":
            found: Any = np.full(shape, "abc")
        elif kind == "O":
            found = np.full(shape, None)
        else:
            found = np.nan_to_num(values).astype(kind) if kind[0] in "ui?" else values.astype(kind)
    way = rng.random()
    if way < 0.1:
        return found.tolist()
    if way < 0.2 and kind not in ("U3", "O", "u2"):
        return torch.from_numpy(np.array(found))
    return found[..., ::-1] if way < 0.3 and found.ndim else found
