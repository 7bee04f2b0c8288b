"""Noise that belongs to a pair: the same alone, in any batch, in any order, with any padding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def pair_generator(seed: int, key: str, purpose: str = "noise") -> torch.Generator:
    """A CPU generator whose state follows from these three alone; no global state is touched.

    Args:
        seed: the user's seed.
        key: names the pair, e.g. from the hashes of both inputs and the explained side.
        purpose: keeps independent streams of one pair apart.
    """
    text = "\0".join((str(int(seed)), key, purpose))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard normal float32 on the CPU, whatever torch's defaults are.

    Args:
        shape: of the draw.
        generator: on the CPU, such as :func:`pair_generator`'s.
    """
    return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")


class PairNoise:
    """Standard normal noise ε for each pair, step after step.

    Only valid tokens are drawn and then put in their places, so that padding does not change what
    the others get. Antithetic noise draws half of the samples and adds their negatives, which
    removes the odd terms of the Monte Carlo error.
    """

    def __init__(
        self,
        keys: Sequence[str],
        valid: Tensor,
        channels: int,
        samples: int,
        *,
        seed: int = 0,
        antithetic: bool = False,
        purpose: str = "noise",
    ) -> None:
        """Prepare one stream per pair.

        Args:
            keys: one name per pair, B of them.
            valid: ``(B, N)`` bool.
            channels: C.
            samples: S.
            seed: the user's seed.
            antithetic: draw ε and −ε together.
            purpose: keeps independent streams of one pair apart.
        """
        self._generators = [pair_generator(seed, key, purpose) for key in keys]
        self._valid = valid.to("cpu")
        self._channels, self._samples, self._antithetic = channels, samples, antithetic

    def draw(self) -> Tensor:
        """The next step's noise: ``(B, S, N, C)`` float32 on the CPU, zero at padding."""
        return torch.stack(
            [self._draw(g, valid) for g, valid in zip(self._generators, self._valid, strict=True)]
        )

    def _draw(self, generator: torch.Generator, valid: Tensor) -> Tensor:
        count = int(valid.sum())
        drawn = (self._samples + 1) // 2 if self._antithetic else self._samples
        values = normal((drawn, count, self._channels), generator)
        if self._antithetic:
            values = torch.cat([values, -values])[: self._samples]
        if count == len(valid):
            return values
        noise = values.new_zeros(self._samples, len(valid), self._channels)
        noise[:, valid] = values
        return noise
