"""ImageBind at its real size, with random weights, through the public call."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import full_size_imagebind
import pytest
import small_imagebind  # noqa: F401  (skips where the library is not installed)
from full_size_imagebind import PAIRS


@pytest.mark.slow
def test_imagebind_huge_explains_pairs(tmp_path: Path) -> None:
    """Needs 5 GB of disk, 12 GB of memory and some minutes."""
    script, weights = Path(full_size_imagebind.__file__), tmp_path / "huge.pth"
    subprocess.run([sys.executable, str(script), "write", str(weights)], check=True)
    done = subprocess.run(
        [sys.executable, str(script), "explain", str(weights)], check=True, stdout=subprocess.PIPE
    )
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["what"] for each in facts if "what" in each] == [
        "load",
        "hash of the weights",
        *("-".join(pair) for pair in PAIRS),
    ]
    (sizes,) = [each["parameters"] for each in facts if "parameters" in each]
    assert sizes["image"] == pytest.approx(632.8e6, rel=1e-3)
    maps = [each for each in facts if "side" in each]
    assert len(maps) == 2 * len(PAIRS)
    assert all(each["bits"] > 0 for each in maps)
