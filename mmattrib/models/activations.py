"""Activations that a library writes as several operations, as one, while a model is explained.

``x σ(1.702 x)``, quick-GELU, is three operations forwards and five backwards in transformers and
open_clip, each of which writes a tensor as wide as an MLP: a good part of an explanation's time.
:func:`quick_activations` answers such modules' calls by one function that keeps their input alone.
The model's gradients change by rounding, and the model itself is put back as it was.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from mmattrib.models.untouched import untouched

SCALE: Final = 1.702
"""The factor of quick-GELU (Hendrycks and Gimpel 2016, section 2)."""

KNOWN: Final = (("transformers.activations", "QuickGELUActivation"),
                ("open_clip.transformer", "QuickGELU"))  # fmt: skip
"""Modules and classes that are quick-GELU; they are looked up where the module is imported."""

_CHUNK: Final = 1 << 17
"""Numbers at a time on a CPU, so that what lies between the operations stays in its cache."""

_FLAT: Final = 1000.0
"""Where s x is as far out, the slope is 0 or 1 in every float type."""


class QuickGelu(torch.autograd.Function):
    """x σ(s x) with s = 1.702, whose slope is that of silu at s x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """``x`` of any shape and float type; it alone is kept for the gradient."""
        ctx.save_for_backward(x)  # itself: a copy in order would be outside of the graph
        x = x.contiguous()
        found = torch.empty_like(x)
        for own, _, part in _chunks(x, found):
            torch.mul(own, SCALE, out=part)
            part.sigmoid_().mul_(own)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient by x; a graph of plain operations where its own gradient is asked for."""
        (gradient,), (x,) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():
            gate = torch.sigmoid(SCALE * x)  # in this order nothing leaves a narrow type
            slope: Tensor = gradient * gate + gradient * x * (1 - gate) * gate * SCALE
            return slope
        x = x.contiguous()
        found = torch.empty_like(x)
        for own, scaled, part, given in _chunks(x, found, gradient.contiguous()):
            torch.mul(own, SCALE, out=scaled).clamp_(-_FLAT, _FLAT)
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


class _Here(threading.local):
    """What this thread has entered and not left."""

    def __init__(self) -> None:
        self.entered: set[object] = set()


_here = _Here()
_ORIGINAL: Final[dict[type, type]] = {}
"""The class in a model -> the class that it stands for."""

_class_of: Final[Any] = vars(object)["__class__"]
"""Where an object's class is kept, whatever it says its class is."""


def original_class(module: nn.Module) -> type[nn.Module]:
    """A module's class as it is for everyone, also while a model is explained."""
    return _ORIGINAL.get(type(module), type(module))


@contextmanager
def quick_activations(module: nn.Module) -> Iterator[None]:
    """Answer the quick-GELUs of a model by :func:`quick_gelu` for a while, in this thread alone.

    Replaced are modules of a class in :data:`KNOWN` and of no other, where they are as their
    library wrote them (no hooks, no other ``forward``) and give x σ(1.702 x) of some numbers of
    every float type; anything else runs as it is. Their class is another for a while; nothing in
    the instances changes. Hooks put on them inside run as ever. Other threads, ``torch.func``,
    forward-mode gradients and tensors of another kind get the module's own function, and copies and
    pickles made meanwhile are of the module's own class. The caller holds
    :func:`mmattrib.models.turns.turn`; on leaving, after an exception too, every module is what it
    was.
    """
    entered, mine = _here.entered, object()
    changed: list[nn.Module] = []
    try:  # interrupted anywhere below, what was changed is listed
        entered.add(mine)
        kinds: dict[type, bool | None] = dict.fromkeys(_known())
        for part in module.modules():
            kind: Any = type(part)
            if kind in _ORIGINAL and len(entered) == 1:  # left by an interrupted leaving
                changed.append(part)
            elif kind in kinds and untouched(part) and _holds_nothing(part):
                if kinds[kind] is None:
                    kinds[kind] = _is_quick_gelu(part)
                if kinds[kind]:
                    changed.append(part)
                    _class_of.__set__(part, _answering(kind))
        yield
    finally:
        for part in changed:
            _class_of.__set__(part, original_class(part))
        entered.discard(mine)


def _known() -> set[type]:
    found = (getattr(sys.modules.get(home), name, None) for home, name in KNOWN)
    return {kind for kind in found if isinstance(kind, type) and issubclass(kind, nn.Module)}


@cache
def _answering(original: type[nn.Module]) -> type[nn.Module]:
    """A class that stands for another; no ``super()``: an object may change back during a call."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        plain = _here.entered and len(args) == 1 and not kwargs
        return quick_gelu(args[0]) if plain and _ordinary(args[0]) else own(self, *args, **kwargs)

    def reduced(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        found: Any = original.__reduce_ex__(self, protocol)
        call, given, *rest = found
        return (call, tuple(original if each is made else each for each in given), *rest)

    own: Any = original.forward
    names = ("__module__", "__qualname__", "__doc__")
    made = type(original.__name__, (original,), {
        **{name: getattr(original, name) for name in names},
        "forward": forward,
        "__reduce_ex__": reduced,
        "__class__": property(lambda self: original),  # pickle compares it
    })  # fmt: skip
    _ORIGINAL[made] = original
    return made


def _ordinary(x: object) -> bool:
    """Whether a function of our own may take it: a float tensor outside of torch.func's."""
    if type(x) not in (Tensor, nn.Parameter) or not isinstance(x, Tensor):
        return False
    within = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)()
    dual: Any = unpack_dual
    return x.is_floating_point() and not within and dual(x).tangent is None


def _holds_nothing(part: nn.Module) -> bool:
    """Whether it has nothing but its class's function, so that one answers for all of a class."""
    return not any(getattr(part, name) for name in ("_parameters", "_buffers", "_modules"))


def _is_quick_gelu(part: nn.Module) -> bool:
    """Whether it is, of some numbers of every float type, far ones too."""
    near = torch.linspace(-6, 6, 24, dtype=torch.float64, device="cpu").view(2, 3, 4)
    numbers = torch.stack([near, 1e4 * near])
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        probe = numbers.to(dtype)
        with torch.no_grad():
            try:
                found = part.forward(probe.clone())
            except Exception:  # another function in that place
                return False
        if not isinstance(found, Tensor) or found.dtype != dtype:
            return False
        if not torch.equal(found, probe * torch.sigmoid(SCALE * probe)):
            return False
    return True
