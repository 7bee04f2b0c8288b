"""What an encoder raises or gives wrongly is one error that names modality, method and value."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy_encoders import ToyImage, ToyText

import mmattrib as mm
from mmattrib.errors import EncoderError, MethodError, MmattribError
from mmattrib.methods import Method
from mmattrib.models.encoder import EncoderInputs, TokenEmbeddings
from mmattrib.models.guard import guarded
from mmattrib.models.passes import Pass

PARTS = ("preprocess", "embed", "prefix", "suffix", "token_embeddings", "grid")
NOISE = np.random.default_rng(0)


def raises(_: Any) -> Any:
    raise ZeroDivisionError("surprise")


def exits(_: Any) -> Any:
    sys.exit(0)


def on_tensors(change: Callable[[torch.Tensor], Any]) -> Callable[[Any], Any]:
    """The change made to the tensors of whatever a method gives."""

    def apply(found: Any) -> Any:
        if isinstance(found, torch.Tensor):
            return change(found)
        if isinstance(found, TokenEmbeddings):
            return TokenEmbeddings(change(found.values), found.valid)
        if isinstance(found, EncoderInputs):
            changed = {name: change(value) for name, value in found.tensors.items()}
            return EncoderInputs(changed, found.raw)
        changed = copy.copy(found)
        changed.valid = change(found.valid)
        return changed

    return apply


# what goes wrong: (the change, the methods in which it counts)
BREAKS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "raises": (raises, PARTS),
    "exits": (exits, PARTS),
    "None": (lambda _: None, PARTS),
    "text": (lambda _: "tokens", PARTS),
    "a list": (lambda _: [0.0], PARTS),
    "an array": (on_tensors(lambda t: t.numpy(force=True)), PARTS),
    "twice the batch": (on_tensors(lambda t: torch.cat([t, t])), PARTS),
    "no batch": (on_tensors(lambda t: t[0]), ("embed", "prefix", "suffix", "token_embeddings")),
    "whole numbers": (on_tensors(lambda t: t.long()), ("embed", "prefix", "suffix", "grid")),
    "NaN": (on_tensors(lambda t: t * torch.nan), ("embed", "prefix", "suffix")),
    "infinite": (on_tensors(lambda t: t / 0), ("embed", "prefix", "suffix")),
    "zeros": (on_tensors(lambda t: t * 0), ("embed", "suffix")),
    "too long": (on_tensors(lambda t: t * 3), ("embed", "suffix")),
    "no dimensions": (on_tensors(lambda t: t[..., :0]), ("embed", "prefix", "suffix")),
    "a token less": (on_tensors(lambda t: t[:, 1:]), ("grid", "token_embeddings")),
    "detached": (on_tensors(lambda t: t.detach()), ("suffix",)),
    "never the same": (
        on_tensors(lambda t: torch.nn.functional.normalize(t + torch.randn_like(t), dim=-1)),
        ("embed",),
    ),
}
CASES = [(how, part) for how, (_, parts) in BREAKS.items() for part in parts]


def broken(part: str, change: Callable[[Any], Any]) -> mm.Backbone:
    image, text = ToyImage(), ToyText()
    right = getattr(image, part)
    vars(image)[part] = lambda *args, **kwargs: change(right(*args, **kwargs))
    return mm.Backbone({"image": image, "text": text})


def explain(backbone: mm.Backbone, method: str = "ca-m2ib") -> mm.Explanation:
    picture = NOISE.integers(0, 255, (64, 48, 3), dtype=np.uint8)
    small = {"points": 4, "guide_points": 2} if method == "ca-m2ib" else {}
    return mm.attribute(backbone, image=picture, text="a small dog", method=method, **small)


def test_a_sound_encoder_is_explained() -> None:
    explain(broken("embed", lambda found: found))


@pytest.mark.parametrize(("how", "part"), CASES)
def test_what_breaks_names_modality_and_method(how: str, part: str) -> None:
    with pytest.raises(EncoderError) as caught:
        explain(broken(part, BREAKS[how][0]))
    assert "image encoder (ToyImage)" in str(caught.value)
    assert part in str(caught.value) or how == "a token less"
    assert "\n" not in str(caught.value)


NO_PASS = {"none": None, "empty": Pass(), "a tensor": torch.ones(1, 8)}


@pytest.mark.parametrize("how", NO_PASS)
def test_a_pass_of_others_is_checked(how: str) -> None:
    given = NO_PASS[how]
    with pytest.raises(EncoderError, match=r"ToyImage.: one_pass gave"):
        explain(broken("one_pass", lambda _found: given), "nib")


@pytest.mark.parametrize("method", ["m2ib", "nib", "random"])
@pytest.mark.parametrize("how", ["raises", "None", "NaN"])
def test_so_it_is_under_every_method(how: str, method: str) -> None:
    for part in ("embed", "prefix"):
        with pytest.raises(EncoderError, match=f"ToyImage.*{part}"):
            explain(broken(part, BREAKS[how][0]), method)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("module", None), ("num_layers", "three"), ("num_layers", 0), ("default_layer", None)],
)
def test_attributes_are_part_of_the_contract(attribute: str, value: object) -> None:
    kind = type("Odd", (ToyImage,), {attribute: value})
    image = ToyImage()
    image.__class__ = kind
    vars(image).pop(attribute, None)
    with pytest.raises(EncoderError, match=f"Odd.*{attribute}"):
        guarded(image)


def test_encoders_of_two_spaces_are_no_backbone() -> None:
    image = ToyImage()
    image.module.head = torch.nn.Linear(16, 5)
    with pytest.raises(EncoderError, match=r"image .* into 5 and text .* into 8"):
        explain(mm.Backbone({"image": image, "text": ToyText()}))


def test_errors_of_the_package_and_ctrl_c_pass_the_guard() -> None:
    for error in (MmattribError("mine"), KeyboardInterrupt(), MemoryError()):

        def fails(_: Any, error: BaseException = error) -> Any:
            raise error

        with pytest.raises(type(error)) as caught:
            explain(broken("embed", fails))
        assert caught.value is error


def test_the_encoder_is_left_as_it_is() -> None:
    image = ToyImage()
    before = dict(vars(image))
    assert guarded(image) is not image
    assert vars(image) == before
    assert guarded(guarded(image)).embed.__wrapped__ == image.embed


@pytest.mark.parametrize("given", [None, SimpleNamespace(scores=None), ZeroDivisionError("oh")])
def test_a_method_of_others_is_named(given: Any) -> None:
    class Odd(Method):
        name, unit = "odd", ""

        def explain(self, side: Any) -> Any:
            if isinstance(given, Exception):
                raise given
            return given

    picture = NOISE.integers(0, 255, (64, 48, 3), dtype=np.uint8)
    backbone = mm.Backbone({"image": ToyImage(), "text": ToyText()})
    with pytest.raises(MethodError, match="method 'odd'"):
        mm.attribute(backbone, image=picture, text="a dog", method=Odd())
