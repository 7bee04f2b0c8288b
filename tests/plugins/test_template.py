"""The template is a whole plugin in at most 40 lines: installed, listed, run and checked."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmattrib as mm

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "plugins" / "template"
CODE = [*sorted((TEMPLATE / "mmattrib_template").glob("*.py")), TEMPLATE / "explain.py"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip installed it: built offline, without its dependencies."""
    target = tmp_path_factory.mktemp("template")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    done = subprocess.run([*pip, *offline, str(TEMPLATE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def run(site: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=site)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_it_is_at_most_forty_lines() -> None:
    lines = [line for path in CODE for line in path.read_text().splitlines() if line.strip()]
    assert len(CODE) == 3
    assert len(lines) <= 40


def test_the_tutorial_shows_all_of_it() -> None:
    tutorial = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    for path in CODE:
        shown = f"<!-- from {path.relative_to(ROOT)} -->\n```python\n{path.read_text()}```"
        assert shown in tutorial, f"docs/plugins.md no longer shows {path.name} whole"


@pytest.mark.slow
def test_it_explains_two_pictures_once_installed(site: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("one.png", "other.png"):
        Image.fromarray(random.integers(0, 255, (40, 60, 3), "uint8")).save(site / name)
    listed = json.loads(run(site, "-m", "mmattrib", "backbones", "--json"))
    assert [each["state"] for each in listed if each["name"] == "template"] == ["ready"]
    printed = run(site, str(TEMPLATE / "explain.py"), "one.png", "other.png", "found.npz")
    assert re.match(r"\(40, 60\) found\.npz", printed)
    found = mm.load(site / "found.npz")
    assert list(found) == ["image", "image_2"]
    assert found["image_2"].scores.max() > 0


def test_its_own_test_passes(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: the test above has seen that the installed copy runs in one of its own."""
    monkeypatch.syspath_prepend(str(site))
    own = runpy.run_path(str(TEMPLATE / "test_template.py"))
    (test,) = (value for name, value in own.items() if name.startswith("test_"))
    test()
    assert Path(sys.modules["mmattrib_template"].__file__ or "").is_relative_to(site)
