"""Inputs, good and bad, and a small backbone with random weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from cli_program import Result, Run
from click.testing import CliRunner
from PIL import Image

from mmattrib import hookimpl
from mmattrib.cli import main
from mmattrib.plugins import Plugins, load_plugins, using_plugins
from mmattrib.plugins.hookspecs import Register

RATE = 16000


@pytest.fixture(scope="module", autouse=True)
def _shipped_weights_are_read_once() -> Iterator[None]:
    """Each program still gets a model of its own: a copy. Reading is tested with the backbone."""
    from mmattrib.backbones.tiny import checkpoint, encoders

    def copied(path: str | Path = checkpoint.WEIGHTS) -> Any:
        if path != checkpoint.WEIGHTS:
            return checkpoint.load_tiny(path)
        return deepcopy(_shipped_weights())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "load_tiny", copied)
        yield


@cache
def _shipped_weights() -> Any:
    from mmattrib.backbones.tiny.checkpoint import load_tiny

    return load_tiny()


@pytest.fixture
def run() -> Run:
    """Runs the real program in this process."""

    def call(*arguments: object) -> Result:
        found = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="mmattrib")
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return Result(found.exit_code, found.stdout, found.stderr)

    return call


def tone(seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """A rising tone, (T,) float32."""
    time = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (400 + 600 * time) * time)).astype(np.float32)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of inputs; their names say what they are."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (80, 120, 3), dtype=np.uint8))
    picture.save(folder / "good.png")
    picture.save(folder / "good.jpg")
    for name in ("good.png", "good.jpg"):
        whole = (folder / name).read_bytes()
        (folder / f"truncated{Path(name).suffix}").write_bytes(whole[: len(whole) // 2])
    soundfile.write(folder / "good.wav", tone(), RATE)
    soundfile.write(folder / "stereo.flac", np.stack([tone(0.7, 44100)] * 2, axis=1), 44100)
    soundfile.write(folder / "silent.wav", np.zeros(RATE, np.float32), RATE)
    soundfile.write(folder / "headeronly.wav", np.zeros(0, np.float32), RATE)
    broken = tone()
    broken[100:110] = np.nan
    soundfile.write(folder / "nan.wav", broken, RATE, subtype="FLOAT")
    (folder / "zerobytes.wav").write_bytes(b"")
    (folder / "zerobytes.png").write_bytes(b"")
    (folder / "text.png").write_text("This is no picture.\n")
    (folder / "text.wav").write_text("This is no recording.\n")
    (folder / "caption.txt").write_text("a dog near the ocean wave\n", encoding="utf-8")
    (folder / "latin1.txt").write_bytes("ein Hündchen".encode("latin-1"))
    (folder / "empty.txt").write_text("")
    (folder / "blank.txt").write_text(" \n\n")
    (folder / "huge.txt").write_text("dog " * 100_000)
    (folder / "garbage.safetensors").write_bytes(b"garbage" * 10)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of `tiny` with random weights: what it says is nonsense, but it runs."""
    from small_tiny import write_small_tiny

    return write_small_tiny(tmp_path_factory.mktemp("weights") / "random.safetensors")


class Small:
    """A plugin with a backbone of random weights that has no audio encoder."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    @hookimpl
    def register_backbones(self, register: Register) -> None:
        register("small", self.load, summary="random weights", modalities=("image", "text"))
        register(
            "absent",
            dict,
            summary="never there",
            requires=("nowhere_at_all",),
            extra="mm-x[absent]",
        )

    def load(self, sides: Sequence[str] = ("image", "text")) -> Any:
        from mmattrib import Backbone, load_backbone

        whole = load_backbone("tiny", checkpoint=str(self.checkpoint))
        return Backbone({side: whole[side] for side in sides}, "small")


@pytest.fixture
def plugins(checkpoint: Path) -> Iterator[Plugins]:
    """The built-ins and one inline plugin, in use by the program."""
    loaded = load_plugins(entry_points=())
    assert loaded.add(Small(checkpoint), name="inline", distribution="mm-small", version="0.1")
    with using_plugins(loaded):
        yield loaded
