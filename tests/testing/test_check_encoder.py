"""`check_encoder` passes sound encoders and finds every planted fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_encoders import (
    RAWS,
    WIDTH,
    TokensFirst,
    ToyAudio,
    ToyEncoder,
    ToyImage,
    ToyText,
    pictures,
    recordings,
)

from mmattrib.errors import EncoderError, InputError, OptionError
from mmattrib.models.attention import AttentionPass
from mmattrib.models.capabilities import ATTENTION, INPUT_GRADIENT, INPUT_LAYER
from mmattrib.models.encoder import Encoder, EncoderInputs, TokenEmbeddings
from mmattrib.models.grids import ImageGrid, SpectrogramGrid, TokenGrid
from mmattrib.models.passes import Pass
from mmattrib.testing import check_encoder, check_grid


class ImageTokensFirst(TokensFirst, ToyImage):
    pass


class TextTokensFirst(TokensFirst, ToyText):
    pass


class Attends(ToyImage):
    capabilities = frozenset({ATTENTION})


class TextAttends(ToyText):
    capabilities = frozenset({ATTENTION, INPUT_GRADIENT})


class SoundInput(ToyImage):
    capabilities = frozenset({INPUT_GRADIENT})
    input_name = "x"
    input_pattern = "b n c -> b n c"

    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        if layer != INPUT_LAYER:
            return super().grid(inputs, layer)
        sizes = [raw.pixels.shape[:2] for raw in inputs.raw]
        return ImageGrid(self.layout, sizes, [self.box(raw) for raw in inputs.raw])


class OneBlock(ToyImage):
    default_layer = -1

    def __init__(self) -> None:
        super().__init__(layers=1)


SOUND: dict[str, Callable[[], ToyEncoder]] = {
    "image": ToyImage,
    "audio": ToyAudio,
    "text": ToyText,
    "image, tuples": lambda: ToyImage(tuples=True),
    "text, tuples": lambda: ToyText(tuples=True),
    "image, (L, B, D)": lambda: ImageTokensFirst(tokens_first=True),
    "text, (L, B, D), tuples": lambda: TextTokensFirst(tokens_first=True, tuples=True),
    "one block": OneBlock,
    "image, attention": Attends,
    "text, attention": TextAttends,
    "image, input": SoundInput,
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_encoders_pass(name: str) -> None:
    encoder = SOUND[name]()
    raws = RAWS[encoder.modality]()
    check_encoder(encoder, raws)
    for raw in raws[:1]:
        check_grid(encoder, raw)
        check_grid(encoder, raw, layer=0, seed=5)


class WrongAtOneLayer(ToyImage):
    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        out = super().suffix(tokens, layer, inputs)
        return out + 0.01 if layer == 1 else out


class IgnoresTokens(ToyImage):
    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        return self.embed(inputs) + 0 * tokens.mean()


class Detaches(ToyImage):
    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        return super().suffix(tokens.detach(), layer, inputs)


class WritesIntoTokens(ToyImage):
    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        out = super().suffix(tokens, layer, inputs)
        tokens.detach().mul_(2)
        return out


class LeavesHookOnError(ToyImage):
    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        self.check_layer(layer)
        if layer < 0:
            return super().suffix(tokens, layer, inputs)
        handle = self.blocks[layer].register_forward_hook(lambda *_: tokens)
        out = self.embed(inputs)
        handle.remove()
        return out


class LeavesPrefixHook(ToyImage):
    def prefix(self, inputs: EncoderInputs, layer: int) -> Tensor:
        self.module.norm.register_forward_hook(lambda *_: None)
        return super().prefix(inputs, layer)


class HookedBlock(nn.Module):
    """A block that adds a hook to itself whenever it runs."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        self.register_full_backward_hook(lambda *_: None)
        return self.block(x, mask)


class BlockLeavesHook(ToyImage):
    def __init__(self) -> None:
        super().__init__()
        self.module.blocks[1] = HookedBlock(self.module.blocks[1])
        self.blocks = list(self.module.blocks)


class OtherInOnePass(ToyImage):
    def one_pass(self, inputs: EncoderInputs, layers: Sequence[int]) -> Pass:
        found = super().one_pass(inputs, layers)
        found.tokens = {layer: tokens + 1e-6 for layer, tokens in found.tokens.items()}
        return found


class ReplacesModule(ToyImage):
    def prefix(self, inputs: EncoderInputs, layer: int) -> Tensor:
        self.module.norm = nn.LayerNorm(WIDTH).eval()
        return super().prefix(inputs, layer)


class NotNormalised(ToyImage):
    def embed(self, inputs: EncoderInputs) -> Tensor:
        return self.forward(inputs)


class Constant(ToyImage):
    def embed(self, inputs: EncoderInputs) -> Tensor:
        return nn.functional.normalize(torch.ones(len(inputs), 8), dim=-1)


class MixesRows(ToyImage):
    def forward(self, inputs: EncoderInputs) -> Tensor:
        out = super().forward(inputs)
        return out - 0.1 * out.mean(dim=0)


