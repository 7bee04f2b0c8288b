"""Encoder: one modality's tower of a joint-embedding model, cut at any layer.

An encoder exposes its layers and its embedding head, and that is all the engine needs to pair
any two modalities. Layer ℓ is 0-based and means *the output of block ℓ*, as M2IB counts; layer −1
is the embedding output, before block 0. ``prefix`` is the tower up to and including block ℓ,
``suffix`` the rest, through norm, embedding head and L2 normalisation, so that
``suffix(prefix(x, ℓ), ℓ, x) == embed(x)`` at every layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from mmattrib.errors import EncoderError, InputError, OptionError
from mmattrib.models.grids import TokenGrid
from mmattrib.types import Modality, RawArray, RawAudio, RawImage, RawInput, RawText

_Raw = TypeVar("_Raw", RawImage, RawAudio, RawText, RawArray)


class _Rows(Mapping[str, Tensor]):
    """Rows of a mapping of tensors, taken when asked for: a suffix seldom needs the pixels."""

    def __init__(self, tensors: Mapping[str, Tensor], rows: Tensor) -> None:
        self._tensors, self._rows = tensors, rows

    def __getitem__(self, name: str) -> Tensor:
        value = self._tensors[name]
        return value[self._rows.to(value.device)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@dataclass(frozen=True)
class EncoderInputs:
    """A preprocessed batch.

    Attributes:
        tensors: name -> tensor with the batch first, as the tower takes them.
        raw: the decoded inputs they came from, one per row.
    """

    tensors: Mapping[str, Tensor]
    raw: tuple[RawInput, ...]

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def select(self, rows: Tensor | Sequence[int]) -> EncoderInputs:
        """The batch made of these rows, which may repeat.

        Args:
            rows: ``(R,)`` row numbers.
        """
        index = torch.as_tensor(rows, dtype=torch.long)
        return EncoderInputs(
            _Rows(self.tensors, index), tuple(self.raw[row] for row in index.tolist())
        )

    @property
    def shapes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Name and shape of every tensor without its batch axis; equal for rows that stack."""
        return tuple((name, tuple(value.shape[1:])) for name, value in self.tensors.items())

    @staticmethod
    def cat(parts: Sequence[EncoderInputs]) -> EncoderInputs:
        """One batch out of several whose :attr:`shapes` are equal."""
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0].tensors}
        return EncoderInputs(tensors, tuple(raw for part in parts for raw in part.raw))


@dataclass(frozen=True)
class TokenEmbeddings:
    """Every token of an input in the joint space.

    Attributes:
        values: ``(B, N, D)``, each token L2-normalised.
        valid: ``(B, N)`` bool, tokens to attend to: content tokens, no padding.
    """

    values: Tensor
    valid: Tensor


def expect(raw: RawInput, kind: type[_Raw]) -> _Raw:
    """The raw input, once it is sure to be of this kind.

    Args:
        raw: a decoded input.
        kind: ``RawImage``, ``RawAudio``, ``RawText`` or ``RawArray``.

    Raises:
        InputError: it is of another kind.
    """
    if not isinstance(raw, kind):
        raise InputError(f"{raw.name}: got {raw.modality}, this encoder takes {kind.__name__}")
    return raw


