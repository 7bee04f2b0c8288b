"""The toolkit for adapters: public, documented, cheap to import, and enough for our own plugins."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mmattrib.models as toolkit
from mmattrib.errors import OptionError, WeightsError
from mmattrib.models import Pretrained, relative_layer
from mmattrib.models.weights import check_finite

ROOT = Path(__file__).parents[2]


def test_importing_the_toolkit_imports_no_torch() -> None:
    code = "import sys, mmattrib.models; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", toolkit.__all__)
def test_every_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(toolkit, name)
    if not isinstance(value, str | int):
        assert inspect.getdoc(value)
        assert value.__module__.startswith("mmattrib.models.")


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        toolkit.Nothing  # noqa: B018


def imports(path: Path) -> list[tuple[str, str]]:
    """(module, name) of every import from mmattrib in a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmattrib"):
            found += [(str(node.module), alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names if alias.name.startswith("mmattrib")]
    return found


@pytest.mark.parametrize("folder", ["plugins", "mmattrib"])
def test_nothing_private_is_imported_across_packages(folder: str) -> None:
    wrong = []
    for path in (ROOT / folder).rglob("*.py"):
        package = ".".join(path.relative_to(ROOT).parent.parts)
        for module, name in imports(path):
            private = [part for part in (*module.split("."), name) if part.startswith("_")]
            private = [part for part in private if not part.startswith("__")]
            own = module.startswith(package) or module.rpartition(".")[0] == package
            if private and not own:
                wrong.append(f"{path.relative_to(ROOT)}: {module} {name}")
    assert wrong == []


@pytest.mark.parametrize(("depth", "layer"), [(12, 9), (24, 18), (6, 4), (2, 0), (1, -1)])
def test_the_default_layer_lies_at_the_published_depth(depth: int, layer: int) -> None:
    assert relative_layer(depth) == layer


def test_a_checkpoint_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is not a folder"):
        Pretrained(tmp_path / "nothing")
    with pytest.raises(OptionError, match="a folder has no revisions"):
        Pretrained(tmp_path, revision="main")


def test_weights_that_are_no_numbers_are_named() -> None:
    import torch

    good = {"a": torch.ones(2), "ids": torch.arange(3)}
    check_finite("file", good)
    bad = {**good, "b": torch.tensor([1.0, torch.inf]), "c": torch.tensor(torch.nan)}
    with pytest.raises(WeightsError, match=r"infinite values in 2 weights \(b, c\)"):
        check_finite("file", bad)
