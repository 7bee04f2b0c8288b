"""The public face: every name documented, nothing heavy imported before it is needed."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys

import pytest
from docstrings import undocumented

import mmattrib

HEAVY = (
    "torch",
    "torchaudio",
    "matplotlib",
    "transformers",
    "open_clip",
    "PIL",
    "soundfile",
    "numpy",
)
OPTIONAL = ("transformers", "open_clip", "imagebind", "pydicom", "scipy", "tinysoundfont")


def _modules() -> list[str]:
    found = pkgutil.walk_packages(mmattrib.__path__, "mmattrib.")
    return [module.name for module in found if not module.name.endswith("__main__")]


def test_every_exported_name_is_there_and_documented() -> None:
    for name in mmattrib.__all__:
        value = getattr(mmattrib, name)
        if callable(value):
            assert inspect.getdoc(value), name
    assert set(dir(mmattrib)) == set(mmattrib.__all__)
    with pytest.raises(AttributeError, match="no attribute 'attribut'"):
        mmattrib.attribut  # noqa: B018


@pytest.mark.parametrize("name", _modules())
def test_every_public_function_has_a_docstring(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if not any(missing in str(error) for missing in OPTIONAL):
            raise
        pytest.skip(str(error))
    assert not undocumented(module)


def test_importing_the_package_and_listing_all_that_is_registered_import_nothing_heavy() -> None:
    code = (
        "import sys, json, mmattrib;"
        "from mmattrib.cli import main;"
        "from mmattrib.cli.listing import describe_plugins, describe_entries;"
        "from mmattrib.plugins import default_plugins;"
        "from mmattrib.plugins.registry import KINDS;"
        "main(['--help'], standalone_mode=False);"
        "found = [describe_entries(default_plugins().registry, kind, True) for kind in KINDS];"
        "assert sum(map(len, found)) > 40;"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []
