"""A user's model: changed, shared between threads, in odd modes. Maps stay those of the model."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from quick_methods import quick
from torch import Tensor, nn
from toy_encoders import ToyImage, pictures

import mmattrib as mm
from mmattrib.backbones.tiny.encoders import wrap
from mmattrib.errors import EncoderError, TrustWarning
from mmattrib.models import EncoderInputs, expect
from mmattrib.models.passes import Passes
from mmattrib.models.turns import is_compiled
from mmattrib.types import RawImage

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
QUICK: dict[str, Any] = {"method": "nib", "steps": 2}


def state(backbone: mm.Backbone) -> list[object]:
    modules = [part for encoder in backbone.values() for part in encoder.module.modules()]
    return [
        [p.requires_grad for part in modules for p in part.parameters(recurse=False)],
        [part.training for part in modules],
        [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in modules],
    ]


# ------------------------------------------------------------------------------------ changed


def hooked(block: Any) -> Any:
    return block.attn.register_forward_hook(lambda _m, _a, out: 0.3 * out.flip(1))


@contextmanager
def patched(block: Any) -> Iterator[None]:
    own = block.attn.forward
    block.attn.forward = lambda x, mask=None: -own(x, mask)
    yield
    del block.attn.forward


@contextmanager
def hooked_for_a_while(block: Any) -> Iterator[None]:
    handle = hooked(block)
    yield
    handle.remove()


@pytest.mark.parametrize("change", [hooked_for_a_while, patched])
@pytest.mark.parametrize("side", ["image", "text"])
def test_a_changed_last_attention_is_explained_as_it_is(
    untrained: mm.Backbone, change: Callable[[Any], Any], side: str
) -> None:
    """The quick way of the last block does not know it: the whole tower is run, with a warning."""
    encoder: Any = untrained[side]
    with change(encoder.blocks[-1]):
        with pytest.warns(TrustWarning, match=f"the {side} encoder .*has been changed"):
            found = mm.attribute(untrained, image=PICTURE, text="a dog", layer=0, **QUICK)
        encoder.suffix = lambda tokens, layer, inputs: encoder.replayed_suffix(
            tokens, layer, inputs
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", TrustWarning)
            expected = mm.attribute(untrained, image=PICTURE, text="a dog", layer=0, **QUICK)
        del encoder.suffix
    np.testing.assert_allclose(
        found[side].token_scores, expected[side].token_scores, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("side", ["image", "text"])
def test_the_guides_tokens_are_those_of_the_changed_model(
    untrained: mm.Backbone, side: str
) -> None:
    """What is attended to is read behind the hook: the whole tower's last tokens."""
    encoder: Any = untrained[side]
    other = "text" if side == "image" else "image"
    raw = mm.io.load(side, PICTURE if side == "image" else "a dog")
    with encoder.frozen(), torch.no_grad(), hooked_for_a_while(encoder.blocks[-1]):
        inputs = encoder.preprocess([raw])
        with pytest.warns(TrustWarning, match="has been changed"):
            changed = encoder.checked(inputs, 0)
        found = changed.token_embeddings(inputs)
        last = encoder.prefix(inputs, encoder.num_layers - 1)
        expected = nn.functional.normalize(encoder.project(last, inputs), dim=-1)
    assert torch.equal(found.values, expected)
    assert not torch.allclose(found.values, encoder.token_embeddings(inputs).values, atol=1e-3)

    class Reads(mm.methods.Method):
        """Scores by the guide's own tokens."""

        name, unit = "reads", "none"

        def explain(self, explained: Any) -> Any:
            seen[explained.encoder.modality] = explained.guide.tokens
            return self.scored(torch.zeros(explained.grid().valid.shape))

    seen: dict[str, Tensor] = {}
    with hooked_for_a_while(encoder.blocks[-1]), pytest.warns(TrustWarning):
        mm.attribute(untrained, image=PICTURE, text="a dog", layer=0, method=Reads())
    assert torch.equal(seen[other], expected)


def test_layer_minus_2_of_a_changed_caption_tower_is_its_embedding_output(
    untrained: mm.Backbone,
) -> None:
    encoder: Any = untrained["text"]
    with encoder.frozen(), hooked_for_a_while(encoder.blocks[-1]):
        inputs = encoder.preprocess([mm.io.load("text", "a dog")])
        with pytest.warns(TrustWarning, match="has been changed"):
            changed = encoder.checked(inputs, -2)
        tokens = encoder.prefix(inputs, -2)
        torch.testing.assert_close(changed.suffix(tokens, -2, inputs), encoder.embed(inputs))


