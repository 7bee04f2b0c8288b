"""Activations that a library writes as several operations, as one, while a model is explained.

``x σ(1.702 x)``, quick-GELU, is three operations forwards and five backwards in transformers and
open_clip, each of which writes a tensor as wide as an MLP: a good part of an explanation's time.
:func:`quick_activations` answers such modules' calls by one function that keeps their input alone.
The model's numbers change by rounding, and the model itself is put back as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

SCALE: Final = 1.702
"""The factor of quick-GELU (Hendrycks and Gimpel 2016, section 2)."""

NAMES: Final = frozenset(("QuickGELU", "QuickGELUActivation"))
"""What open_clip, OpenAI's CLIP and transformers call it."""

_CHUNK: Final = 1 << 17
"""Numbers at a time on a CPU, so that what lies between the operations stays in its cache."""


class QuickGelu(torch.autograd.Function):
    """x σ(s x) with s = 1.702, which is silu(s x) / s, and whose slope is that of silu at s x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """``x`` of any shape and float type; it alone is kept for the gradient."""
        x = x.contiguous()
        ctx.save_for_backward(x)
        found = torch.empty_like(x)
        for own, scaled, part in _chunks(x, found):
            torch.mul(own, SCALE, out=scaled)
            torch.ops.aten.silu.out(scaled, out=part)
            part.mul_(1 / SCALE)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient by x; a graph of plain operations where its own gradient is asked for."""
        (gradient,), (x,) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():
            gate = torch.sigmoid(SCALE * x)
            slope: Tensor = gate + SCALE * x * gate * (1 - gate)
            return gradient * slope
        found = torch.empty_like(x)
        for own, scaled, part, given in _chunks(x, found, gradient.contiguous()):
            torch.mul(own, SCALE, out=scaled)
            torch.ops.aten.silu_backward.grad_input(given, scaled, grad_input=part)
        return found


def _chunks(x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Parts of a tensor, a place for as many numbers, and the same parts of others as large."""
    size = _CHUNK if x.device.type == "cpu" else max(1, x.numel())
    scratch = x.new_empty(min(size, x.numel()))
    flat = [torch.split(each.view(-1), size) for each in (x, *others)]
    for own, *rest in zip(*flat, strict=True):
        yield own, scratch[: len(own)], *rest


def quick_gelu(x: Tensor) -> Tensor:
    """x σ(1.702 x), ``x`` of any shape and float type, with a gradient of its own."""
    found: Tensor = QuickGelu.apply(x)
    return found


def original_class(module: nn.Module) -> type[nn.Module]:
    """A module's class as it is for everyone, also while a model is explained."""
    return type(module)


def is_patched(module: nn.Module) -> bool:
    """Whether a module has a ``forward`` in its class's place, other than ours for a while."""
    own = vars(module).get("forward")
    return own is not None and not hasattr(own, "stands_for")


@contextmanager
def quick_activations(module: nn.Module) -> Iterator[None]:
    """Answer the quick-GELUs of a model by :func:`quick_gelu` for a while, in this thread alone.

    Modules are found by name, and their function is looked at on some numbers; one that has a
    ``forward`` of its own, or gives anything else, is let be. Hooks on them run as ever. Other
    threads, ``torch.func``, forward-mode gradients and tensors of another kind get the module's own
    function. The caller holds :func:`mmattrib.models.turns.turn`; on leaving, after an exception
    too, every module is what it was.
    """
    found = [part for part in module.modules() if _is_quick_gelu(part)]
    for part in found:
        vars(part)["forward"] = _answering(part.forward)
    try:
        yield
    finally:
        for part in found:
            vars(part).pop("forward", None)


def _answering(own: Callable[..., Any]) -> Callable[..., Any]:
    me = threading.get_ident()

    def forward(*args: Any, **kwargs: Any) -> Any:
        plain = threading.get_ident() == me and len(args) == 1 and not kwargs
        return quick_gelu(args[0]) if plain and _ordinary(args[0]) else own(*args, **kwargs)

    forward.stands_for = own  # type: ignore[attr-defined]
    return forward


def _ordinary(x: object) -> bool:
    """Whether a function of our own may take it: a float tensor outside of torch.func's."""
    if type(x) not in (Tensor, nn.Parameter) or not isinstance(x, Tensor):
        return False
    within = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)()
    dual: Any = unpack_dual
    return x.is_floating_point() and not within and dual(x).tangent is None


def _is_quick_gelu(part: nn.Module) -> bool:
    if type(part).__name__ not in NAMES or "forward" in vars(part):
        return False
    if any(True for _ in part.parameters()):
        return False
    probe = torch.linspace(-6, 6, 25, dtype=torch.float32, device="cpu")
    with torch.no_grad():
        try:
            found = part.forward(probe)
        except Exception:  # another function of the same name
            return False
    return isinstance(found, Tensor) and torch.allclose(found, probe * (SCALE * probe).sigmoid())
