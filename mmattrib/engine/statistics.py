"""Mean and spread of tokens, for a bottleneck whose noise looks like tokens.

Eq. (5) mixes tokens with standard normal noise, and eq. (7) compares with a standard normal. Both
make sense only when tokens have about that scale; IBA (Schulz et al. 2020) therefore standardises
them with statistics of a corpus.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmattrib.errors import repr_of

_FLOOR = 1e-3
"""Smallest spread, relative to the input's own, so that a constant channel cannot divide by 0."""


@dataclass(frozen=True)
class TokenStatistics:
    """What standardising subtracts and divides by.

    Attributes:
        mean: broadcastable to ``(B, N, C)``, e.g. ``(C,)`` from a corpus.
        std: the same, above zero.
    """

    mean: Tensor
    std: Tensor

    __repr__ = repr_of()

    def standardise(self, tokens: Tensor) -> Tensor:
        """(tokens − mean) / std, ``(B, N, C)``."""
        return (tokens - self.mean) / self.std

    def restore(self, tokens: Tensor) -> Tensor:
        """The inverse of :meth:`standardise`, on the last three axes of ``(..., N, C)``."""
        return tokens * self.std + self.mean

    def per_draw(self) -> TokenStatistics:
        """The same for ``(B, S, N, C)``: S draws of each input."""
        return TokenStatistics(*(x[:, None] if x.dim() == 3 else x for x in (self.mean, self.std)))

    def select(self, rows: Tensor) -> TokenStatistics:
        """The statistics of these rows of the batch."""
        return TokenStatistics(
            *(
                x[rows.to(x.device)] if x.dim() == 3 and len(x) > 1 else x
                for x in (self.mean, self.std)
            )
        )

    @classmethod
    def identity(cls, tokens: Tensor) -> TokenStatistics:
        """Leave ``(B, N, C)`` tokens as they are."""
        return cls(tokens.new_zeros(1), tokens.new_ones(1))

    @classmethod
    def of_corpus(cls, tokens: Tensor, valid: Tensor) -> TokenStatistics:
        """Per channel over the valid tokens of many inputs.

        Args:
            tokens: ``(B, N, C)``.
            valid: ``(B, N)`` bool.
        """
        kept = tokens[valid].float()
        std = kept.std(0, correction=0)
        return cls(kept.mean(0), std.clamp_min(_FLOOR * float(kept.square().mean().sqrt()) + 1e-12))

    @classmethod
    def of_inputs(cls, tokens: Tensor, valid: Tensor) -> TokenStatistics:
        """Per input, for want of a corpus: mean zero, the root mean square of each channel.

        The mean over an input's own tokens is not subtracted: it would be added back behind the
        bottleneck and carry what the input holds (for text, its bag of words) past every shut
        token. The scale carries next to nothing.

        Args:
            tokens: ``(B, N, C)``.
            valid: ``(B, N)`` bool.

        Returns:
            Statistics with a std of ``(B, 1, C)``.
        """
        power = mean_token(tokens.float().square(), valid)
        std = torch.maximum(power.sqrt(), _floor(power))
        return cls(tokens.new_zeros(1, dtype=torch.float32), std)

    @classmethod
    def of_common(cls, tokens: Tensor, valid: Tensor) -> TokenStatistics:
        """Per input: what its tokens have in common in each channel, and their spread around it.

        Noise of these statistics looks like the input's tokens, as IBA's does like a corpus's
        (Schulz et al. 2020, section 3.1). What the tokens have in common stands behind every mask;
        a token that equals it holds nothing. It is their mean, shrunk towards zero by what chance
        gives the mean of so few (James and Stein 1961, positive part, a channel at a time): nothing
        of the one word of a caption, little of a few words that differ, next to all of a picture's.

        Args:
            tokens: ``(B, N, C)``.
            valid: ``(B, N)`` bool.

        Returns:
            Statistics ``(B, 1, C)``.
        """
        count = valid.sum(-1).to(tokens.device, torch.float32)[:, None, None]
        mean = mean_token(tokens.float(), valid)
        power = mean_token(tokens.float().square(), valid)
        chance = (power - mean.square()).clamp_min(0.0) / (count - 1).clamp_min(1.0)
        kept = (1 - chance / mean.square().clamp_min(torch.finfo(mean.dtype).tiny)).clamp_min(0.0)
        common = mean * kept * (count > 1)  # one token has nothing in common with others
        spread = mean_token((tokens.float() - common).square(), valid).sqrt()
        return cls(common, torch.maximum(spread, _floor(power)))


def mean_token(tokens: Tensor, chosen: Tensor) -> Tensor:
    """``(b, 1, D)`` mean of the chosen tokens of each row."""
    weight = chosen.to(tokens.device, tokens.dtype)[..., None]
    return (tokens * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1.0)


def _floor(power: Tensor) -> Tensor:
    return _FLOOR * power.mean(-1, keepdim=True).sqrt() + 1e-12