def hooked_where(block: Any, acts: Callable[[Tensor], Tensor]) -> Any:
    """A hook on the last attention that acts on some rows only."""

    def change(_module: Any, args: Any, out: Tensor) -> Tensor:
        return out.where(~acts(args[0])[:, None, None], -0.7 * out)

    return block.attn.register_forward_hook(change)


@pytest.mark.parametrize("method", ["ca-m2ib", "saliency"])
def test_every_row_of_a_batch_is_looked_at(untrained: mm.Backbone, method: str) -> None:
    """Some are changed and some are not: each gets, bit for bit, the map that it has alone."""
    encoder: Any = untrained["image"]
    pictures = [np.full((64, 80, 3), level, np.uint8) for level in (10, 240, 20, 230)]
    means: list[float] = []
    handle = encoder.blocks[-1].attn.register_forward_hook(
        lambda _m, args, _out: means.append(float(args[0].detach().mean()))
    )
    for picture in pictures:
        encoder.embed(encoder.preprocess([RawImage(picture, "p")]))
    handle.remove()
    low, lower, upper, high = np.argsort(means)
    limit = (means[lower] + means[upper]) / 2
    pictures = [pictures[row] for row in (low, upper, lower, high)]

    def acts(x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2)) > limit

    handle = hooked_where(encoder.blocks[-1], acts)
    pairs = [{"image": picture, "text": "a dog"} for picture in pictures]
    options: dict[str, Any] = {"method": method, "layer": 0, **quick(method)}
    alone = []
    for row, pair in enumerate(pairs):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", TrustWarning)
            alone.append(mm.attribute(untrained, **pair, **options))
        assert any("has been changed" in str(each.message) for each in told) == (row % 2 == 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TrustWarning)
        batch = list(mm.attribute_many(untrained, pairs, **options, progress=False))
    # They go one by one on a processor: one warning for each of the two that are changed.
    assert sum("has been changed" in str(each.message) for each in caught) == 2
    handle.remove()
    for one, many in zip(alone, batch, strict=True):
        for side in ("image", "text"):
            np.testing.assert_array_equal(many[side].token_scores, one[side].token_scores)
    plain = mm.attribute(untrained, **pairs[1], **options)
    assert not np.array_equal(plain["image"].token_scores, batch[1]["image"].token_scores)


def test_tokens_in_the_joint_space_are_the_changed_models_at_any_layer(
    untrained: mm.Backbone,
) -> None:
    """Suffixes that do not use the quick way of the last block say nothing about it."""
    encoder: Any = untrained["image"]
    inputs = encoder.preprocess([RawImage(PICTURE, "p")])
    seen: list[Tensor] = []

    class Reads(mm.methods.Method):
        """Keeps the picture's tokens as the guide of the caption."""

        name, unit = "reads", "none"

        def explain(self, explained: Any) -> Any:
            if explained.encoder.modality == "text":
                seen.append(explained.guide.tokens)
            return self.scored(torch.zeros(explained.grid().valid.shape))

    options: dict[str, Any] = {"text": "a dog", "method": Reads(), "layer": {"image": -2}}
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrustWarning)
        mm.attribute(untrained, image=PICTURE, **options)
    with encoder.frozen(), torch.no_grad():
        unhooked = encoder.token_embeddings(inputs).values
    assert torch.equal(seen[0], unhooked)
    with hooked_for_a_while(encoder.blocks[-1]):
        with pytest.warns(TrustWarning, match="has been changed"):
            mm.attribute(untrained, image=PICTURE, **options)
        with encoder.frozen(), torch.no_grad():
            expected = encoder.replayed_token_embeddings(inputs).values
            for layer in (-2, encoder.num_layers - 1):
                with pytest.warns(TrustWarning, match="has been changed"):
                    own, _ = Passes(encoder, inputs, layer).token_embeddings()
                assert torch.equal(own, expected)
    assert torch.equal(seen[1], expected)
    assert not torch.allclose(expected, unhooked, atol=1e-3)


def test_an_unchanged_model_is_used_as_it_is(untrained: mm.Backbone) -> None:
    encoder = untrained["image"]
    inputs = encoder.preprocess([RawImage(PICTURE, "p")])
    with encoder.frozen():
        for layer in range(-2, encoder.num_layers):
            assert encoder.checked(inputs, layer) is encoder


