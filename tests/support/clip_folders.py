"""Checkpoints of `clip` to change or spoil."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Written = Callable[[str], tuple[Path, Any, Any]]
"""Family -> folder, model and processor of its checkpoint: the fixture ``written``."""


def copy_of(written: Written, tmp_path: Path, kind: str = "clip") -> Path:
    target = tmp_path / "copy"
    shutil.copytree(written(kind)[0], target)
    return target
