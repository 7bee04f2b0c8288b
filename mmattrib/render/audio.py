"""Recordings for a browser's player."""

from __future__ import annotations

from typing import Final

import numpy as np

from mmattrib.errors import OptionError
from mmattrib.files import temporary_folder
from mmattrib.types import FloatArray

_OF_THE_SYSTEM: Final = 2
"""libsndfile's code for what the system refuses, such as a full disk."""


def encode_audio(samples: FloatArray, sample_rate: int) -> tuple[str, bytes]:
    """Encode a recording for a browser's player.

    Args:
        samples: ``(T,)``; scaled down as a whole if it exceeds [-1, 1].
        sample_rate: in Hz.

    Returns:
        The media type and the file: 16-bit FLAC, or WAV for a rate that FLAC does not take.
    """
    import soundfile

    clean = np.nan_to_num(np.asarray(samples, dtype=np.float32), posinf=0.0, neginf=0.0)
    peak = float(np.abs(clean).max(initial=0.0))
    if peak > 1.0:
        clean = clean / peak
    with temporary_folder("a sound of a page") as folder:  # a stream would lose a Ctrl-C
        for media, container in (("audio/flac", "FLAC"), ("audio/wav", "WAV")):
            path = folder / container
            try:
                soundfile.write(path, clean, sample_rate, format=container, subtype="PCM_16")
            except soundfile.LibsndfileError as error:
                if error.code == _OF_THE_SYSTEM:
                    raise OSError(str(error)) from error
                continue
            return media, path.read_bytes()
    raise OptionError(
        f"{sample_rate} Hz cannot be encoded: accepted is any rate that FLAC or WAV can hold."
    )
