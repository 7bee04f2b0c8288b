"""A copy of a model trains; the model that it was made of is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy_encoders import ToyImage, ToyText, captions, pictures

import mmattrib as mm
from mmattrib.errors import EncoderError
from mmattrib.models.encoder import EncoderInputs
from mmattrib.models.parameters import TrainableCopy, exponential_scale, logit_scale


def backbone() -> mm.Backbone:
    return mm.Backbone({"image": ToyImage(), "text": ToyText()}, "toys")


def rows(model: mm.Backbone, modality: str) -> list[EncoderInputs]:
    raws = pictures() if modality == "image" else captions()
    return [model[modality].preprocess([raw]) for raw in raws]


def facts(model: mm.Backbone) -> list[Any]:
    """All that a training could change of a model."""
    return [model.weights_hash()] + [
        (name, p.requires_grad, p.grad is None, module.training)
        for encoder in model.values()
        for module in encoder.module.modules()
        for name, p in module.named_parameters(recurse=False)
    ]


def test_a_step_changes_the_copy_and_nothing_of_the_model() -> None:
    model = backbone()
    before, inputs = facts(model), {m: rows(model, m) for m in model}
    copied = TrainableCopy(model, ("image", "text"))
    with copied.active():
        for modality in model:
            copied.check(modality, inputs[modality][0])
        first = copied.embed("image", inputs["image"])
        loss = (first * copied.embed("text", inputs["text"])).sum()
        gradients = copied.gradients(loss)
        assert set(gradients) == set(copied.parameters)
        with torch.no_grad():
            for name, parameter in copied.parameters.items():
                parameter -= 0.1 * gradients[name]
        assert not torch.equal(copied.embed("image", inputs["image"]), first)
        copied.reset()
        assert torch.equal(copied.embed("image", inputs["image"]), first)
    assert facts(model) == before


def test_embeddings_do_not_depend_on_dropout_and_are_the_models_own() -> None:
    model = backbone()  # its blocks drop half, and it stands in training mode
    inputs = rows(model, "image")
    copied = TrainableCopy(model, ("image",))
    with copied.active():
        found = [copied.embed("image", inputs) for _ in range(2)]
    with model["image"].frozen(), torch.no_grad():
        own = torch.cat([model["image"].embed(one) for one in inputs])
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0].detach(), own, atol=1e-6, rtol=0)


def _without_gradient(encoder: Any) -> None:
    plain = type(encoder).embed

    class Sealed(type(encoder)):  # type: ignore[misc]
        def embed(self, inputs: EncoderInputs) -> torch.Tensor:
            with torch.no_grad():
                return plain(self, inputs)

    encoder.__class__ = Sealed


def _holding_on(encoder: Any) -> None:
    encoder.forward = encoder.module.__class__.forward.__get__(encoder.module)
    module = encoder.module
    encoder.forward = lambda inputs: module(inputs["x"])  # a closure: a copy has the same


@pytest.mark.parametrize("spoil", [_without_gradient, _holding_on])
def test_an_embed_that_no_gradient_passes_is_refused(spoil: Callable[[Any], None]) -> None:
    model = backbone()
    spoil(model["image"])
    copied = TrainableCopy(model, ("image",))
    inputs = rows(model, "image")
    before = facts(model)
    with copied.active(), pytest.raises(EncoderError, match=r"image encoder .*no_grad"):
        copied.embed("image", inputs)
    assert facts(model) == before


def test_parameters_that_cannot_be_trained_are_refused() -> None:
    model = backbone()
    model["text"].module.requires_grad_(False)
    TrainableCopy(model, ("image",))
    with pytest.raises(EncoderError, match=r"text encoder .*requires_grad_\(True\)"):
        TrainableCopy(model, ("image", "text"))
    model["image"].module.to(torch.bfloat16)
    with pytest.raises(EncoderError, match="bfloat16"):
        TrainableCopy(model, ("image",))


def test_a_model_that_cannot_be_copied_is_named() -> None:
    model = backbone()
    model["image"].module.cache = torch.ones(1, requires_grad=True) * 2  # no leaf: torch refuses
    with pytest.raises(EncoderError, match=r"toys.*cannot be copied"):
        TrainableCopy(model, ("image",))


def test_a_parameter_that_two_encoders_share_is_trained_once() -> None:
    model = backbone()
    model["text"].module.head = model["image"].module.head
    copied = TrainableCopy(model, ("image", "text"))
    names = set(copied.parameters)
    assert "image.head.weight" in names
    assert "text.head.weight" not in names
    inner = copied.encoders
    assert inner["text"].module.head is inner["image"].module.head


def test_the_scale_is_what_an_encoder_tells() -> None:
    model = backbone()
    assert logit_scale(model) is None
    told = SimpleNamespace(logit_scale=torch.tensor(2.0))
    assert exponential_scale(told) == pytest.approx(7.389056, abs=1e-5)
    assert exponential_scale(SimpleNamespace()) is None
