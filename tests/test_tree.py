"""The tree: what the wheel holds, and that modules and functions stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = [path for part in ("mmattrib", "examples", "plugins", "tests")
        for path in sorted((ROOT / part).rglob("*.py"))]  # fmt: skip
MOST_LINES, LONGEST_FUNCTION = 500, 62


def test_the_wheel_holds_what_users_run_and_nothing_that_made_it() -> None:
    builders = pytest.importorskip("hatchling.builders.wheel")
    files = [Path(f.distribution_path) for f in
             builders.WheelBuilder(str(ROOT)).recurse_included_files()]  # fmt: skip
    assert {f.parts[0] for f in files} == {"mmattrib"}
    names = {str(f) for f in files}
    assert "mmattrib/backbones/tiny/weights/tiny.safetensors" in names
    assert "mmattrib/datasets/scenes/assets/catalog.json" in names
    assert "mmattrib/py.typed" in names
    for word in ("train", "build_assets", "study", "stamps", "tests"):
        assert not [name for name in names if f"/{word}" in name and name.endswith(".py")], word
    assert sum((ROOT / f).stat().st_size for f in files) < 30 * 1024**2


@pytest.mark.parametrize("path", CODE, ids=[str(p.relative_to(ROOT)) for p in CODE])
def test_modules_and_functions_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES
    long = {name: length for name, length in _functions(text) if length > LONGEST_FUNCTION}
    assert not long


def _functions(text: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            yield node.name, node.end_lineno - node.lineno + 1
