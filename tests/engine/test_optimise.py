from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as nnf
from toy_tower import Pool, Problem, make_problem, relative, run

from mmattrib.benchmark.published import naive_m2ib
from mmattrib.engine import (
    BottleneckOptions,
    Context,
    Guidance,
    Guide,
    Steering,
    TokenStatistics,
    fit_bottleneck,
)
from mmattrib.engine import optimise as optimise_module
from mmattrib.engine.bottleneck import capacity
from mmattrib.engine.guidance import (
    GUIDANCES,
    LiteralAttention,
    NoGuidance,
    RelevanceGate,
    fixed,
)
from mmattrib.engine.noise import PairNoise
from mmattrib.errors import EncoderError, OptionError

MASKS = ["token", "token_channel"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mask", MASKS)
def test_guidance_none_equals_a_naive_m2ib(mask: str, dtype: torch.dtype) -> None:
    problem = make_problem(layer=1, dtype=dtype, lengths=(7, 5, 7), depth=4)
    options = {"samples": 6, "sigma": 1.3, "beta": 0.3, "gamma": 0.7, "learning_rate": 0.8}
    found = run(problem, mask=mask, **options)
    stream = PairNoise(problem.keys, problem.valid, 16, 6)
    noise = [stream.draw().to(dtype) for _ in range(10)]
    for pair in range(3):
        goal = problem.guide.embedding[pair]
        expected, losses = naive_m2ib(
            partial(problem.tower, problem.inputs[[pair] * 6], problem.valid[[pair] * 6]),
            lambda goal=goal: goal,
            problem.tower.blocks[1],
            problem.valid[pair],
            [step[pair] for step in noise],
            beta=0.3,
            gamma=0.7,
            sigma=1.3,
            learning_rate=0.8,
            per_channel=mask == "token_channel",
        )
        real = problem.valid[pair]
        assert relative(found.capacity[pair][real], expected[real]) < 1e-4
        assert found.diagnostics[pair]["losses"] == pytest.approx(losses, rel=1e-4, abs=1e-5)
        assert not found.capacity[pair][~real].any()


def _guided() -> Iterator[Any]:
    """Every guidance; the second mask of each but the plain one is a longer test."""
    for name in sorted(GUIDANCES):
        for mask in MASKS:
            longer = mask != MASKS[0] and name != "none"
            yield pytest.param(name, mask, marks=[pytest.mark.slow] * longer)


@pytest.mark.parametrize(("name", "mask"), list(_guided()))
def test_a_pair_alone_equals_the_pair_in_a_batch_in_any_order(name: str, mask: str) -> None:
    problem = make_problem(pairs=4, lengths=(7, 4, 7, 6))
    guidance = GUIDANCES[name]()
    batch = run(problem, guidance, mask=mask, standardise=True)
    order = [2, 0, 3, 1]
    shuffled = run(problem.select(order), guidance, mask=mask, standardise=True)
    assert torch.equal(shuffled.capacity, batch.capacity[order])
    for pair in range(4):
        alone = run(problem.select([pair]), guidance, mask=mask, standardise=True)
        assert torch.equal(alone.capacity[0], batch.capacity[pair])
        assert alone.diagnostics[0] == batch.diagnostics[pair]


@pytest.mark.parametrize("together", [1, 3])
def test_a_clean_embedding_that_is_known_is_not_made_again(together: int) -> None:
    problem, sizes = make_problem(pairs=3, lengths=(7, 4, 6)), list[int]()

    def suffix(tokens: Tensor, rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        return problem.suffix(tokens, rows)

    plain = run(problem, GUIDANCES["none"](), suffix=suffix, together=together)
    before, rows = sum(sizes), torch.arange(3)
    sizes.clear()
    clean = torch.cat([problem.suffix(problem.tokens()[rows == r], rows[rows == r]) for r in rows])
    found = run(problem, GUIDANCES["none"](), suffix=suffix, together=together, clean=clean)
    assert sum(sizes) == before - 3
    assert torch.equal(found.capacity, plain.capacity)
    for known, made in zip(found.diagnostics, plain.diagnostics, strict=True):
        assert known["clean_cosine"] == pytest.approx(made["clean_cosine"], abs=1e-6)
    with pytest.raises(OptionError, match="clean must be"):
        run(problem, GUIDANCES["none"](), clean=clean[:2])


@pytest.mark.parametrize("name", sorted(GUIDANCES))
def test_pairs_optimised_at_once_stay_independent(name: str) -> None:
    problem = make_problem(pairs=5, dtype=torch.float64, lengths=(7, 4, 7, 6, 2))
    one = run(problem, GUIDANCES[name](), samples=4)
    for size in (2, 5):
        many = run(problem, GUIDANCES[name](), samples=4, together=size)
        assert relative(many.capacity, one.capacity) < 1e-8


@pytest.mark.parametrize("name", ["none", "literal", "gate"])
def test_padding_does_not_change_a_map(name: str) -> None:
    problem = make_problem(pairs=1, count=6, dtype=torch.float64)
    padded = make_problem(pairs=1, count=6, dtype=torch.float64)
    padded.inputs = torch.cat([problem.inputs, torch.full((1, 3, 16), 7.0).double()], 1)
    padded.valid = torch.cat([problem.valid, torch.zeros(1, 3, dtype=torch.bool)], 1)
    short = run(problem, GUIDANCES[name](), standardise=True)
    long = run(padded, GUIDANCES[name](), standardise=True)
    assert relative(long.capacity[:, :6], short.capacity) < 1e-8
    assert not long.capacity[:, 6:].any()


@pytest.mark.parametrize(
    ("name", "max_rows"),
    [
        *(("none", rows) for rows in (1, 3, 7)),
        *((name, 3) for name in ("literal", "gate")),
        *(
            pytest.param(name, rows, marks=pytest.mark.slow)
            for name in ("literal", "gate")
            for rows in (1, 7)
        ),
    ],
)
def test_chunks_equal_the_whole(name: str, max_rows: int) -> None:
    problem = make_problem(dtype=torch.float64)
    whole = run(problem, GUIDANCES[name](), samples=7, max_rows=64, together=3)
    sizes = []

    def watched(tokens: Tensor, rows: Tensor) -> Tensor:
        sizes.append(len(tokens))
        return problem.suffix(tokens, rows)

    chunked = run(problem, GUIDANCES[name](), samples=7, max_rows=max_rows, suffix=watched)
    assert max(sizes) <= max_rows
    assert relative(chunked.capacity, whole.capacity) < 1e-8


def test_memory_that_runs_out_halves_the_call() -> None:
    problem = make_problem(pairs=4, dtype=torch.float64)
    sizes = []

    def small(tokens: Tensor, rows: Tensor) -> Tensor:
        sizes.append(len(tokens))
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("no room")
        return problem.suffix(tokens, rows)

    found = run(problem, samples=8, together=4, suffix=small)
    assert relative(found.capacity, run(problem, samples=8).capacity) < 1e-8
    assert 3 not in sizes  # 32, 16, 8, 4, then 2
    assert {8, 4, 2} <= set(sizes)

    def none(tokens: Tensor, rows: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no room at all")

    with pytest.raises(torch.OutOfMemoryError, match="at all"):
        run(problem, samples=8, suffix=none)


@pytest.mark.parametrize("mask", MASKS)
def test_gate_without_strength_is_m2ib_with_that_mask(mask: str) -> None:
    problem = make_problem(lengths=(7, 5, 7))
    plain = run(problem, mask=mask)
    gated = run(problem, RelevanceGate(strength=0.0), mask=mask)
    assert torch.equal(gated.capacity, plain.capacity)
    assert not torch.equal(run(problem, RelevanceGate(), mask=mask).capacity, plain.capacity)


def test_sigma_acts() -> None:
    problem = make_problem()
    weak, strong = run(problem, sigma=0.3), run(problem, sigma=2.0)
    assert not torch.allclose(weak.alpha, strong.alpha, rtol=0.01)
    for sigma in (0.3, 2.0):  # behind a shut mask the suffix sees noise of that deviation
        seen = []

        def watched(tokens: Tensor, rows: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(tokens)
            return problem.suffix(tokens, rows)

        run(problem, sigma=sigma, alpha_init=-20.0, steps=1, suffix=watched)
        noisy = torch.cat(seen[1::2])  # every other call is the clean one
        assert float(noisy.std()) == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("option", ["beta", "gamma", "samples", "seed", "antithetic"])
def test_every_option_acts(option: str) -> None:
    other = {"beta": 3.0, "gamma": 0.2, "samples": 4, "seed": 1, "antithetic": True}[option]
    problem = make_problem()
    assert not torch.allclose(run(problem).capacity, run(problem, **{option: other}).capacity)


def test_the_last_pass_makes_no_update() -> None:
    problem = make_problem()
    one = run(problem, steps=1)
    start = torch.full((3, 7, 16), 5.0)
    assert torch.equal(one.alpha, start)
    assert torch.equal(one.capacity, capacity(start, problem.tokens(), 1.0))
    assert [len(d["losses"]) for d in run(problem, steps=3).diagnostics] == [3, 3, 3]
    calls = []

    def counted(tokens: Tensor, rows: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return problem.suffix(tokens, rows)

    run(problem.select([0]), steps=4, suffix=counted)
    assert calls == [False, True, True, True, False]  # clean, three updates, the reading


@pytest.mark.parametrize("guidance", [NoGuidance(), LiteralAttention()])
def test_the_final_mask_is_the_same_whether_its_fit_is_measured(guidance: Guidance) -> None:
    """Bit for bit, in one pass less; what only that pass tells is None, and the rest as ever."""
    problem, calls = make_problem().select([0]), []

    def counted(tokens: Tensor, rows: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return problem.suffix(tokens, rows)

    measured = run(problem, guidance, steps=4)
    found = run(problem, guidance, steps=4, measure_end=False, suffix=counted)
    assert calls == [False, True, True, True]  # clean, three updates
    assert torch.equal(found.alpha, measured.alpha)
    assert torch.equal(found.capacity, measured.capacity)
    told, whole = found.diagnostics[0], measured.diagnostics[0]
    ends = {"cosine_end": None, "fit_end": None, "losses": whole["losses"][:3]}
    assert told == {**whole, **ends, "warnings": []}
    (first,) = run(problem, guidance, steps=1, measure_end=False).diagnostics
    assert first["cosine_end"] == first["cosine_start"]  # the only pass is the start's too


def test_nothing_outside_is_touched() -> None:
    problem = make_problem()
    for parameter in problem.tower.parameters():
        parameter.requires_grad_(True)
    states = {k: v.clone() for k, v in problem.tower.state_dict().items()}
    before = torch.get_rng_state()
    tokens = problem.tokens().detach()
    kept = tokens.clone()
    with torch.no_grad():  # a caller's no_grad must not switch the optimisation off
        result = run(problem, LiteralAttention())
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in problem.tower.parameters())
    assert all(torch.equal(v, states[k]) for k, v in problem.tower.state_dict().items())
    assert torch.equal(tokens, kept)
    assert not result.alpha.requires_grad
    assert not result.capacity.requires_grad
    assert not torch.equal(result.alpha, torch.full_like(result.alpha, 5.0))


def test_works_inside_inference_mode() -> None:
    problem = make_problem()
    with torch.inference_mode():
        inside = run(problem)
    assert torch.equal(inside.capacity, run(problem).capacity)


@pytest.mark.parametrize("name", ["none", "gate", "literal"])
def test_permuting_content_tokens_permutes_the_map(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem(pairs=1, layer=-1, dtype=torch.float64)
    order = torch.tensor([0, 4, 2, 6, 1, 3, 5])
    straight = run(problem, GUIDANCES[name](), suffix=Pool(problem.valid), mask="token")

    class Permuted(PairNoise):
        def draw(self) -> Tensor:
            return super().draw()[:, :, order]

    monkeypatch.setattr(optimise_module, "PairNoise", Permuted)
    own = problem.own_tokens()[:, order]
    problem.inputs = problem.inputs[:, order]
    monkeypatch.setattr(Problem, "own_tokens", lambda _self: own)
    turned = run(problem, GUIDANCES[name](), suffix=Pool(problem.valid), mask="token")
    assert relative(turned.capacity, straight.capacity[:, order]) < 1e-8


def planted(pairs: int = 6, count: int = 9) -> tuple[Problem, Pool, Tensor]:
    """Inputs of which one content token alone points where the guide does."""
    problem = make_problem(pairs=pairs, count=count, layer=-1)
    pool = Pool(problem.valid)
    problem.inputs = problem.inputs * 0.7
    where = torch.arange(pairs) % (count - 1) + 1
    for pair in range(pairs):
        alone = torch.tanh(problem.inputs[pair, where[pair]] * 3 @ pool.up) @ pool.down
        problem.inputs[pair, where[pair]] *= 3
        problem.guide.embedding[pair] = nnf.normalize(alone, dim=-1)
    return problem, pool, where


@pytest.mark.parametrize("guidance", ["none", "gate"])
def test_a_token_mask_finds_the_token_that_matches(guidance: str) -> None:
    problem, pool, where = planted()
    own = nnf.normalize(torch.tanh(problem.inputs @ pool.up) @ pool.down, dim=-1)
    problem.own_tokens = lambda: own  # type: ignore[method-assign]
    problem.guide.tokens[:, 0] = problem.guide.embedding
    options = {"mask": "token", "standardise": True, "antithetic": True, "learning_rate": 0.3}
    found = run(problem, GUIDANCES[guidance](), suffix=pool, **options)
    assert torch.equal(found.capacity[:, 1:].argmax(1) + 1, where)
    gains = [entry["cosine_end"] - entry["clean_cosine"] for entry in found.diagnostics]
    assert sum(gains) > 0


def test_a_new_guidance_is_one_small_class() -> None:
    class Reversed(Guidance):
        """Start shut where dropping a token raises the cosine, open where it lowers it."""

        name = "reversed"

        def prepare(self, context: Context) -> Steering:
            kept = 1 - torch.eye(context.tokens.shape[1])[None, :, :, None]
            without = context.embed(context.tokens[:, None] * kept)
            clean = context.embed(context.tokens[:, None])
            drop = ((clean - without) * context.guide.embedding[:, None]).sum(-1)
            return Steering(fixed(context.guide.embedding), alpha_init=50 * drop)

    problem = make_problem()
    start = run(problem, Reversed(), steps=1).alpha
    assert start.shape == (3, 7, 16)
    assert torch.equal(start, start[..., :1].expand_as(start))
    assert float(start.std()) > 0.1
    assert torch.isfinite(run(problem, Reversed(), mask="token").capacity).all()


@pytest.mark.slow
def test_literal_collapses_and_the_diagnostics_say_so() -> None:
    problem = make_problem(pairs=4)
    options = {"steps": 30, "learning_rate": 0.1, "attention_learning_rate": 0.05}
    literal = run(problem, LiteralAttention(), **options)
    for entry in literal.diagnostics:
        rise = entry["fit_end"] - entry["fit_start"]
        gain = entry["cosine_end"] - entry["cosine_start"]
        assert rise > 0.3
        assert gain < 0.3 * rise
        assert any("changed its own target" in text for text in entry["warnings"])
    # The same problem with a target that stands still raises no such warning.
    for entry in run(problem, **options).diagnostics:
        assert entry["fit_end"] == pytest.approx(entry["cosine_end"], abs=1e-6)
        assert not any("changed its own target" in text for text in entry["warnings"])


@pytest.mark.slow
def test_literal_hardly_hears_its_guide_and_a_fixed_target_does() -> None:
    problem = make_problem(pairs=4)
    other = problem.guide.select(torch.tensor([1, 2, 3, 0]))
    swapped = Problem(problem.tower, problem.inputs, 0, other, problem.valid, problem.keys)
    options = {"steps": 30, "learning_rate": 0.1, "attention_learning_rate": 0.05}

    def change(guidance: Guidance) -> float:
        maps = [run(p, guidance, **options).capacity for p in (problem, swapped)]
        return float((maps[0] - maps[1]).abs().mean() / maps[0].std())

    assert change(LiteralAttention()) < 0.5 * change(NoGuidance())


def test_picking_channels_is_called_steering() -> None:
    problem = make_problem(pairs=4, width=32)
    steered = run(problem, steps=40, mask="token_channel")
    for entry in steered.diagnostics:
        assert entry["cosine_end"] - entry["clean_cosine"] > 0.25
        assert any("steered the embedding" in text for text in entry["warnings"])


def test_capacity_bits_and_clean_cosine_are_what_they_say() -> None:
    problem = make_problem(lengths=(7, 5, 7))
    found = run(problem)
    embeddings = problem.tower(problem.inputs, problem.valid)
    clean = (embeddings * problem.guide.embedding).sum(-1)
    for pair, entry in enumerate(found.diagnostics):
        assert entry["capacity_bits"] == pytest.approx(float(found.capacity[pair].sum()))
        assert entry["clean_cosine"] == pytest.approx(float(clean[pair]), abs=1e-6)
        assert all(isinstance(loss, float) for loss in entry["losses"])
    assert (found.capacity[problem.valid] > 0).all()


def test_half_precision_tokens_work() -> None:
    problem = make_problem()
    tower = make_problem().tower.to(torch.bfloat16)
    seen = []

    def half(tokens: Tensor, rows: Tensor) -> Tensor:
        seen.append(tokens.dtype)
        return tower.suffix(tokens, problem.valid[rows], 0)

    found = fit_bottleneck(
        problem.tokens().bfloat16(),
        half,
        problem.guide,
        problem.valid,
        problem.content,
        problem.keys,
        BottleneckOptions(),
        NoGuidance(),
    )
    assert set(seen) == {torch.bfloat16}
    assert found.capacity.dtype == torch.float32
    assert torch.isfinite(found.capacity).all()


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e8])
@pytest.mark.parametrize("standardise", [False, True])
def test_extreme_tokens_stay_finite(scale: float, standardise: bool) -> None:
    problem = make_problem(layer=-1)
    problem.inputs = problem.inputs * scale
    found = run(problem, mask="token", standardise=standardise)
    assert torch.isfinite(found.capacity).all()
    assert torch.isfinite(found.alpha).all()


def test_a_loss_that_is_not_finite_spoils_its_own_pair_only() -> None:
    problem = make_problem(pairs=2, dtype=torch.float64)
    calls = {"n": 0}

    def breaks(tokens: Tensor, rows: Tensor) -> Tensor:
        calls["n"] += 1
        out = problem.suffix(tokens, rows)
        spoil = (rows == 0)[:, None] & (calls["n"] > 3)
        return out + torch.where(spoil, math.nan, 0.0)

    found = run(problem, suffix=breaks, together=2)
    assert torch.isfinite(found.capacity).all()
    assert "not a number" in found.diagnostics[0]["warnings"][0]
    assert relative(found.capacity[1:], run(problem).capacity[1:]) < 1e-8
    assert not any("not a number" in text for text in found.diagnostics[1]["warnings"])


def test_tokens_that_are_not_finite_are_refused() -> None:
    problem = make_problem(layer=-1)
    problem.inputs[1, 2, 3] = math.nan
    with pytest.raises(EncoderError, match="pair 1"):
        run(problem)


def test_padding_may_hold_anything() -> None:
    problem = make_problem(layer=-1, lengths=(7, 5, 7))
    problem.inputs[1, 6] = 1e30
    assert torch.isfinite(run(problem, suffix=Pool(problem.valid)).capacity).all()


def test_shapes_that_do_not_fit_are_named() -> None:
    problem = make_problem()
    bad = Problem(
        problem.tower, problem.inputs, 0, problem.guide, problem.valid[:, :4], problem.keys
    )
    with pytest.raises(OptionError, match=r"valid must be bool of shape \(3, 7\)"):
        fit_bottleneck(
            problem.tokens(),
            problem.suffix,
            problem.guide,
            bad.valid,
            problem.content,
            problem.keys,
            BottleneckOptions(),
            NoGuidance(),
        )
    two = problem.guide.select(torch.arange(2))
    with pytest.raises(OptionError, match="2 guides need as many sets of tokens, got 3"):
        Guide(two.embedding, problem.guide.tokens, problem.guide.valid)
    with pytest.raises(OptionError, match="3 inputs need 3 guides"):
        run(Problem(problem.tower, problem.inputs, 0, two, problem.valid, problem.keys))


def test_corpus_statistics_are_used_when_given() -> None:
    problem = make_problem()
    tokens = problem.tokens()
    corpus = TokenStatistics.of_corpus(tokens, problem.valid)
    own = run(problem, standardise=True)
    given = run(problem, standardise=True, statistics=corpus)
    assert not torch.allclose(own.capacity, given.capacity)
    same = run(problem, statistics=corpus)  # without effect unless asked for
    assert torch.equal(same.capacity, run(problem).capacity)
