"""The sweep: every variant of a plan on every checkpoint, pair and scene, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import mmattrib
from examples.study.protocol import (
    METRICS,
    PAIRS,
    PROBES,
    SEARCH_SCENES,
    Phase,
    Sharing,
    label,
    protocol_scenes,
)
from mmattrib.datasets.scenes import Bank
from mmattrib.errors import OptionError
from mmattrib.evaluation import (
    Candidate,
    Chance,
    NamedModel,
    OcclusionOracle,
    Outcome,
    Store,
    executor_for,
    make_plan,
    run,
)

FILE: Final = "results.jsonl"
SHIPPED: Final = "shipped"
"""Label of a backbone's own weights."""
REFERENCES: Final[tuple[Candidate, ...]] = (Chance(), OcclusionOracle())


@dataclass(frozen=True)
class Scope:
    """What every variant of a sweep is measured on.

    Attributes:
        n: how many scenes.
        start: number of the first.
        phase: of the protocol.
        sharing: how many classes scenes share.
        pairs: of modalities.
        probes: on so many scenes, from the first on, measure prompt sensitivity and stability too.
        bank: of drawings and sounds; the shipped one if None.
        seeds: of the methods' noise.
    """

    n: int = SEARCH_SCENES
    start: int = 0
    phase: Phase = "search"
    sharing: Sharing = "one"
    pairs: Sequence[tuple[str, str]] = PAIRS
    probes: int = 0
    bank: Bank | None = None
    seeds: Sequence[int] = (0,)


def checkpoints(
    files: Sequence[str | Path | None] = (None,), backbone: str = "tiny"
) -> dict[str, NamedModel]:
    """Label -> model, for checkpoint files of one backbone; None for its own weights.

    Raises:
        WeightsError: a file cannot be loaded.
        UnknownNameError: no such backbone.
        OptionError: two files of one name that hold other weights.
    """
    found: dict[str, NamedModel] = {}
    for file in files:
        name = SHIPPED if file is None else Path(file).stem
        options = {} if file is None else {"checkpoint": str(Path(file).resolve())}
        model = NamedModel.of(backbone, **options)
        if any(name == other or model.weights == found[other].weights for other in found):
            if name in found and found[name].weights != model.weights:
                raise OptionError(f"two checkpoints are named {name!r}; rename one of the files")
            continue
        found[name] = model
    return found


def sweep(
    candidates: Sequence[Candidate],
    models: Mapping[str, NamedModel],
    scope: Scope,
    folder: str | Path,
    *,
    jobs: int = 1,
    fresh: bool = False,
    progress: bool = True,
) -> Outcome:
    """Measure what is not measured yet, and append it to the folder's results.

    Args:
        candidates: variants from a plan, and :data:`REFERENCES` where they are wanted.
        models: to measure each on.
        scope: scenes and pairs.
        folder: of the results file; made if it does not exist.
        jobs: processes to share the work, one thread each.
        fresh: measure again what was measured with another source of engine or methods.
        progress: show a progress bar on standard error.

    Raises:
        OptionError: a number out of range, or a folder that cannot be written.
        InputError: a backbone lacks a modality of the pairs.
    """
    scenes = protocol_scenes(scope.phase, scope.sharing, scope.n, scope.start, scope.bank)
    if scope.probes < 0:
        raise OptionError(f"probes must be 0 or more, got {scope.probes}")
    metrics = {m: scope.probes if m in PROBES else None for m in METRICS if m != "seconds"}
    plan = make_plan(
        models,
        {label(scope.phase, scope.sharing): scenes},
        methods=candidates,
        metrics=metrics,
        pairs=scope.pairs,
        seed=scope.seeds,
    )
    return run(
        plan, Store(Path(folder) / FILE, HEAD), executor_for(jobs), source=source_digest(),
        fresh=fresh, keep_going=True, progress=progress,
    )  # fmt: skip


HEAD: Final = {"study": "scenes whose truth is known", "metrics": list(METRICS)}
"""Head of every results file of the study: sweeps of other variants go on in the same file."""


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Hash of the source files of the engine and the methods."""
    root = Path(mmattrib.__file__).parent
    found = hashlib.sha256()
    for folder in ("engine", "methods"):
        for path in sorted((root / folder).rglob("*.py")):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]
