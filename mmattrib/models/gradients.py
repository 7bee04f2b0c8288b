"""Whether gradients pass through a model: quantised layers and some kernels carry none.

A residual way around such a part still gives a gradient, of a part of the model, and its map would
look like any other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.module_tracker import ModuleTracker

from mmattrib.errors import EncoderError

_NO_BACKWARD = "NotImplemented"
"""How torch's names of operations without a backward pass end."""

_LOOKS = "only_looks"
"""Set on hooks that change nothing."""


def only_looks(hook: object) -> bool:
    """Whether a module's hook changes nothing: :func:`watching`'s, or those of torch's counters."""
    return (
        getattr(hook, _LOOKS, False) is True
        or type(getattr(hook, "__self__", None)) is ModuleTracker
    )


def watched(method: Callable[..., Any], module: nn.Module, who: str) -> Callable[..., Any]:
    """A suffix that looks at each layer's first call with gradients.

    Args:
        method: ``(tokens, layer, inputs)`` -> ``(B, D)``.
        module: the tower.
        who: the encoder, for messages.
    """
    seen: set[int] = set()

    @wraps(method)
    def call(tokens: Tensor, layer: int, inputs: Any) -> Any:
        if layer in seen or not (tokens.requires_grad and torch.is_grad_enabled()):
            return method(tokens, layer, inputs)
        with watching(module, who) as ends:
            found = method(tokens, layer, inputs)
            ends.append(found)
        seen.add(layer)
        return found

    return call


@contextmanager
def watching(module: nn.Module, who: str) -> Iterator[list[Tensor]]:
    """Look at a pass with gradients, whose results are to be put into the list.

    A part is found whose output moves with its input and carries no gradient: a quantised layer, a
    module that detaches what it gives or runs under ``torch.no_grad``. So is an operation within
    the graph that torch knows no backward pass of. Not seen: a detached tensor beside others that
    have a gradient within one module, modules that are called while gradients are off, and wrong
    backward passes.

    Raises:
        EncoderError: there is such a part.
    """
    me = threading.get_ident()
    cut: list[nn.Module] = []

    def after(part: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        looks = threading.get_ident() == me and torch.is_grad_enabled()
        if looks and not cut and _cuts(part, args, kwargs, output):
            cut.append(part)

    vars(after)[_LOOKS] = True
    handles = [
        part.register_forward_hook(after, with_kwargs=True)
        for part in dict.fromkeys(module.modules())
    ]
    ends: list[Tensor] = []
    try:
        yield ends
    finally:
        for handle in handles:
            handle.remove()
    names = {id(part): name for name, part in module.named_modules()}
    if cut:
        raise _refused(who, f"{names[id(cut[0])] or 'its module'} ({_kind(cut[0])})")
    if any(_no_backward(end) for end in ends):
        raise _refused(who, "an operation without a backward pass")


def _kind(part: nn.Module) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _refused(who: str, what: str) -> EncoderError:
    return EncoderError(
        f"gradients do not pass {what} in {who}: what it gives depends on what it is given and "
        "carries no gradient, as in quantised layers, so that a gradient would be that of a part "
        "of the model. Explain the model as it was before it was quantised, or use a method that "
        "takes no gradients, such as leave-one-out or rise"
    )


def _cuts(part: nn.Module, args: Any, kwargs: Any, output: Any) -> bool:
    gave = [x for x in _tensors(output) if x.is_floating_point()]
    if not gave or any(x.requires_grad and not _direct(x) for x in gave):
        return False
    if not any(x.requires_grad for x in _tensors((args, kwargs))):
        return False
    try:
        with torch.no_grad():  # many give what depends on a shape or a type alone
            other, named = _moved(args), _moved(kwargs)
            again = [x for x in _tensors(part.forward(*other, **named)) if x.is_floating_point()]
    except Exception:  # what cannot be called twice shows nothing
        return False
    return len(again) != len(gave) or not all(map(torch.equal, again, gave))


def _direct(x: Tensor) -> bool:
    """Whether an operation without a backward pass has just made it."""
    return x.grad_fn is not None and x.grad_fn.name().endswith(_NO_BACKWARD)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def _moved(value: Any) -> Any:
    """The same arguments with other numbers where they take part in gradients."""
    if isinstance(value, Tensor):
        if not value.requires_grad:
            return value.clone()
        count = value.shape[-1] if value.dim() else 1
        ramp = torch.linspace(0.1, 1.0, count, dtype=torch.float32, device=value.device)
        return value.detach().flip(-1 if value.dim() else ()) * 1.3 + ramp.to(value.dtype)
    if isinstance(value, dict):
        return {key: _moved(each) for key, each in value.items()}
    if isinstance(value, tuple | list) and not hasattr(value, "_make"):
        return type(value)(_moved(each) for each in value)
    return value


def _no_backward(end: Tensor) -> bool:
    """Whether the graph behind a tensor holds an operation that has no backward pass."""
    waiting, seen = [end.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name().endswith(_NO_BACKWARD):
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False