class Encoder(ABC):
    """What an adapter gives for one modality. Subclass :class:`BlockEncoder` for less work.

    Attributes:
        modality: ``"image"``, ``"text"``, ``"audio"`` or any other name.
        module: the tower; frozen and put back by :meth:`frozen`, never changed.
        default_layer: the layer to explain when none is asked for.
    """

    modality: Modality
    module: nn.Module
    default_layer: int

    @property
    @abstractmethod
    def num_layers(self) -> int:
        """Number of blocks; layers run from -1 to ``num_layers - 1``."""

    @abstractmethod
    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        """Turn decoded inputs into one batch.

        Raises:
            InputError: an input cannot be used, e.g. a caption that is too long.
        """

    @abstractmethod
    def embed(self, inputs: EncoderInputs) -> Tensor:
        """``(B, D)`` L2-normalised embeddings, as the whole tower gives them."""

    @abstractmethod
    def prefix(self, inputs: EncoderInputs, layer: int) -> Tensor:
        """``(B, N, C)`` tokens at the output of block ``layer``."""

    @abstractmethod
    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        """``(B, D)`` L2-normalised embeddings of ``(B, N, C)`` tokens put in after ``layer``.

        ``inputs`` has the same rows: towers need their masks, or where a caption ends.
        """

    @abstractmethod
    def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        """Every token in the joint space, in the token order of the layers."""

    @abstractmethod
    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        """Where the tokens of ``layer`` lie on the inputs."""

    def check_layer(self, layer: int) -> int:
        """Return ``layer`` or say what would be accepted.

        Raises:
            OptionError: there is no such layer.
        """
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise OptionError(f"layer must be a whole number, got {layer!r}")
        if not -1 <= layer < self.num_layers:
            raise OptionError(
                f"the {self.modality} encoder has no layer {layer}; accepted: -1 (the embedding "
                f"output) to {self.num_layers - 1} (the output of its last block)"
            )
        return layer

    @property
    def device(self) -> torch.device:
        """Where the tower's parameters are."""
        parameter = next(self.module.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Evaluation mode without parameter gradients; everything is put back on leaving.

        The module is left exactly as it was, after an exception too.
        """
        training = [(module, module.training) for module in self.module.modules()]
        required = [(p, p.requires_grad) for p in self.module.parameters()]
        try:
            self.module.eval()
            for parameter, _ in required:
                parameter.requires_grad_(False)
            yield
        finally:
            for module, mode in training:
                module.training = mode
            for parameter, flag in required:
                parameter.requires_grad_(flag)


class _ReachedError(Exception):
    """Ends a forward pass once the layer asked for has been captured."""


class BlockEncoder(Encoder):
    """An encoder derived from a tower's list of blocks, by hooks.

    A subclass gives ``modality``, ``module``, ``blocks``, ``default_layer``, :meth:`preprocess`,
    :meth:`forward`, :meth:`project` and :meth:`grid`. Blocks may return a tensor or a tuple whose
    first element is the tensor. ``suffix`` is then a replay: the whole tower runs again and the
    tokens are put in on the way; override it with a true suffix where speed matters.

    Hooks are added on entry and only these are removed on leaving, after an exception too.
    """

    blocks: Sequence[nn.Module]

    @abstractmethod
    def forward(self, inputs: EncoderInputs) -> Tensor:
        """``(B, D)`` embeddings from the whole tower; they need not be normalised."""

    @abstractmethod
    def project(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        """``(B, N, D)``: final norm and embedding head on every token of the last block."""

    @property
    def num_layers(self) -> int:
        return len(self.blocks)

    def embed(self, inputs: EncoderInputs) -> Tensor:
        return nnf.normalize(self.forward(inputs).float(), dim=-1)

    def prefix(self, inputs: EncoderInputs, layer: int) -> Tensor:
        captured: list[Tensor] = []
        self.check_layer(layer)

        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            captured.append(self.tokens_from(output))
            raise _ReachedError

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            captured.append(self.tokens_from(args or kwargs.get(_tokens_name(kwargs))))
            raise _ReachedError

        if layer < 0:
            handle = self.blocks[0].register_forward_pre_hook(before, with_kwargs=True)
        else:
            handle = self.blocks[layer].register_forward_hook(after)
        try:
            self.forward(inputs)
        except _ReachedError:
            pass
        finally:
            handle.remove()
        if len(captured) != 1:
            raise EncoderError(
                f"block {max(layer, 0)} of the {self.modality} encoder did not run during "
                "forward(); blocks must be the modules that the tower really calls, in order"
            )
        return captured[0]

    def suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        self.check_layer(layer)

        def after(_module: nn.Module, _args: Any, output: Any) -> Any:
            return self.with_tokens(output, tokens)

        def before(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if args:
                return self.with_tokens(args, tokens), kwargs
            name = _tokens_name(kwargs)
            return args, {**kwargs, name: self.with_tokens(kwargs[name], tokens)}

        if layer < 0:
            handle = self.blocks[0].register_forward_pre_hook(before, with_kwargs=True)
        else:
            handle = self.blocks[layer].register_forward_hook(after)
        try:
            return self.embed(inputs)
        finally:
            handle.remove()

    def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        last = self.num_layers - 1
        values = self.project(self.prefix(inputs, last), inputs)
        content = self.grid(inputs, last).content.to(values.device)
        return TokenEmbeddings(nnf.normalize(values.float(), dim=-1), content)

    def tokens_from(self, output: Any) -> Tensor:
        """``(B, N, C)`` tokens of a block's input or output; override for another axis order."""
        tokens = output[0] if isinstance(output, tuple | list) else output
        if not isinstance(tokens, Tensor) or tokens.dim() != 3:
            shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
            raise EncoderError(
                f"a block of the {self.modality} encoder gave {shape}; accepted: a tensor of shape "
                "(batch, tokens, channels), or a tuple that starts with one"
            )
        return tokens

    def with_tokens(self, output: Any, tokens: Tensor) -> Any:
        """``output`` with its tokens replaced; the inverse of :meth:`tokens_from`."""
        if isinstance(output, tuple) and hasattr(output, "_make"):  # a named tuple
            return output._make([tokens, *output[1:]])
        if isinstance(output, tuple | list):
            return type(output)([tokens, *output[1:]])
        return tokens


def _tokens_name(kwargs: dict[str, Any]) -> str:
    """Under which name a block got its tokens: the first tensor of three axes, or the first."""
    named = (k for k, v in kwargs.items() if isinstance(v, Tensor) and v.dim() == 3)
    return next(named, next(iter(kwargs), ""))
