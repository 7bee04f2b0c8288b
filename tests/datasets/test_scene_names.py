"""What the package of scenes exports, and that listing it is quick."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mmattrib as mm
from mmattrib.datasets import scenes


def small_scenes(_: Path) -> dict[str, Any]:
    return {"n": 3, "seed": 7}


def test_every_exported_name_is_there() -> None:
    for name in scenes.__all__:
        assert getattr(scenes, name) is not None
    assert (scenes.scenes, scenes.Scene) == (mm.scenes, mm.Scene)
    with pytest.raises(AttributeError, match="no attribute 'catalog'"):
        _ = scenes.catalog


def test_importing_the_package_and_opening_a_bank_import_no_torch_and_no_pillow() -> None:
    code = (
        "import sys; from mmattrib.datasets.scenes import Bank; Bank.shipped();"
        "print([name for name in ('torch', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
