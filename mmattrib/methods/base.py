"""What a method is: scores for the tokens of one side of some pairs.

A subclass gives ``name``, ``unit``, ``Options`` and ``explain``. Calling the method does the rest:
it checks the layer before and the scores after.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from mmattrib.engine import Guide
from mmattrib.engine.objective import fit
from mmattrib.errors import EncoderError, OptionError
from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.models.grids import TokenGrid

MethodT = TypeVar("MethodT", bound="Method")


@dataclass(frozen=True)
class Side:
    """A batch of inputs of one modality, each with its guide.

    Attributes:
        encoder: of the explained modality; the caller has entered ``encoder.frozen()``.
        inputs: B preprocessed inputs.
        layer: whose output is explained.
        guide: the other side of each pair.
        keys: one name per pair and side; noise follows from it and the seed.
        other: the guides as a side of their own, for methods that look into the guide's encoder;
            its own ``other`` is None.
    """

    encoder: Encoder
    inputs: EncoderInputs
    layer: int
    guide: Guide
    keys: tuple[str, ...]
    other: Side | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def grid(self) -> TokenGrid:
        """Where the tokens lie, and which are valid and content."""
        return self.encoder.grid(self.inputs, self.layer)

    def at(self, layer: int) -> Side:
        """The same side at another layer."""
        if layer == self.layer:
            return self  # with what it keeps
        return replace(self, layer=self.encoder.check_layer(layer))

    def tokens(self) -> Tensor:
        """``(B, N, C)`` at the explained layer, without gradients.

        Inputs go through one by one: a tower's sums round differently in another batch size, and
        a map must not depend on the batch. The prefix is a small part of the work. Not to be
        changed in place: every call gives the same tensor.
        """
        return self._tokens

    def token_embeddings(self) -> Tensor:
        """The explained inputs' own tokens in the joint space, ``(B, N, D)``, one by one.

        Raises:
            OptionError: the layer has other tokens: it is the preprocessed input.
        """
        found = self._token_embeddings
        if found.shape[1] != self.grid().valid.shape[1]:
            raise OptionError(
                f"layer {self.layer} has {self.grid().valid.shape[1]} cells of the "
                f"{self.encoder.modality}, and the joint space has {found.shape[1]} tokens; this "
                "method compares them one by one. Explain a layer from -1 on, or take another "
                "method"
            )
        return found

    # Kept: a method may ask for them several times, and each costs a pass through the tower.

    @cached_property
    def _tokens(self) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.encoder.prefix(one, self.layer) for one in self._one_by_one()])

    @cached_property
    def _token_embeddings(self) -> Tensor:
        with torch.no_grad():
            return torch.cat(
                [self.encoder.token_embeddings(one).values for one in self._one_by_one()]
            )

    def suffix(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """``(R, N, C)`` tokens of inputs ``rows`` -> ``(R, D)`` embeddings."""
        return self.encoder.suffix(tokens, self.layer, self.inputs.select(rows))

    def cosines(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` tokens -> ``(B,)`` cosines with each input's guide, one by one."""
        with torch.no_grad():
            embeddings = torch.cat(
                [self.suffix(tokens[i : i + 1], torch.tensor([i])) for i in range(len(self))]
            )
            target = self.guide.embedding.to(embeddings.device)
            return fit(embeddings.float()[:, None], target[:, None])[:, 0]

    def _one_by_one(self) -> list[EncoderInputs]:
        return [self.inputs.select([row]) for row in range(len(self))]


@dataclass(frozen=True)
class SideScores:
    """Raw scores of one side.

    Attributes:
        scores: ``(B, N)`` float32, one per token of the layer; 0 at padding.
        unit: of the scores.
        diagnostics: one mapping of JSON values per pair, ``"warnings"`` (sentences) among them.
    """

    scores: Tensor
    unit: str
    diagnostics: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class MethodOptions:
    """Options that every method takes.

    Attributes:
        seed: of whatever a method draws; without effect on one that draws nothing.
    """

    seed: int = 0


