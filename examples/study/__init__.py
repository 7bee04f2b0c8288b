"""The protocol on which methods are compared, and the sweep with which a method is searched for.

``python -m examples.study`` is its command line; :func:`load_results` reads what a sweep wrote.
"""

from __future__ import annotations

from examples.study.compare import Difference, compare
from examples.study.protocol import (
    DIRECTIONS,
    FINAL_SCENES,
    RANKED,
    REPORTED,
    protocol_scenes,
)
from examples.study.results import Results, load_results

__all__ = [
    "DIRECTIONS",
    "FINAL_SCENES",
    "RANKED",
    "REPORTED",
    "Difference",
    "Results",
    "compare",
    "load_results",
    "protocol_scenes",
]
