"""The base class of attribution methods: it scores every token of one side of a batch of pairs.

A subclass gives ``name``, ``unit``, ``summary`` and ``explain``, and ``Options`` if it has any.
Calling the method does the rest: it checks the encoder and the layer first, and the scores
afterwards.
Importing this module imports no torch, and so must the methods' own modules: what is registered
is listed without it.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from mmattrib.errors import EncoderError, MethodError, OptionError, brief, repr_of
from mmattrib.methods.options import (
    MethodOptions,
    SeededOptions,
    acting_options,
    option,
    parse_options,
)
from mmattrib.methods.pace import PLAIN, Pace
from mmattrib.models.capabilities import INPUT_GRADIENT, INPUT_LAYER
from mmattrib.plugins.registry import one_line
from mmattrib.plugins.strangers import described, hold_to, is_own, passes, shown

if TYPE_CHECKING:
    from torch import Tensor

    from mmattrib.engine import Guide
    from mmattrib.engine.together import Together
    from mmattrib.models.encoder import Encoder, EncoderInputs
    from mmattrib.models.grids import TokenGrid
    from mmattrib.models.passes import Passes
    from mmattrib.plugins.hookspecs import Register

__all__ = [
    "Method",
    "MethodOptions",
    "SeededOptions",
    "Side",
    "SideScores",
    "guide_of",
    "input_or_default",
    "option",
]

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
        pace: how the pairs go through the model; one by one unless the caller says otherwise.
        passes: what is known of these inputs by this encoder; found anew if None, or of others.
    """

    encoder: Encoder
    inputs: EncoderInputs
    layer: int
    guide: Guide
    keys: tuple[str, ...]
    other: Side | None = None
    pace: Pace = PLAIN
    passes: Passes | None = field(default=None, repr=False, compare=False)

    __repr__ = repr_of()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def together(self) -> Together:
        """How many pairs a method may take into one call of the model."""
        return self.pace.together(self.encoder.device, len(self))

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

        Inputs go through one by one, as :class:`mmattrib.models.passes.Passes` says. Not to be
        changed in place: every call gives the same tensor.
        """
        return self._passes.tokens(self.layer)

    def embeddings(self) -> Tensor:
        """``(B, D)`` of the explained inputs themselves, one by one, without gradients."""
        return self._passes.embeddings()

    def token_embeddings(self) -> Tensor:
        """The explained inputs' own tokens in the joint space, ``(B, N, D)``, one by one.

        Raises:
            OptionError: the layer has another number of tokens than the last.
        """
        found = self._passes.token_embeddings()[0]
        if found.shape[1] != self.grid().valid.shape[1]:
            raise OptionError(
                f"layer {self.layer} has {self.grid().valid.shape[1]} cells of the "
                f"{self.encoder.modality}, and the joint space has {found.shape[1]} tokens; this "
                "method compares them one by one. Explain a layer with as many (maps of a "
                "convolutional tower grow smaller), switch it off (ca-m2ib: pooled='none'), or "
                "take another method"
            )
        return found

    @cached_property
    def _passes(self) -> Passes:
        from mmattrib.models.passes import Passes

        given = self.passes
        if given is not None and given.encoder is self.encoder and given.inputs is self.inputs:
            return given
        return Passes(self.encoder, self.inputs, self.layer, together=self.together)

    def suffix(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """``(R, N, C)`` tokens of inputs ``rows`` -> ``(R, D)`` embeddings."""
        with self.pace.suffix_precision(tokens):
            return self.encoder.suffix(tokens, self.layer, self.inputs.select(rows))

    def behind(self) -> Tensor:
        """``(B, D)``: the suffix of :meth:`tokens` as they are, in full precision, no gradients.

        Known before a method is called: it is what the model is checked by. Not to be changed in
        place.
        """
        if self.layer == self._passes.layer:
            return self._passes.behind()
        return self._behind(self.tokens())

    def _behind(self, tokens: Tensor) -> Tensor:
        import torch

        def some(pairs: Tensor, _rows: int) -> Tensor:
            return self.encoder.suffix(tokens[pairs], self.layer, self.inputs.select(pairs))

        kind = ("behind", tokens.shape[1:])
        with torch.no_grad():
            return torch.cat(list(self.together.over(len(self), some, kind=kind)))

    def cosines(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` tokens -> ``(B,)`` cosines with each input's guide, in full precision."""
        import torch

        from mmattrib.engine.objective import fit

        with torch.no_grad():
            embeddings = self.behind() if tokens is self.tokens() else self._behind(tokens)
            target = self.guide.embedding.to(embeddings.device)
            return fit(embeddings.float()[:, None], target[:, None])[:, 0]

    def slopes(self) -> Tensor:
        """∂cos(f(h), e′)/∂h at the tokens, ``(B, N, C)`` float32."""
        import torch

        from mmattrib.engine.objective import cosine_gradient

        tokens, goals = self.tokens(), self.guide.embedding

        def some(pairs: Tensor, _rows: int) -> Tensor:
            goal = goals[pairs.to(goals.device)].to(tokens.device)
            return cosine_gradient(tokens[pairs], self.suffix, pairs, goal)

        kind = ("slopes", tokens.shape[1:])
        return torch.cat(list(self.together.over(len(self), some, kind=kind)))


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

    __repr__ = repr_of()


