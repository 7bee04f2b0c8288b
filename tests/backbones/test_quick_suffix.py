"""The suffixes of the built-in backbones: quick ways against the plain ones, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from small_backbones import NAMES, Small
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmattrib.models import BlockEncoder, prenorm
from mmattrib.models.activations import quick_activations
from mmattrib.models.encoder import Encoder
from mmattrib.models.prenorm import many_queries, single_query
from mmattrib.preparing import prepare


def gradient(of: Tensor, by: Tensor) -> Tensor:
    goal = torch.linspace(-1, 1, of.shape[-1])
    (found,) = torch.autograd.grad((of * goal).sum(), by)
    return found


def has_the_plain_suffix(encoder: Encoder) -> bool:
    """Whether it is the base class's, which runs the whole tower: there is no quick way to hold."""
    return getattr(type(encoder), "suffix", None) is BlockEncoder.suffix


def close(found: Tensor, expected: Tensor) -> None:
    found, expected = found.detach(), expected.detach()
    assert float((found - expected).norm() / expected.norm()) <= 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_the_suffix_is_that_with_keys_and_values(
    name: str, small_backbone: Callable[[str], Small], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every built-in backbone, both sides: embeddings, and gradients by the explained tokens."""

    def written_out(query: Tensor, x: Tensor, readable: Tensor | None, key: Any, value: Any,
                    heads: int, extra: Any = None) -> Tensor:  # fmt: skip
        calls.append(name)
        k, v = (nn.functional.linear(x, *part) for part in (key, value))
        if extra is not None:
            k, v = (torch.cat([y, one.expand(len(y), 1, -1)], 1)
                    for y, one in zip((k, v), extra, strict=True))  # fmt: skip
            if readable is not None:
                readable = nn.functional.pad(readable, (0, 1), value=True)
        return many_queries(query[:, None], k, v, readable, heads)[:, 0]

    made, calls, counted = small_backbone(name), [], []
    model = made.load()
    pair, of = prepare(model, made.pair), made.modalities(model)
    for side, inputs in pair.inputs.items():
        encoder = model[of[side]]
        layer = max(0, encoder.num_layers - 3)
        with encoder.frozen():
            x = encoder.prefix(inputs, layer).detach().requires_grad_()
            found = []
            for way in (single_query, written_out):
                monkeypatch.setattr(prenorm, "single_query", way)
                for home in ("tiny.model", "imagebind.encoders"):
                    if name == home.split(".")[0]:
                        monkeypatch.setattr(f"mmattrib.backbones.{home}.single_query", way)
                with FlopCounterMode(display=False) as forwards:
                    embedding = encoder.suffix(x, layer, inputs)
                with FlopCounterMode(display=False) as backwards:
                    found.append((embedding, gradient(embedding, x)))
                counted.append((forwards.get_total_flops(), backwards.get_total_flops()))
        for one, other in zip(*found, strict=True):
            close(one, other)
    assert calls or all(has_the_plain_suffix(encoder) for encoder in model.values())
    # No gradient of a weight: products that only the tokens' gradient needs, no more than before.
    assert all(back <= 1.5 * there for there, back in counted)


@pytest.mark.parametrize("name", ["clip", "cxr-repair"])
def test_activations_are_one_operation_and_are_left_as_they_were(
    name: str, small_backbone: Callable[[str], Small], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_backbone(name)
    model = made.load()
    pair = prepare(model, made.pair)
    for side, inputs in pair.inputs.items():
        encoder, found = model[side], []
        before = [dict(vars(part)) for part in encoder.module.modules()]
        for way in (quick_activations, lambda module: nullcontext()):
            monkeypatch.setattr("mmattrib.models.encoder.quick_activations", way)
            with encoder.frozen():
                x = encoder.prefix(inputs, 0).detach().requires_grad_()
                embedding = encoder.suffix(x, 0, inputs)
                found.append((embedding, gradient(embedding, x)))
                used = ["QuickGelu" in each for each in operations(embedding)]
                assert any(used) == (way is quick_activations)
        for one, other in zip(*found, strict=True):
            close(one, other)
        assert [dict(vars(part)) for part in encoder.module.modules()] == before


def operations(end: Tensor) -> list[str]:
    """Names of the operations that a tensor was made by."""
    waiting, seen = [end.grad_fn], {}
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen[node] = node.name()
            waiting += [following for following, _ in node.next_functions]
    return list(seen.values())
