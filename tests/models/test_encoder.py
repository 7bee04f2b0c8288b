"""The encoder base classes: cutting by hooks, putting everything back, rows, backbones."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_encoders import RAWS, WIDTH, ToyAudio, ToyImage, ToyText, captions, pictures

from mmattrib.errors import EncoderError, InputError, OptionError
from mmattrib.models.backbone import Backbone
from mmattrib.models.encoder import EncoderInputs


def hooks(module: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)


@pytest.fixture
def image() -> ToyImage:
    return ToyImage()


@pytest.mark.parametrize("make", [ToyImage, ToyText, ToyAudio])
@pytest.mark.parametrize("tuples", [False, True])
def test_prefix_is_what_the_block_gave(make: type[ToyImage], tuples: bool) -> None:
    encoder = make(tuples=tuples)
    inputs = encoder.preprocess(RAWS[encoder.modality]())
    seen: list[Tensor] = []
    with encoder.frozen(), torch.no_grad():
        for block in encoder.blocks:
            handle = block.register_forward_hook(lambda _m, _a, out: seen.append(out))
            encoder.forward(inputs)
            handle.remove()
        for layer, output in enumerate(seen):
            expected = output[0] if tuples else output
            assert torch.equal(encoder.prefix(inputs, layer), expected)
            embedding = encoder.suffix(expected, layer, inputs)
            torch.testing.assert_close(embedding, encoder.embed(inputs))


def test_suffix_takes_other_tokens_and_their_gradient(image: ToyImage) -> None:
    inputs = image.preprocess(pictures())
    with image.frozen():
        tokens = image.prefix(inputs, 1).detach()
        swapped = image.suffix(tokens.flip(0), 1, inputs)
        torch.testing.assert_close(swapped, image.embed(inputs).flip(0))
        leaf = tokens.clone().requires_grad_(True)
        image.suffix(leaf, 1, inputs)[:, 0].sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in image.module.parameters())


@pytest.mark.parametrize("layer", [-1, 0, 2])
def test_hooks_are_gone_after_an_exception(image: ToyImage, layer: int) -> None:
    inputs = image.preprocess(pictures())
    tokens = image.prefix(inputs, layer)
    own = image.module.norm.register_forward_hook(lambda *_: None)
    before = hooks(image.module)
    with pytest.raises(RuntimeError):
        image.suffix(tokens[:, :, :3], layer, inputs)
    with pytest.raises(RuntimeError):
        image.prefix(EncoderInputs({"x": inputs["x"][:, :, :5]}, inputs.raw), layer)
    assert hooks(image.module) == before == 1
    own.remove()


def test_frozen_puts_a_mixed_state_back(image: ToyImage) -> None:
    module = image.module
    module.blocks[1].eval()
    module.head.bias.requires_grad_(False)
    modes = [part.training for part in module.modules()]
    flags = [p.requires_grad for p in module.parameters()]
    assert len(set(modes)) == len(set(flags)) == 2
    with image.frozen():
        assert not any(part.training for part in module.modules())
        assert not any(p.requires_grad for p in module.parameters())
    with pytest.raises(OptionError), image.frozen():
        image.check_layer(99)
    assert [part.training for part in module.modules()] == modes
    assert [p.requires_grad for p in module.parameters()] == flags
    with image.frozen(), image.frozen():
        pass
    assert [part.training for part in module.modules()] == modes


@pytest.mark.parametrize("layer", [3, -2, 1.0, True, None, "1"])
def test_layers_that_do_not_exist(image: ToyImage, layer: Any) -> None:
    inputs = image.preprocess(pictures(2))
    tokens = image.prefix(inputs, 0)
    for call in (
        lambda: image.check_layer(layer),
        lambda: image.prefix(inputs, layer),
        lambda: image.suffix(tokens, layer, inputs),
    ):
        with pytest.raises(OptionError, match=r"layer"):
            call()
    assert hooks(image.module) == 0


def test_a_block_that_never_runs(image: ToyImage) -> None:
    image.blocks = [nn.Identity(), *image.blocks]
    with pytest.raises(EncoderError, match=r"block 0 .*did not run"):
        image.prefix(image.preprocess(pictures()), 0)


@pytest.mark.parametrize(
    ("output", "said"),
    [(torch.zeros(3, 4), r"\(3, 4\)"), ({"x": 1}, "dict"), ((None, 1), "NoneType")],
)
def test_block_outputs_without_tokens(image: ToyImage, output: Any, said: str) -> None:
    with pytest.raises(EncoderError, match=rf"{said}.*accepted"):
        image.tokens_from(output)


Output = namedtuple("Output", ["hidden", "weights"])


@pytest.mark.parametrize("output", [(1, 2), [1, 2], Output(1, 2)])
def test_tokens_are_put_back_into_what_the_block_gave(image: ToyImage, output: Any) -> None:
    tokens = torch.ones(1, 2, 3)
    changed = image.with_tokens(output, tokens)
    assert type(changed) is type(output)
    assert changed[0] is tokens
    assert changed[1] == 2
    assert image.with_tokens(torch.zeros(1, 2, 3), tokens) is tokens


class ByKeyword(nn.Module):
    """Calls its block with keywords, the mask first, as some towers do."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList([self._Inner()])

    class _Inner(nn.Module):
        def forward(self, mask: Tensor, hidden_states: Tensor) -> Tensor:
            return hidden_states * mask[..., None]

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[0](mask=torch.ones(x.shape[:2]), hidden_states=x).mean(dim=1)


