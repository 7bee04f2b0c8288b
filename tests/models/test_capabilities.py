"""Attention and gradients at the input: the libraries' own numbers, on models that were changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from toy_encoders import ToyImage, pictures

import mmattrib as mm
from mmattrib.errors import EncoderError, OptionError
from mmattrib.models import ATTENTION, INPUT_GRADIENT, INPUT_LAYER, EncoderInputs, require
from mmattrib.models.attention import explicit_attention
from mmattrib.testing import check_grid
from mmattrib.types import RawAudio, RawImage, RawText


class Attends(ToyImage):
    capabilities = frozenset({ATTENTION})


# ------------------------------------------------------------------------------------ asking


def test_a_method_that_asks_for_what_is_there_gets_nothing() -> None:
    require(Attends(), [ATTENTION], "method 'x'")


@pytest.mark.parametrize(
    ("name", "said"), [(ATTENTION, "attention weights"), (INPUT_GRADIENT, "gradients at its")]
)
def test_what_is_lacking_is_named(name: str, said: str) -> None:
    with pytest.raises(OptionError, match=rf"method 'x' needs .*{said}.*image .*ToyImage.*none"):
        require(ToyImage(), [name], "method 'x'")


def test_a_capability_that_does_not_exist() -> None:
    with pytest.raises(OptionError, match="'speech'; there are attention, input_gradient"):
        require(ToyImage(), ["speech"], "method 'x'")


def test_an_encoder_without_a_capability_refuses_what_it_would_give() -> None:
    encoder = ToyImage()
    inputs = encoder.preprocess(pictures())
    for call in (
        lambda: encoder.attention(inputs),
        lambda: encoder.embed_with_attention(inputs),
        lambda: encoder.prefix(inputs, INPUT_LAYER),
    ):
        with pytest.raises(OptionError, match="does not offer"):
            call()


# --------------------------------------------------------------------------------- attention


@pytest.mark.parametrize("masked", ["nothing", "bool", "added", "causal", "everything"])
def test_attention_by_its_definition_is_the_fused_one(masked: str) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, generator=generator) for _ in range(3))
    allowed = torch.rand(2, 1, 5, 5, generator=generator) > 0.4
    allowed[..., 0] = True
    given: dict[str, Any] = {
        "nothing": {},
        "bool": {"attn_mask": allowed},
        "added": {"attn_mask": torch.where(allowed, 0.3, -torch.inf)},
        "causal": {"is_causal": True, "scale": 0.7},
        "everything": {"attn_mask": torch.zeros(5, 5, dtype=torch.bool)},
    }[masked]
    expected = nnf.scaled_dot_product_attention(q, k, v, **given)
    torch.testing.assert_close(explicit_attention(q, k, v, **given), expected)


@pytest.mark.parametrize("bias", [False, True])
def test_torchs_own_attention_shows_the_weights_that_it_gives_itself(bias: bool) -> None:
    """ImageBind's attention has a learned key behind the tokens."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(16, 2, batch_first=True, add_bias_kv=bias)

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return x + self.inner(x, x, x, need_weights=False)[0]

    encoder = Attends()
    encoder.module.blocks = nn.ModuleList(Attention() for _ in range(2))
    encoder.blocks = list(encoder.module.blocks)
    inputs = encoder.preprocess(pictures())
    with encoder.frozen():
        found = encoder.embed_with_attention(inputs)
        for number, block in enumerate(encoder.blocks):
            x = encoder.prefix(inputs, number - 1)
            theirs = block.inner(x, x, x, need_weights=True, average_attn_weights=False)[1]
            torch.testing.assert_close(found.weights[number], theirs)
        assert found.extra == int(bias)
        square = encoder.attention(inputs)[0]
        assert square.shape == (len(inputs), 2, 13, 13)


