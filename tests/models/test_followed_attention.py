"""Attention of a model that was changed, or that another thread uses: followed, or refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mmattrib as mm
from mmattrib.errors import EncoderError

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
NAMES = ("chefer", "attention-rollout", "legrad", "grad-eclip")


def explained(backbone: mm.Backbone, method: str) -> Any:
    return mm.attribute(backbone, image=PICTURE, text="a dog", method=method)["image"]


def detached(tokens: Tensor) -> Tensor:
    return tokens.detach()


def through_numpy(tokens: Tensor) -> Tensor:
    return torch.from_numpy(tokens.detach().numpy() * 1.0)


def pruned(tokens: Tensor) -> Tensor:
    return tokens[:, :-1]


def last(encoder: Any) -> Any:
    return encoder.blocks[-1]


def last_attention(encoder: Any) -> Any:
    return encoder.blocks[-1].attn


def third(encoder: Any) -> Any:
    return encoder.blocks[2]


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        (last, detached, "gradients do not pass blocks.5"),
        (last_attention, detached, "gradients do not pass blocks.5"),
        (last, through_numpy, "gradients do not pass blocks.5"),
        (
            third,
            pruned,
            "block 0 attends between 65 tokens, and block 2 .* gives 64.* no attention",
        ),
        (last, pruned, "block 5 between 65 and gives 64.* changed, by a hook.* reads no attention"),
    ],
)
def test_a_model_whose_attention_cannot_be_followed_is_refused(
    untrained: mm.Backbone,
    method: str,
    part: Callable[[Any], Any],
    change: Callable[[Tensor], Tensor],
    says: str,
) -> None:
    handle = part(untrained["image"]).register_forward_hook(lambda _m, _a, out: change(out))
    with pytest.raises(EncoderError, match=says):
        explained(untrained, method)
    handle.remove()
    assert np.isfinite(explained(untrained, method).token_scores).all()


def test_only_blocks_that_count_must_be_reached(untrained: mm.Backbone) -> None:
    """Cut behind the first block: chefer from there on is refused, and behind it is not."""
    block: Any = untrained["image"]
    handle = block.blocks[0].register_forward_hook(lambda _m, _a, out: out.detach())
    with pytest.raises(EncoderError, match="no gradient reaches the attention of block 0"):
        explained(untrained, "chefer")
    mm.attribute(untrained, image=PICTURE, text="a dog", method="chefer", start=1)
    handle.remove()


@pytest.mark.parametrize("method", NAMES)
def test_what_another_thread_runs_meanwhile_is_not_recorded(
    untrained: mm.Backbone, method: str
) -> None:
    """A service's own forward, begun in the middle of each of ours, needs no turn."""
    encoder: Any = untrained["image"]
    expected = explained(untrained, method)
    inputs = encoder.preprocess([mm.io.load("image", PICTURE)])
    served: list[Tensor] = []
    ours = threading.get_ident()

    def serve() -> None:
        with torch.no_grad():
            served.append(encoder.forward(inputs))

    def meanwhile(*_: Any) -> None:
        if threading.get_ident() == ours:
            thread = threading.Thread(target=serve)
            thread.start()
            thread.join(30)

    handle = encoder.blocks[3].register_forward_hook(meanwhile)
    found = explained(untrained, method)
    handle.remove()
    assert served
    np.testing.assert_array_equal(found.token_scores, expected.token_scores)
