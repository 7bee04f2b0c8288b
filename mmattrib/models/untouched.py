"""Whether a part of a model does what its class is written to do, and nothing else.

A quick way may take the place of such a part. Whoever patched it or hooked it wants it called.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from torch import nn
from torch.nn.modules import module as _torch

from mmattrib.models.gradients import only_looks

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


LIBRARIES = ("torch", "transformers", "open_clip", "mmattrib")


def untouched(part: nn.Module) -> bool:
    """Whether calling it runs its class's ``forward`` as it is written, and no hook.

    Looked at are a ``forward`` in the instance, the class's own (:func:`as_written`), and hooks, on
    the part or on every module; hooks that only look, as counters of operations do, do not matter.
    """
    if "forward" in vars(part) or not as_written(type(part)):
        return False
    return all(only_looks(hook) for each in (part, _torch) for hook in _hooks_on(each))


def has_hooks(module: nn.Module) -> bool:
    """Whether a hook, or a ``forward`` in an instance, acts on a model or on a part of it.

    Such a one may read any token, padding too. Parts of other classes, as adapters put in, do not
    count.
    """
    parts = list(module.modules())
    return any("forward" in vars(part) for part in parts) or not all(
        only_looks(hook) for part in (*parts, _torch) for hook in _hooks_on(part)
    )


def has_parts_of_others(module: nn.Module) -> bool:
    """Whether a part is of a class of none of the libraries whose models we have adapters for."""
    return any(
        type(part).__module__.partition(".")[0] not in LIBRARIES for part in module.modules()
    )


def _hooks_on(part: Any) -> Iterator[object]:
    """Of a module, or of torch's: those on every module."""
    prefix = "_global" if part is _torch else ""
    for name in _HOOKS:
        yield from getattr(part, prefix + name).values()


def as_written(kind: type[nn.Module]) -> bool:
    """Whether a class's ``forward`` is the function in the file that the class is defined in.

    A wrapper takes the name of what it wraps; where its code was read from, it cannot take.
    """
    forward = vars(kind).get("forward")
    if not isinstance(forward, FunctionType) or forward.__closure__ is not None:
        return False
    code, file = forward.__code__, getattr(sys.modules.get(kind.__module__), "__file__", None)
    return code.co_filename == file and code.co_qualname == f"{kind.__qualname__}.forward"
