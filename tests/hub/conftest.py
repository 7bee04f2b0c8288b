"""Weights and pictures for the hub's tests: from the network, or in a dry run from a local one."""

from __future__ import annotations

import hashlib
import os
import urllib.request
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hub_sources import DRY, MOST_BYTES, PICTURES

import mmattrib as mm
from mmattrib.backbones.imagebind import download


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A picture by name, fetched once and held to its hash."""
    folder = tmp_path_factory.mktemp("pictures")

    @cache
    def get(name: str) -> Path:
        known = PICTURES[name]
        url = known.url if DRY is None else f"{DRY['address']}/files/{name}"
        asked = urllib.request.Request(url, headers={"User-Agent": "mmattrib-tests/0.1"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            body = answer.read(MOST_BYTES)
        if DRY is None and known.sha256 is not None:
            assert hashlib.sha256(body).hexdigest() == known.sha256, f"{url} is another file"
        path = folder / f"{name}{Path(known.url).suffix}"
        path.write_bytes(body)
        return path

    return get


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], mm.Backbone]:
    """A pretrained model by name, loaded once, as a user loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for needed in ("transformers", "open_clip"):
            pytest.importorskip(needed)

    @cache
    def load(name: str) -> mm.Backbone:
        if name == "siglip":
            return mm.load_backbone("clip", checkpoint="google/siglip-base-patch16-224")
        if name == "imagebind":
            return _imagebind()
        if name == "cxr-repair":
            checkpoint = _radiology(tmp_path_factory.mktemp("weights"))
            return mm.load_backbone("cxr-repair", checkpoint=checkpoint)
        return mm.load_backbone(name)

    return load


def _imagebind() -> mm.Backbone:
    chosen = {"modalities": ["image", "text"]}
    if DRY is None:
        return mm.load_backbone("imagebind", **chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "URL", f"{DRY['address']}/files/imagebind")
        return mm.load_backbone("imagebind", **chosen, **DRY["imagebind"])


def _radiology(folder: Path) -> str:
    """CXR-RePaIR's weights: a path or an address that whoever runs this has from its authors."""
    given = os.environ.get("MMATTRIB_CXR_REPAIR")
    if not given:
        pytest.skip("MMATTRIB_CXR_REPAIR names no weights: a path, or an address to fetch")
    if not given.startswith(("http://", "https://")):
        return given
    return str(download.fetch(given, folder / "cxr.pt", None, progress=False))
