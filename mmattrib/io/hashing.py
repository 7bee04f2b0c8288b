"""What a decoded input is, as a hash: equal for equal contents, whatever file they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from mmattrib.lazy import np
from mmattrib.types import RawArray, RawAudio, RawImage, RawInput, RawText

_CONTENT: dict[type, Callable[[Any], bytes]] = {
    RawImage: lambda raw: (
        repr(raw.pixels.shape).encode() + np.ascontiguousarray(raw.pixels).tobytes()
    ),
    RawAudio: lambda raw: repr(raw.sample_rate).encode() + raw.samples.tobytes(),
    RawText: lambda raw: raw.text.encode(),
    RawArray: lambda raw: repr((raw.values.shape, raw.rate)).encode() + raw.values.tobytes(),
}


def content_hash(raw: RawInput) -> str:
    """SHA-256 of a decoded input, in hex; its name does not count."""
    return hashlib.sha256(_CONTENT[type(raw)](raw)).hexdigest()
