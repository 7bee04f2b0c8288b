"""A small model of every registered backbone, and two inputs that it embeds.

The one home of them: suites over all backbones take their names from the registry, and what makes a
small model of a name from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmattrib as mm
from mmattrib.models import Backbone
from mmattrib.plugins import default_plugins
from mmattrib.plugins.registry import OWN_DISTRIBUTION

PICTURE = np.random.default_rng(0).integers(0, 256, (70, 80, 3), dtype=np.uint8)

REGISTRY = default_plugins().registry
NAMES = [e.name for e in REGISTRY.entries("backbone") if e.distribution == OWN_DISTRIBUTION]


@dataclass(frozen=True)
class Small:
    """How to load a small model: a name with options, and a pair for it."""

    name: str
    options: Mapping[str, Any]
    pair: Mapping[str, Any]

    def load(self) -> Backbone:
        return mm.load_backbone(self.name, **self.options)


def _tiny(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from small_tiny import write_small_tiny

    scene = mm.scenes(1, seed=11)[0]
    options = {"checkpoint": str(write_small_tiny(folder / "tiny.safetensors"))}
    return options, {side: scene.input(side) for side in ("image", "text")}


def _clip(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    import checkpoints

    options = {"checkpoint": str(checkpoints.write("clip", folder)[0])}
    return options, {"image": PICTURE, "text": "a small red cat"}


def _open_clip(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    import open_clip_models

    options = {"model": f"local-dir:{open_clip_models.write('plain', folder)[0]}"}
    return options, {"image": PICTURE, "text": "a small red cat"}


def _cxr_repair(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    import open_clip_models

    options = {"checkpoint": str(open_clip_models.write_openai(folder)[0])}
    return options, {"image": PICTURE, "text": "a small red cat"}


def _imagebind(_: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    import small_imagebind

    path = str(small_imagebind.checkpoint())
    options = {"checkpoint": path, "architecture": small_imagebind.SMALL}
    return options, {"image": small_imagebind.picture(), "text": "a dog barks"}


MAKERS: dict[str, Callable[[Path], tuple[dict[str, Any], dict[str, Any]]]] = {
    "clip": _clip,
    "cxr-repair": _cxr_repair,
    "imagebind": _imagebind,
    "open_clip": _open_clip,
    "tiny": _tiny,
}
"""What makes the options and the pair of each, given a folder to write to."""


def small(name: str, folder: Path) -> Small:
    """Make the small model of a registered backbone; skips where an extra is not installed."""
    if missing := REGISTRY.get("backbone", name).missing():
        pytest.skip(f"needs {', '.join(missing)}")
    if name not in MAKERS:
        pytest.fail(f"tests/support/small_backbones.py makes no small {name}: give it a maker")
    return Small(name, *MAKERS[name](folder))
