"""check_encoder: what an encoder must hold to."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmattrib.engine.noise import normal
from mmattrib.errors import EncoderError, InputError, MmattribError, OptionError
from mmattrib.models.capabilities import ATTENTION, INPUT_GRADIENT, INPUT_LAYER
from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.models.grids import TokenGrid
from mmattrib.models.turns import in_this_thread
from mmattrib.testing.capabilities import check_attention, check_input_gradient, check_names
from mmattrib.testing.padding import check_padded
from mmattrib.testing.passes import check_one_pass
from mmattrib.types import RawInput, RawText

_AXES = {"image": ("y", "x"), "audio": ("frequency", "time"), "text": ("word",)}


def check_encoder(
    encoder: Encoder,
    raws: Sequence[RawInput],
    *,
    layers: Sequence[int] | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """Check that an encoder keeps its contract.

    - ``preprocess`` gives one row per input, the same each time.
    - ``embed`` gives ``(B, D)``, finite, L2-normalised, different for different inputs, and the
      same alone, in a batch and again.
    - At every layer, ``prefix`` gives ``(B, N, C)`` and ``suffix(prefix(x, l), l, x)`` equals
      ``embed(x)``, also for selected and repeated rows; the suffix is differentiable in the
      tokens, keeps rows apart and does not read padding.
    - Behind ``default_layer`` the embedding depends on tokens that stand for the input.
    - What it declares in ``capabilities`` is so. Attention: weights of every block are
      probabilities, padding gets none, the embedding of the pass is ``embed``'s and hangs on them.
      Gradients at the input: layer -2 is held to all of the above, and the gradient there equals a
      finite difference.
    - ``padded`` adds nothing that the embedding or a valid token reads, behind the input's own.
    - ``one_pass`` gives bit for bit what ``embed``, ``prefix`` and ``token_embeddings`` give.
    - ``token_embeddings`` and ``grid`` agree with the layer's N; the grid's maps fit its axes.
    - The module is left as it was after every call, also after an exception inside the tower:
      parameters, gradients, ``requires_grad``, training flags, hooks; the random generators too.

    Args:
        encoder: the encoder.
        raws: at least two different inputs; for text, of different lengths.
        layers: which layers; every layer from -1 if None, and -2 where it is declared.
        rtol: relative tolerance of embeddings that must be equal.
        atol: absolute tolerance of embeddings that must be equal.

    Raises:
        EncoderError: what broke, at which layer, and the largest difference.
        InputError: fewer than two inputs.
    """
    if len(raws) < 2:
        raise InputError(
            f"check_encoder got {len(raws)} input(s); give at least two different ones"
        )
    _EncoderCheck(encoder, list(raws), rtol, atol).run(layers)


@dataclass(frozen=True)
class _State:
    """Everything about a module, and the random generators, that a call must leave alone."""

    facts: dict[tuple[str, str], object]
    """By what it is and what of, such as ``("training flag", "norm")``."""

    @classmethod
    def of(cls, module: nn.Module) -> _State:
        facts: dict[tuple[str, str], object] = {("gradient mode", ""): torch.is_grad_enabled()}
        for name, part in module.named_modules():
            own, label = vars(part), name or "the tower"
            facts["identity", label] = id(part)
            facts["training flag", label] = part.training
            facts["forward", label] = id(own.get("forward"))
            for kind, hooks in own.items():
                if hooks and kind.endswith("_hooks") and isinstance(hooks, dict):
                    facts[kind.strip("_").replace("_", " "), label] = tuple(hooks)
            for key, parameter in part._parameters.items():
                if parameter is not None:
                    label = f"{name}.{key}" if name else key
                    facts["identity", label] = (id(parameter), parameter.data_ptr())
                    facts["requires_grad", label] = parameter.requires_grad
                    facts["values", label] = parameter._version
                    facts["gradient", label] = id(parameter.grad)
                    facts["hooks", label] = tuple(parameter._backward_hooks or ())
        facts["random state", "torch"] = torch.get_rng_state().numpy().tobytes()
        numpy_state: Any = np.random.get_state(legacy=True)
        facts["random state", "numpy"] = (numpy_state[1].tobytes(), *numpy_state[2:])
        facts["random state", "Python"] = random.getstate()
        return cls(facts)

    def changed(self, module: nn.Module) -> str:
        """The first fact that is no longer so, or an empty string."""
        now = _State.of(module).facts
        if now == self.facts:
            return ""
        nothing = object()
        return next(
            f"{what} of {name}" if name else what
            for what, name in {**now, **self.facts}
            if self.facts.get((what, name), nothing) != now.get((what, name), nothing)
        )


def _fingerprint(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor):
            flat = value.detach().to("cpu").contiguous().reshape(-1)
            digest.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _PlantedError(Exception):
    """Raised inside the tower to see whether the encoder cleans up."""


@contextmanager
def _failing(module: nn.Module, at: int | None) -> Iterator[list[int]]:
    """Let the ``at``-th call of a leaf module raise; yields the number of calls so far."""
    calls = [0]

    @in_this_thread
    def count(_module: nn.Module, _args: object) -> None:
        calls[0] += 1
        if calls[0] == at:
            raise _PlantedError

    leaves = [part for part in module.modules() if not any(True for _ in part.children())]
    handles = [part.register_forward_pre_hook(count) for part in leaves]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


class _EncoderCheck:
    """One run of :func:`check_encoder`; every call of the encoder goes through :meth:`call`."""

    def __init__(self, encoder: Encoder, raws: list[RawInput], rtol: float, atol: float) -> None:
        self.encoder, self.raws, self.rtol, self.atol = encoder, raws, rtol, atol
        self.generator = torch.Generator("cpu").manual_seed(0)

    def fail(self, message: str, cause: BaseException | None = None) -> None:
        raise EncoderError(
            f"check_encoder: the {self.encoder.modality} encoder's {message}"
        ) from cause

    def call(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call the encoder, turn its errors into ours, and see that it left the module alone."""
        before = _State.of(self.encoder.module)
        try:
            result = function(*args)
        except (MmattribError, _PlantedError):
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            self.fail(f"{what} raised {type(error).__name__}: {reason}", error)
        finally:
            changed = before.changed(self.encoder.module)
        if changed:
            self.fail(f"{what} changed something it must leave alone: the {changed}")
        return result

    def close(self, got: Tensor, expected: Tensor, what: str) -> None:
        if got.shape != expected.shape:
            self.fail(f"{what}: shapes {tuple(got.shape)} and {tuple(expected.shape)}")
        difference = (got.detach().float() - expected.detach().float()).abs()
        limit = self.atol + self.rtol * expected.detach().float().abs()
        if not bool((difference <= limit).all()):
            self.fail(
                f"{what}: largest difference {float(difference.max()):.3g}, accepted "
                f"{self.atol:.3g} + {self.rtol:.3g} relative"
            )

    def run(self, layers: Sequence[int] | None) -> None:
        encoder = self.encoder
        self.check_contract()
        weights = _fingerprint(encoder.module)
        first = INPUT_LAYER if INPUT_GRADIENT in encoder.capabilities else -1
        chosen = range(first, encoder.num_layers) if layers is None else layers
        self.check_frozen()
        with encoder.frozen(), torch.no_grad():
            inputs = self.check_preprocess()
            embedding = self.check_embed(inputs)
            for layer in chosen:
                encoder.check_layer(layer)
                self.check_layer(inputs, embedding, layer)
            self.check_default_layer(inputs)
            self.check_token_embeddings(inputs, embedding.shape[1])
            check_padded(self, self.raws)
            if ATTENTION in encoder.capabilities:
                check_attention(self, inputs, embedding)
            if INPUT_LAYER in chosen:
                check_input_gradient(self, inputs)
        self.check_weights(weights)
        with encoder.frozen(), torch.no_grad():
            check_one_pass(self, inputs, embedding, (encoder.default_layer,))
        self.check_weights(weights)

    def check_weights(self, known: str) -> None:
        if _fingerprint(self.encoder.module) != known:
            self.fail("calls changed its weights or buffers")

    def check_contract(self) -> None:
        encoder = self.encoder
        if not isinstance(encoder, Encoder):
            raise EncoderError(
                f"check_encoder got {type(encoder).__name__}; accepted: a subclass of "
                "mmattrib.models.encoder.Encoder"
            )
        if not isinstance(encoder.module, nn.Module):
            self.fail("module is not a torch.nn.Module")
        if encoder.num_layers < 1:
            self.fail(f"num_layers is {encoder.num_layers}; accepted: at least 1")
        try:
            encoder.check_layer(encoder.default_layer)
        except OptionError as error:
            self.fail(f"default_layer is not one of its layers: {error}", error)
        check_names(self)
        for raw in self.raws:
            if raw.modality != encoder.modality:
                raise InputError(
                    f"check_encoder got a raw {raw.modality} for an encoder of "
                    f"{encoder.modality}; give inputs of its modality"
                )

    def check_frozen(self) -> None:
        """frozen() freezes, and puts a mixed state back, after an exception too."""
        module = self.encoder.module
        training = [(part, part.training) for part in module.modules()]
        required = [(p, p.requires_grad) for p in module.parameters()]
        try:
            for turn, (part, _) in enumerate(training):
                part.training = turn % 2 == 0
            for turn, (parameter, _) in enumerate(required):
                if parameter.is_floating_point():
                    parameter.requires_grad_(turn % 2 == 0)
            before = _State.of(module)
            try:
                with self.encoder.frozen():
                    if any(part.training for part in module.modules()):
                        self.fail("frozen() leaves a module in training mode")
                    if any(p.requires_grad for p in module.parameters()):
                        self.fail("frozen() leaves requires_grad on a parameter")
                    raise _PlantedError
            except _PlantedError:
                pass
            if changed := before.changed(module):
                self.fail(f"frozen() does not put back, after an exception, the {changed}")
        finally:
            for part, mode in training:
                part.training = mode
            for parameter, flag in required:
                parameter.requires_grad_(flag)

    def check_preprocess(self) -> EncoderInputs:
        encoder, rows = self.encoder, len(self.raws)
        inputs: EncoderInputs = self.call("preprocess", encoder.preprocess, self.raws)
        again: EncoderInputs = self.call("preprocess", encoder.preprocess, self.raws)
        if len(inputs) != rows:
            self.fail(f"preprocess gave {len(inputs)} rows for {rows} inputs")
        for name in inputs.tensors:
            value = inputs[name]
            if value.dim() < 1 or value.shape[0] != rows:
                self.fail(
                    f"preprocess gave {name!r} of shape {tuple(value.shape)} for {rows} inputs; "
                    "accepted: the batch first"
                )
            if not torch.equal(value, again[name]):
                self.fail(f"preprocess gave another {name!r} for the same inputs")
        return inputs

    def check_embed(self, inputs: EncoderInputs) -> Tensor:
        encoder, rows = self.encoder, len(self.raws)
        embedding: Tensor = self.call("embed", encoder.embed, inputs)
        if embedding.dim() != 2 or embedding.shape[0] != rows:
            self.fail(f"embed gave {tuple(embedding.shape)}; accepted: ({rows}, D)")
        if not bool(torch.isfinite(embedding).all()):
            self.fail("embed gave NaN or infinite values")
        norms = embedding.float().norm(dim=-1)
        if bool(((norms - 1).abs() > 1e-3).any()):
            self.fail(f"embed gave norms from {norms.min():.4g} to {norms.max():.4g}; accepted: 1")
        self.close(self.call("embed", encoder.embed, inputs), embedding, "embed, called twice")
        for row, raw in enumerate(self.raws):
            single = self.call("preprocess", encoder.preprocess, [raw])
            alone = self.call("embed", encoder.embed, single)
            self.close(alone[0], embedding[row], f"embed of input {row} alone and in the batch")
        if torch.allclose(embedding[0], embedding[-1], self.rtol, self.atol):
            self.fail("embed gave the first and the last input, which should differ, one embedding")
        return embedding

    def check_layer(self, inputs: EncoderInputs, embedding: Tensor, layer: int) -> None:
        encoder, at = self.encoder, f"at layer {layer}"
        tokens: Tensor = self.call(f"prefix {at}", encoder.prefix, inputs, layer)
        if tokens.dim() != 3 or len(tokens) != len(inputs):
            self.fail(f"prefix {at} gave {tuple(tokens.shape)}; accepted: ({len(inputs)}, N, C)")
        if not bool(torch.isfinite(tokens).all()):
            self.fail(f"prefix {at} gave NaN or infinite values")
        kept = tokens.clone()
        suffixed = self.call(f"suffix {at}", encoder.suffix, tokens, layer, inputs)
        self.close(suffixed, embedding, f"suffix(prefix(x, {layer}), {layer}, x) is not embed(x)")
        if not torch.equal(tokens, kept):
            self.fail(f"suffix {at} changed the tokens it was given")
        rows = [len(inputs) - 1, 0, 0]
        chosen = inputs.select(rows)
        picked = self.call(f"suffix {at}", encoder.suffix, tokens[rows], layer, chosen)
        self.close(picked, embedding[rows], f"suffix {at} on selected rows, one of them twice")
        grid = self.check_layout(inputs, tokens, layer)
        padding = ~grid.valid.to(tokens.device)
        if bool(padding.any()):
            noise = normal(tokens.shape, self.generator).to(tokens)
            other = torch.where(padding[..., None], tokens + noise, tokens)
            unmoved = self.call(f"suffix {at}", encoder.suffix, other, layer, inputs)
            self.close(unmoved, embedding, f"suffix {at} reads tokens that the grid calls padding")
        self.check_gradient(inputs, tokens, layer)
        self.check_cleanup(f"prefix {at}", encoder.prefix, inputs, layer)
        self.check_cleanup(f"suffix {at}", encoder.suffix, tokens, layer, inputs)

    def check_gradient(self, inputs: EncoderInputs, tokens: Tensor, layer: int) -> None:
        at = f"at layer {layer}"
        leaf = tokens.clone().requires_grad_(True)
        with torch.enable_grad():
            out = self.call(f"suffix {at}", self.encoder.suffix, leaf, layer, inputs)
            direction = normal([out.shape[1]], self.generator).to(out)
            if not out.requires_grad:
                self.fail(f"suffix {at} is not differentiable in its tokens")
            gradient = torch.autograd.grad((out[0] * direction).sum(), leaf, allow_unused=True)[0]
        if gradient is None or not bool(gradient[0].abs().max() > 0):
            self.fail(f"suffix {at} ignores the tokens it is given: their gradient is zero")
        elif not bool(torch.isfinite(gradient).all()):
            self.fail(f"suffix {at} has NaN or infinite gradients")
        elif (leak := float(gradient[1:].abs().max())) > 1e-6 * float(gradient[0].abs().max()):
            self.fail(
                f"suffix {at} mixes the rows of a batch: the gradient of row 0 reaches others "
                f"({leak:.3g}). Is the batch really the first axis of its tokens?"
            )

    def check_default_layer(self, inputs: EncoderInputs) -> None:
        """A default that every method would refuse is none."""
        layer = self.encoder.default_layer
        tokens = self.encoder.prefix(inputs, layer)[:1].detach().requires_grad_(True)
        with torch.enable_grad():
            out = self.encoder.suffix(tokens, layer, inputs.select([0]))
            direction = normal([out.shape[1]], self.generator).to(out)
            gradient = torch.autograd.grad((out[0] * direction).sum(), tokens)[0]
        content = self.encoder.grid(inputs, layer).content[:1].to(tokens.device)
        if not bool(gradient[content].any()):
            self.fail(
                f"default_layer is {layer}, behind which the embedding depends on none of the "
                "tokens that stand for the input, so that mmattrib.attribute refuses it; take an "
                "earlier one, e.g. mmattrib.models.relative_layer(num_layers)"
            )

    def check_cleanup(self, what: str, function: Callable[..., Any], *args: Any) -> None:
        """Plant an exception at the first and the last module that runs."""
        module = self.encoder.module
        with _failing(module, None) as calls:
            function(*args)
        for at in sorted({1, calls[0]} - {0}):
            before = _State.of(module)
            try:
                with _failing(module, at):
                    function(*args)
            except Exception:  # the planted one, or what the encoder makes of it
                pass
            if changed := before.changed(module):
                self.fail(f"{what} leaves something behind after an exception: the {changed}")

    def check_layout(self, inputs: EncoderInputs, tokens: Tensor, layer: int) -> TokenGrid:
        at, shape = f"at layer {layer}", tuple(tokens.shape[:2])
        grid: TokenGrid = self.call(f"grid {at}", self.encoder.grid, inputs, layer)
        for name in ("valid", "content"):
            mask = getattr(grid, name)
            if tuple(mask.shape) != shape or mask.dtype != torch.bool:
                self.fail(
                    f"grid {at} has {name} of {tuple(mask.shape)} {mask.dtype}; the layer's "
                    f"tokens need {shape} bool"
                )
        if bool((grid.content & ~grid.valid).any()):
            self.fail(f"grid {at} has content tokens that are not valid")
        if not bool(grid.content.any(dim=1).all()):
            self.fail(f"grid {at} has an input without content tokens")
        maps = self.call(f"grid.to_input {at}", grid.to_input, grid.content.float().cpu())
        names = _AXES.get(self.encoder.modality)
        for row, scores in enumerate(maps):
            axes = grid.axes(row)
            lengths = tuple(len(axis.values) for axis in axes)
            if scores.shape != lengths:
                self.fail(f"grid {at} gave a map of {scores.shape} on axes of {lengths}")
            if names is not None and tuple(axis.name for axis in axes) != names:
                self.fail(f"grid {at} has axes {[axis.name for axis in axes]}; accepted: {names}")
            if any(bool((np.diff(axis.values) <= 0).any()) for axis in axes):
                self.fail(f"grid {at} has an axis whose values do not rise")
        if len(maps) != len(inputs):
            self.fail(f"grid.to_input {at} gave {len(maps)} maps for {len(inputs)} inputs")
        back = self.call(f"grid.to_tokens {at}", grid.to_tokens, maps)
        if tuple(back.shape) != shape:
            self.fail(f"grid.to_tokens {at} gave {tuple(back.shape)}; the tokens need {shape}")
        self.check_words(grid, at)
        return grid

    def check_words(self, grid: TokenGrid, at: str) -> None:
        for row, raw in enumerate(self.raws):
            for word in grid.words(row):
                text = raw.text if isinstance(raw, RawText) else ""
                if text[word.start : word.end] != word.text:
                    self.fail(f"grid {at} has word {word.text!r}, not in place in input {row}")

    def check_token_embeddings(self, inputs: EncoderInputs, dimension: int) -> None:
        encoder, last = self.encoder, self.encoder.num_layers - 1
        result = self.call("token_embeddings", encoder.token_embeddings, inputs)
        count = self.call(f"prefix at layer {last}", encoder.prefix, inputs, last).shape[1]
        expected = (len(inputs), count, dimension)
        if tuple(result.values.shape) != expected:
            self.fail(f"token_embeddings gave {tuple(result.values.shape)}; accepted: {expected}")
        if tuple(result.valid.shape) != expected[:2] or result.valid.dtype != torch.bool:
            self.fail(
                f"token_embeddings have valid of {tuple(result.valid.shape)} "
                f"{result.valid.dtype}; accepted: {expected[:2]} bool"
            )
        if not bool(result.valid.any(dim=1).all()):
            self.fail("token_embeddings have an input without valid tokens")
        real = result.values[result.valid].float()
        if not bool(((real.norm(dim=-1) - 1).abs() <= 1e-3).all()):
            self.fail("token_embeddings are not L2-normalised, or not finite")
