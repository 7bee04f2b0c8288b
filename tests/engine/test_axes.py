"""Options that vary the method: identities that hold between their values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as nnf
from toy_tower import Pool, Problem, make_problem, relative, run

from mmattrib.engine import optimise as optimise_module
from mmattrib.engine.bottleneck import MASKS, capacity
from mmattrib.engine.guidance import (
    GUIDANCES,
    Guidance,
    LiteralAttention,
    NoGuidance,
    RelevanceGate,
    StartGuidance,
    token_relevance,
)
from mmattrib.engine.noise import PairNoise
from mmattrib.errors import OptionError

AXES: dict[str, dict[str, Any]] = {
    "group": {"mask": "group"},
    "mean": {"noise": "mean"},
    "capped": {"target": "capped", "mask": "token", "alpha_init": 0.0},
    "contrast": {"contrast": 0.5},
}


def with_neutral(problem: Problem) -> Problem:
    generator = torch.Generator().manual_seed(9)
    neutral = torch.randn(problem.guide.embedding.shape, generator=generator)
    neutral = nnf.normalize(neutral.to(problem.guide.embedding), dim=-1)
    problem.guide = problem.guide.against(neutral)
    return problem


class Silent(PairNoise):
    """No noise in any of the samples."""

    def draw(self) -> Tensor:
        return torch.zeros_like(super().draw())


def losses(found: Any) -> Tensor:
    return torch.tensor([entry["losses"] for entry in found.diagnostics])


@pytest.mark.parametrize("axis", AXES)
def test_a_pair_alone_equals_the_pair_in_a_batch(axis: str) -> None:
    problem = with_neutral(make_problem(pairs=3, lengths=(7, 4, 6)))
    batch = run(problem, **AXES[axis])
    for pair in range(3):
        alone = run(problem.select([pair]), **AXES[axis])
        assert torch.equal(alone.capacity[0], batch.capacity[pair])
        assert alone.diagnostics[0] == batch.diagnostics[pair]


@pytest.mark.parametrize("axis", AXES)
def test_chunks_and_pairs_together_equal_the_whole(axis: str) -> None:
    problem = with_neutral(make_problem(dtype=torch.float64, lengths=(7, 4, 6)))
    whole = run(problem, samples=7, **AXES[axis])
    for bounds in ({"max_rows": 3}, {"together": 3}):
        other = run(problem, samples=7, **AXES[axis], **bounds)
        assert relative(other.capacity, whole.capacity) < 1e-8


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_acts(axis: str) -> None:
    problem = with_neutral(make_problem())
    plain = {k: v for k, v in AXES[axis].items() if k in ("mask", "alpha_init") and axis != "group"}
    assert not torch.allclose(run(problem, **AXES[axis]).capacity, run(problem, **plain).capacity)


@pytest.mark.parametrize(("groups", "mask"), [(1, "token"), (16, "token_channel")])
def test_groups_lie_between_one_and_every_channel(
    groups: int, mask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem(lengths=(7, 5, 7))
    eight = run(problem, mask="group")
    assert eight.alpha.shape == (3, 7, 8)
    assert float(eight.alpha[0].std(-1).min()) > 0
    monkeypatch.setitem(MASKS, "group", lambda tokens, channels: (tokens, groups))
    assert torch.equal(run(problem, mask="group").capacity, run(problem, mask=mask).capacity)


def test_mean_noise_is_samples_without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(dtype=torch.float64, lengths=(7, 5, 7))
    rows = []

    def watched(tokens: Tensor, numbers: Tensor) -> Tensor:
        rows.append(len(tokens))
        return problem.suffix(tokens, numbers)

    mean = run(problem, noise="mean", samples=6, sigma=1.3, steps=4, suffix=watched)
    assert rows == [1] * 3 * (1 + 4)
    bits = capacity(mean.alpha, problem.tokens(), 1.3)  # that of the noisy bottleneck
    assert torch.equal(mean.capacity, bits * problem.valid)
    monkeypatch.setattr(optimise_module, "PairNoise", Silent)
    silent = run(problem, samples=6, sigma=1.3, steps=4)
    assert relative(mean.capacity, silent.capacity) < 1e-9


def test_capped_earns_nothing_above_the_clean_cosine() -> None:
    problem = make_problem(pairs=8, dtype=torch.float64)
    options = {"mask": "token_channel", "noise": "mean", "beta": 0.0, "alpha_init": 0.0}
    start = torch.zeros(8, 7, 16, dtype=torch.float64)
    free = run(problem, **options)
    capped = run(problem, target="capped", **options)
    clean = torch.tensor([entry["clean_cosine"] for entry in capped.diagnostics])
    begin = torch.tensor([entry["cosine_start"] for entry in capped.diagnostics])
    above = begin > clean
    assert 0 < int(above.sum()) < 8
    assert (-losses(free) > clean[:, None] + 0.1).any()
    assert (-losses(capped) <= clean[:, None] + 1e-9).all()
    assert torch.equal(capped.alpha[above], start[above])
    assert not torch.equal(free.alpha[above], start[above])
    # Below the clean cosine the first update is that of the fit without a cap.
    first = run(problem, target="capped", steps=2, **options).alpha
    assert torch.equal(first[~above], run(problem, steps=2, **options).alpha[~above])
    assert not torch.equal(first[~above], start[~above])


def test_a_pair_at_its_cap_pays_for_what_passes() -> None:
    problem = make_problem(pairs=8, dtype=torch.float64)
    options = {"noise": "mean", "alpha_init": 0.0, "steps": 2}
    capped = run(problem, target="capped", **options)
    begin = [(entry["cosine_start"], entry["clean_cosine"]) for entry in capped.diagnostics]
    above = torch.tensor([cosine > clean for cosine, clean in begin])
    assert above.any()
    unpaid = run(problem, gamma=0.0, **options)
    assert torch.equal(capped.alpha[above], unpaid.alpha[above])


def test_contrast_takes_its_share_of_the_fit() -> None:
    problem = make_problem(dtype=torch.float64)
    plain = run(problem)
    assert torch.equal(run(with_neutral(problem), contrast=0.0).capacity, plain.capacity)
    # With the guide's own embedding as the neutral one, half of the fit is left.
    problem.guide = problem.guide.against(problem.guide.embedding)
    halved = run(problem, contrast=0.5)
    assert relative(halved.capacity, run(problem, gamma=0.5).capacity) < 1e-9
    assert all(entry["fit_end"] == entry["cosine_end"] for entry in halved.diagnostics)


def test_contrast_without_a_neutral_guide_is_refused() -> None:
    with pytest.raises(OptionError, match=r"contrast 0\.5 needs .* neutral guide"):
        run(make_problem(), contrast=0.5)
    problem = make_problem()
    problem.guide = problem.guide.against(torch.ones(2, 12))
    with pytest.raises(OptionError, match="neutral guide for each of the 3 pairs"):
        run(problem, contrast=0.5)


def relevance_of(problem: Problem) -> Tensor:
    """What the gate finds, pair by pair as it is optimised."""
    seen = []

    class Watch(Guidance):
        name = "watch"

        def prepare(self, context: Any) -> Any:
            seen.append(token_relevance(context, 14.0))
            return NoGuidance().prepare(context)

    run(problem, Watch(), steps=1)
    return torch.cat(seen)


@pytest.mark.parametrize("guidance", [RelevanceGate, StartGuidance])
def test_given_relevance_equals_attention(guidance: type[RelevanceGate | StartGuidance]) -> None:
    problem = make_problem(lengths=(7, 5, 7))
    relevance = relevance_of(problem)
    relevance[~problem.valid] = torch.nan  # padding may hold anything
    own = run(problem, guidance())
    given = run(problem, guidance(source="given"), relevance=relevance)
    assert torch.equal(given.capacity, own.capacity)
    other = run(problem, guidance(source="given"), relevance=-relevance)
    assert not torch.allclose(other.capacity, own.capacity)
    assert torch.equal(run(problem, relevance=relevance).capacity, run(problem).capacity)


def test_relevance_that_does_not_fit_is_refused() -> None:
    problem, gate = make_problem(), RelevanceGate(source="given")
    with pytest.raises(OptionError, match="needs a relevance"):
        run(problem, gate)
    with pytest.raises(OptionError, match=r"relevance must be \(3, 7\) .* got \(3, 6\)"):
        run(problem, gate, relevance=torch.ones(3, 6))
    with pytest.raises(OptionError, match="finite at content tokens"):
        run(problem, gate, relevance=torch.full((3, 7), torch.inf))


def test_a_start_without_updates_is_what_relevance_says() -> None:
    problem = make_problem()
    relevance = torch.randn(3, 7, generator=torch.Generator().manual_seed(2))
    found = run(
        problem, StartGuidance(source="given"), relevance=relevance, steps=1, mask="token"
    ).alpha[..., 0]
    assert torch.equal(found[:, 1:].argsort(1), relevance[:, 1:].argsort(1))
    assert torch.equal(found[:, 0], torch.full((3,), 5.0))


@pytest.mark.parametrize("name", ["gate", "start"])
@pytest.mark.parametrize("axis", AXES)
def test_permuting_tokens_permutes_the_map(
    axis: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = with_neutral(make_problem(pairs=1, layer=-1, dtype=torch.float64))
    order = torch.tensor([0, 4, 2, 6, 1, 3, 5])
    relevance = torch.randn(1, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    guidance = GUIDANCES[name](source="given")  # type: ignore[call-arg]
    pool = Pool(problem.valid)
    straight = run(problem, guidance, suffix=pool, relevance=relevance, **AXES[axis])

    class Permuted(PairNoise):
        def draw(self) -> Tensor:
            return super().draw()[:, :, order]

    monkeypatch.setattr(optimise_module, "PairNoise", Permuted)
    problem.inputs = problem.inputs[:, order]
    turned = run(problem, guidance, suffix=pool, relevance=relevance[:, order], **AXES[axis])
    assert relative(turned.capacity, straight.capacity[:, order]) < 1e-8


def layers(problem: Problem, *numbers: int) -> list[tuple[Tensor, Any]]:
    """Tokens and suffixes of some layers of the problem's tower."""
    places = [replace(problem, layer=number) for number in numbers]
    return [(place.tokens(), place.suffix) for place in places]


