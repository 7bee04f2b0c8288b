"""Adam (Kingma and Ba, ICLR 2015), by torch's functional form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam


@dataclass
class _State:
    """A parameter, its rate, and what Adam remembers of its gradients."""

    parameter: Tensor
    rate: float
    mean: Tensor
    square: Tensor
    steps: Tensor


class Adam:
    """What ``torch.optim.Adam`` does at its defaults, to the last bit.

    Making one of torch's own imports a compiler, which takes longer than a map does.
    """

    def __init__(self, parameters: Sequence[tuple[Tensor, float]]) -> None:
        """Take parameters, changed in place by :meth:`step`, each with its learning rate."""
        self._states = [
            _State(
                parameter, rate, torch.zeros_like(parameter), torch.zeros_like(parameter),
                torch.zeros((), dtype=torch.float32, device="cpu"),
            )
            for parameter, rate in parameters
        ]  # fmt: skip

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """One update, with one gradient for each parameter."""
        for state, gradient in zip(self._states, gradients, strict=True):
            adam(
                [state.parameter], [gradient], [state.mean], [state.square], [], [state.steps],
                amsgrad=False, beta1=0.9, beta2=0.999, lr=state.rate, weight_decay=0.0, eps=1e-8,
                maximize=False,
            )  # fmt: skip