def test_a_gradient_of_the_embedding_reaches_every_blocks_attention() -> None:
    """The slope along one weight is what moving that weight gives."""
    encoder = Attends()
    inputs = encoder.preprocess(pictures())
    with encoder.frozen():
        found = encoder.embed_with_attention(inputs)
        slopes = torch.autograd.grad(found.embedding[0, 0], found.weights)
        block: Any = encoder.blocks[1]
        step = 1e-3

        def moved(by: float) -> float:
            def forward(x: Tensor, mask: Any = None) -> Tensor:
                q, k, v = block.qkv(block.norm(x)).chunk(3, dim=-1)
                weights = (q @ k.mT / 4.0).softmax(dim=-1)
                weights[0, 0, 3] += by
                x = x + weights @ v
                return x + block.mlp(x)

            block.forward = forward
            try:
                with torch.no_grad():
                    return float(encoder.embed(inputs)[0, 0])
            finally:
                del block.forward

        rise = (moved(step) - moved(-step)) / (2 * step)
    assert float(slopes[1][0, 0, 0, 3]) == pytest.approx(rise, rel=2e-2, abs=1e-5)


def test_a_hook_on_attention_counts() -> None:
    """What a user changed is in the weights and in the embedding, as in the model."""
    encoder = Attends()
    inputs = encoder.preprocess(pictures())
    with encoder.frozen():
        before = encoder.embed_with_attention(inputs)
        block: Any = encoder.blocks[1]
        handle = block.qkv.register_forward_hook(lambda _m, _a, out: 2 * out)
        after = encoder.embed_with_attention(inputs)
        torch.testing.assert_close(after.embedding.detach(), encoder.embed(inputs).detach())
        handle.remove()
    assert torch.equal(before.weights[0], after.weights[0])
    assert not torch.allclose(before.weights[1], after.weights[1])


def test_attention_that_is_hidden_is_said_to_be() -> None:
    encoder = Attends()
    block: Any = encoder.blocks[1]
    block.forward = lambda x, mask=None: x
    with pytest.raises(EncoderError, match=r"block 1 of .* showed 0 sets.*attn_implementation"):
        encoder.embed_with_attention(encoder.preprocess(pictures()))


def test_a_model_that_differs_from_call_to_call_is_refused() -> None:
    encoder = Attends()
    encoder.module.train()  # dropout
    with pytest.raises(EncoderError, match="another embedding than embed"):
        encoder.embed_with_attention(encoder.preprocess(pictures()))


def tiny_inputs(backbone: mm.Backbone, modality: str) -> EncoderInputs:
    generator = np.random.default_rng(0)
    wave = generator.normal(0, 0.1, 16000 * 6).astype(np.float32)
    raws: dict[str, Any] = {
        "image": RawImage(generator.integers(0, 256, (50, 70, 3), dtype=np.uint8), "p"),
        "audio": RawAudio(wave, 16000, "s"),
        "text": RawText("a dog and a red car"),
    }
    return backbone[modality].preprocess([raws[modality]])


@pytest.mark.parametrize("modality", ["image", "audio", "text"])
def test_tinys_weights_are_its_own(untrained: mm.Backbone, modality: str) -> None:
    encoder: Any = untrained[modality]
    inputs = tiny_inputs(untrained, modality)
    with encoder.frozen():
        found = encoder.embed_with_attention(inputs)
        x = inputs["x"].flatten(0, 1) if modality == "audio" else inputs["x"]
        tokens, mask = encoder.module.embed_inputs(x)
        for weights, block in zip(found.weights, encoder.blocks, strict=True):
            theirs = block.attn.weights(block.norm1(tokens), mask)
            torch.testing.assert_close(weights, theirs, rtol=1e-5, atol=1e-6)
            tokens = block(tokens, mask)
    assert found.views == (3 if modality == "audio" else 1)
    square = encoder.attention(inputs)[0]
    count = square.shape[-1] // found.views
    assert torch.equal(square[:, :, :count, :count], found.weights[0][:1])
    assert square.shape[-1] == encoder.prefix(inputs, 0).shape[1]
    if found.views > 1:
        assert not square[:, :, :count, count:].any()


# ----------------------------------------------------------------------------------- the input