def test_the_same_layer_again_changes_nothing_but_the_noise() -> None:
    problem = make_problem(dtype=torch.float64, lengths=(7, 5, 7))
    for noise, close in (("mean", True), ("sampled", False)):
        options = {"mask": "token", "noise": noise, "standardise": True}
        one = run(problem, **options)
        two = run(problem, deeper=layers(problem, 0, 0), **options)
        assert (relative(two.capacity, one.capacity) < 1e-8) == close


@pytest.mark.parametrize("steps", [1, 2])
def test_the_fit_is_the_mean_over_layers_and_the_price_the_first_ones(steps: int) -> None:
    problem = make_problem(dtype=torch.float64)
    options = {"mask": "token", "noise": "mean", "alpha_init": 1.0, "learning_rate": 1e-6}
    alone = [run(replace(problem, layer=n), steps=steps, **options) for n in (0, 1)]
    both = run(problem, deeper=layers(problem, 1), steps=steps, **options)
    assert torch.allclose(both.capacity, alone[0].capacity, rtol=1e-4)
    for pair in range(3):
        fits = [found.diagnostics[pair]["fit_start"] for found in alone]
        assert fits[0] != pytest.approx(fits[1], abs=1e-3)
        assert both.diagnostics[pair]["fit_start"] == pytest.approx(sum(fits) / 2)


