"""A real distribution, installed by pip and not editable, is found, listed, loaded and conforms."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugins" / "mmattrib-colours"
TUTORIAL = ROOT / "docs" / "plugins.md"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the distribution was installed: built offline, without its dependencies."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    done = subprocess.run([*pip, *offline, str(PLUGIN)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def run(target: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    # away from the repository, so that nothing but what is installed can be imported
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=target)


def listing(target: Path, command: str) -> Any:
    done = run(target, "-m", "mmattrib", command, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_installed_as_a_wheel(installed: Path) -> None:
    assert (installed / "mmattrib_colours" / "__init__.py").is_file()
    assert (installed / "mmattrib_colours-0.1.0.dist-info" / "entry_points.txt").is_file()


def test_it_is_listed_as_a_plugin(installed: Path) -> None:
    listed = listing(installed, "plugins")
    assert not listed["problems"]
    assert not listed["conflicts"]
    (found,) = [each for each in listed["plugins"] if each["distribution"] == "mmattrib-colours"]
    assert found["version"] == "0.1.0"
    assert found["hooks"] == ["register_backbones"]
    assert found["gives"] == {"backbones": ["colours"]}


def test_its_backbone_is_listed(installed: Path) -> None:
    (found,) = [each for each in listing(installed, "backbones") if each["name"] == "colours"]
    assert found["state"] == "ready"
    assert found["modalities"] == ["image", "text"]
    assert found["distribution"] == "mmattrib-colours"


def test_listing_it_imports_no_torch(installed: Path) -> None:
    code = (
        "import sys; from mmattrib.plugins import load_plugins; "
        "names = [e.name for e in load_plugins().registry.entries('backbone')]; "
        "sys.exit('colours' not in names or 'torch' in sys.modules)"
    )
    done = run(installed, "-c", code)
    assert done.returncode == 0, done.stderr


def test_it_is_gone_when_it_is_not_installed(tmp_path: Path) -> None:
    assert all(each["name"] != "colours" for each in listing(tmp_path, "backbones"))


@pytest.mark.slow
def test_its_own_tests_pass_as_installed(installed: Path) -> None:
    """Load by name, both conformance checks and the maps, from the installed copy."""
    arguments = [
        "-c",
        str(PLUGIN / "pyproject.toml"),
        "-o",
        "pythonpath=",
        "-p",
        "no:cacheprovider",
    ]
    code = (
        "import sys, pytest, mmattrib as mm; code = pytest.main(sys.argv[1:]); "
        "b = mm.load_backbone('colours'); import mmattrib_colours; "
        "print(b.modalities, mmattrib_colours.__file__); sys.exit(code)"
    )
    done = run(installed, "-c", code, *arguments, str(PLUGIN / "tests"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert f"('image', 'text') {installed}" in done.stdout


def test_the_tutorial_shows_the_real_files() -> None:
    pattern = r"<!-- from (\S+) -->\n```\w+\n(.*?)```\n"
    blocks = re.findall(pattern, TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 6
    for path, code in blocks:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert code in source, f"docs/plugins.md no longer shows {path}:\n{code}"
    shown = TUTORIAL.read_text(encoding="utf-8")
    assert shown.count("```python") == sum(path.endswith(".py") for path, _ in blocks)
