"""What :func:`mmattrib.testing.check_encoder` asks of one pass that keeps what others read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.models.passes import held

if TYPE_CHECKING:
    from mmattrib.testing.encoders import _EncoderCheck


def check_one_pass(
    check: _EncoderCheck, inputs: EncoderInputs, embedding: Tensor, layers: Sequence[int]
) -> None:
    """``one_pass`` gives bit for bit what ``embed``, ``prefix`` and ``token_embeddings`` give."""
    encoder = check.encoder
    made = check.call("one_pass", encoder.one_pass, inputs, layers)
    plain = Encoder.one_pass(encoder, inputs, layers)
    exact = torch.equal(_given(check, plain.embedding, "embedding"), embedding)

    def same(got: Tensor | None, expected: Tensor, what: str) -> None:
        found = _given(check, got, what)
        if not exact:  # the tower does not repeat itself to the bit
            check.close(found, expected, f"one_pass gives another {what}")
        elif not torch.equal(found, expected):
            check.fail(
                f"one_pass gives another {what} than a call of its own, by "
                f"{float((found.float() - expected.float()).abs().max()):.3g}; accepted: none"
            )

    same(made.embedding, embedding, "embedding")
    for layer in layers:
        same(made.tokens.get(layer), plain.tokens[layer], f"set of tokens at layer {layer}")
    with held(encoder.module, inputs, made.captured):
        joint = check.call("token_embeddings", encoder.token_embeddings, inputs)
    same(joint.values, encoder.token_embeddings(inputs).values, "set of token embeddings")
    check.check_cleanup("one_pass", encoder.one_pass, inputs, layers)


def _given(check: _EncoderCheck, found: Tensor | None, what: str) -> Tensor:
    if found is None:
        check.fail(f"one_pass gives no {what}")
    assert found is not None
    return found
