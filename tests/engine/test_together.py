"""Pairs that go through a suffix together: as one by one, in calls that fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy_tower import Problem, make_problem

from mmattrib.engine import channel_slopes, expected_embedding, path_attribution, pooled
from mmattrib.engine.together import MOST_KINDS, Together


def numbers(together: Together, count: int, fits: int, kind: str = "k", rows: int = 1) -> list[int]:
    """Sizes of the calls that were made for so many pairs, where ``fits`` rows fit."""
    sizes: list[int] = []

    def call(pairs: Tensor, most: int) -> Tensor:
        sizes.append(len(pairs) * most)
        if sizes[-1] > fits:
            raise torch.OutOfMemoryError("no room")
        return pairs

    found = torch.cat(list(together.over(count, call, rows=rows, kind=kind)))
    assert found.tolist() == list(range(count))
    return sizes


def test_one_pair_a_call_unless_more_are_allowed() -> None:
    assert numbers(Together(), 3, 100) == [1, 1, 1]
    assert numbers(Together(2), 5, 100) == [2, 2, 1]


def test_what_did_not_fit_is_halved_and_not_tried_again() -> None:
    together = Together(8)
    assert numbers(together, 8, 3) == [8, 4, 2, 2, 2, 2]
    assert numbers(together, 8, 3) == [2, 2, 2, 2]
    assert numbers(together, 8, 3, "another kind") == [8, 4, 2, 2, 2, 2]
    assert numbers(Together(8, together.fits), 4, 3) == [2, 2]


def test_a_pair_that_does_not_fit_whole_goes_in_parts() -> None:
    together = Together(2)
    assert numbers(together, 3, 5, rows=8) == [16, 8, 4, 4, 4]
    alone = Together()
    assert numbers(alone, 2, 5, rows=8) == [8, 4, 4]
    assert numbers(alone, 2, 5, rows=8) == [8, 4, 4]  # nothing is remembered of it
    with pytest.raises(torch.OutOfMemoryError):
        numbers(Together(4), 4, 0, rows=2)


def test_no_more_is_remembered_than_a_bound() -> None:
    together = Together(2)
    for kind in range(MOST_KINDS + 3):
        numbers(together, 2, 1, str(kind))
    assert len(together.fits) == MOST_KINDS


def everything(problem: Problem, together: Together) -> dict[str, Tensor]:
    """What the engine computes of some pairs, other than fits."""
    tokens, target = problem.tokens(), problem.guide.embedding
    kept = torch.linspace(0.1, 0.9, tokens.shape[1]).expand(tokens.shape[:2])
    rate = channel_slopes(
        tokens, problem.suffix, target, problem.valid, problem.keys,
        points=9, max_rows=4, noise_too=True, together=together,
    )  # fmt: skip
    return {
        "slopes": rate,
        "pooled": pooled(rate, problem.own_tokens(), problem.content, 10.0, 0.5, together),
        "path": path_attribution(
            tokens, problem.suffix, target, steps=5, max_rows=2, baseline=tokens.mean(1, True)
            .expand_as(tokens), rule="midpoint", together=together,
        ),
        "embedding": expected_embedding(
            tokens, problem.suffix, kept, problem.valid, problem.keys,
            samples=3, together=together,
        ),
    }  # fmt: skip


def test_pairs_together_give_what_each_gives_alone() -> None:
    problem = make_problem(pairs=5, lengths=(7, 4, 7, 6, 2))
    alone = everything(problem, Together())
    for together in (Together(5), Together(2)):
        for name, found in everything(problem, together).items():
            bound = 1e-6 * float(alone[name].abs().max())
            assert torch.allclose(found, alone[name], rtol=0, atol=bound), name


def test_one_call_holds_all_pairs() -> None:
    problem = make_problem(pairs=5)
    sizes: list[int] = []

    def watched(tokens: Tensor, rows: Tensor) -> Tensor:
        sizes.append(len(tokens))
        return problem.suffix(tokens, rows)

    channel_slopes(
        problem.tokens(), watched, problem.guide.embedding, problem.valid, problem.keys,
        points=9, max_rows=4, together=Together(5),
    )  # fmt: skip
    assert sizes == [20, 20, 5]