class Unsteady(ToyImage):
    """Its whole tower gives another embedding whenever it runs again."""

    turn = 0.0

    def forward(self, inputs: EncoderInputs) -> Tensor:
        self.turn += 0.5
        return super().forward(inputs) + self.turn


def test_a_model_that_no_way_reproduces_is_refused() -> None:
    encoder = Unsteady()
    with encoder.frozen(), pytest.raises(EncoderError, match="two embeddings of one input"):
        encoder.checked(encoder.preprocess(pictures()), 0)


def test_the_general_way_holds_for_clips_of_sound(untrained: mm.Backbone) -> None:
    encoder = untrained["audio"]
    wave = np.random.default_rng(0).normal(0, 0.1, 16000 * 6).astype(np.float32)
    inputs = encoder.preprocess([mm.types.RawAudio(wave, 16000, "s")])
    with encoder.frozen(), torch.no_grad():
        for layer in (-1, 2):
            tokens = encoder.prefix(inputs, layer)
            again = encoder.replayed_suffix(tokens, layer, inputs)
            torch.testing.assert_close(again, encoder.embed(inputs))


# ------------------------------------------------------------------------------------ threads


def at_once(calls: list[Callable[[], object]]) -> list[object]:
    """Run them in a thread each; what they gave or raised."""
    found: list[object] = [None] * len(calls)

    def run(number: int) -> None:
        try:
            found[number] = calls[number]()
        except BaseException as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return found


@pytest.mark.parametrize("sharing", ["one backbone", "two backbones around one model"])
def test_threads_get_the_maps_that_one_alone_gets(untrained: mm.Backbone, sharing: str) -> None:
    other = untrained
    if sharing != "one backbone":
        towers = {name: encoder.module for name, encoder in untrained.items()}
        other = wrap(
            FromTowers(towers, untrained["image"].config), untrained["text"].tokenizer.vocabulary
        )
    for number, part in enumerate(untrained["image"].module.modules()):
        part.training = number % 2 == 0
    before = state(untrained)
    texts = ["a dog", "a red car and a drum"]

    def call(backbone: mm.Backbone, text: str) -> object:
        return mm.attribute(backbone, image=PICTURE, text=text, **QUICK)["image"].token_scores

    alone = [call(untrained, text) for text in texts]
    calls = [
        lambda backbone=backbone, text=text: call(backbone, text)
        for _ in range(2)
        for backbone, text in zip((untrained, other), texts, strict=True)
    ]
    for number, found in enumerate(at_once(calls)):
        np.testing.assert_array_equal(found, alone[number % 2])
    assert state(untrained) == before


class FromTowers(nn.Module):
    """Some towers, as `wrap` takes a model."""

    def __init__(self, towers: dict[str, nn.Module], config: Any) -> None:
        super().__init__()
        self.towers, self.config = towers, config

    def tower(self, name: str) -> nn.Module:
        return self.towers[name]


def test_a_hook_acts_in_its_own_thread_alone() -> None:
    """The user runs the model in a thread while another thread has it cut."""
    encoder = ToyImage()
    encoder.module.eval()
    inputs = encoder.preprocess(pictures())
    expected, tokens = encoder.forward(inputs), encoder.prefix(inputs, 0)
    entered, leave, found = threading.Event(), threading.Event(), []

    def pause(_module: nn.Module, _args: object) -> None:
        if threading.current_thread() is thread:
            entered.set()
            leave.wait(30)

    handle = encoder.module.first.register_forward_pre_hook(pause)
    thread = threading.Thread(target=lambda: found.append(encoder.prefix(inputs, 0)))
    thread.start()
    assert entered.wait(30)  # the hook on block 0 is in place, and the tower is under way
    meanwhile = encoder.forward(inputs)
    leave.set()
    thread.join(30)
    handle.remove()
    assert torch.equal(meanwhile, expected)
    assert torch.equal(found[0], tokens)


# -------------------------------------------------------------------------------------- modes


def autocast() -> Any:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, autocast])
@pytest.mark.parametrize("method", ["nib", "grad-cam", "m2ib"])
def test_maps_are_the_same_in_every_mode(
    untrained: mm.Backbone, mode: Callable[[], Any], method: str
) -> None:
    def call() -> Any:
        pair = {"image": PICTURE, "text": "a dog"}
        return mm.attribute(untrained, **pair, method=method, **quick(method))["image"]

    expected = call()
    with mode():
        found = call()
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    np.testing.assert_array_equal(found.token_scores, expected.token_scores)


