"""Decoding by what is given, without torch, and what cannot be opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from decoding_inputs import corners, picture, sound, tone, write

import mmattrib.io
from mmattrib.errors import InputError
from mmattrib.io import (
    load_audio,
    load_image,
    load_text_file,
)


def test_load_dispatches(tmp_path: Path) -> None:
    assert mmattrib.io.load("image", corners()).modality == "image"
    assert mmattrib.io.load("audio", (tone(), 16000)).modality == "audio"
    assert mmattrib.io.load("text", "a dog").modality == "text"
    assert mmattrib.io.load("text", write(tmp_path / "t.txt", b"a cat")).text == "a cat"
    assert mmattrib.io.load("depth", np.ones((4, 5), dtype=np.float32)).modality == "depth"


def test_unreadable_file(tmp_path: Path) -> None:
    path = write(tmp_path / "secret.png", b"x")
    path.chmod(0)
    try:
        if readable(path):
            pytest.skip("this user may read everything")
        for load in (load_image, load_audio, load_text_file):
            with pytest.raises(InputError, match=r"secret\.png.*Permission denied"):
                load(path)
    finally:
        path.chmod(0o600)


def readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except PermissionError:
        return False
    return True


def test_decoding_needs_no_torch(tmp_path: Path) -> None:
    picture(tmp_path / "p.png")
    sound(tmp_path / "s.wav", tone())
    code = (
        "import sys; from mmattrib import io as p; "
        f"p.load_image({str(tmp_path / 'p.png')!r}); p.load_audio({str(tmp_path / 's.wav')!r}); "
        "p.load_text('a dog'); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
