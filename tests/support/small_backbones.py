"""A small model of every registered backbone, and two inputs that it embeds.

Suites over all backbones take their names from the registry; what makes a small model of a name is
``small_NAME`` in a test module of tests/backbones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_examples import needed

import mmattrib as mm
from mmattrib.models import Backbone
from mmattrib.plugins import default_plugins
from mmattrib.plugins.registry import OWN_DISTRIBUTION
from mmattrib.preparing import side_encoder

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

    def modalities(self, model: Backbone) -> dict[str, str]:
        """Side of the pair -> its modality, of which both may be: ``image`` and ``image_2``."""
        return {side: side_encoder(model, side).modality for side in self.pair}


def small(name: str, folder: Path) -> Small:
    """Make the small model of a registered backbone; skips where an extra is not installed."""
    if missing := REGISTRY.get("backbone", name).missing():
        pytest.skip(f"needs {', '.join(missing)}")
    return Small(name, *needed("backbone", name, "the options of a small one, and a pair")(folder))
