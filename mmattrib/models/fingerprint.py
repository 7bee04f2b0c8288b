"""What a model's weights are: one SHA-256, and a quick look at whether they have changed."""

from __future__ import annotations

import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

SAMPLE = 1024
"""Numbers of a weight that :func:`quick_state` reads: all of a smaller one, else evenly spaced."""


@dataclass(frozen=True)
class Weight:
    """One thing that a model computes with.

    Attributes:
        name: dotted.
        value: a dense tensor, or what a module keeps beside tensors, in words or bytes.
        lasting: whether the tensor is the module's own, which is changed in place, and no copy
            made for reading.
    """

    name: str
    value: Tensor | bytes
    lasting: bool = True


def weights_of(name: str, module: nn.Module) -> Iterator[Weight]:
    """Parameters, buffers (persistent or not), packed weights and extra state of a module.

    Args:
        name: what names begin with.
        module: any.
    """
    state = module.state_dict()
    for key, value in state.items():
        yield from _parts(f"{name}.{key}", value, True)
    for key, value in (*module.named_parameters(), *module.named_buffers()):
        if key not in state:
            yield from _parts(f"{name}.{key}", value.detach(), True)


def _parts(name: str, value: object, lasting: bool) -> Iterator[Weight]:
    if isinstance(value, Tensor):
        yield from _dense(name, value, lasting)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _parts(f"{name}.{key}", part, False)
    elif isinstance(value, tuple | list):
        for number, part in enumerate(value):
            yield from _parts(f"{name}.{number}", part, False)
    elif isinstance(value, torch.ScriptObject):  # packed weights of quantised recurrent layers
        yield from _parts(name, value.__getstate__(), False)
    elif isinstance(value, io.BytesIO):
        yield Weight(name, value.getvalue())
    elif isinstance(value, bytes | bytearray):
        yield Weight(name, bytes(value))
    elif value is None or isinstance(value, str | bool | int | float | complex | torch.dtype):
        yield Weight(name, repr(value).encode())
    else:  # its repr may hold an address
        yield Weight(name, type(value).__qualname__.encode())


def _dense(name: str, value: Tensor, lasting: bool) -> Iterator[Weight]:
    if value.is_quantized:
        yield Weight(f"{name}.integers", value.int_repr(), False)
        yield Weight(name, str(value.qscheme()).encode())
        scales: Sequence[object] = (
            (value.q_scale(), value.q_zero_point())
            if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric)
            else (value.q_per_channel_scales(), value.q_per_channel_zero_points())
        )
        yield from _parts(f"{name}.scales", scales, False)
    elif value.layout != torch.strided:
        yield Weight(name, value.to_dense(), False)
    else:
        yield Weight(name, value, lasting)


def digest_of(weights: Sequence[Weight]) -> str:
    """SHA-256 over names, shapes, types and every byte, as hex digits."""
    digest = hashlib.sha256()
    for weight in weights:
        value = weight.value
        if isinstance(value, Tensor):
            digest.update(f"{weight.name}:{tuple(value.shape)}:{value.dtype}".encode())
            digest.update(_bytes(value.detach().reshape(-1)))
        else:
            digest.update(f"{weight.name}:{len(value)}:".encode() + value)
    return digest.hexdigest()


def quick_state(weights: Sequence[Weight]) -> object:
    """Two of these are equal unless a weight has changed; it costs a few milliseconds.

    A change in place that torch counts is always seen, and so is a tensor that was put in another's
    place. What torch does not count (``parameter.data.mul_(2)``, a view in numpy) is seen by
    reading: in tensors of up to :data:`SAMPLE` numbers always, in larger ones where it touches one
    of at least that many evenly spaced numbers.
    """
    facts: list[object] = []
    samples: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for name, value, lasting in ((w.name, w.value, w.lasting) for w in weights):
        if not isinstance(value, Tensor):
            facts.append((name, value))
            continue
        facts.append((name, tuple(value.shape), value.dtype))
        if lasting:
            version = 0 if value.is_inference() else value._version
            facts.append((value.data_ptr(), version))
        samples[value.device, value.dtype].append(_sample(value.detach()))
    digest = hashlib.blake2b(digest_size=16)
    for some in samples.values():
        digest.update(_bytes(torch.cat(some)))
    return tuple(facts), digest.digest()


def tower_state(encoder: Any) -> str | None:
    """Two of these are equal unless a tower, or its encoder, has changed; costs a few milliseconds.

    Weights are looked at as by :func:`quick_state`; with them the parts of the tower, the code that
    each runs, and their plain attributes (numbers, flags, words, functions), those of the encoder
    and of the modules that it holds included.

    Args:
        encoder: any, with the tower in ``module``.

    Returns:
        None where nobody can tell: a part has hooks, or a ``forward`` of its own put in its place.
    """
    if torch.nn.modules.module._has_any_global_hook():  # type: ignore[no-untyped-call]
        return None
    facts: list[object] = [_plain(encoder)]
    holds = [value for value in vars(encoder).values() if isinstance(value, nn.Module)]
    for part in dict.fromkeys((*holds, *encoder.module.modules())):
        own = vars(part)
        if own.get("_forward_hooks") or own.get("_forward_pre_hooks") or "forward" in own:
            return None
        facts.append((id(part), id(type(part).forward), _plain(part)))
    facts.append(quick_state(list(weights_of("", encoder.module))))
    return hashlib.sha256(repr(facts).encode()).hexdigest()


_KINDS = {bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None)}
_CODE = {FunctionType, MethodType, BuiltinFunctionType}
_OF_ANY_MODULE = frozenset(vars(nn.Module()))


def _plain(owner: object) -> list[tuple[str, object]]:
    """Attributes that are equal where they print alike; not those that every module has."""
    return [
        (name, id(value) if type(value) in _CODE else value)
        for name, value in vars(owner).items()
        if name not in _OF_ANY_MODULE
        and (type(value) in _KINDS or type(value) in _CODE or _is_plain_tuple(value))
    ]


def _is_plain_tuple(value: object) -> bool:
    return type(value) is tuple and _KINDS.issuperset(map(type, value))


def _sample(value: Tensor) -> Tensor:
    """``(n,)``: at least :data:`SAMPLE` of its numbers, or all.

    The step shares no factor with a row's length, so that it walks through all columns.
    """
    step = max(1, value.numel() // SAMPLE)
    while math.gcd(step, value.shape[-1] if value.dim() else 1) > 1:
        step -= 1
    return value.reshape(-1)[::step]


def _bytes(flat: Tensor) -> bytes:
    found: bytes = flat.to("cpu").contiguous().view(torch.uint8).numpy().tobytes()
    return found
