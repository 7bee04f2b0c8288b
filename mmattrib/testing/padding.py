"""What :func:`mmattrib.testing.check_encoder` asks of padding for inputs that go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmattrib.models.guard import added_wrongly
from mmattrib.types import RawInput

if TYPE_CHECKING:
    from mmattrib.testing.encoders import _EncoderCheck


def check_padded(check: _EncoderCheck, raws: Sequence[RawInput]) -> None:
    """What ``padded`` adds stands behind an input's own tokens, and nothing valid reads it."""
    encoder = check.encoder
    last = encoder.num_layers - 1
    for raw in raws:
        one = encoder.preprocess([raw])
        more = check.call("padded", encoder.padded, one)
        if more is one:
            continue
        own, grid = encoder.grid(one, last), encoder.grid(more, last)
        count = own.valid.shape[1]
        if (wrong := added_wrongly(own, grid)) is not None:
            check.fail(f"padded {wrong}")
        check.close(encoder.embed(more), encoder.embed(one), "padded changes the embedding")
        valid = own.valid[0].to(encoder.device)
        tokens, expected = encoder.prefix(more, last)[0, :count], encoder.prefix(one, last)[0]
        check.close(tokens[valid], expected[valid], f"padded changes tokens at layer {last}")
