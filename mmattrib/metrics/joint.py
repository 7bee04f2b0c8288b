"""Both sides of a pair at once: whether what two maps keep still fits together."""

from __future__ import annotations

from mmattrib.metrics.base import MODEL, Case, CostlyMetric
from mmattrib.metrics.reduction import kept_cosine, reduced_input
from mmattrib.plugins.hookspecs import Register, hookimpl


def joint_drop(one: float, other: float, both: float) -> float:
    """The lower of two cosines minus the third: what is lost beyond the worse of two losses.

    Args:
        one: cosine of the pair with its first input reduced.
        other: with its second input reduced.
        both: with both reduced.

    >>> round(joint_drop(0.5, 0.4, 0.1), 3)
    0.3
    """
    return min(one, other) - both if one == one and other == other else float("nan")


class JointDrop(CostlyMetric):
    """How much further the cosine falls when both inputs are reduced by their maps at once.

    s_a, s_b and s_ab are the cosines with one input reduced, the other, and both; the number is
    min(s_a, s_b) - s_ab. Around 0 or below where the two maps keep what the inputs share; above 0
    where each part needs something of the other input that the other map took away. It is the same
    for both sides of a pair. Maps that keep nearly everything get 0. NaN where a map is constant.
    """

    name = "joint_drop"
    summary = "further fall of the cosine when both inputs are reduced by their maps, beyond either"
    needs = frozenset({MODEL})
    higher_is_better = False

    def measure(self, case: Case) -> float:
        if case.guide not in case.explanation:
            return float("nan")
        own = reduced_input(case.raw, case.attribution)
        raw, attribution = case.explanation.inputs[case.guide], case.explanation[case.guide]
        other = reduced_input(raw, attribution)
        if own is None or other is None:
            return float("nan")
        guide = case.embeddings([raw, other], side=case.guide, batch_size=1)
        explained = case.embeddings([case.raw, own], batch_size=1)
        one = kept_cosine(case)
        return joint_drop(
            one, float((explained[0] * guide[1]).sum()), float((explained[1] * guide[1]).sum())
        )


@hookimpl
def register_metrics(register: Register) -> None:
    """Register the joint drop."""
    register(JointDrop.name, JointDrop, summary=JointDrop.summary)
