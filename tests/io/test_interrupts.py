"""Ctrl-C is not lost while sounds are read and written.

libsndfile reads a Python stream through callbacks, and an exception in a callback is printed and
dropped: the program would go on as if nothing had been pressed. With a path there is no callback.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmattrib.datasets.scenes import Bank
from mmattrib.io import load
from mmattrib.render.audio import encode_audio

TONE = np.sin(np.arange(8000) / 10).astype(np.float32) / 2


@pytest.fixture(autouse=True)
def no_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a Python stream was given to libsndfile")

    monkeypatch.setattr(soundfile.SoundFile, "_init_virtual_io", refuse)


def test_the_guard_sees_a_stream(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, 16000)
    with (tmp_path / "a.wav").open("rb") as stream, pytest.raises(AssertionError):
        soundfile.read(stream)


def test_sounds_of_the_bank() -> None:
    bank = Bank()  # one that has decoded nothing yet
    assert len(bank.load_sound(bank.sounds("dog", "train")[0]))


def test_sounds_of_users(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, 16000)
    load("audio", tmp_path / "a.wav")


def test_sounds_for_players() -> None:
    media, data = encode_audio(TONE, 16000)
    assert media == "audio/flac"
    assert data[:4] == b"fLaC"
