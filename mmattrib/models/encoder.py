"""Encoder: one modality's tower of a joint-embedding model, cut at any layer.

An encoder exposes its layers and its embedding head, and that is all the engine needs to pair
any two modalities. Layer ℓ is 0-based and means *the output of block ℓ*, as M2IB counts; layer −1
is the embedding output, before block 0, and layer −2, for encoders with the capability
``INPUT_GRADIENT``, the preprocessed input. ``prefix`` is the tower up to and including block ℓ,
``suffix`` the rest, through norm, embedding head and L2 normalisation, so that
``suffix(prefix(x, ℓ), ℓ, x) == embed(x)`` at every layer.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import einops
import torch
from torch import Tensor, nn

from mmattrib.errors import EncoderError, InputError, OptionError, TrustWarning, brief, repr_of
from mmattrib.models.activations import quick_activations
from mmattrib.models.attention import AttentionPass
from mmattrib.models.capabilities import ATTENTION, INPUT_GRADIENT, INPUT_LAYER, require
from mmattrib.models.gradients import watched
from mmattrib.models.grids import TokenGrid
from mmattrib.models.passes import Pass
from mmattrib.models.rounding import agrees
from mmattrib.models.turns import normal_mode, set_evaluating, turn
from mmattrib.types import Modality, RawArray, RawAudio, RawImage, RawInput, RawText

_Raw = TypeVar("_Raw", RawImage, RawAudio, RawText, RawArray)


class _Rows(Mapping[str, Tensor]):
    """Rows of a mapping of tensors, taken when asked for: a suffix seldom needs the pixels."""

    def __init__(self, tensors: Mapping[str, Tensor], rows: Tensor) -> None:
        self._tensors, self._rows = tensors, rows

    def __getitem__(self, name: str) -> Tensor:
        value = self._tensors[name]
        return value[self._rows.to(value.device)]

    def distinct(self, raws: tuple[RawInput, ...]) -> tuple[_Rows, Tensor, tuple[RawInput, ...]]:
        """Each row once, which of them every row is, and their raw inputs."""
        rows = self._rows.tolist()
        place = {row: number for number, row in enumerate(dict.fromkeys(rows))}
        first = dict(zip(reversed(rows), reversed(raws), strict=True))
        index = torch.tensor(list(place), dtype=torch.long, device="cpu")
        which = torch.tensor([place[row] for row in rows], dtype=torch.long, device="cpu")
        return _Rows(self._tensors, index), which, tuple(first[row] for row in place)

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

    __repr__ = repr_of()

    def __post_init__(self) -> None:
        if isinstance(self.tensors, dict) and any(
            isinstance(value, Tensor) and value.is_inference() for value in self.tensors.values()
        ):  # tensors of inference mode take part in no gradient
            with torch.inference_mode(False):
                cloned = {name: value.clone() for name, value in self.tensors.items()}
            object.__setattr__(self, "tensors", cloned)

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def select(self, rows: Tensor | Sequence[int]) -> EncoderInputs:
        """The batch made of these rows, which may repeat.

        Args:
            rows: ``(R,)`` row numbers.
        """
        index = torch.as_tensor(rows, dtype=torch.long, device="cpu")
        return EncoderInputs(
            _Rows(self.tensors, index), tuple(self.raw[row] for row in index.tolist())
        )

    def distinct(self) -> tuple[EncoderInputs, Tensor]:
        """The batch without the rows that :meth:`select` repeated, and each row's number in it.

        Returns:
            The smaller batch, and ``(B,)``: its rows at these numbers are this batch's rows.
        """
        if isinstance(self.tensors, _Rows):
            own, which, raws = self.tensors.distinct(self.raw)
            if len(raws) < len(self):
                return EncoderInputs(own, raws), which
        return self, torch.arange(len(self), device="cpu")

    def with_tensor(self, name: str, value: Tensor) -> EncoderInputs:
        """The same batch with another tensor under ``name``.

        Raises:
            OptionError: there is no such tensor.
        """
        if name not in self.tensors:
            raise OptionError(
                f"the inputs have no {brief(name)}; they have {', '.join(self.tensors)}"
            )
        return EncoderInputs({**self.tensors, name: value}, self.raw)

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

    __repr__ = repr_of()


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
    """The interface of one modality's tower. Most adapters subclass :class:`BlockEncoder` instead.

    Attributes:
        modality: ``"image"``, ``"text"``, ``"audio"`` or any other name.
        module: the tower; frozen and put back by :meth:`frozen`, never changed.
        default_layer: the layer to explain when none is asked for.
        capabilities: what it offers of :mod:`mmattrib.models.capabilities`; none unless declared.
        input_name: the float tensor of its inputs that layer -2 stands for: pixels, a
            spectrogram. None for text, where layer -2 is the embedding output.
        pad_id: for captions, the id that ``preprocess`` pads with; None where it is not known, or
            the inputs are no ids.
        input_pattern: how that tensor's axes make ``(B, N, C)`` cells, in einops' words.
    """

    modality: Modality
    module: nn.Module
    default_layer: int
    capabilities: frozenset[str] = frozenset()
    input_name: ClassVar[str | None] = None
    pad_id: int | None = None
    input_pattern: ClassVar[str] = "b c h w -> b (h w) c"

    __repr__ = repr_of("modality", "default_layer")

    @property
    @abstractmethod
    def num_layers(self) -> int:
        """Number of blocks; layers run from -1 to ``num_layers - 1``."""

    @property
    def logit_scale(self) -> float | None:
        """The factor that the model's contrastive loss puts before cosines; None where unknown.

        For :mod:`mmattrib.models.parameters`; no explanation depends on it.
        """
        return None

    @abstractmethod
    def preprocess(self, raws: Sequence[RawInput]) -> EncoderInputs:
        """Turn decoded inputs into one batch.

        Raises:
            InputError: an input cannot be used, e.g. a caption that is too long.
        """

    def notes(self, raw: RawInput) -> Sequence[str]:
        """What a reader of an input's map should know of how the tower reads this input.

        Sentences, such as words that it does not know; kept among the warnings of the map. None
        unless an adapter has some.
        """
        return ()

    def padded(self, inputs: EncoderInputs) -> EncoderInputs:
        """The inputs as they go together with others: padded, so that more have equal shapes.

        Asked of one input at a time, where pairs go together. What it adds stands behind the
        input's own tokens, is not ``valid`` in :meth:`grid`, and is read neither by the embedding
        nor by a valid token; how much follows from the input alone. Here nothing is added.
        """
        return inputs

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

    def one_pass(self, inputs: EncoderInputs, layers: Sequence[int]) -> Pass:
        """The embedding, and the tokens of some layers, as :meth:`embed` and :meth:`prefix` give.

        Here by a call of each; an encoder that needs one run of its tower for all overrides it, as
        :class:`BlockEncoder` does, with the same results bit for bit.
        """
        return Pass(self.embed(inputs), {layer: self.prefix(inputs, layer) for layer in layers})

    @abstractmethod
    def grid(self, inputs: EncoderInputs, layer: int) -> TokenGrid:
        """Where the tokens of ``layer`` lie on the inputs."""

    def attention(self, inputs: EncoderInputs) -> tuple[Tensor, ...]:
        """Per block ``(B, heads, N, N)``: how much each query (row) reads each key (column).

        Differentiable. Rows sum to 1, or to less where a tower has keys that are no tokens. Views
        (clips, crops) stand on the diagonal; where there are many, this takes much memory, and
        :meth:`embed_with_attention` gives the same view by view.

        Raises:
            OptionError: the encoder does not offer ``ATTENTION``.
        """
        found = self.embed_with_attention(inputs)
        return tuple(found.between_tokens(block) for block in range(len(found.weights)))

    def embed_with_attention(self, inputs: EncoderInputs) -> AttentionPass:
        """The embedding and every block's attention weights, connected in one graph.

        Raises:
            OptionError: the encoder does not offer ``ATTENTION``.
            EncoderError: a block hides its weights, or the embedding is not :meth:`embed`'s.
        """
        require(self, [ATTENTION], "embed_with_attention")
        raise EncoderError(
            f"the {self.modality} encoder ({type(self).__name__}) names the capability "
            "'attention' and has no embed_with_attention of its own; write it, or subclass "
            "BlockEncoder"
        )

    def input_tokens(self, inputs: EncoderInputs) -> Tensor:
        """``(B, N, C)``: the preprocessed input cell by cell; what ``prefix`` gives at layer -2."""
        if self.input_name is None:
            return self.prefix(inputs, -1)
        return einops.rearrange(inputs[self.input_name], self.input_pattern)

    def embed_input(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        """``(B, D)``: the embedding of other cells than the inputs'; ``suffix`` at layer -2."""
        if self.input_name is None:
            return self.suffix(tokens, -1, inputs)
        return self.embed(inputs.with_tensor(self.input_name, self._laid(tokens, inputs)))

    def lays_back(self, tokens: Tensor, inputs: EncoderInputs) -> bool:
        """Whether :meth:`embed_input` of these cells is :meth:`embed` of the inputs as they are."""
        if self.input_name is None or type(self).embed_input is not Encoder.embed_input:
            return False
        return torch.equal(self._laid(tokens, inputs), inputs[self.input_name])

    def _laid(self, tokens: Tensor, inputs: EncoderInputs) -> Tensor:
        """The input tensor that holds other cells."""
        assert self.input_name is not None
        there, back = (part.strip() for part in self.input_pattern.split("->"))
        value = inputs[self.input_name]
        sizes = dict(zip(there.split(), value.shape, strict=True))
        return einops.rearrange(tokens, f"{back} -> {there}", **sizes).to(value.dtype)

    def check_layer(self, layer: int) -> int:
        """Return ``layer`` or say what would be accepted.

        Raises:
            OptionError: there is no such layer.
        """
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise OptionError(f"layer must be a whole number, got {brief(layer)}")
        if layer == INPUT_LAYER:
            require(self, [INPUT_GRADIENT], f"layer {INPUT_LAYER}, the preprocessed input,")
            return layer
        if not -1 <= layer < self.num_layers:
            input_too = INPUT_GRADIENT in self.capabilities
            raise OptionError(
                f"the {self.modality} encoder has no layer {brief(layer)}; accepted: -1 (the "
                f"embedding output) to {self.num_layers - 1} (the output of its last block)"
                f"{f', and {INPUT_LAYER} (the preprocessed input)' if input_too else ''}"
            )
        return layer

    def replayed_suffix(self, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor | None:
        """:meth:`suffix` by way of the whole tower, hooks and patched parts included.

        None where an encoder has no such way.
        """
        return None

    def replayed_token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
        """:meth:`token_embeddings` of a model that is not as it was wrapped: of its last tokens.

        Quick ways through the parts of the last block know no hook on it.
        """
        return self.token_embeddings(inputs)

    def checked(self, inputs: EncoderInputs, layer: int) -> Encoder:
        """The encoder to explain with: :meth:`replaying` if a row was :meth:`changed`, else self.

        Raises:
            EncoderError: as :meth:`changed`.

        Warns:
            TrustWarning: the suffix is not the model's, and the whole tower is used.
        """
        differences = self.changed(inputs, layer)
        return self.replaying(max(differences), layer) if any(differences) else self

    def changed(
        self,
        inputs: EncoderInputs,
        layer: int,
        tokens: Tensor | None = None,
        embedding: Tensor | None = None,
        behind: Tensor | None = None,
    ) -> tuple[float, ...]:
        """Per row how far the suffix is from the whole model's embedding; 0 up to rounding.

        A model may have been changed since it was wrapped: a hook on its last attention, a patched
        method; and what was put there may act on some inputs only. The identity
        ``suffix(prefix(x)) == embed(x)`` is tried on each row by itself, without gradients: with
        tokens and embedding known, it costs one pass behind the layer per row.

        Args:
            inputs: what is explained.
            layer: the layer that is explained.
            tokens: ``(B, N, C)``, what :meth:`prefix` gives each row, if it is known.
            embedding: ``(B, D)``, what :meth:`embed` gives each row, if it is known.
            behind: ``(B, D)``, what :meth:`suffix` gives each row's tokens, if it is known.

        Raises:
            EncoderError: the whole tower does not give its own embedding either.
        """
        found = []
        with torch.no_grad():
            for row in range(len(inputs)):
                one = inputs if len(inputs) == 1 else inputs.select([row])
                known = self.prefix(one, layer) if tokens is None else tokens[row : row + 1]
                whole = self.embed(one) if embedding is None else embedding[row : row + 1]
                cut = self.suffix(known, layer, one) if behind is None else behind[row : row + 1]
                found.append(self._difference(one, layer, known, whole, cut))
        return tuple(found)

    def _difference(
        self, one: EncoderInputs, layer: int, tokens: Tensor, embedding: Tensor, found: Tensor
    ) -> float:
        if agrees(found, embedding, tokens.dtype):
            return 0.0
        self._check_repeats(one, embedding, tokens.dtype)
        difference = float((found - embedding.to(found)).norm())
        replayed = self.replayed_suffix(tokens, layer, one)
        if replayed is None or not agrees(replayed, embedding, tokens.dtype):
            raise EncoderError(
                f"{self._who()} behind layer {layer} gives another embedding than the whole model "
                f"(they differ by {difference:.3g} of length 1), so a map would explain another "
                "model; has the model been changed since it was wrapped? Run "
                "mmattrib.testing.check_encoder on it"
            )
        return difference

    def replaying(self, difference: float, layer: int) -> Encoder:
        """An encoder of the same model that runs the whole tower for each suffix, which is slower.

        Its token embeddings are the whole tower's last tokens in the joint space.

        Args:
            difference: by how much the quick way is off, for the warning.
            layer: behind which.

        Warns:
            TrustWarning: always.
        """
        warnings.warn(
            f"{self._who()} has been changed since it was wrapped (a hook, or a patched part): its "
            f"quick way behind layer {layer} differs from the whole model by {difference:.3g} of "
            "length 1. The whole model is run instead, which is slower, and its last tokens stand "
            "for the input in the joint space",
            TrustWarning,
            stacklevel=2,
        )
        general = copy.copy(self)
        general.__dict__["suffix"] = watched(self.replayed_suffix, self.module, self._who())
        general.__dict__["token_embeddings"] = self.replayed_token_embeddings
        return general

    def sure_token_embeddings(
        self, one: EncoderInputs, layer: int, embedding: Tensor | None = None
    ) -> TokenEmbeddings:
        """:meth:`token_embeddings` of one input, by no quick way that the model has left.

        Args:
            one: a batch of one.
            layer: the explained one, at which the input is not :meth:`changed`.
            embedding: ``(1, D)``, what :meth:`embed` gives, if it is known.

        Warns:
            TrustWarning: as :meth:`replaying`.
        """
        return self.token_embeddings(one)

    def _who(self) -> str:
        return f"the {self.modality} encoder ({type(self).__name__})"

    def _check_repeats(self, one: EncoderInputs, known: Tensor, dtype: torch.dtype) -> None:
        """Refuse an encoder that embeds one input in two ways: no suffix can agree with it."""
        if not agrees(self.embed(one), known, dtype):
            raise EncoderError(
                f"the {self.modality} encoder ({type(self).__name__}): embed gave two embeddings "
                "of one input; it draws random numbers or keeps a state, such as dropout that "
                "stays on in evaluation mode. Make it give the same each time"
            )

    @property
    def device(self) -> torch.device:
        """Where the tower's parameters are."""
        parameter = next(self.module.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Evaluation mode without parameter gradients; everything is put back on leaving.

        The module is left exactly as it was, after an exception too. Each part's ``training`` is
        set, and no ``train()`` or ``eval()`` of its own is called, since such a one may change
        weights (LoRA layers merge theirs) and rounding would not give them back; where a model's
        evaluation mode is more than the flag, put it in that mode before. Threads take turns:
        another thread that enters waits, whichever model it has. Inside, gradients can be taken
        even where the caller is in ``torch.inference_mode``, compiled parts run uncompiled, and
        activations run as one operation (:mod:`mmattrib.models.activations`).

        Raises:
            EncoderError: the weights were made inside ``torch.inference_mode``.
        """
        with turn(), normal_mode(self.module), quick_activations(self.module):
            training = [(module, module.training) for module in self.module.modules()]
            required = [(p, p.requires_grad) for p in self.module.parameters()]
            try:
                set_evaluating(self.module)
                for parameter, _ in required:
                    parameter.requires_grad_(False)
                yield
            finally:
                for module, mode in training:
                    module.training = mode
                for parameter, flag in required:
                    parameter.requires_grad_(flag)
