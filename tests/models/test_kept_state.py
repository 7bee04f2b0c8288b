"""A kept pass is served only while everything that a tower computes with is as it was."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_backbones import small
from torch import Tensor, nn
from toy_encoders import ToyImage, pictures

import mmattrib as mm
from mmattrib.errors import EncoderError, OptionError
from mmattrib.methods.pace import Pace
from mmattrib.models.encoder import EncoderInputs
from mmattrib.models.fingerprint import tower_state
from mmattrib.models.passes import Passes, PassKeep


class Holder(nn.Module):
    """A part that holds something, and a helper in its class."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def helper(self) -> float:
        return 1.0


class Config:
    """As libraries keep a model's numbers."""

    def __init__(self, scale: float) -> None:
        self.scale, self.own = scale, self


def of(held: Any) -> ToyImage:
    encoder = ToyImage()
    encoder.module.more = Holder(held)
    return encoder


def times(factor: float) -> Callable[[Any], Any]:
    return lambda x: x * factor


KINDS: dict[str, Callable[[float], Any]] = {
    "number": lambda v: v,
    "numpy": np.float64,
    "array": lambda v: np.array([v]),
    "list": lambda v: [v],
    "dict": lambda v: {"a": {"b": v}},
    "set": lambda v: {v, "a"},
    "object": lambda v: types.SimpleNamespace(scale=types.SimpleNamespace(by=v)),
    "config": lambda v: Config(v),
    "tensor": lambda v: torch.tensor(v, dtype=torch.float32, device="cpu"),
    "tensors": lambda v: [torch.full((2,), v, dtype=torch.float32, device="cpu")],
    "partial": lambda v: functools.partial(times, v),
    "closure": times,
    "module in a list": lambda v: [Holder(v)],
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_a_part_holds_counts(kind: str) -> None:
    encoder = of(KINDS[kind](1.0))
    before = tower_state(encoder)
    assert before is not None
    assert tower_state(encoder) == before
    encoder.module.more.held = KINDS[kind](3.0)
    assert tower_state(encoder) not in (before, None)


def test_a_helper_that_was_patched_in_a_class_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = of(None)
    seen = {tower_state(encoder)}
    for factor in (2.0, 3.0, 4.0):
        monkeypatch.setattr(Holder, "helper", times(factor))
        seen.add(tower_state(encoder))
    assert len(seen) == 4
    assert None not in seen


@pytest.mark.parametrize("name", ["head", "table", "heads"])
def test_what_an_encoder_holds_beside_its_module_counts(name: str) -> None:
    encoder: Any = ToyImage()
    weight = torch.ones(3, dtype=torch.float32, device="cpu")
    head = nn.ParameterList([nn.Parameter(weight)])
    setattr(encoder, name, {"head": head, "table": weight, "heads": [head]}[name])
    before = tower_state(encoder)
    weight.mul_(2)
    assert tower_state(encoder) not in (before, None)


def test_nothing_is_kept_where_a_part_cannot_be_told() -> None:
    deep: list[Any] = []
    for _ in range(40):
        deep = [deep]
    unknown = (torch.Generator("cpu"), iter([1]), np.random.default_rng(0), deep, ["a"] * 50_000)
    assert [tower_state(of(held)) for held in unknown] == [None] * len(unknown)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ["meta", "nested", "conjugate"])
def test_tensors_without_numbers_are_no_crash(kind: str) -> None:
    encoder = of(None)
    complex_ones = torch.ones(3, dtype=torch.complex64, device="cpu")
    made: dict[str, Callable[[], Tensor]] = {
        "meta": lambda: torch.empty(3, dtype=torch.float32, device="meta"),
        "nested": lambda: torch.nested.nested_tensor([complex_ones.abs(), complex_ones[:2].abs()]),
        "conjugate": lambda: complex_ones.conj(),
    }
    encoder.module.register_buffer("odd", made[kind]())
    backbone = mm.Backbone({"image": encoder})
    if kind == "conjugate":
        assert tower_state(encoder) is not None
        assert len(backbone.weights_hash()) == 64
        return
    assert tower_state(encoder) is None
    with pytest.raises(EncoderError, match="cannot be read"):
        backbone.weights_hash()


def test_equal_inputs_of_a_model_with_quick_gelu_share_a_pass(tmp_path: Path) -> None:
    model = small("clip", tmp_path)
    backbone = model.load()
    kinds = {type(part).__name__ for part in backbone["image"].module.modules()}
    assert "QuickGELUActivation" in kinds
    for side in ("image", "text"):
        encoder, keep = backbone[side], PassKeep()
        inputs = encoder.preprocess([mm.io.load(encoder.modality, model.pair[side])])
        for _ in range(2):
            with encoder.frozen():
                Passes(encoder, inputs, 0, keep).embeddings()
                assert keep.get(keep.keys(encoder, [inputs])[0]) is not None
        assert len(keep) == 1


class SpoilsTokens(ToyImage):
    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        return super().project(tokens.mul_(2), inputs)


def test_a_projection_in_place_does_not_spoil_kept_tokens() -> None:
    encoder, keep = SpoilsTokens(), PassKeep()
    inputs, last = encoder.preprocess(pictures()).select([0]), ToyImage().num_layers - 1
    with encoder.frozen(), torch.no_grad():
        expected = encoder.prefix(inputs, last).clone()
        for known in (Passes(encoder, inputs, last), *[Passes(encoder, inputs, last, keep)] * 2):
            known.embeddings()
            known.token_embeddings()
            assert torch.equal(known.tokens(last), expected)


@pytest.mark.parametrize("value", [1, 0, "yes"])
def test_deterministic_is_a_switch_or_none(value: Any) -> None:
    with pytest.raises(OptionError, match="deterministic must be True, False or None"):
        Pace(deterministic=value)
