"""check_method: what a method must hold to, on any pair of encoders."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmattrib.errors import InputError, MethodError, MmattribError
from mmattrib.methods import Method, Side, SideScores, guide_of
from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.models.turns import ordinary_tensors
from mmattrib.plugins.strangers import unheld
from mmattrib.testing.checks import Check
from mmattrib.testing.encoders import _State
from mmattrib.types import RawInput

_PADDING = 1e4
"""What stands at padding when a method must not look there; half precision holds it."""


@unheld()
def check_method(
    method: Method,
    encoder: Encoder,
    raws: Sequence[RawInput],
    guide: Encoder,
    guides: Sequence[RawInput],
    *,
    layer: int | None = None,
    rtol: float = 1e-4,
) -> None:
    """Check that a method keeps its contract.

    - It has a name, a unit and a summary of one line; its options are a frozen dataclass with a
      default for every field, and ``describe`` gives those that act, as JSON.
    - Its scores are ``(B, N)``, finite, 0 at padding, in its unit; its diagnostics are JSON.
    - A pair's scores are the same again, alone, in another order, and whatever padding holds.
    - They depend on the seed where the method draws noise, and else on neither the seed, the pair's
      name nor the global random state.
    - It refuses an encoder without what it requires, and says what that is.
    - Both modules and the random generators are left as they were.

    Args:
        method: the method.
        encoder: of the explained inputs.
        raws: at least two different inputs of its modality; for text, of different lengths.
        guide: the encoder of the other side.
        guides: as many inputs of its modality.
        layer: which layer is explained; the method's choice if None.
        rtol: largest difference between scores that must be equal, relative to the largest score.

    Raises:
        MethodError: what broke.
        InputError: fewer than two pairs.
    """
    if len(raws) < 2 or len(raws) != len(guides):
        raise InputError(
            f"check_method got {len(raws)} inputs and {len(guides)} guides; give at least two of "
            "each, and as many"
        )
    _MethodCheck(method, encoder, list(raws), guide, list(guides), layer, rtol).run()


class _MethodCheck(Check):
    """One run of :func:`check_method`."""

    function, kind, fault = "check_method", "method", MethodError

    def __init__(
        self,
        method: Method,
        encoder: Encoder,
        raws: list[RawInput],
        guide: Encoder,
        guides: list[RawInput],
        layer: int | None,
        rtol: float,
    ) -> None:
        super().__init__(method)
        self.method, self.rtol = method, rtol
        self.encoder, self.guide = encoder, guide
        with ordinary_tensors(encoder.module):
            self.inputs = encoder.preprocess(raws)
        with ordinary_tensors(guide.module):
            self.others = guide.preprocess(guides)
        self.layer = method.default_layer(encoder) if layer is None else layer
        self.valid = encoder.grid(self.inputs, self.layer).valid

    def run(self) -> None:
        self.check_declared()
        self.check_options()
        self.check_required()
        rows = list(range(len(self.inputs)))
        found = self.explain(self.method, rows)
        self.check_scores(found)
        self.check_repeated(found, rows)
        self.check_seed(found, rows)
        self.check_padding(rows)

    def check_declared(self) -> None:
        self.check_lines("name", "unit", "summary")

    def check_options(self) -> None:
        method = self.method
        options: Any = method.options
        if not is_dataclass(options) or isinstance(options, type):
            self.fail(f"has options of type {type(options).__name__}; accepted: a dataclass")
        if not type(options).__dataclass_params__.frozen:  # type: ignore[attr-defined]
            self.fail("has options that can be changed; make their dataclass frozen")
        for each in fields(options):
            if each.default is MISSING:
                self.fail(f"has no default for its option {each.name}")
        described = method.describe()
        self.check_json(described, "gives describe() that")
        if unknown := sorted(set(described) - {each.name for each in fields(options)}):
            self.fail(f"describes {', '.join(unknown)}, which are not among its options")

    def check_required(self) -> None:
        if not self.method.requires:
            return
        try:
            self.explain(self.method, [0], encoder=_bare(self.encoder))
        except MmattribError as error:
            if all(word in str(error) for word in (self.method.name, self.encoder.modality)):
                return
            self.fail(f"does not say which encoder lacks what it requires, but: {error}")
        self.fail(f"requires {sorted(self.method.requires)} and explains an encoder without")

    def check_scores(self, found: SideScores) -> None:
        if found.unit != self.method.unit:
            self.fail(f"gives scores in {found.unit!r}, and its unit is {self.method.unit!r}")
        if not torch.isfinite(found.scores).all():
            self.fail("gives scores that are not finite")
        if found.scores[~self.valid.to(found.scores.device)].any():
            self.fail("gives scores at padding")
        for entry in found.diagnostics:
            self.check_json(entry, "gives diagnostics that")

    def check_repeated(self, found: SideScores, rows: list[int]) -> None:
        self.same(self.explain(self.method, rows), found, rows, "when asked again")
        self.same(self.explain(self.method, rows[::-1]), found, rows[::-1], "in another order")
        for row in rows:
            self.same(self.explain(self.method, [row]), found, [row], "alone")

    def check_seed(self, found: SideScores, rows: list[int]) -> None:
        method = self.method
        if method.draws:
            other = self.explain(method.seeded(method.options.seed + 1), rows)
            if torch.equal(other.scores, found.scores) and other.diagnostics == found.diagnostics:
                self.fail("has a seed on which neither its scores nor its diagnostics depend")
            if method.describe()["seed"] != method.options.seed:
                self.fail("describes another seed than its own")
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            other = self.explain(method, rows, names="other")
        self.same(other, found, rows, "under another pair's name and global random state")

    def check_padding(self, rows: list[int]) -> None:
        if self.valid.all():
            return
        clean, dirty = (
            self.explain(self.method, rows, encoder=_padded(self.encoder, value))
            for value in (0.0, _PADDING)
        )
        self.same(dirty, clean, rows, "when padding holds other numbers")

    def same(self, got: SideScores, found: SideScores, rows: list[int], when: str) -> None:
        """``got``, of some rows, equals these rows of what was found."""
        expected = found.scores[rows]
        gap = float((got.scores - expected).abs().max())
        limit = self.rtol * float(expected.abs().max())
        if not gap <= limit:
            self.fail(
                f"gives other scores {when}: largest difference {gap:.3g}, accepted {limit:.3g}"
            )

    def explain(
        self,
        method: Method,
        rows: list[int],
        *,
        encoder: Encoder | None = None,
        names: str = "pair",
    ) -> SideScores:
        """Call the method on some pairs, and see that it left both modules alone."""
        side = self.side(rows, encoder or self.encoder, names)
        before = [_State.of(each.module) for each in (self.encoder, self.guide)]
        with ExitStack() as stack:
            for each in (self.encoder, self.guide):
                stack.enter_context(each.frozen())
            own = guide_of(side.encoder, _one_by_one(side.inputs))
            assert side.other is not None
            theirs = guide_of(self.guide, _one_by_one(side.other.inputs))
            other = replace(side.other, guide=own)
            found = method(replace(side, guide=theirs, other=other))
        for state, each in zip(before, (self.encoder, self.guide), strict=True):
            if changed := state.changed(each.module):
                self.fail(f"changed something that it must leave alone: the {changed}")
        return found

    def side(self, rows: list[int], encoder: Encoder, names: str) -> Side:
        """Some pairs, without their guides' embeddings."""
        empty: Any = None
        mine, theirs = (tuple(f"{names} {row}: {which}" for row in rows) for which in ("a", "b"))
        layer = self.method.default_layer(self.guide)
        other = Side(self.guide, self.others.select(rows), layer, empty, theirs)
        return Side(encoder, self.inputs.select(rows), self.layer, empty, mine, other)


