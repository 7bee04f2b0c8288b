"""A guard around an encoder: what it raises or gives wrongly becomes one :class:`EncoderError`.

Encoders come from strangers, and the models within are changed by their owners. The error names the
modality, the method of the encoder and what it gave, instead of failing somewhere in the engine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from mmattrib.errors import EncoderError, MmattribError
from mmattrib.models.blocks import BlockEncoder
from mmattrib.models.encoder import Encoder, EncoderInputs, TokenEmbeddings
from mmattrib.models.gradients import watched
from mmattrib.models.grids import TokenGrid
from mmattrib.models.passes import Pass
from mmattrib.models.turns import reading_turn
from mmattrib.plugins.strangers import is_own

Check: TypeAlias = Callable[..., str | None]
"""Takes what a method gave and its arguments; gives what is wrong, or None."""

PASSED = (MmattribError, Warning, MemoryError, torch.OutOfMemoryError, KeyboardInterrupt)
"""What is raised through: errors of this package, and what says nothing of the encoder."""

_LENGTH = 0.05
"""How far an embedding's length may be from 1; half precision gives some 1e-3."""


def guarded(encoder: Encoder) -> Encoder:
    """The encoder with each method of its contract checked.

    Args:
        encoder: any; it is not changed, and what it keeps of its own stays in it.

    Raises:
        EncoderError: now or in any call: an attribute or a method breaks the contract.
    """
    if "guard" in vars(encoder):
        return encoder
    who = f"the {getattr(encoder, 'modality', 'given')} encoder ({type(encoder).__name__})"
    try:
        _check_attributes(encoder, who)
        made = copy.copy(encoder)
    except PASSED:
        raise
    except BaseException as error:
        raise EncoderError(
            f"{who} cannot be used: {_said(error)}; run mmattrib.testing.check_encoder on it"
        ) from error
    for name, check in _CHECKS.items():
        method = getattr(encoder, name)
        if name == "one_pass" and getattr(method, "__func__", None) in _MADE_OF_OTHERS:
            continue  # with those checked here in them
        if name == "preprocess" and is_own(encoder):
            method = _in_turn(method)
        if name == "suffix":
            method = watched(method, encoder.module, who)
        if name == "padded":
            method = _held_to_grid(method, encoder, who)
        vars(made)[name] = _guard(method, f"{who}: {name}", check)
    vars(made)["guard"] = encoder
    return made


