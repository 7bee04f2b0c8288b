"""`mmattrib evaluate --engine`: each engine is used where it is named, with its jobs and device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli_program import Run

from mmattrib.evaluation import Serial
from mmattrib.evaluation.executors import Processes

QUICK = ("--method", "random", "--metric", "auc", "--pair", "image,text", "--limit", 2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--engine", "serial", "--jobs", 2), "jobs=2 has no effect on engine 'serial'"),
        (("--engine", "threads"), "'serial', 'processes', 'ray'"),
        (("--engine", "ray"), "pip install 'mmattrib[ray]'"),
    ],
)
def test_an_engine_that_cannot_serve_is_one_line(
    given: tuple[object, ...], said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("evaluate", *QUICK, *given)
    assert result.code == 2, result.err
    assert said in result.err
    assert result.err.count("\n") == 1


def test_one_process_is_a_process(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    def here(self: Processes, *given: object) -> object:
        used.append(self.jobs)
        return Serial().run(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Processes, "run", here)
    model = ("--backbone-option", f"checkpoint={checkpoint}")
    result = run("evaluate", *model, *QUICK, "--engine", "processes")
    assert (result.code, used) == (0, [1]), result.err


def test_the_device_of_ray_is_its_workers(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cuda` is not asked of this machine, which may have none."""
    used = []

    class Fake(Serial):
        def __init__(self, jobs: int, device: str | None) -> None:
            used.append((jobs, device))

    monkeypatch.setattr("mmattrib.evaluation.on_ray.OnRay", Fake)
    model = ("--backbone-option", f"checkpoint={checkpoint}")
    given = ("--engine", "ray", "--jobs", 3, "--device", "cuda")
    result = run("evaluate", *model, *QUICK, *given)
    assert (result.code, used) == (0, [(3, "cuda")]), result.err
