"""Quick-GELU as one operation: the function, its gradients, and a model that is left alone."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from mmattrib.models import activations
from mmattrib.models.activations import quick_activations, quick_gelu


def plain(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return plain(x)


class Model(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.first, self.act = nn.Linear(3, 5, dtype=torch.float64), act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.first(x))


def quick(x: Tensor) -> bool:
    return x.grad_fn is not None and "QuickGelu" in x.grad_fn.name()


def drawn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("chunk", [7, 1 << 17])
@pytest.mark.parametrize("turned", [False, True])
def test_it_is_the_function_as_written_with_its_slope(
    chunk: int, turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one piece or in many, of a tensor that lies in memory in order or not."""
    monkeypatch.setattr(activations, "_CHUNK", chunk)
    x = drawn(4, 3, 6).requires_grad_()
    found, expected = (of(x.transpose(0, 2) if turned else x) for of in (quick_gelu, plain))
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    weight = drawn(6, 3, 4) if turned else drawn(4, 3, 6).transpose(1, 2).contiguous().mT
    (slope,), (other,) = (torch.autograd.grad((y * weight).sum(), x) for y in (found, expected))
    torch.testing.assert_close(slope, other, rtol=1e-13, atol=1e-13)


def test_second_derivatives_are_those_of_the_function() -> None:
    x = drawn(9).requires_grad_()
    assert gradcheck(quick_gelu, x)
    assert gradgradcheck(quick_gelu, x)


def test_no_numbers_are_no_error() -> None:
    x = drawn(0, 4).requires_grad_()
    assert torch.autograd.grad(quick_gelu(x).sum(), x)[0].shape == (0, 4)


def test_a_graph_may_be_walked_twice() -> None:
    x = drawn(5).requires_grad_()
    y = quick_gelu(x).sum()
    (first,) = torch.autograd.grad(y, x, retain_graph=True)
    assert torch.equal(first, torch.autograd.grad(y, x)[0])


def test_a_model_is_what_it_was_after_an_exception_too() -> None:
    model, seen = Model(QuickGELU()), []
    model.act.register_forward_hook(lambda _m, _a, out: seen.append(quick(out)))
    before = dict(vars(model.act))
    x = drawn(2, 3).requires_grad_()

    def fail() -> None:
        with quick_activations(model):
            with quick_activations(model):
                assert quick(model(x))
            torch.testing.assert_close(model(x), plain(model.first(x)))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert dict(vars(model.act)) == before
    assert not quick(model(x))
    assert seen == [True, True, False]


def test_other_threads_run_the_models_own() -> None:
    model, found = Model(QuickGELU()), []
    x = drawn(2, 3).requires_grad_()
    with quick_activations(model):
        thread = threading.Thread(target=lambda: found.append(model(x)))
        thread.start()
        thread.join(30)
        assert quick(model(x))
    assert torch.equal(found[0], model(x))
    assert not quick(found[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # torch's own jacfwd
@pytest.mark.parametrize("call", [torch.func.vmap, torch.func.jacfwd, torch.func.jacrev])
def test_torch_func_gets_the_models_own(call: Callable[..., Callable[..., Tensor]]) -> None:
    model, x = Model(QuickGELU()), drawn(2, 3)
    expected = call(model)(x)
    with quick_activations(model):
        assert torch.equal(call(model)(x), expected)


def softer() -> nn.Module:
    class QuickGELU(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(1.7 * x)

    return QuickGELU()


def learned() -> nn.Module:
    made = QuickGELU()
    made.weight = nn.Parameter(torch.ones(1))
    return made


def failing() -> nn.Module:
    class QuickGELU(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.dim() == 1:
                raise ValueError
            return plain(x)

    return QuickGELU()


def patched() -> nn.Module:
    made = QuickGELU()
    vars(made)["forward"] = lambda x: plain(x) + 1
    return made


@pytest.mark.parametrize("make", [softer, learned, failing, patched, nn.SiLU])
def test_what_is_not_known_to_be_it_is_let_be(make: Callable[[], nn.Module]) -> None:
    model, x = Model(make()), drawn(2, 3).requires_grad_()
    expected, before = model(x), dict(vars(model.act))
    with quick_activations(model):
        assert torch.equal(model(x), expected)
    assert dict(vars(model.act)) == before