def _in_turn(preprocess: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(preprocess)
    def call(*args: Any, **kwargs: Any) -> Any:
        with reading_turn():
            return preprocess(*args, **kwargs)

    return call


def _check_attributes(encoder: Encoder, who: str) -> None:
    layers, default = encoder.num_layers, encoder.default_layer
    for name, value, fits, accepted in (
        ("module", encoder.module, isinstance(encoder.module, nn.Module), "a torch.nn.Module"),
        ("num_layers", layers, _whole(layers) and layers >= 1, "a whole number, 1 or more"),
        ("default_layer", default, _whole(default), "a whole number"),
    ):
        if not fits:
            raise EncoderError(f"{who} has {name} = {_shown(value)}; accepted: {accepted}")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _guard(method: Callable[..., Any], what: str, check: Check) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            found = method(*args, **kwargs)
        except PASSED:
            raise
        except BaseException as error:  # an encoder may even exit
            raise EncoderError(
                f"{what} failed with {_said(error)}; that is a fault of the encoder or of the "
                "model in it: run mmattrib.testing.check_encoder on it"
            ) from error
        wrong = check(found, *args, **kwargs)
        if wrong is not None:
            raise EncoderError(
                f"{what} gave {wrong}; run mmattrib.testing.check_encoder on this encoder"
            )
        return found

    return call


def _said(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # other people's exceptions may fail to say what they are
        text = ""
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if value is None:
        return "None"
    return f"a {type(value).__name__}"


def _preprocessed(found: object, raws: Any) -> str | None:
    if not isinstance(found, EncoderInputs):
        return f"{_shown(found)}; accepted: EncoderInputs"
    if len(found.raw) != len(raws):
        return f"{len(found.raw)} raw inputs for {len(raws)}"
    for name, value in found.tensors.items():
        if not isinstance(value, Tensor):
            return f"{_shown(value)} as {name!r}; accepted: tensors with the batch first"
        if not value.ndim or value.shape[0] != len(raws):
            return f"{_shown(value)} as {name!r}; accepted: the batch of {len(raws)} first"
    return None if found.tensors else "no tensor"


def _padded(found: object, inputs: EncoderInputs) -> str | None:
    wrong = _preprocessed(found, inputs.raw)
    if wrong is not None or not isinstance(found, EncoderInputs):
        return wrong
    same = all(now is before for now, before in zip(found.raw, inputs.raw, strict=True))
    return None if same else "other raw inputs; accepted: the very ones that it was given"


def _held_to_grid(
    padded: Callable[[EncoderInputs], Any], encoder: Encoder, who: str
) -> Callable[[EncoderInputs], Any]:
    """``padded`` of an encoder, refused where its grid does not call what is added padding."""
    grid = _guard(encoder.grid, f"{who}: grid, of what padded gave,", _grid)

    @wraps(padded)
    def call(inputs: EncoderInputs) -> Any:
        found = padded(inputs)
        if found is inputs or _padded(found, inputs) is not None:
            return found
        wrong = added_wrongly(*(grid(each, encoder.num_layers - 1) for each in (inputs, found)))
        if wrong is not None:
            raise EncoderError(
                f"{who}: padded {wrong}; run mmattrib.testing.check_encoder on this encoder"
            )
        return found

    return call


def added_wrongly(before: TokenGrid, now: TokenGrid) -> str | None:
    """What is wrong with the grid of padded inputs beside their own; None if nothing is."""
    count = before.valid.shape[1]
    for name in ("valid", "content"):
        own, padded = getattr(before, name), getattr(now, name)
        if not torch.equal(padded[:, :count], own) or bool(padded[:, count:].any()):
            return (
                f"changes which tokens its grid calls {name}; accepted: further tokens behind the "
                "input's own, neither valid nor content"
            )
    return None


def _embedded(found: object, inputs: EncoderInputs) -> str | None:
    return _embedding(found, len(inputs.raw))


def _embedding(found: object, rows: int) -> str | None:
    accepted = f"; accepted: float embeddings ({rows}, D), L2-normalised"
    if not isinstance(found, Tensor) or found.ndim != 2 or not found.is_floating_point():
        return _shown(found) + accepted
    if found.shape[0] != rows or not found.shape[1]:
        return _shown(found) + accepted
    if not found.isfinite().all():
        return "an embedding that is NaN or infinite"
    lengths = found.detach().float().norm(dim=-1)
    if not ((lengths - 1).abs() <= _LENGTH).all():
        worst = lengths[(lengths - 1).abs().argmax()]
        return f"an embedding of length {float(worst):.3g}" + accepted
    return None


def _tokens(found: object, inputs: EncoderInputs, layer: int) -> str | None:
    rows = len(inputs.raw)
    accepted = f"; accepted: float tokens ({rows}, N, C)"
    if not isinstance(found, Tensor) or found.ndim != 3 or not found.is_floating_point():
        return _shown(found) + accepted
    if found.shape[0] != rows or not found.numel():
        return _shown(found) + accepted
    return None if found.isfinite().all() else f"tokens that are NaN or infinite, at layer {layer}"


def _behind(found: object, tokens: Tensor, layer: int, inputs: EncoderInputs) -> str | None:
    wrong = _embedding(found, len(tokens))
    if wrong is not None:
        # Tokens out of the model's range may give what is not finite: the method's own affair.
        return None if wrong.startswith("an embedding") and not tokens.isfinite().all() else wrong
    if (
        isinstance(found, Tensor)
        and tokens.requires_grad
        and torch.is_grad_enabled()
        and not found.requires_grad
    ):
        return f"an embedding without a gradient, at layer {layer}; it is detached from its tokens"
    return None


def _joint(found: object, inputs: EncoderInputs) -> str | None:
    if not isinstance(found, TokenEmbeddings):
        return f"{_shown(found)}; accepted: TokenEmbeddings"
    values, valid, rows = found.values, found.valid, len(inputs.raw)
    if not isinstance(values, Tensor) or values.ndim != 3 or not values.is_floating_point():
        return f"{_shown(values)} as values; accepted: float ({rows}, N, D)"
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
        return f"{_shown(valid)} as valid; accepted: bool ({rows}, N)"
    if values.shape[0] != rows or valid.shape != values.shape[:2]:
        return f"values {tuple(values.shape)} and valid {tuple(valid.shape)} for {rows} inputs"
    if not values[valid.to(values.device)].isfinite().all():
        return "token embeddings that are NaN or infinite"
    return None


def _grid(found: object, inputs: EncoderInputs, layer: int) -> str | None:
    if not isinstance(found, TokenGrid):
        return f"{_shown(found)}; accepted: a mmattrib.models.grids.TokenGrid"
    rows = len(inputs.raw)
    for name in ("valid", "content"):
        value = getattr(found, name)
        if not isinstance(value, Tensor) or value.dtype != torch.bool or value.ndim != 2:
            return f"a grid whose {name} is {_shown(value)}; accepted: bool ({rows}, N)"
        if value.shape[0] != rows:
            return f"a grid of {value.shape[0]} rows for {rows} inputs"
    return None


def _sentences(found: object, raw: object) -> str | None:
    if isinstance(found, list | tuple) and all(isinstance(each, str) for each in found):
        return None
    return f"{_shown(found)}; accepted: a list or tuple of sentences"


def _passed(found: object, inputs: EncoderInputs, layers: Sequence[int]) -> str | None:
    if not isinstance(found, Pass):
        return f"{_shown(found)}; accepted: a mmattrib.models.Pass"
    if not isinstance(found.tokens, dict) or not isinstance(found.captured, dict):
        return "a Pass whose tokens or captured are no mapping from layer to tensor"
    if missing := [layer for layer in layers if layer not in found.tokens]:
        return f"no tokens of layer {missing[0]}"
    wrong = _embedded(found.embedding, inputs)
    each = (_tokens(found.tokens[layer], inputs, layer) for layer in layers)
    return wrong or next((told for told in each if told is not None), None)


_MADE_OF_OTHERS = (Encoder.one_pass, BlockEncoder.one_pass)
_CHECKS: dict[str, Check] = {
    "notes": _sentences,
    "preprocess": _preprocessed,
    "padded": _padded,
    "embed": _embedded,
    "one_pass": _passed,
    "prefix": _tokens,
    "suffix": _behind,
    "token_embeddings": _joint,
    "grid": _grid,
}