def test_blocks_called_by_keyword() -> None:
    encoder = ToyImage()
    encoder.module = ByKeyword()
    encoder.blocks = list(encoder.module.blocks)
    inputs = EncoderInputs({"x": torch.randn(2, 5, WIDTH)}, tuple(pictures(2)))
    tokens = encoder.prefix(inputs, -1)
    assert torch.equal(tokens, inputs["x"])
    torch.testing.assert_close(encoder.suffix(tokens, -1, inputs), encoder.embed(inputs))
    doubled = encoder.suffix(tokens.flip(0), -1, inputs)
    torch.testing.assert_close(doubled, encoder.embed(inputs).flip(0))


# ------------------------------------------------------------------------------------- rows


def test_rows_are_taken_when_asked_for() -> None:
    taken: list[str] = []

    class Watched(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            taken.append(name)
            return super().__getitem__(name)

    raws = tuple(pictures(3))
    tensors = Watched(x=torch.arange(6.0).view(3, 2), mask=torch.tensor([1, 2, 3]))
    inputs = EncoderInputs(tensors, raws).select([2, 0, 2])
    assert taken == []
    assert len(inputs) == 3
    assert inputs.raw == (raws[2], raws[0], raws[2])
    assert inputs["mask"].tolist() == [3, 1, 3]
    assert taken == ["mask"]
    again = inputs.select(torch.tensor([1]))
    assert again["x"].tolist() == [[0.0, 1.0]]
    assert list(again.tensors) == ["x", "mask"]


def test_batches_are_put_together() -> None:
    encoder = ToyText()
    inputs = encoder.preprocess(captions())
    parts = [encoder.preprocess([raw]) for raw in captions()]
    assert len({part.shapes for part in parts}) == 1
    joined = EncoderInputs.cat(parts)
    for name in inputs.tensors:
        assert torch.equal(joined[name], inputs[name])
    assert [raw.name for raw in joined.raw] == ["text"] * 3


# --------------------------------------------------------------------------------- backbones


def test_a_backbone_is_a_mapping() -> None:
    image, text = ToyImage(), ToyText()
    backbone = Backbone({"image": image, "text": text}, "toy", {"licence": "none"})
    assert backbone["image"] is image
    assert list(backbone) == ["image", "text"]
    assert backbone.modalities == ("image", "text")
    assert "audio" not in backbone
    assert len(backbone) == 2
    assert repr(backbone) == "Backbone('toy': image, text)"
    with pytest.raises(InputError, match="'toy' does not embed audio; it embeds image, text"):
        backbone["audio"]
    with pytest.raises(OptionError, match=r"for .text. .* says that it embeds .image."):
        Backbone({"text": image})
    with pytest.raises(OptionError, match="at least one"):
        Backbone({})


def test_the_weights_hash_tells_weights_apart() -> None:
    first, same = Backbone({"image": ToyImage()}), Backbone({"image": ToyImage()})
    assert first.weights_hash() == same.weights_hash()
    other = ToyImage()
    other.module.head.bias.data[3] += 1e-6
    assert Backbone({"image": other}).weights_hash() != first.weights_hash()
    deeper = Backbone({"image": ToyImage(layers=2)})
    assert deeper.weights_hash() != first.weights_hash()