def test_a_backbone_loaded_inside_inference_mode_works_outside() -> None:
    with torch.inference_mode():
        backbone = mm.load_backbone("tiny")
    assert mm.attribute(backbone, image=PICTURE, text="a dog", **QUICK)["image"].scores.any()


def test_weights_of_inference_mode_are_named() -> None:
    with torch.inference_mode():
        encoder = ToyImage()
    inputs = encoder.preprocess(pictures())
    with pytest.raises(EncoderError, match=r"'cls' was made inside torch.inference_mode"):
        encoder.frozen().__enter__()
    assert expect(inputs.raw[0], RawImage)


def test_inputs_made_inside_inference_mode_take_part_in_gradients() -> None:
    encoder = ToyImage()
    with torch.inference_mode():
        inputs = encoder.preprocess(pictures())
    assert not inputs["x"].is_inference()


@contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("modality", ["image", "audio", "text"])
def test_another_default_dtype_changes_no_embedding(untrained: mm.Backbone, modality: str) -> None:
    encoder = untrained[modality]
    wave = np.random.default_rng(0).normal(0, 0.1, 16000 * 3).astype(np.float32)
    raws = {"image": PICTURE, "audio": (wave, 16000), "text": "a dog"}
    raw = mm.io.load(modality, raws[modality])
    with encoder.frozen(), torch.no_grad():
        expected = encoder.embed(encoder.preprocess([raw]))
        with float64():
            inputs = encoder.preprocess([raw])
            found = encoder.embed(inputs)
            again = encoder.suffix(encoder.prefix(inputs, 1), 1, inputs)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    torch.testing.assert_close(again, expected)


def test_a_tower_compiled_in_place_is_explained_uncompiled(untrained: mm.Backbone) -> None:
    expected = mm.attribute(untrained, image=PICTURE, text="a dog", **QUICK)
    encoder = untrained["image"]
    tower: Any = encoder.module
    inputs = encoder.preprocess([RawImage(PICTURE, "p")])
    tokens = encoder.prefix(inputs, 1)
    tower.compile(backend="eager")
    torch.testing.assert_close(encoder.prefix(inputs, 1), tokens)
    torch.testing.assert_close(encoder.replayed_suffix(tokens, 1, inputs), encoder.embed(inputs))
    with pytest.raises(RuntimeError):  # other tokens are really put in
        encoder.replayed_suffix(tokens[..., :3], 1, inputs)
    assert is_compiled(tower)
    compiled = tower._compiled_call_impl
    found = mm.attribute(untrained, image=PICTURE, text="a dog", **QUICK)
    assert tower._compiled_call_impl is compiled
    np.testing.assert_array_equal(found["image"].scores, expected["image"].scores)


# ------------------------------------------------------------------- parts that change with modes


class Merging(nn.Linear):
    """As LoRA layers do: ``eval()`` adds a product to the weight, ``train()`` takes it away."""

    merged = False

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.weight, self.bias = linear.weight, linear.bias
        draw = torch.Generator().manual_seed(0)
        self.down = nn.Parameter(0.2 * torch.randn(4, linear.in_features, generator=draw))
        self.up = nn.Parameter(0.2 * torch.randn(linear.out_features, 4, generator=draw))

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (-1 if mode else 1) * (self.up @ self.down)
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        plain = super().forward(x)
        return plain if self.merged else plain + x @ self.down.T @ self.up.T


def test_parts_that_merge_weights_in_evaluation_mode_are_left_as_they_are(
    untrained: mm.Backbone,
) -> None:
    """In either mode the map is that of the same function, and no weight has moved by a bit."""
    block: Any = untrained["image"].blocks[0]
    name, old = next((n, m) for n, m in block.named_modules() if isinstance(m, nn.Linear))
    parent, _, last = name.rpartition(".")
    layer = Merging(old)
    setattr(block.get_submodule(parent), last, layer)
    call = {"image": PICTURE, "text": "a dog", "method": "saliency"}
    found = []
    for mode in (True, False):
        untrained["image"].module.train(mode)
        before, weight = state(untrained), layer.weight.detach().clone()
        found.append(mm.attribute(untrained, **call)["image"].token_scores)
        assert (layer.merged, layer.training) == (not mode, mode)
        assert state(untrained) == before
        assert torch.equal(layer.weight, weight)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-6)
