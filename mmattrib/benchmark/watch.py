"""Where the time of an explanation goes: seconds, CPU seconds and GFLOP of each phase.

Phases are told apart by what is called, not by where: an encoder's methods are watched from
outside, and whatever of an explanation is none of them is the loop. A call within a watched call
counts to the outer one.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.profiler import record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mmattrib.models.backbone import Backbone

PREPROCESS, PREFIX, GUIDE, LOOP = "preprocess", "prefix", "guide", "loop"
LAYING_ON, PAGE, PICTURE = "laying on", "page", "picture"
EXPLAINING: Final = (PREPROCESS, PREFIX, GUIDE, LOOP)
PHASES: Final = (*EXPLAINING, LAYING_ON, PAGE, PICTURE)

METHODS: Final[Mapping[str, str]] = {
    "preprocess": PREPROCESS,
    "prefix": PREFIX,
    "embed": PREFIX,
    "token_embeddings": GUIDE,
    "sure_token_embeddings": GUIDE,
}
"""Method of an encoder -> the phase that a call of it is. ``suffix`` is the loop's.

``prefix`` is what goes through a tower from its input: tokens at the layer, and the embedding;
``guide`` the token embeddings, in the joint space.
"""


@dataclass
class Spent:
    """What was spent: seconds by the clock, CPU seconds of all threads, and FLOP."""

    seconds: float = 0.0
    cpu: float = 0.0
    flop: float = 0.0

    def add(self, other: Spent, times: float = 1.0) -> None:
        """Add another, so many times."""
        self.seconds += times * other.seconds
        self.cpu += times * other.cpu
        self.flop += times * other.flop


@dataclass
class Watch:
    """A stopwatch with phases.

    Attributes:
        device: waited for at each end of a phase, where work is queued.
        counter: counts FLOP, if given; times are then of no use.
        spent: phase -> what it took.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    counter: FlopCount | None = None
    spent: dict[str, Spent] = field(default_factory=dict)
    _outer: str | None = None
    _inside: Spent = field(default_factory=Spent)

    def now(self) -> Spent:
        """Readings of every clock."""
        synchronise(self.device)
        flop = 0.0 if self.counter is None else float(self.counter.total)
        return Spent(time.perf_counter(), time.process_time(), flop)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside is of this phase, unless it is inside of another one already.

        The loop is what remains: other phases inside of it are taken off.
        """
        if self._outer is not None and self._outer != LOOP:
            yield
            return
        before, outer = self.now(), self._outer
        self._outer = name
        if name == LOOP:
            self._inside = Spent()
        try:
            with record_function(f"phase: {name}"):
                yield
        finally:
            self._outer = outer
            took = self.now()
            took.add(before, -1.0)
            if outer == LOOP:
                self._inside.add(took)
            if name == LOOP:
                took.add(self._inside, -1.0)
            self.spent.setdefault(name, Spent()).add(took)

    def total(self, *phases: str) -> Spent:
        """The sum over phases; over all of them if none is named."""
        found = Spent()
        for name, spent in self.spent.items():
            if not phases or name in phases:
                found.add(spent)
        return found


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def watched(backbone: Backbone, watch: Watch) -> Backbone:
    """The same model, with the calls of :data:`METHODS` as phases of a watch."""
    encoders = {}
    for modality, encoder in backbone.items():
        made = copy.copy(encoder)
        for name, phase in METHODS.items():
            vars(made)[name] = _as_phase(getattr(encoder, name), watch, phase)
        encoders[modality] = made
    found = Backbone(encoders, backbone.name, backbone.provenance)
    found.weights_hash()  # once for a model, and no part of an explanation
    return found


def _as_phase(method: Callable[..., Any], watch: Watch, phase: str) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with watch.phase(phase):
            return method(*args, **kwargs)

    return call


class FlopCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts FLOP of matrix products inside, two for each multiplication with its addition.

    By torch's own formulas, and two for its attention on CPUs, which they lack. Not torch's own
    counter: that one follows modules by hooks that ``torch.autograd.grad`` cannot be with.

    >>> with FlopCount() as count:
    ...     _ = torch.ones(2, 3, dtype=torch.float32) @ torch.ones(3, 4, dtype=torch.float32)
    >>> count.total
    48
    """

    def __init__(self) -> None:
        """Start at 0."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and add what it multiplies."""
        named, packet = kwargs or {}, func._overloadpacket
        formula = _FORMULAS.get(packet) or flop_registry.get(packet)
        if formula is None:
            with self:  # an operation made of others: these are seen
                found = func.decompose(*args, **named)
            return func(*args, **named) if found is NotImplemented else found
        found = func(*args, **named)
        self.total += int(formula(*args, **named, out_val=found))
        return found


def _attention(query: Tensor, key: Tensor, value: Tensor, *_args: Any, **_kwargs: Any) -> int:
    """Two products: of queries and keys, and of weights and values."""
    batch, heads, rows, width = query.shape
    return 2 * batch * heads * rows * key.shape[2] * (width + value.shape[3])


def _attention_backward(_gradient: Tensor, *tensors: Any, **kwargs: Any) -> int:
    """Five products: both again in either direction, and the first once more."""
    return _attention(*tensors, **kwargs) * 5 // 2


_FORMULAS: Final[Mapping[Any, Callable[..., int]]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