def test_deeper_layers_hear_noise_of_their_own_and_stay_in_bounds() -> None:
    problem = make_problem(pairs=1)
    seen: dict[int, list[Tensor]] = {0: [], 1: []}

    def watched(number: int) -> Any:
        place = replace(problem, layer=number)

        def suffix(tokens: Tensor, rows: Tensor) -> Tensor:
            seen[number].append(tokens)
            return place.suffix(tokens, rows)

        return suffix

    options = {"mask": "token", "alpha_init": -30.0, "steps": 1, "max_rows": 4}
    deeper = [(replace(problem, layer=1).tokens(), watched(1))]
    run(problem, suffix=watched(0), deeper=deeper, **options)
    first, second = torch.cat(seen[0][1:]), torch.cat(seen[1])  # the clean call comes first
    assert [len(tokens) for tokens in seen[1]] == [4, 4, 2]
    assert first.shape == second.shape == (10, 7, 16)
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.1


def test_deeper_layers_that_do_not_fit_are_refused() -> None:
    problem = make_problem()
    deeper = layers(problem, 1)
    with pytest.raises(OptionError, match="mask must be 'token', got 'token_channel'"):
        run(problem, deeper=deeper)
    with pytest.raises(OptionError, match="guidance 'literal' trains"):
        run(problem, LiteralAttention(), deeper=deeper, mask="token")
    with pytest.raises(OptionError, match=r"deeper layer 0 must be \(3, 7, 'C'\)"):
        run(problem, deeper=[(deeper[0][0][:, :5], deeper[0][1])], mask="token")
