"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from render_examples import audio_side, image_side, pair, text_side
from small_tiny import small_tiny

import mmattrib as mm


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small matrices are quicker on one thread, and a machine may run other work."""
    torch.set_num_threads(1)


@pytest.fixture
def untrained() -> mm.Backbone:
    """The anatomy of ``tiny``, small, with random weights: a fresh model for each test."""
    return small_tiny()


@pytest.fixture(scope="session")
def three_scenes() -> list[mm.Scene]:
    """Three held-out scenes, each sharing one class."""
    return mm.scenes(3, seed=11)


@pytest.fixture(scope="session")
def own_bank_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bank of drawings and sounds that is not the shipped one. Copy it to change it."""
    from own_bank import write_bank

    # One for all workers: each would spend seconds on the same bytes.
    parent = tmp_path_factory.getbasetemp()
    folder = (parent.parent if os.environ.get("PYTEST_XDIST_WORKER") else parent) / "own-bank"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            write_bank(folder.with_suffix(".part")).rename(folder)
    return folder


@pytest.fixture(params=["image-audio", "image-text", "audio-text"])
def explanation(request: pytest.FixtureRequest) -> mm.Explanation:
    makers = {"image": image_side, "audio": audio_side, "text": text_side}
    return pair(*(makers[name]() for name in request.param.split("-")))