class Method(ABC):
    """An attribution method.

    Attributes:
        name: as registered.
        unit: of its scores, e.g. ``"bits"`` or ``"cosine"``.
        Options: a frozen dataclass with a default for every field and a ``seed``.
        options: an instance of it.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    Options: ClassVar[type[Any]] = MethodOptions
    options: Any

    def __init__(self, options: Any = None) -> None:
        """Take an instance of ``Options``, or its defaults."""
        self.options = self.Options() if options is None else options

    @classmethod
    def build(cls: type[MethodT], **given: Any) -> MethodT:
        """Make the method from keyword options; text as from a command line is parsed.

        Raises:
            OptionError: an option that it has not, or one out of range.
        """
        return cls(parse_options(cls.Options, given, cls.name))

    def __call__(self, side: Side) -> SideScores:
        """Explain one side, with the checks that every method needs.

        Raises:
            OptionError: no such layer, or one at which no content token reaches the embedding.
            EncoderError: the scores do not fit the tokens.
        """
        side.encoder.check_layer(side.layer)
        if side.layer == side.encoder.num_layers - 1:
            refuse_dead_layer(side)
        found = self.explain(side)
        valid = side.grid().valid
        if found.scores.shape != valid.shape or len(found.diagnostics) != len(side):
            raise EncoderError(
                f"method {self.name!r} gave scores of shape {tuple(found.scores.shape)} and "
                f"{len(found.diagnostics)} diagnostics; accepted: {tuple(valid.shape)} and "
                f"{len(side)}, as the {side.encoder.modality} encoder's grid says"
            )
        valid = valid.to(found.scores.device)
        scores = found.scores.detach().float()
        entries = []
        for row, entry in enumerate(found.diagnostics):
            notes = list(entry.get("warnings", ()))
            if not torch.isfinite(scores[row][valid[row]]).all():
                notes.append("some scores are infinite or not a number")
            entries.append({**entry, "warnings": notes})
        return SideScores(scores.where(valid, scores.new_zeros(())), found.unit, tuple(entries))

    @abstractmethod
    def explain(self, side: Side) -> SideScores:
        """Score every token of ``side.layer``."""

    def default_layer(self, encoder: Encoder) -> int:
        """The layer to explain when none is asked for: the encoder's own choice."""
        return encoder.default_layer

    def describe(self) -> dict[str, Any]:
        """Every option and its value, for provenance."""
        return asdict(self.options)


def refuse_dead_layer(side: Side) -> None:
    """Refuse a layer behind which the embedding hears none of the content tokens.

    Behind the last block a CLS-pooled tower reads CLS alone: a map would be the same for any
    guide.

    Raises:
        OptionError: the gradient of the embedding is zero at every content token.
    """
    tokens = side.tokens()[:1].detach().requires_grad_()
    with torch.enable_grad():
        embedding = side.suffix(tokens, torch.zeros(1, dtype=torch.long)).float()
        cosine = (embedding * side.guide.embedding[:1].to(embedding)).sum()
        (gradient,) = torch.autograd.grad(cosine, tokens, allow_unused=True)
    content = side.grid().content[:1].to(tokens.device)
    if gradient is None or not gradient[content].any():
        raise OptionError(
            f"behind layer {side.layer}, the {side.encoder.modality} encoder's last, the embedding "
            "depends on none of the tokens that stand for the input, so a map would be the same "
            f"for any guide; accepted: -1 to {side.layer - 1}"
        )


def parse_options(options: type[Any], given: Mapping[str, Any], method: str) -> Any:
    """An instance of a frozen options dataclass from keywords.

    Args:
        options: the dataclass; every field has a default, whose type the value must have.
        given: field name -> value, or its text.
        method: for messages.

    Raises:
        OptionError: an unknown field, with the nearest names; a value of the wrong type.
    """
    defaults = {
        field.name: field.default for field in fields(options) if field.default is not MISSING
    }
    for name in given:
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise OptionError(
                f"method {method!r} has no option {name!r}{hint}; accepted: {', '.join(defaults)}"
            )
    return options(**{name: _parse(name, value, defaults[name]) for name, value in given.items()})


def _parse(name: str, value: Any, default: Any) -> Any:
    """``value`` in the type of ``default``; text is read as that type."""
    kind = type(default)
    try:
        if kind is bool:
            text = str(value).lower()
            if text in ("true", "yes", "on", "1", "false", "no", "off", "0"):
                return text in ("true", "yes", "on", "1")
        elif isinstance(value, bool):
            pass
        elif kind is int:
            if isinstance(value, str) or value == int(value):
                return int(value)
        elif kind is float:
            return float(value)
        elif isinstance(value, kind):
            return value
    except (TypeError, ValueError, OverflowError):
        pass
    accepted = {bool: "true or false", int: "a whole number", float: "a number"}
    raise OptionError(f"{name} must be {accepted.get(kind, kind.__name__)}, got {value!r}")
