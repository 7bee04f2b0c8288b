from __future__ import annotations

import pytest
import torch

from mmattrib.engine.noise import PairNoise, pair_generator


def draws(keys: list[str], valid: torch.Tensor, steps: int = 2, **options: object) -> torch.Tensor:
    noise = PairNoise(keys, valid, 3, 4, **options)  # type: ignore[arg-type]
    return torch.stack([noise.draw() for _ in range(steps)], 1)


def test_noise_belongs_to_seed_and_pair() -> None:
    valid = torch.ones(3, 5, dtype=torch.bool)
    batch = draws(["a", "b", "c"], valid)
    assert torch.equal(batch[1], draws(["b"], valid[:1])[0])
    assert torch.equal(batch.flip(0), draws(["c", "b", "a"], valid))
    assert not torch.equal(batch[0], batch[1])
    assert not torch.equal(batch[0, 0], batch[0, 1])  # another step, other noise
    assert not torch.equal(batch, draws(["a", "b", "c"], valid, seed=1))
    assert torch.equal(batch, draws(["a", "b", "c"], valid, purpose="noise"))
    assert not torch.equal(batch, draws(["a", "b", "c"], valid, purpose="other"))


@pytest.mark.parametrize("antithetic", [False, True])
def test_padding_changes_nothing_for_valid_tokens(antithetic: bool) -> None:
    short = torch.ones(1, 4, dtype=torch.bool)
    long = torch.zeros(1, 9, dtype=torch.bool)
    long[0, [0, 2, 3, 7]] = True
    few = draws(["a"], short, antithetic=antithetic)
    many = draws(["a"], long, antithetic=antithetic)
    assert torch.equal(many[0][:, :, long[0]], few[0])
    assert not many[0][:, :, ~long[0]].any()


def test_antithetic_samples_cancel() -> None:
    noise = PairNoise(["a"], torch.ones(1, 5, dtype=torch.bool), 3, 6, antithetic=True).draw()
    assert torch.equal(noise[:, :3], -noise[:, 3:])
    odd = PairNoise(["a"], torch.ones(1, 5, dtype=torch.bool), 3, 5, antithetic=True).draw()
    assert odd.shape == (1, 5, 5, 3)


def test_global_random_state_stays() -> None:
    before = torch.get_rng_state()
    draws(["a"], torch.ones(1, 5, dtype=torch.bool))
    pair_generator(3, "x")
    assert torch.equal(before, torch.get_rng_state())


def test_noise_is_standard_normal() -> None:
    valid = torch.ones(1, 200, dtype=torch.bool)
    values = PairNoise(["a"], valid, 50, 10).draw()
    assert abs(float(values.mean())) < 0.01
    assert abs(float(values.std()) - 1) < 0.01


def test_seed_and_key_do_not_run_together() -> None:
    first = torch.rand(4, generator=pair_generator(1, "2"))
    assert not torch.equal(first, torch.rand(4, generator=pair_generator(12, "")))
    assert not torch.equal(first, torch.rand(4, generator=pair_generator(1, "2", "attention")))
