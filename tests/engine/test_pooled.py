"""Averaging over look-alike tokens, pair by pair."""

from __future__ import annotations

import torch

from mmattrib.engine import pooled


def test_no_other_pair_rounds_a_pairs_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 49, generator=generator)
    tokens = torch.randn(4, 49, 64, generator=generator)
    content = torch.rand(4, 49, generator=generator) < 0.8
    found = pooled(scores, tokens, content, 20.0)
    for row in (slice(pair, pair + 1) for pair in range(4)):
        assert torch.equal(found[row], pooled(scores[row], tokens[row], content[row], 20.0))
