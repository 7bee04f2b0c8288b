"""Calls on models take turns, and run in the modes that they need."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import nn

from mmattrib.errors import EncoderError

_lock = threading.RLock()
_reading = threading.RLock()


def _renew() -> None:
    """A forked child starts with locks of its own; the parent's may be held."""
    global _lock, _reading
    _lock, _reading = threading.RLock(), threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def turn() -> Iterator[None]:
    """Wait until no other thread of this process uses a model; re-entrant.

    One lock for all models: two backbones may share a model, an explanation uses two encoders at
    once, and one lock cannot be taken in the wrong order. Torch spreads one call over the cores, so
    that models that run at the same time gain little. Use several processes for more.
    """
    with _lock:
        yield


@contextmanager
def reading_turn() -> Iterator[None]:
    """Wait until no other thread of this process preprocesses an input; re-entrant.

    Tokenizers and feature extractors have a state of their own, and another than the models: one
    input may be preprocessed while another is explained. Whoever holds it asks for no :func:`turn`.
    """
    with _reading:
        yield


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, acting in the thread that made it alone.

    A hook belongs to the module, and so to every thread: a service may run the same model in
    another one, which never asked for a turn.
    """
    me = threading.get_ident()

    @wraps(hook)
    def act(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs) if threading.get_ident() == me else None

    return act


def set_evaluating(module: nn.Module) -> None:
    """Evaluation mode by the flag of every part, without their own ``train()`` or ``eval()``."""
    for part in module.modules():
        part.training = False


@contextmanager
def normal_mode(module: nn.Module) -> Iterator[None]:
    """Leave ``torch.inference_mode``, ``torch.autocast`` and ``torch.compile`` for a while.

    Methods need gradients, a map is that of the model in its own precision, and hooks on blocks do
    not run in compiled code.

    Raises:
        EncoderError: the module's weights were made inside ``torch.inference_mode``.
    """
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if value.is_inference():
            raise EncoderError(
                f"the weight {name!r} was made inside torch.inference_mode(), so that nothing can "
                "be differentiated through it; load the model outside, or call "
                "load_backbone, which takes care of it"
            )
    mode = torch.enable_grad if torch.is_grad_enabled() else torch.no_grad
    with ordinary_tensors(module), uncompiled(module), mode():
        yield


@contextmanager
def ordinary_tensors(module: nn.Module) -> Iterator[None]:
    """Leave ``torch.inference_mode``, ``torch.autocast`` and a foreign default device for a while.

    For preprocessing as well: filters of a spectrogram are matrix products, which autocast would
    round. A tower may make tensors without naming a device; a default that is not the module's own
    would put them elsewhere. A default that is the module's is kept: its author may count on it.
    In this thread alone.
    """
    places = {value.device for value in module.parameters()} or {torch.device("cpu")}
    kinds = {"cpu", *(place.type for place in places)} - {"meta"}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for kind in kinds:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type not in {place.type for place in places}:
            stack.enter_context(next(iter(places)))
        yield


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Run what ``torch.compile`` has compiled of a module as it was written: hooks run there."""
    if not is_compiled(module):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` or ``Module.compile`` has compiled a part of it."""
    return any(
        getattr(part, "_compiled_call_impl", None) is not None
        or type(part).__name__ == "OptimizedModule"
        for part in module.modules()
    )
