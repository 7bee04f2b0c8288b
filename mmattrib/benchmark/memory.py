"""How much memory a pair needs beside the loaded model, seen by a process of its own."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmattrib.errors import MmattribError
from mmattrib.types import JSONValue

if TYPE_CHECKING:
    from mmattrib.models.backbone import Backbone

_STATUS = Path("/proc/self/status")


def measure(source: Mapping[str, Any], methods: Sequence[str]) -> list[dict[str, JSONValue]]:
    """Megabytes (10⁶ bytes) of the loaded model, and the peak above it while a pair is explained.

    Args:
        source: as for :func:`mmattrib.benchmark.run.run_benchmark`.
        methods: each in a process of its own, since what one leaves would hide the next.

    Raises:
        MmattribError: the process ended with an error.
    """
    found = []
    for method in methods:
        asked = json.dumps({"source": dict(source), "method": method})
        done = subprocess.run(
            [sys.executable, "-m", "mmattrib.benchmark.memory", asked],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise MmattribError(f"the process that measures memory ended, saying: {said:.500}")
        found.append({"label": method, **json.loads(done.stdout.splitlines()[-1])})
    return found


def here(source: Mapping[str, Any], method: str) -> dict[str, JSONValue]:
    """The numbers of this process: ``loaded_mb`` and ``pair_mb``, on a card those of the card."""
    import torch

    import mmattrib
    from mmattrib.benchmark.subjects import pair, random_clip
    from mmattrib.loading import load_backbone

    load: Callable[..., Backbone] = (
        random_clip if source["name"] is None else partial(load_backbone, source["name"])
    )
    backbone = load(**source["options"])
    backbone.weights_hash()
    given, device = pair(backbone), next(iter(backbone.values())).device
    card = device.type == "cuda"
    if card:
        loaded = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _forget_peak()
        loaded = _resident("VmRSS")
    warnings.simplefilter("ignore")
    mmattrib.attribute(backbone, inputs=given, method=method)
    peak = torch.cuda.max_memory_allocated(device) if card else _resident("VmHWM")
    return {"loaded_mb": loaded / 1e6, "pair_mb": (peak - loaded) / 1e6}


def _forget_peak() -> None:
    """Let the system's high-water mark start anew, where it can: loading may have been higher."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _resident(name: str) -> int:
    """Bytes: ``VmRSS``, now, or ``VmHWM``, at most; elsewhere than on Linux both are the peak."""
    try:
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    scale = 1 if sys.platform == "darwin" else 1024
    return scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(here(given["source"], given["method"])) + "\n")