def test_a_map_at_the_input_is_as_fine_as_the_input(untrained: mm.Backbone) -> None:
    """One call for every modality: layer -2."""
    encoder = untrained["image"]
    inputs = tiny_inputs(untrained, "image")
    with encoder.frozen():
        assert encoder.prefix(inputs, INPUT_LAYER).shape == (1, 96 * 96, 3)
        text = untrained["text"]
        words = tiny_inputs(untrained, "text")
        assert torch.equal(text.prefix(words, INPUT_LAYER), text.prefix(words, -1))
    image = np.zeros((96, 96, 3), np.uint8)
    found = mm.attribute(untrained, image=image, text="a dog", method="nib", layer=INPUT_LAYER)
    assert found["image"].token_scores.shape == (96 * 96,)
    assert found["image"].layer == INPUT_LAYER


def test_a_method_that_needs_the_joint_tokens_refuses_the_input(untrained: mm.Backbone) -> None:
    image = np.zeros((96, 96, 3), np.uint8)
    with pytest.raises(OptionError, match="layer -2 has 9216 cells of the image"):
        mm.attribute(untrained, image=image, text="a dog", layer={"image": INPUT_LAYER})


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_cells_of_the_input_lie_where_they_were(untrained: mm.Backbone, modality: str) -> None:
    generator = np.random.default_rng(1)
    raw: Any = RawImage(generator.integers(0, 256, (480, 576, 3), dtype=np.uint8), "p")
    if modality == "audio":
        raw = RawAudio(generator.normal(0, 0.1, 16000 * 4).astype(np.float32), 16000, "s")
        # Windows overlap: a burst is heard some frames around it.
        check_grid(untrained[modality], raw, layer=INPUT_LAYER, slack=3.0)
    else:
        check_grid(untrained[modality], raw, layer=INPUT_LAYER, slack=0.5)


def test_inputs_take_another_tensor_and_stay_as_they_were() -> None:
    inputs = ToyImage().preprocess(pictures())
    other = inputs.with_tensor("x", 2 * inputs["x"])
    assert torch.equal(other["x"], 2 * inputs["x"])
    assert other.raw == inputs.raw
    with pytest.raises(OptionError, match="have no 'y'; they have x"):
        inputs.with_tensor("y", inputs["x"])


@pytest.mark.parametrize("way", ["softmax", "fused", "torch's own", "torch's own, shown"])
def test_queries_keys_and_tokens_stand_beside_the_weights(way: str) -> None:
    """Whichever way a block attends: its weights are the softmax of its queries and keys."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(16, 2, batch_first=True, add_bias_kv=True)

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            if way.startswith("torch"):
                return x + self.inner(x, x, x, need_weights=way.endswith("shown"))[0]
            q, k, v = (x @ w.T for w in self.inner.in_proj_weight.chunk(3))
            return x + nnf.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]

    encoder = Attends()
    if way != "softmax":
        encoder.module.blocks = nn.ModuleList(Attention() for _ in range(2))
        encoder.blocks = list(encoder.module.blocks)
    inputs = encoder.preprocess(pictures())
    with encoder.frozen():
        found = encoder.embed_with_attention(inputs)
        for block, (query, key) in enumerate(zip(found.queries, found.keys, strict=True)):
            assert query is not None
            assert key is not None
            logits = query @ key.mT
            scaled = way == "torch's own, shown"  # it scales its queries
            factor = 1.0 if scaled else query.shape[-1] ** -0.5
            torch.testing.assert_close((factor * logits).softmax(-1), found.weights[block])
            torch.testing.assert_close(found.tokens[block], encoder.prefix(inputs, block))


def test_a_softmax_of_another_thing_than_a_product_shows_no_queries() -> None:
    encoder = Attends()
    block: Any = encoder.blocks[1]

    def forward(x: Tensor, mask: Any = None) -> Tensor:
        distance = -torch.cdist(x, x)
        return x + distance.softmax(-1) @ x

    block.forward = forward
    with encoder.frozen():
        found = encoder.embed_with_attention(encoder.preprocess(pictures()))
    assert [query is None for query in found.queries] == [False, True, False]
