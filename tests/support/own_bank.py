"""A small bank of one's own, made as that of Tux Paint's stamps is."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image, ImageDraw

from examples.tiny import stamps
from examples.tiny.stamp_list import Stamp

NAMES = ("disc", "square", "cross", "bar", "wedge", "ring", "dot", "sea lion")


def png(seed: int, size: tuple[int, int] = (150, 100)) -> bytes:
    """An ellipse of some colour within a transparent margin."""
    image = Image.new("RGBA", (size[0] + 40, size[1] + 20))
    colour = tuple(int(c) for c in np.random.default_rng(seed).integers(40, 255, 3))
    ImageDraw.Draw(image).ellipse((20, 10, 20 + size[0], 10 + size[1]), (*colour, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def ogg(*tones: tuple[float, float], rate: int = 22_050) -> bytes:
    """Tones of (Hz, seconds), one after the other."""
    parts = [0.5 * np.sin(2 * np.pi * hz * np.arange(int(s * rate)) / rate) for hz, s in tones]
    buffer = io.BytesIO()
    soundfile.write(buffer, np.concatenate(parts), rate, format="OGG", subtype="VORBIS")
    return buffer.getvalue()


def stamps_and_members() -> tuple[list[Stamp], list[Stamp], dict[str, bytes]]:
    """Classes, distractors and the members that they are made from."""
    classes = [Stamp(n, (f"a/{n}",), (f"a/{n}",), heldout_recordings=(f"a/{n}",)) for n in NAMES]
    classes[0] = Stamp(
        "disc", ("a/disc",), ("a/disc",), ("a/disc2",), ("a/disc",), words=("disc", "plate")
    )
    rest = [
        Stamp("thing", photographs=("b/thing",), recordings=("b/thing",)),
        Stamp("other", heldout_photographs=("b/other",), heldout_recordings=("b/other",)),
    ]
    members = {stamps.COPYRIGHT: b"Files: *\nLicense: GPL-2\n"}
    for k, name in enumerate(sorted(stamps.members_of([*classes, *rest]) - set(members))):
        # 60 % of the sound is low, the rest high
        tones = ((300.0 + 40 * k, 1.8), (2500.0 + 40 * k, 1.2))
        members[name] = png(k) if name.endswith(".png") else ogg(*tones)
    return classes, rest, members


def write_bank(out: Path) -> Path:
    """Write the bank into a folder, which is returned."""
    classes, rest, members = stamps_and_members()
    stamps.convert(members, out, classes, rest)
    return out
