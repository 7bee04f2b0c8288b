"""Decode files and arrays to raw inputs, resample them, and write and read explanations.

Importing this package imports no torch; the functions that need it import it when called.
"""

from __future__ import annotations

from pathlib import Path

from mmattrib.io.array import load_array
from mmattrib.io.audio import load_audio, resample
from mmattrib.io.files import Encoded
from mmattrib.io.hashing import content_hash
from mmattrib.io.image import load_image
from mmattrib.io.text import load_text, load_text_file
from mmattrib.types import Modality, RawInput

__all__ = [
    "Encoded",
    "content_hash",
    "load",
    "load_array",
    "load_audio",
    "load_image",
    "load_text",
    "load_text_file",
    "resample",
]


def load(modality: Modality, source: object) -> RawInput:
    """Decode one input of a modality.

    Args:
        modality: ``"image"``, ``"audio"``, ``"text"``, or any other that an encoder declares.
        source: what :func:`load_image`, :func:`load_audio` or :func:`load_text` takes; for text
            a ``pathlib.Path`` is read as a file and a ``str`` is the caption itself. For another
            modality, what :func:`load_array` takes.

    Raises:
        InputError: the source cannot be used.
    """
    if modality == "image":
        return load_image(source)
    if modality == "audio":
        return load_audio(source)
    if modality == "text":
        return load_text_file(source) if isinstance(source, Path) else load_text(source)
    return load_array(modality, source)
