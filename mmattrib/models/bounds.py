"""Keep a checkpoint's description from building more than the checkpoint holds weights for."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any, Final, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from mmattrib.errors import WeightsError

MOST: Final = 2**22
"""The largest whole number that a configuration may hold: above any vocabulary in use."""


class Held(NamedTuple):
    """How much a checkpoint holds.

    Attributes:
        tensors: how many weights.
        numbers: at most so many elements, all weights together; a byte may be one.
    """

    tensors: int
    numbers: int


UNSEEN: Final = Held(2500, 2**36)
"""Taken of a checkpoint whose file is not at hand yet: above any published joint embedding."""

_SPARE: Final = Held(1000, 2**24)
"""A model may have buffers, and weights that the file lacks: the message names those later."""


def check_sizes(source: object, described: object, most: int = MOST) -> None:
    """Refuse a configuration with whole numbers that are no sizes.

    Args:
        source: the checkpoint, or its file, for the message.
        described: mappings and lists of numbers and texts, nested.
        most: the largest that is accepted.

    Raises:
        WeightsError: one of them is larger, or less than minus that.
    """
    waiting: list[tuple[str, object]] = [("", described)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, int) and abs(value) > most:
            shown = str(value) if abs(value) < 10**15 else "a number of 16 digits or more"
            raise WeightsError(
                f"{source} describes a model with {name.lstrip('.')} {shown}; accepted: whole "
                f"numbers up to {most}. The file is damaged or made to exhaust this machine; "
                "take the configuration that belongs to the weights"
            )
        if isinstance(value, Mapping):
            waiting += [(f"{name}.{key}", each) for key, each in value.items()]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            waiting += [(f"{name}[{index}]", each) for index, each in enumerate(value)]


def held_in(folder: str | Path) -> Held:
    """What the weights' files of a folder hold, from their headers and sizes; nothing is read."""
    kinds = ("*.safetensors", "*.bin", "*.pt", "*.pth")
    files = [path for kind in kinds for path in sorted(Path(folder).glob(kind)) if path.is_file()]
    if not files:
        return UNSEEN
    return Held(sum(map(_tensors, files)), sum(path.stat().st_size for path in files))


def held_by(state: Mapping[str, torch.Tensor]) -> Held:
    """What a state dict holds."""
    return Held(len(state), sum(value.numel() for value in state.values()))


def _tensors(path: Path) -> int:
    """Weights in one file; what cannot be counted is left to the reader to refuse."""
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                return len(list(file.keys()))
        with zipfile.ZipFile(path) as archive:
            return len(archive.namelist())
    except Exception:  # each reader raises its own for a broken file
        return UNSEEN.tensors


@contextmanager
def bounded(source: object, held: Held = UNSEEN) -> Iterator[None]:
    """While a model is built in this thread, stop at more than a checkpoint can fill.

    Modules announce each parameter and buffer as they are made, so that a configuration that asks
    for a thousand million blocks, or for a width without memory for it, ends after the first few.
    Build on the meta device where the model draws its first weights itself.

    Args:
        source: the checkpoint, for the message.
        held: what it holds. Four times its weights and twice its numbers are let through, and a
            fixed number more, since building and filling are both counted.

    Raises:
        WeightsError: from inside the build.
    """
    thread, tensors, numbers = get_ident(), 0, 0
    most = Held(4 * held.tensors + _SPARE.tensors, 2 * held.numbers + _SPARE.numbers)

    def count(module: nn.Module, name: str, value: Any) -> None:
        nonlocal tensors, numbers
        if get_ident() != thread or not isinstance(value, torch.Tensor):
            return
        tensors, numbers = tensors + 1, numbers + value.numel()
        if tensors > most.tensors or numbers > most.numbers:
            raise WeightsError(
                f"{source} describes a larger model than it has weights for: at {name} of a "
                f"{type(module).__name__}, {tensors} weights with {numbers} numbers were asked "
                f"for, and the checkpoint holds {held.tensors} with at most {held.numbers}. Its "
                "configuration is damaged or belongs to another checkpoint; take the one that "
                "belongs to these weights"
            )

    handles = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
