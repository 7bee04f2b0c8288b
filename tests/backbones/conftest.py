"""Fixtures that the tests of pretrained backbones share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def _quiet_libraries() -> None:
    """Model libraries are imported once, with whatever their own dependencies warn about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        pytest.importorskip("open_clip")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any, Any]]:
    """Folder, model and processor of a family's checkpoint, written once."""
    import checkpoints

    folder = tmp_path_factory.mktemp("checkpoints")
    made: dict[str, tuple[Path, Any, Any]] = {}

    def write(kind: str) -> tuple[Path, Any, Any]:
        if kind not in made:
            made[kind] = checkpoints.write(kind, folder)
        return made[kind]

    return write
