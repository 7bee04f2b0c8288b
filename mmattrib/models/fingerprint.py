"""What a model's weights are: one SHA-256, and a quick look at whether they have changed."""

from __future__ import annotations

import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmattrib.models.activations import original_class
from mmattrib.models.contents import Contents, UnknownError, number_of

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

    Looked at are all modules within ``encoder.module`` and elsewhere in the encoder, and in what
    these hold: their weights as by :func:`quick_state`, the code that each runs, helpers of its
    class included, and everything else that they and the encoder hold, as far down as
    :class:`mmattrib.models.contents.Contents` can tell it. What reads captions and files
    (:data:`_READERS`) counts by which object it is: what it gives is in the inputs.

    Args:
        encoder: any, with the tower in ``module``.

    Returns:
        None where nobody can tell: a part has hooks, or a ``forward`` of its own put in its place,
        or holds something whose content cannot be told, such as an object of a compiled library.
    """
    if torch.nn.modules.module._has_any_global_hook():  # type: ignore[no-untyped-call]
        return None
    try:
        facts = _facts(encoder)
    except (UnknownError, RuntimeError, NotImplementedError, TypeError, AttributeError, ValueError):
        return None  # among them tensors without numbers, and other people's attributes
    return hashlib.sha256(repr(facts).encode()).hexdigest()


_READERS = frozenset(("tokenizer", "processor"))
_OF_ANY_MODULE = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def _facts(encoder: Any) -> list[object]:
    contents = Contents()
    contents.meet(encoder)
    facts: list[object] = [contents.class_of(type(encoder))]
    for name, value in vars(encoder).items():
        facts.append((name, number_of(value) if name in _READERS else contents.of(value)))
    contents.of(encoder.module)
    seen: set[int] = set()
    weights: list[Weight] = []
    while waiting := [m for key, m in contents.modules.items() if key not in seen]:
        for part in waiting[0].modules():
            if id(part) not in seen:
                weights += _own_weights(str(len(seen)), part)
                seen.add(id(part))
                facts.append(_part(part, contents))
    for number, value in enumerate(contents.tensors):
        weights += _parts(f"held.{number}", value, True)
    if any(isinstance(w.value, Tensor) and type(w.value) not in _TENSORS for w in weights):
        raise UnknownError("a tensor of another kind")
    return [*facts, quick_state(weights)]


_TENSORS = (Tensor, nn.Parameter)
_STATE = ("state_dict", "_save_to_state_dict", "get_extra_state")


def _own_weights(name: str, part: nn.Module) -> Iterator[Weight]:
    """A module's own weights, and where it writes its state in a way of its own, all of that."""
    for key, value in (*part._parameters.items(), *part._buffers.items()):
        if value is not None:
            yield from _parts(f"{name}.{key}", value, True)
    if any(getattr(type(part), way) is not getattr(nn.Module, way) for way in _STATE):
        yield from weights_of(name, part)


def _part(part: nn.Module, contents: Contents) -> object:
    """What a module is, but for its weights."""
    own, kind = vars(part), original_class(part)
    if any(own.get(hooks) for hooks in _HOOKS) or "forward" in own:
        raise UnknownError("a module that is more than its class")
    inner = tuple((name, m and number_of(m)) for name, m in part._modules.items())
    held = [(name, contents.of(v)) for name, v in own.items() if name not in _OF_ANY_MODULE]
    return number_of(part), contents.class_of(kind, nn.Module), inner, held


def _sample(value: Tensor) -> Tensor:
    """``(n,)``: at least :data:`SAMPLE` of its numbers, or all.

    The step shares no factor with a row's length, so that it walks through all columns.
    """
    step = max(1, value.numel() // SAMPLE)
    while math.gcd(step, value.shape[-1] if value.dim() else 1) > 1:
        step -= 1
    return value.reshape(-1)[::step]


def _bytes(flat: Tensor) -> bytes:
    plain = flat.resolve_conj().resolve_neg()
    found: bytes = plain.to("cpu").contiguous().view(torch.uint8).numpy().tobytes()
    return found
