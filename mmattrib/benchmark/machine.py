"""The machine that a benchmark ran on, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Final

import torch

from mmattrib import __version__
from mmattrib.benchmark.watch import synchronise
from mmattrib.types import JSONValue

SIDE: Final = 1536
"""Of the square matrices whose product is timed: 7.2 GFLOP each."""


def describe(device: torch.device) -> dict[str, JSONValue]:
    """Processor, threads, memory and versions, as JSON values."""
    found: dict[str, JSONValue] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mmattrib": __version__,
        "device": str(device),
    }
    if device.type == "cuda":
        found["card"] = torch.cuda.get_device_name(device)
    return found


def _processor() -> str:
    try:
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def product_rate(device: torch.device, repeats: int = 3) -> dict[str, float]:
    """GFLOP of a product of two float32 matrices per second and per CPU second: the best seen."""
    draw = torch.Generator("cpu").manual_seed(0)
    made = torch.randn(SIDE, SIDE, generator=draw, dtype=torch.float32, device="cpu").to(device)
    gflop, seconds, cpu = 2 * SIDE**3 / 1e9, [], []
    made @ made
    for _ in range(repeats):
        synchronise(device)
        start, spent = time.perf_counter(), time.process_time()
        made @ made
        synchronise(device)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - spent)
    return {"per_second": gflop / min(seconds), "per_cpu_second": gflop / max(min(cpu), 1e-9)}
