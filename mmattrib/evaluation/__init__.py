"""Evaluation: methods on models and data sets, scored by metrics, resumable.

:func:`mmattrib.evaluate` is its front; :func:`make_plan` and :func:`run` are what it is made of.
"""

from __future__ import annotations

from mmattrib.evaluation.candidates import Candidate, Variant
from mmattrib.evaluation.executors import Executor, Processes, Serial, executor_for
from mmattrib.evaluation.models import LiveModel, ModelSource, NamedModel
from mmattrib.evaluation.progress import Outcome
from mmattrib.evaluation.references import Chance, OcclusionOracle
from mmattrib.evaluation.results import Column, Problem, Results, load_results
from mmattrib.evaluation.roar import remove_and_retrain
from mmattrib.evaluation.roar_results import Retrained, RoarResults, load_retrained
from mmattrib.evaluation.run import Plan, evaluate, make_plan, run
from mmattrib.evaluation.sheets import Cell, Report, Table
from mmattrib.evaluation.statistics import Difference, bootstrap_interval, compare
from mmattrib.evaluation.store import Store
from mmattrib.evaluation.tables import View, against, markdown
from mmattrib.evaluation.tidy import Number, numbers

__all__ = [
    "Candidate",
    "Cell",
    "Chance",
    "Column",
    "Difference",
    "Executor",
    "LiveModel",
    "ModelSource",
    "NamedModel",
    "Number",
    "OcclusionOracle",
    "Outcome",
    "Plan",
    "Problem",
    "Processes",
    "Report",
    "Results",
    "Retrained",
    "RoarResults",
    "Serial",
    "Store",
    "Table",
    "Variant",
    "View",
    "against",
    "bootstrap_interval",
    "compare",
    "evaluate",
    "executor_for",
    "load_results",
    "load_retrained",
    "make_plan",
    "markdown",
    "numbers",
    "remove_and_retrain",
    "run",
]
