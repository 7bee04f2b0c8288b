"""Patches that are left out of a tower, with nothing in their place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as nnf
from toy_encoders import RAWS, ToyImage

import mmattrib as mm
from mmattrib.errors import OptionError
from mmattrib.models.encoder import EncoderInputs
from mmattrib.perturb.tokens import embed_without
from mmattrib.types import RawImage


@pytest.fixture(scope="module")
def tiny() -> mm.Backbone:
    return mm.load_backbone("tiny")


def picture() -> RawImage:
    return RawImage(mm.scenes(1, seed=11)[0].image)


def test_leaving_tokens_out_is_hiding_their_keys(tiny: mm.Backbone) -> None:
    encoder: Any = tiny["image"]
    with encoder.frozen(), torch.no_grad():
        inputs = encoder.preprocess([picture()])
        content = encoder.grid(inputs, -1).content
        kept = torch.rand(6, content.shape[1], generator=torch.Generator().manual_seed(0)) < 0.5
        kept[0], kept[1] = True, False
        found = embed_without(encoder, inputs, kept)
        tokens = encoder.prefix(inputs, -1).expand(6, -1, -1)
        hidden = encoder.module.pool_from(tokens, 0, kept | ~content)
        torch.testing.assert_close(found, nnf.normalize(hidden, dim=-1), rtol=0, atol=1e-5)
        torch.testing.assert_close(found[:1], encoder.embed(inputs), rtol=0, atol=1e-5)
    assert (found[2:] - found[0]).norm(dim=-1).min() > 1e-3


def test_leave_one_out_without_a_fill_is_the_fall_of_the_cosine(tiny: mm.Backbone) -> None:
    raw = picture()
    found = mm.attribute(
        tiny, image=raw.pixels, text="a dog", method="leave-one-out", cells=2, image_fill="drop"
    )
    own = found["image"]
    encoder = tiny["image"]
    with encoder.frozen(), torch.no_grad():
        inputs: EncoderInputs = encoder.preprocess([raw])
        content = encoder.grid(inputs, -1).content[0]
        corner = torch.zeros(8, 8, dtype=torch.bool)
        corner[:4, :4] = True
        kept = torch.ones(2, len(content), dtype=torch.bool)
        kept[1, content] = ~corner.flatten()
        both = embed_without(encoder, inputs, kept)
        text = tiny["text"].embed(tiny["text"].preprocess([mm.types.RawText("a dog")]))
    fall = float((both[0] - both[1]) @ text[0])
    laid = own.token_scores[own.content].reshape(8, 8)
    assert laid[:4, :4].sum() == pytest.approx(fall, abs=1e-5)
    assert own.diagnostics["fill"] == "drop"
    assert found.provenance["options"]["image_fill"] == "drop"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rise", "kernel-shap"])
def test_masking_methods_take_dropped_patches(method: str, tiny: mm.Backbone) -> None:
    options: dict[str, Any] = {"method": method, "samples": 12, "cells": 2}
    ways = [
        mm.attribute(tiny, image=picture().pixels, text="a dog", image_fill=fill, **options)
        for fill in ("drop", "mean")
    ]
    drop, mean = (found["image"].token_scores for found in ways)
    assert np.isfinite(drop).all()
    assert not np.allclose(drop, mean)


def test_what_cannot_leave_tokens_out_is_refused(tiny: mm.Backbone) -> None:
    with pytest.raises(OptionError, match="explain a layer from -1 on"):
        mm.attribute(
            tiny, image=picture().pixels, text="a dog", method="leave-one-out", layer=-2,
            cells=2, image_fill="drop",
        )  # fmt: skip
    own = tiny["image"]
    with pytest.raises(OptionError, match=r"accepted: bool \(R, 65\)"):
        embed_without(own, own.preprocess([picture()]), torch.ones(2, 65))
    hidden = ToyImage()  # does not offer attention
    with pytest.raises(OptionError, match="leaving tokens out needs the attention"):
        embed_without(hidden, hidden.preprocess(RAWS["image"]()[:1]), torch.ones(2, 13) > 0)
