"""Parts that let no gradient pass are named before a map of the other parts is shown."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from quick_methods import quick
from torch import Tensor, nn

import mmattrib as mm
from mmattrib.errors import EncoderError

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
GRADIENTS = ["ca-m2ib", "nib", "grad-cam", "integrated-gradients", "chefer"]
NONE = ["leave-one-out", "rise"]


def explained(backbone: mm.Backbone, method: str, **more: Any) -> mm.Explanation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mm.attribute(
            backbone, image=PICTURE, text="a dog", method=method, **quick(method), **more
        )


@pytest.fixture
def quantised(untrained: mm.Backbone) -> mm.Backbone:
    """Quantised in place after it was wrapped: the perceptrons, beside which residual ways lead."""
    if not {"fbgemm", "x86", "onednn"} & set(torch.backends.quantized.supported_engines):
        pytest.skip("this torch quantises nothing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces another package
        for encoder in untrained.values():
            names = [name for name, _ in encoder.module.named_modules() if name.endswith("fc1")]
            torch.ao.quantization.quantize_dynamic(
                encoder.module,
                dict.fromkeys(names, torch.ao.quantization.default_dynamic_qconfig),
                inplace=True,
            )
    return untrained


@pytest.mark.parametrize("method", GRADIENTS)
def test_a_quantised_model_is_refused_where_gradients_are_taken(
    quantised: mm.Backbone, method: str
) -> None:
    with pytest.raises(EncoderError, match=r"gradients do not pass .*leave-one-out"):
        explained(quantised, method)


@pytest.mark.parametrize("method", NONE)
def test_a_quantised_model_is_explained_without_gradients(
    quantised: mm.Backbone, method: str
) -> None:
    assert {type(part).__module__ for part in quantised["image"].module.modules()} & {
        "torch.ao.nn.quantized.dynamic.modules.linear"
    }
    assert explained(quantised, method)["image"].scores.any()


def detached(block: Any) -> None:
    block.attn.register_forward_hook(lambda _m, _a, out: out.detach())


def without_gradients(block: Any) -> None:
    block.fc2.forward = torch.no_grad()(block.fc2.forward)


@pytest.mark.parametrize("method", ["saliency", "ca-m2ib", "chefer"])
@pytest.mark.parametrize("change", [detached, without_gradients])
def test_a_part_behind_which_the_graph_ends_is_named(
    untrained: mm.Backbone, change: Callable[[Any], None], method: str
) -> None:
    change(untrained["image"].blocks[3])  # type: ignore[attr-defined]
    with pytest.raises(EncoderError, match=r"gradients do not pass \S*3\S* .*the image encoder"):
        explained(untrained, method)


class Positions(nn.Module):
    """As rotary embeddings are made: of the tokens' type and number alone, without gradients."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return torch.linspace(0, 1e-3, x.shape[1], dtype=x.dtype)[:, None]


def test_what_depends_on_no_number_needs_no_gradient(untrained: mm.Backbone) -> None:
    block: Any = untrained["image"].blocks[3]  # type: ignore[attr-defined]
    block.positions = Positions()
    block.fc2.register_forward_hook(lambda _m, args, out: out + block.positions(args[0]))
    for method in ("saliency", "chefer"):
        assert explained(untrained, method)["image"].scores.any()
