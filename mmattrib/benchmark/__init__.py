"""Benchmark: what explanations cost, beside the published code, on any model and machine.

``mmattrib bench`` is thin over :func:`run_benchmark` and :func:`run_profile`; docs/performance.md
has what it measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmattrib.lazy import lazy_names

if TYPE_CHECKING:
    from mmattrib.benchmark.profiling import run_profile
    from mmattrib.benchmark.run import QUICK, Plan, run_benchmark
    from mmattrib.benchmark.subjects import random_clip

_HOME = {
    "QUICK": "run",
    "Plan": "run",
    "random_clip": "subjects",
    "run_benchmark": "run",
    "run_profile": "profiling",
}

__all__ = ["QUICK", "Plan", "random_clip", "run_benchmark", "run_profile"]

__getattr__ = lazy_names(__name__, _HOME)