def _one_by_one(inputs: EncoderInputs) -> list[EncoderInputs]:
    return [inputs.select([row]) for row in range(len(inputs))]


def _altered(encoder: Encoder, **members: Any) -> Encoder:
    """The same encoder, around the same module, with some members of its class replaced."""
    made = copy.copy(encoder)
    kind = type(encoder)
    made.__class__ = type(kind.__name__, (kind,), members)
    return made


def _bare(encoder: Encoder) -> Encoder:
    """The encoder without any capability."""
    made = _altered(encoder, capabilities=frozenset())
    vars(made).pop("capabilities", None)
    return made


def _padded(encoder: Encoder, value: float) -> Encoder:
    """The encoder with other numbers at padding, which never reach its tower."""

    def prefix(self: Encoder, inputs: EncoderInputs, layer: int) -> Tensor:
        tokens = type(encoder).prefix(self, inputs, layer)
        valid = encoder.grid(inputs, layer).valid.to(tokens.device)
        return tokens.masked_fill(~valid[..., None], value)

    def suffix(self: Encoder, tokens: Tensor, layer: int, inputs: EncoderInputs) -> Tensor:
        valid = encoder.grid(inputs, layer).valid.to(tokens.device)
        clean = tokens.where(valid[..., None], tokens.new_zeros(()))
        return type(encoder).suffix(self, clean, layer, inputs)

    return _altered(encoder, prefix=prefix, suffix=suffix)