class UsesRandomState(ToyImage):
    def preprocess(self, raws: Any) -> EncoderInputs:
        torch.rand(1)
        return super().preprocess(raws)


class UsesNumpyState(ToyImage):
    def embed(self, inputs: EncoderInputs) -> Tensor:
        np.random.rand()
        return super().embed(inputs)


class RandomInputs(ToyImage):
    def preprocess(self, raws: Any) -> EncoderInputs:
        inputs = super().preprocess(raws)
        noise = torch.randn(inputs["x"].shape, generator=torch.Generator().manual_seed(self.turn))
        self.turn += 1
        return EncoderInputs({"x": inputs["x"] + noise}, inputs.raw)

    turn = 0


class TurnsOnTraining(ToyImage):
    def embed(self, inputs: EncoderInputs) -> Tensor:
        self.module.train()
        return super().embed(inputs)


class ChangesWeights(ToyImage):
    def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        result = super().token_embeddings(inputs)
        self.module.head.bias.data.add_(1e-3)
        return result


class ScalesWeights(ToyImage):
    def embed(self, inputs: EncoderInputs) -> Tensor:
        with torch.no_grad():
            self.module.head.bias.mul_(1.0)
        return super().embed(inputs)


class Unfreezes(ToyImage):
    def frozen(self) -> Any:
        from contextlib import nullcontext

        return nullcontext()


class ReadsPadding(ToyText):
    def preprocess(self, raws: Any) -> EncoderInputs:
        inputs = super().preprocess(raws)
        return EncoderInputs({"x": inputs["x"], "pool": inputs["pool"]}, inputs.raw)


class DeadDefault(ToyImage):
    default_layer = 2


class UnknownCapability(ToyImage):
    capabilities = frozenset({"speech"})


class CutsAttention(Attends):
    """Weights that are not on the way to the embedding."""

    def embed_with_attention(self, inputs: EncoderInputs) -> AttentionPass:
        found = super().embed_with_attention(inputs)
        kept = tuple(weights.detach().requires_grad_(True) for weights in found.weights)
        return replace(found, weights=kept)


class SumsToTwo(Attends):
    def embed_with_attention(self, inputs: EncoderInputs) -> AttentionPass:
        found = super().embed_with_attention(inputs)
        return replace(found, weights=tuple(2 * weights for weights in found.weights))


class HalfAttention(Attends):
    def embed_with_attention(self, inputs: EncoderInputs) -> AttentionPass:
        found = super().embed_with_attention(inputs)
        return replace(found, weights=found.weights[1:])


class ShuffledKeys(Attends):
    """Keys of other tokens than the weights are of."""

    def embed_with_attention(self, inputs: EncoderInputs) -> AttentionPass:
        found = super().embed_with_attention(inputs)
        return replace(found, keys=tuple(k.flip(2) for k in found.keys if k is not None))


class ShiftedTokens(Attends):
    def embed_with_attention(self, inputs: EncoderInputs) -> AttentionPass:
        found = super().embed_with_attention(inputs)
        return replace(found, tokens=tuple(tokens + 0.1 for tokens in found.tokens))