def guide_of(encoder: Encoder, inputs: Sequence[EncoderInputs], layer: int = INPUT_LAYER) -> Guide:
    """Some inputs as the guides of others; see :func:`guide_from`.

    Args:
        encoder: of the guides' modality.
        inputs: batches of one whose :attr:`EncoderInputs.shapes` are equal.
        layer: behind which the suffix is known to be the model's; if that is no sign for the
            tokens, :meth:`Encoder.sure_token_embeddings` looks further.
    """
    from mmattrib.models.encoder import EncoderInputs
    from mmattrib.models.passes import Passes

    return guide_from(Passes(encoder, EncoderInputs.cat(inputs), layer))


def guide_from(passes: Passes) -> Guide:
    """The inputs of some passes as the guides of others.

    Their token embeddings are computed when a method first reads them; the caller is still within
    ``encoder.frozen()`` then.
    """
    from mmattrib.engine import Guide

    return Guide(passes.embeddings(), load=passes.token_embeddings)


class Method(ABC):
    """An attribution method.

    Attributes:
        name: as registered.
        unit: of its scores, e.g. ``"bits"`` or ``"cosine"``.
        summary: one line for listings.
        research: kept out of listings and of ``"all"`` unless asked for.
        requires: capabilities that the explained encoder must have, e.g. ``"attention"``.
        Options: a frozen dataclass with a default for every field; a subclass of
            :class:`SeededOptions` where the method draws noise.
        options: an instance of it.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    summary: ClassVar[str] = ""
    research: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset()
    Options: ClassVar[type[Any]] = MethodOptions
    options: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Hold a class of others to the contract."""
        super().__init_subclass__(**kwargs)
        hold_to(cls, MethodError, "method", {"describe": described, "default_layer": None})

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

    @classmethod
    def register(cls, register: Register) -> None:
        """Register the class under its name: the body of a ``register_methods`` hook."""
        register(cls.name, cls.build, summary=cls.summary, research=cls.research)

    def __repr__(self) -> str:
        options = self.options if is_dataclass(self.options) else MethodOptions()
        told = [brief(getattr(self, "name", type(self).__name__))]
        for each in fields(options):
            value = brief(getattr(options, each.name))
            if value != brief(each.default):
                told.append(f"{each.name}={value}")
        return f"Method({', '.join(told)[:250]})"

    @property
    def draws(self) -> bool:
        """Whether the method draws noise, which follows from ``options.seed`` and the pair."""
        return "seed" in acting_options(self.options)

    def seeded(self: MethodT, seed: int) -> MethodT:
        """The same method with another seed, or itself where it draws nothing."""
        if not self.draws:
            return self
        made = copy.copy(self)
        made.options = replace(self.options, seed=seed)
        return made

    def __call__(self, side: Side) -> SideScores:
        """Explain one side, with the checks that every method needs.

        Raises:
            OptionError: the encoder lacks a capability that the method needs; no such layer, or
                one at which no content token reaches the embedding.
            MethodError: it raises something else, or its scores do not fit the tokens.
        """
        import torch

        check_attributes(self)
        require(side.encoder, self.requires, f"method {self.name!r}")
        side.encoder.check_layer(side.layer)
        if side.layer == side.encoder.num_layers - 1:
            refuse_dead_layer(side)
        found = self._explained(side)
        valid = side.grid().valid
        if found.scores.shape != valid.shape or len(found.diagnostics) != len(side):
            raise MethodError(
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

    def _explained(self, side: Side) -> SideScores:
        """What :meth:`explain` gives; what a method of others does wrong is a MethodError."""
        try:
            found = self.explain(side)
        except BaseException as error:  # a method of others may even exit
            own = is_own(self)
            if passes(error) or (own and is_own(side.encoder)):
                raise  # a fault of our own is best seen as it is
            kind = MethodError if not own else EncoderError
            raise kind(
                f"method {self.name!r} failed on the {side.encoder.modality} encoder "
                f"({type(side.encoder).__name__}) with {one_line(error)}"
            ) from error
        wrong = _wrong_scores(found)
        if wrong is not None:
            raise MethodError(f"method {self.name!r} gave {wrong}, as self.scored makes")
        return found

    @abstractmethod
    def explain(self, side: Side) -> SideScores:
        """Score every token of ``side.layer``; :meth:`scored` makes the result."""

    def scored(self, scores: Tensor, diagnostics: Sequence[dict[str, Any]] = ()) -> SideScores:
        """Scores ``(B, N)`` in the method's unit, with one mapping of JSON values per pair."""
        return SideScores(scores, self.unit, tuple(diagnostics) or ({},) * len(scores))

    def default_layer(self, encoder: Encoder) -> int:
        """The layer to explain when none is asked for: the encoder's own choice."""
        return encoder.default_layer

    def describe(self) -> dict[str, Any]:
        """Every option that acts, and its value, for provenance."""
        return acting_options(self.options)


def check_attributes(method: Method) -> None:
    """What is read of a method before it explains anything.

    Raises:
        MethodError: an attribute is missing, or of a wrong type.
    """
    kind = type(method)
    name, requires = getattr(method, "name", None), method.requires
    if not isinstance(name, str) or not name:
        raise MethodError(
            f"method {kind.__name__} has name = {shown(name)}; accepted: text, as in "
            f"`name = {kind.__name__.lower()!r}` in the class"
        )
    if not isinstance(requires, set | frozenset) or not all(isinstance(r, str) for r in requires):
        raise MethodError(
            f"method {name!r} has requires = {shown(requires)}; accepted: a frozenset of names of "
            "capabilities, such as frozenset({'attention'})"
        )
    if not hasattr(method, "options"):
        raise MethodError(
            f"method {name!r} has no options: its __init__ must call super().__init__(options)"
        )


def _wrong_scores(found: object) -> str | None:
    """What is wrong with the kind of a result; its shape is looked at later."""
    import torch

    scores = getattr(found, "scores", None)
    accepted = "; accepted: SideScores of a dense tensor of real numbers"
    if not isinstance(found, SideScores) or not isinstance(scores, torch.Tensor):
        return f"{shown(found)} with scores of type {type(scores).__name__}{accepted}"
    if scores.layout != torch.strided or scores.is_meta or scores.is_complex():
        kind = "meta" if scores.is_meta else f"{scores.layout} {scores.dtype}"
        return f"scores in a tensor of kind {kind.replace('torch.', '')}{accepted}"
    if not isinstance(found.unit, str) or not found.unit:
        return f"the unit {shown(found.unit)}; accepted: text, such as 'cosine'"
    entries: object = found.diagnostics
    if not isinstance(entries, tuple | list) or not all(isinstance(e, Mapping) for e in entries):
        given = next((e for e in entries if not isinstance(e, Mapping)), None) if isinstance(
            entries, tuple | list
        ) else entries  # fmt: skip
        return f"{shown(given)} for diagnostics; accepted: one mapping of JSON values per pair"
    for entry in entries:
        notes = entry.get("warnings", ())
        if not isinstance(notes, list | tuple) or not all(isinstance(n, str) for n in notes):
            return f"diagnostics whose warnings are {shown(notes)}; accepted: a list of sentences"
    return None


def input_or_default(encoder: Encoder) -> int:
    """The preprocessed input, layer -2, where the encoder offers it; else its default layer.

    For methods that were published for the input itself.
    """
    return INPUT_LAYER if INPUT_GRADIENT in encoder.capabilities else encoder.default_layer


def require(encoder: Encoder, names: frozenset[str], who: str) -> None:
    """Refuse an encoder that lacks a capability.

    Args:
        encoder: the explained one.
        names: capabilities, e.g. ``{"attention"}``.
        who: what needs them, for the message.

    Raises:
        OptionError: it lacks one of them.
    """
    given = frozenset(getattr(encoder, "capabilities", ()))
    lacking = sorted(names - given)
    if lacking:
        raise OptionError(
            f"{who} needs {' and '.join(lacking)} of its encoder; the {encoder.modality} encoder "
            f"{type(encoder).__name__} gives {', '.join(sorted(given)) or 'nothing of the kind'}. "
            "Use another method, or an encoder that gives it"
        )


def refuse_dead_layer(side: Side) -> None:
    """Refuse a layer whose content tokens do not reach the embedding.

    Behind the last block a CLS-pooled tower reads CLS alone: a map would be the same for any
    guide.

    Raises:
        OptionError: the gradient of the embedding is zero at every content token.
    """
    import torch

    tokens = side.tokens()[:1].detach().requires_grad_()
    with torch.enable_grad():
        embedding = side.suffix(tokens, torch.zeros(1, dtype=torch.long, device="cpu")).float()
        cosine = (embedding * side.guide.embedding[:1].to(embedding)).sum()
        (gradient,) = torch.autograd.grad(cosine, tokens, allow_unused=True)
    content = side.grid().content[:1].to(tokens.device)
    if gradient is None or not gradient[content].any():
        raise OptionError(
            f"behind layer {side.layer}, the {side.encoder.modality} encoder's last, the embedding "
            "depends on none of the tokens that stand for the input, so a map would be the same "
            f"for any guide; accepted: -1 to {side.layer - 1}"
        )
