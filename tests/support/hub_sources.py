"""What the hub's tests ask for: published pictures, and whether this is a dry run.

In a dry run the environment variable ``MMATTRIB_HUB_DRY_RUN`` names a JSON file with the address of
a server of small checkpoints with random weights: ``tests/hub/test_dry_run.py`` writes both. The
tests are then the same, but for what they say of the sense of a map: :func:`sense` is silent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRY: Mapping[str, Any] | None = (
    json.loads(Path(told).read_text()) if (told := os.environ.get("MMATTRIB_HUB_DRY_RUN")) else None
)

MOST_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class Picture:
    """A picture on the network.

    Attributes:
        url: where.
        sha256: of the file; None where nobody could look at it yet.
    """

    url: str
    sha256: str | None


_SKIMAGE = "https://raw.githubusercontent.com/scikit-image/scikit-image/v0.25.0/skimage/data"
_M2IB = "https://raw.githubusercontent.com/YingWANGG/M2IB/ce4d7a0effc61c6b8eacaf7b2ee02691b8bc7145"
_COMMONS = "https://upload.wikimedia.org/wikipedia/commons"

# The first three are CC0 or in the public domain, as scikit-image's documentation of each says; the
# mouse belongs to M2IB's repository, which names no licence, and is looked at and not kept. The
# radiograph is in the public domain as Wikimedia Commons says; no site could be reached from where
# this was written, so its hash is not known.
PICTURES = {
    "cat": Picture(
        f"{_SKIMAGE}/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    ),
    "coffee": Picture(
        f"{_SKIMAGE}/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    ),
    "astronaut": Picture(
        f"{_SKIMAGE}/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    "mouse": Picture(
        f"{_M2IB}/images/mouse.jpg",
        "ede5932640d5eb5ee4debbb44285f77be25e4b4c950cce0109092207d30a09b6",
    ),
    "radiograph": Picture(
        f"{_COMMONS}/a/a1/Normal_posteroanterior_%28PA%29_chest_radiograph_%28X-ray%29.jpg", None
    ),
}


def sense(holds: bool, told: str) -> None:
    """Demand what must be so of real weights; random ones owe nothing."""
    if DRY is None:
        assert holds, told
