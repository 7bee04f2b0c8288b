"""Quick-GELU as one operation: the function, its gradients, and a model that is left alone."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from functools import wraps

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from mmattrib.models import activations
from mmattrib.models.activations import original_class, quick_activations, quick_gelu


def plain(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return plain(x)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "KNOWN", ((__name__, "QuickGELU"),))


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
    x = drawn(3, 2).requires_grad_()
    for of in (quick_gelu, lambda x: quick_gelu(x.T)):
        assert gradcheck(of, x)
        assert gradgradcheck(of, x)


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
    before = dict(vars(model.act))
    x = drawn(2, 3).requires_grad_()

    def fail() -> None:
        with quick_activations(model):
            with quick_activations(model):
                assert quick(model(x))
            handle = model.act.register_forward_hook(lambda _m, _a, out: seen.append(quick(out)))
            torch.testing.assert_close(model(x), plain(model.first(x)))
            handle.remove()
            assert dict(vars(model.act)) == before
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert dict(vars(model.act)) == before
    assert type(model.act) is QuickGELU
    assert not quick(model(x))
    assert seen == [True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_far_numbers_are_those_of_the_function(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max * 0.9
    x = torch.tensor([most, -most, 500.0, -500.0, 1.0], dtype=dtype).requires_grad_()
    assert torch.equal(quick_gelu(x), plain(x))
    for graph in (False, True):
        found, expected = (
            torch.autograd.grad(of(x).sum(), x, create_graph=graph)[0] for of in (quick_gelu, plain)
        )
        torch.testing.assert_close(found, expected)


def test_copies_and_pickles_made_meanwhile_are_of_the_models_own_class() -> None:
    model, x = Model(QuickGELU()), drawn(2, 3).requires_grad_()
    with quick_activations(model):
        made = [copy.deepcopy(model)]
        made += [pickle.loads(pickle.dumps(model, protocol)) for protocol in range(6)]
        made.append(Model(copy.copy(model.act)))
        assert original_class(model.act) is QuickGELU is not type(model.act)
        assert isinstance(model.act, QuickGELU)
    for each in made:
        assert type(each.act) is original_class(each.act) is QuickGELU
        each.first = model.first
        assert torch.equal(each(x), model(x))
        assert not quick(each(x))


@pytest.mark.parametrize("when", [1, 2, 3])
def test_an_interrupt_while_modules_are_replaced_leaves_none(
    when: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls = nn.Sequential(*(QuickGELU() for _ in range(3))), []
    answering = activations._answering

    def interrupted(kind: type[nn.Module]) -> type[nn.Module]:
        calls.append(kind)
        if len(calls) == when:
            raise KeyboardInterrupt
        return answering(kind)

    monkeypatch.setattr(activations, "_answering", interrupted)
    with pytest.raises(KeyboardInterrupt), quick_activations(model):
        pass
    assert [type(part) for part in model] == 3 * [QuickGELU]


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


def namesake() -> nn.Module:
    return type("QuickGELU", (nn.Module,), {"forward": QuickGELU.forward})()


def derived() -> nn.Module:
    return type("QuickGELU", (QuickGELU,), {})()


def learned() -> nn.Module:
    made = QuickGELU()
    made.weight = nn.Parameter(torch.ones(1))
    return made


def patched() -> nn.Module:
    made = QuickGELU()
    vars(made)["forward"] = lambda x: plain(x) + 1
    return made


def hooked() -> nn.Module:
    made = QuickGELU()
    made.register_forward_hook(lambda _m, _a, out: 2 * out)
    return made


@pytest.mark.parametrize("make", [namesake, derived, learned, patched, hooked, nn.SiLU])
def test_what_is_not_known_to_be_it_is_let_be(make: Callable[[], nn.Module]) -> None:
    model, x = Model(make()), drawn(2, 3).requires_grad_()
    expected, before = model(x), dict(vars(model.act))
    with quick_activations(model):
        assert torch.equal(model(x), expected)
        assert not quick(model.act(x))
    assert dict(vars(model.act)) == before


@pytest.mark.parametrize("wide", [True, False])
def test_a_known_class_that_someone_patched_is_let_be(
    wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another function, and by its own with another function in its module."""
    model, x = Model(QuickGELU()), drawn(2, 3).requires_grad_()
    if wide:
        monkeypatch.setattr(QuickGELU, "forward", wraps(QuickGELU.forward)(lambda s, x: plain(x)))
    else:
        own = plain
        monkeypatch.setitem(globals(), "plain", lambda x: own(x.clamp(max=50)))
    with quick_activations(model):
        assert not quick(model(x))