class OtherInput(SoundInput):
    """Gives other cells than the embedding of cells takes."""

    def embed_input(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        return super().embed_input(tokens + 0.1, inputs)


class HalfSlope(OtherInput):
    def embed_input(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        halved = 0.5 * tokens + 0.5 * tokens.detach()
        return Encoder.embed_input(self, halved, inputs)


class ForgetsRows(ToyText):
    """Keeps where captions end from the last preprocess, whatever rows it is given."""

    def preprocess(self, raws: Any) -> EncoderInputs:
        inputs = super().preprocess(raws)
        self.ends = inputs["pool"]
        return inputs

    def forward(self, inputs: EncoderInputs) -> Tensor:
        return self.module(inputs["x"], inputs["mask"], self.ends[: len(inputs)])


class FewerTokenEmbeddings(ToyImage):
    def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        result = super().token_embeddings(inputs)
        return TokenEmbeddings(result.values[:, 1:], result.valid[:, 1:])


class LongTokenEmbeddings(ToyImage):
    def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        result = super().token_embeddings(inputs)
        return TokenEmbeddings(2 * result.values, result.valid)


class GridWithoutCls(ToyImage):
    prefix_tokens = 0


class FallingAxis(ToyAudio):
    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        good = super().grid(inputs, layer).axes(0)
        seconds = [good[1].values] * len(inputs)
        return SpectrogramGrid(self.layout, good[0].values[::-1].copy(), seconds)


class BadDefaultLayer(ToyImage):
    default_layer = 3


class WrongBlocks(ToyImage):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = [*self.blocks, nn.Identity()]


class Raises(ToyImage):
    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        raise KeyError("out_proj")


FAULTS: dict[str, tuple[Callable[[], Encoder], str]] = {
    "wrong at one layer": (WrongAtOneLayer, r"suffix\(prefix\(x, 1\), 1.*largest difference 0.01"),
    "ignores tokens": (IgnoresTokens, "at layer -1 ignores the tokens"),
    "detaches": (Detaches, "not differentiable"),
    "writes into tokens": (WritesIntoTokens, "changed the tokens it was given"),
    "hook left on error": (LeavesHookOnError, "suffix at layer 0.*exception.*forward hooks of blo"),
    "hook left by prefix": (LeavesPrefixHook, "prefix at layer -1.*forward hooks of norm"),
    "hook left by a block": (BlockLeavesHook, "backward hooks of blocks.1"),
    "dead default layer": (DeadDefault, "default_layer is 2, behind which"),
    "unknown capability": (UnknownCapability, "capabilities are .*speech.*attention"),
    "attention cut off": (CutsAttention, "not what the embedding was computed from"),
    "attention not probabilities": (SumsToTwo, r"block 0 sums to 2 to 2"),
    "attention of some blocks": (HalfAttention, "2 blocks of 3"),
    "attention of other keys": (ShuffledKeys, "block 0 comes with queries and keys that"),
    "attention with other tokens": (ShiftedTokens, "other tokens of block 0 than prefix"),
    "input misplaced": (OtherInput, r"suffix\(prefix\(x, -2\)"),
    "input half as steep": (HalfSlope, r"gives (1\.[89]\d*|2) times its slope"),
    "(L, B, D) not turned": (lambda: ToyImage(tokens_first=True), r"prefix at layer -1 gave .13"),
    "module replaced": (ReplacesModule, "identity of norm"),
    "not normalised": (NotNormalised, "norms from"),
    "constant": (Constant, "one embedding"),
    "rows mixed": (MixesRows, "alone and in the batch"),
    "torch's random state": (UsesRandomState, "preprocess changed.*random state of torch"),
    "numpy's random state": (UsesNumpyState, "embed changed.*random state of numpy"),
    "random inputs": (RandomInputs, "another 'x' for the same inputs"),
    "training mode": (TurnsOnTraining, "training flag"),
    "one pass": (OtherInOnePass, "one_pass gives another set of tokens at layer 0"),
    "weights through data": (ChangesWeights, "weights or buffers"),
    "weights in place": (ScalesWeights, "values of head.bias"),
    "not frozen": (Unfreezes, "training mode"),
    "padding read": (ReadsPadding, "reads tokens that the grid calls padding"),
    "rows forgotten": (ForgetsRows, "largest difference"),
    "too few token embeddings": (FewerTokenEmbeddings, "token_embeddings gave .3, 12, 8"),
    "token embeddings too long": (LongTokenEmbeddings, "token_embeddings are not L2"),
    "grid without CLS": (GridWithoutCls, "grid at layer -1 has valid of .3, 12"),
    "axis falls": (FallingAxis, "values do not rise"),
    "default layer": (BadDefaultLayer, "default_layer"),
    "block that never runs": (WrongBlocks, "block 3"),
    "other error": (Raises, "suffix at layer -1 raised KeyError: 'out_proj'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_check_encoder_finds(name: str) -> None:
    make, message = FAULTS[name]
    encoder = make()
    with pytest.raises(EncoderError, match=message) as caught:
        check_encoder(encoder, RAWS[encoder.modality]())
    assert "\n" not in str(caught.value)


def test_rows_as_many_as_tokens_do_not_hide_tokens_first() -> None:
    with pytest.raises(EncoderError):
        check_encoder(ToyImage(tokens_first=True), pictures(13))


def test_chosen_layers_only() -> None:
    check_encoder(WrongAtOneLayer(), pictures(), layers=[-1, 0, 2])
    with pytest.raises(EncoderError, match="1"):
        check_encoder(WrongAtOneLayer(), pictures(), layers=[1])
    check_encoder(WrongAtOneLayer(), pictures(), layers=[1], atol=0.05)
    with pytest.raises(OptionError, match="no layer 3"):
        check_encoder(ToyImage(), pictures(), layers=[3])


def test_what_check_encoder_needs() -> None:
    with pytest.raises(InputError, match="at least two"):
        check_encoder(ToyImage(), pictures(1))
    with pytest.raises(InputError, match="raw audio for an encoder of image"):
        check_encoder(ToyImage(), recordings())
    with pytest.raises(EncoderError, match="subclass"):
        check_encoder(nn.Linear(1, 1), pictures())  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="one embedding"):
        check_encoder(ToyImage(), pictures(1) * 2)


@pytest.mark.parametrize("name", ["image", "audio", "text"])
def test_checks_leave_everything_alone(name: str) -> None:
    encoder = SOUND[name]()
    encoder.module.blocks[0].eval()
    encoder.module.norm.requires_grad_(False)
    weights = {key: value.clone() for key, value in encoder.module.state_dict().items()}
    flags = [module.training for module in encoder.module.modules()]
    required = [p.requires_grad for p in encoder.module.parameters()]
    random = torch.get_rng_state()
    check_encoder(encoder, RAWS[name]())
    check_grid(encoder, RAWS[name]()[0])
    assert [module.training for module in encoder.module.modules()] == flags
    assert [p.requires_grad for p in encoder.module.parameters()] == required
    assert all(p.grad is None for p in encoder.module.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    for key, value in encoder.module.state_dict().items():
        assert torch.equal(value, weights[key])
    for module in encoder.module.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
