"""What every encoder of a pretrained backbone must do beyond `check_encoder` and `check_grid`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as nnf

import mmattrib as mm
from mmattrib.engine import Guide
from mmattrib.methods import Method, Side
from mmattrib.models.encoder import Encoder
from mmattrib.types import RawImage, RawText

halves = pytest.mark.parametrize(
    "dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)]
)
"""Both go the same way; of families and kinds, one of them is a longer test."""


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Unit vectors of both, equal to the tolerance."""
    expected = nnf.normalize(expected.detach().float(), dim=-1)
    assert got.shape == expected.shape
    assert float((got.detach().cpu() - expected.cpu()).abs().max()) <= tolerance


def _methods() -> tuple[Method, ...]:
    """The default one in few rates, and one that scores every token whatever the model."""
    default = mm.load_method("ca-m2ib", points=4, guide_points=2)
    return default, mm.load_method("nib", steps=2)


def maps_do_not_depend_on_the_batch(
    backbone: mm.Backbone, images: Sequence[RawImage], captions: Sequence[RawText]
) -> None:
    """One by one and in a batch: the same maps."""
    pairs = [{"image": i, "text": t} for i, t in zip(images, captions, strict=True)]
    pairs = [*pairs, {"image": images[0], "text": captions[0]}]
    for method in _methods():
        many = list(mm.attribute_many(backbone, pairs, method=method, progress=False))
        for pair, together in zip(pairs, many, strict=True):
            alone = mm.attribute(backbone, **pair, method=method)
            assert abs(alone.similarity - together.similarity) < 1e-6
            for side in ("image", "text"):
                scores = together[side].scores
                assert np.isfinite(scores).all()
                # Bits may be 0 everywhere, where no token of a random model raises the match.
                assert np.ptp(scores) > 0 or together[side].diagnostics["capacity_bits"] == 0
                np.testing.assert_allclose(scores, alone[side].scores, rtol=1e-3, atol=1e-4)


def maps_do_not_depend_on_padding(
    encoder: Encoder, caption: RawText, longer: RawText, guide: Tensor
) -> None:
    """A caption beside a longer one gets the map that it gets alone."""
    for method in _methods():
        _padding_changes_nothing(method, encoder, caption, longer, guide)


def _padding_changes_nothing(
    method: Method, encoder: Encoder, caption: RawText, longer: RawText, guide: Tensor
) -> None:
    found = []
    for raws in ([caption], [caption, longer]):
        with encoder.frozen():
            inputs = encoder.preprocess(raws)
            rows = len(raws)
            side = Side(
                encoder=encoder,
                inputs=inputs,
                layer=encoder.default_layer,
                guide=Guide(
                    embedding=guide.expand(rows, -1),
                    tokens=guide[:, None].expand(rows, 3, -1),
                    valid=torch.ones(rows, 3, dtype=torch.bool),
                ),
                keys=tuple(f"key{row}" for row in range(rows)),
            )
            grid = encoder.grid(inputs, encoder.default_layer)
            scores = method(side).scores
        found.append(scores[0][grid.valid[0]])
    assert torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-4)


def runs_in(backbone: mm.Backbone, reference: mm.Backbone, dtype: torch.dtype) -> None:
    """The same embeddings as in float32 to the dtype's precision, and finite maps."""
    import checkpoints

    samples = {"image": checkpoints.pictures()[:2], "text": checkpoints.CAPTIONS[:2]}
    for modality, raws in samples.items():
        encoder = backbone[modality]
        assert next(encoder.module.parameters()).dtype == dtype
        with encoder.frozen(), torch.no_grad():
            inputs = encoder.preprocess(raws)
            embedding = encoder.embed(inputs)
            assert embedding.dtype == torch.float32
            exact = reference[modality]
            expected = exact.embed(exact.preprocess(raws))
            assert float((embedding * expected).sum(-1).min()) > 0.995
            for layer in (-1, encoder.num_layers - 1):
                again = encoder.suffix(encoder.prefix(inputs, layer), layer, inputs)
                assert float((embedding * again).sum(-1).min()) > 0.999
    pair = {"image": samples["image"][0], "text": samples["text"][0]}
    explained = mm.attribute(backbone, **pair, method="ca-m2ib", points=3, guide_points=2)
    assert all(np.isfinite(side.scores).all() for side in explained.values())
