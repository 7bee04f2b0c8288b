"""The last block for one query, without keys and values: what the plain way gives."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmattrib.models.gradients import watching
from mmattrib.models.prenorm import (
    affine,
    attend_linear,
    causal_keys,
    many_queries,
    packed_parts,
    single_query,
)

WIDTH, HEADS, COUNT = 24, 4, 7


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def linear(seed: int, bias: bool = True) -> nn.Linear:
    made = nn.Linear(WIDTH, WIDTH, bias=bias, dtype=torch.float64).requires_grad_(False)
    for number, parameter in enumerate(made.parameters()):
        parameter.copy_(drawn(*parameter.shape, seed=100 * number + seed) / 3)
    return made


def tokens() -> Tensor:
    return drawn(3, COUNT, WIDTH, seed=9).requires_grad_()


def gradient(of: Tensor, by: Tensor) -> Tensor:
    (found,) = torch.autograd.grad((of * drawn(*of.shape, seed=5)).sum(), by)
    return found


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_one_query_without_keys_and_values_reads_what_it_reads_with_them(
    masked: bool, bias: bool
) -> None:
    query, key, value, out = (linear(seed, bias) for seed in range(4))
    readable = causal_keys(torch.tensor([2, 6, 0]), COUNT) if masked else None
    x = tokens()
    found = attend_linear(query, key, value, out, HEADS)(x[:, 2:3], x, readable)
    expected = out(many_queries(query(x[:, 2:3]), key(x), value(x), readable, HEADS))
    assert found.shape == (3, 1, WIDTH)
    close(found, expected)
    close(gradient(found, x), gradient(expected, x))


def test_several_queries_have_keys_and_values() -> None:
    query, key, value, out = (linear(seed) for seed in range(4))
    x = tokens()
    found = attend_linear(query, key, value, out, HEADS)(x[:, :2], x, None)
    each = [attend_linear(query, key, value, out, HEADS)(x[:, n : n + 1], x, None) for n in (0, 1)]
    close(found, torch.cat(each, 1))


@pytest.mark.parametrize("extra", [True, False])
def test_torchs_own_attention_with_a_learned_key_is_met(extra: bool) -> None:
    """A key that is no token's has no bias: there the bias of the others does not cancel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, add_bias_kv=extra).double()
        for parameter in own.parameters():
            nn.init.normal_(parameter, std=0.4)
    x, readable = tokens(), causal_keys(torch.tensor([2, 6, 0]), COUNT)
    query, key, value = packed_parts(own)
    found = own.out_proj(
        single_query(
            query(x[:, 0]),
            x,
            readable,
            key.affine(),
            value.affine(),
            HEADS,
            (own.bias_k[0, 0], own.bias_v[0, 0]) if extra else None,
        )
    )
    expected = own(x[:, :1], x, x, key_padding_mask=~readable, need_weights=False)[0][:, 0]
    close(found, expected)
    close(gradient(found, x), gradient(expected, x))


class Adapted(nn.Linear):
    """As adapters of a few ranks are: a subclass that adds to what it gives."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.5 * x


def hooked(part: nn.Linear) -> nn.Module:
    part.register_forward_hook(lambda _m, _a, out: 2 * out)
    return part


def patched(part: nn.Linear) -> nn.Module:
    own = part.forward
    vars(part)["forward"] = lambda x: own(x).sin()
    return part


def adapted(part: nn.Linear) -> nn.Module:
    made = Adapted(WIDTH, WIDTH, dtype=torch.float64).requires_grad_(False)
    made.load_state_dict(part.state_dict())
    return made


def wrapped(part: nn.Linear) -> nn.Module:
    return nn.Sequential(part, nn.Tanh())


@pytest.mark.parametrize("change", [hooked, patched, adapted, wrapped])
@pytest.mark.parametrize("which", ["key", "value"])
def test_a_projection_that_is_more_than_its_weights_is_called(
    which: str, change: Callable[[nn.Linear], nn.Module]
) -> None:
    query, key, value, out = (linear(seed) for seed in range(4))
    x = tokens()
    plain = attend_linear(query, key, value, out, HEADS)(x[:, :1], x, None)
    parts: dict[str, Any] = {"key": key, "value": value}
    parts[which] = change(parts[which])
    found = attend_linear(query, parts["key"], parts["value"], out, HEADS)(x[:, :1], x, None)
    expected = many_queries(query(x[:, :1]), parts["key"](x), parts["value"](x), None, HEADS)
    assert torch.equal(found, out(expected))
    assert not torch.allclose(found, plain, atol=1e-3)


def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = {0: lambda _m, _a, out: 2 * out}
    monkeypatch.setattr("torch.nn.modules.module._global_forward_hooks", hooks)


def in_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    own = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", wraps(own)(lambda self, x: 2 * own(self, x)))


@pytest.mark.parametrize("change", [everywhere, in_the_class])
def test_projections_that_are_changed_everywhere_are_called(
    change: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    query, key, value, out = (linear(seed) for seed in range(4))
    assert affine(key) is not None
    change(monkeypatch)
    x = tokens()
    assert affine(key) is None
    found = attend_linear(query, key, value, out, HEADS)(x[:, :1], x, None)
    expected = many_queries(query(x[:, :1]), key(x), value(x), None, HEADS)
    assert torch.equal(found, out(expected))


def test_a_query_that_reads_nothing_is_given_what_the_written_way_gives() -> None:
    query, key, value, out = (linear(seed) for seed in range(4))
    readable, x = torch.ones(3, COUNT, dtype=torch.bool), tokens()
    readable[1] = False
    found = attend_linear(query, key, value, out, HEADS)(x[:, :1], x, readable)
    expected = out(many_queries(query(x[:, :1]), key(x), value(x), readable, HEADS))
    close(found, expected)
    close(gradient(found, x), gradient(expected, x))


@pytest.mark.parametrize("more", ["add_bias_kv", "add_zero_attn"])
def test_an_attention_that_reads_more_than_tokens_has_no_quick_way(more: str) -> None:
    own = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **{more: True})
    assert attend_linear(*packed_parts(own), own.out_proj, HEADS) is None


def test_hooks_that_only_look_change_no_way() -> None:
    """The first call with gradients is watched by hooks: it must not round otherwise."""
    part = linear(0)
    with watching(part, "it"), FlopCounterMode(display=False):
        assert affine(part) is not None
    assert affine(hooked(part)) is None
