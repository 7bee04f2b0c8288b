from __future__ import annotations

import torch

from mmattrib.engine.adam import Adam


def test_steps_are_those_of_torch_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator) for shape in ((2, 5, 7), (3,))]
    rates = (1.0, 0.01)
    ours = [start.clone() for start in starts]
    theirs = [start.clone().requires_grad_() for start in starts]
    mine = Adam(list(zip(ours, rates, strict=True)))
    torchs = torch.optim.Adam(
        [{"params": [p], "lr": rate} for p, rate in zip(theirs, rates, strict=True)]
    )
    for _ in range(12):
        gradients = [torch.randn(start.shape, generator=generator) for start in starts]
        mine.step(gradients)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        torchs.step()
    for our, their, start in zip(ours, theirs, starts, strict=True):
        assert torch.equal(our, their.detach())
        assert not torch.equal(our, start)
