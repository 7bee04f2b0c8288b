"""Fixtures that the tests of pretrained backbones share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from clip_folders import Written
from small_backbones import REGISTRY, Small, small

import mmattrib as mm


@pytest.fixture(scope="session")
def quiet_transformers() -> None:
    """transformers, imported with whatever its own dependencies warn about; skips without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


@pytest.fixture(scope="session")
def quiet_open_clip(quiet_transformers: None) -> None:
    """The same for open_clip."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("open_clip")


@pytest.fixture(scope="session")
def small_backbone(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Small]:
    """The small model of a registered backbone, written once."""

    @cache
    def make(name: str) -> Small:
        if "open_clip" in REGISTRY.get("backbone", name).requires:
            request.getfixturevalue("quiet_open_clip")
        return small(name, tmp_path_factory.mktemp(name))

    return make


@pytest.fixture(scope="session")
def written(quiet_transformers: None, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Folder, model and processor of a family's checkpoint, written once."""
    import checkpoints

    folder = tmp_path_factory.mktemp("checkpoints")
    made: dict[str, tuple[Path, Any, Any]] = {}

    def write(kind: str) -> tuple[Path, Any, Any]:
        if kind not in made:
            made[kind] = checkpoints.write(kind, folder)
        return made[kind]

    return write


@pytest.fixture
def clip(written: Written) -> mm.Backbone:
    return mm.load_backbone("clip", checkpoint=str(written("clip")[0]))
