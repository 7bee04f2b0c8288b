"""A small ImageBind with random weights, written in the format of the published file."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmattrib import Backbone
from mmattrib.backbones.imagebind import load
from mmattrib.backbones.imagebind.library import library
from mmattrib.plugins import default_plugins
from mmattrib.types import RawArray, RawAudio, RawImage, RawInput, RawText

if _missing := default_plugins().registry.get("backbone", "imagebind").missing():
    pytest.skip(f"needs {', '.join(_missing)}", allow_module_level=True)

SMALL = {
    "out_embed_dim": 16,
    **{
        f"{tower}_{size}": value
        for tower in ("vision", "audio", "text", "depth", "thermal", "imu")
        for size, value in (("embed_dim", 32), ("num_blocks", 3), ("num_heads", 2))
    },
}


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="imagebind-test-"))


@functools.cache
def model() -> Any:
    """The library's own model, as its users make it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = library().model.ImageBindModel(**SMALL).eval()
        # Biases and gains as training leaves them, so that leaving one out would show.
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.dim() == 1:
                    parameter += 0.1 * torch.randn_like(parameter)
    return made


@functools.cache
def checkpoint() -> Path:
    path = folder() / "small.pth"
    torch.save(model().state_dict(), path)
    return path


@functools.cache
def backbone(dtype: str = "float32") -> Backbone:
    return load(str(checkpoint()), architecture=SMALL, dtype=dtype)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Smooth noise in [0, 1]."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.random((1, 1, 6, 7)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, shape[:2], mode="bilinear")[0, 0].numpy()
    rest = random.random(shape).astype(np.float32)
    return 0.8 * smooth.reshape(*shape[:2], *[1] * (len(shape) - 2)) + 0.2 * rest


def picture(height: int = 230, width: int = 290, seed: int = 0) -> RawImage:
    return RawImage((255 * noise(height, width, 3, seed=seed)).astype(np.uint8), f"picture {seed}")


def sound(seconds: float = 4.7, seed: int = 0, rate: int = 16_000) -> RawAudio:
    random = np.random.default_rng(seed)
    times = np.arange(int(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * times * (300 + 200 * seed + 100 * times))
    samples = 0.2 * tone + 0.05 * random.normal(size=len(times))
    return RawAudio(samples.astype(np.float32), rate, f"sound {seed}")


def video(seed: int = 0, height: int = 48, width: int = 80) -> RawArray:
    frames = np.stack([noise(height, width, 3, seed=seed + i // 8) for i in range(24)])
    return RawArray(frames.astype(np.float32), "video", f"video {seed}", rate=6.0)


def raws(modality: str, count: int = 2) -> list[RawInput]:
    """Different inputs of a modality, of different sizes where they may be."""
    captions = ("a dog barks at the red car", "rain", "two birds, one drum: music!")
    made = {
        "image": lambda i: picture(230 + 40 * i, 290 - 30 * i, seed=i),
        "text": lambda i: RawText(captions[i]),
        "audio": lambda i: sound(4.7 + 0.8 * i, seed=i),
        "video": lambda i: video(seed=10 * i),
        "depth": lambda i: RawArray(70 * noise(150, 200 + 9 * i, seed=i), "depth", f"depth {i}"),
        "thermal": lambda i: RawArray(noise(250, 240, seed=i), "thermal", f"thermal {i}"),
        "imu": lambda i: RawArray(noise(6, 2000, seed=i), "imu", f"imu {i}", rate=400.0),
    }[modality]
    return [made(i) for i in range(count)]
