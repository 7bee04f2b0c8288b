"""Where an explanation comes from: model, weights, method, options, layers, versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from mmattrib.calibration import Calibration, settings_of
from mmattrib.methods import Method
from mmattrib.models.backbone import Backbone
from mmattrib.models.encoder import Encoder
from mmattrib.types import JSONValue


def provenance_of(
    backbone: Backbone, method: Method, encoders: Mapping[str, Encoder], layers: Mapping[str, int]
) -> dict[str, JSONValue]:
    """What an explanation says of how it was made; JSON values.

    Args:
        backbone: the model.
        method: that explained.
        encoders: side -> its encoder.
        layers: side -> the explained layer.
    """
    modalities = {side: encoder.modality for side, encoder in encoders.items()}
    weights = backbone.weights_hash()
    known = backbone.calibration
    if known is not None and known.weights_sha256 != weights:
        known = None
    return {
        "backbone": backbone.name,
        "backbone_details": backbone.provenance,
        "weights_sha256": weights,
        "method": method.name,
        "options": method.describe(),
        "layers": dict(layers),
        "versions": versions(),
        "calibration": _calibration(known, method, modalities, layers),
    }


def versions() -> dict[str, JSONValue]:
    """Of this package, and of what a number depends on."""
    return {
        "mmattrib": _version("mmattrib"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _calibration(
    known: Calibration | None,
    method: Method,
    modalities: Mapping[str, str],
    layers: Mapping[str, int],
) -> JSONValue:
    """What is known of unrelated pairs of this kind; None where nothing."""
    if known is None:
        return None
    settings = settings_of(method.name, method.describe(), layers)
    return known.entry(modalities, method.name, settings)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
