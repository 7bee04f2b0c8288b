"""check_method finds what a method does wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from toy_encoders import RAWS, ToyImage, ToyText

from mmattrib.engine import Guide
from mmattrib.errors import InputError, MethodError, OptionError
from mmattrib.methods import Method, MethodOptions, SeededOptions, Side, SideScores, option
from mmattrib.testing import check_method


class Plain(Method):
    """Without fault, to be broken in one place at a time."""

    name, unit, summary = "plain", "length", "length of each token"

    def explain(self, side: Side) -> SideScores:
        return self.scored(side.tokens().norm(dim=-1))


def check(method: Method, **given: Any) -> None:
    encoder = given.pop("encoder", None) or ToyText()
    check_method(method, encoder, RAWS["text"](), ToyImage(), RAWS["image"](), **given)


def test_a_method_without_fault_passes() -> None:
    check(Plain())
    check(Plain(), layer=1)


class NoSummary(Plain):
    summary = ""


class OtherUnit(Plain):
    def explain(self, side: Side) -> SideScores:
        return SideScores(side.tokens().norm(dim=-1), "bits", ({},) * len(side))


class TooFew(Plain):
    def explain(self, side: Side) -> SideScores:
        return self.scored(side.tokens().norm(dim=-1)[:, 1:])


class NotFinite(Plain):
    def explain(self, side: Side) -> SideScores:
        return self.scored(side.tokens().norm(dim=-1) / 0)


class LooksAtPadding(Plain):
    def explain(self, side: Side) -> SideScores:
        lengths = side.tokens().norm(dim=-1)
        return self.scored(lengths / lengths.amax(-1, keepdim=True))


class LooksAtTheBatch(Plain):
    def explain(self, side: Side) -> SideScores:
        return self.scored(side.tokens().norm(dim=-1) / len(side))


class KnowsTheFirst(Plain):
    def explain(self, side: Side) -> SideScores:
        found = side.tokens().norm(dim=-1).clone()
        found[0] *= 2
        return self.scored(found)


class Remembers(Plain):
    calls = 0

    def explain(self, side: Side) -> SideScores:
        self.calls += 1
        return self.scored(side.tokens().norm(dim=-1) * self.calls)


class DrawsInSecret(Plain):
    def explain(self, side: Side) -> SideScores:
        generator = torch.Generator().manual_seed(ord(side.keys[0][0]))
        noise = torch.rand(side.tokens().shape[:2], generator=generator)
        return self.scored(noise[:1].expand(len(side), -1))


class DrawsGlobally(Plain):
    def explain(self, side: Side) -> SideScores:
        return self.scored(torch.rand(side.tokens().shape[:2]))


class IdleSeed(Plain):
    Options: ClassVar[type[Any]] = SeededOptions


class Trains(Plain):
    def explain(self, side: Side) -> SideScores:
        side.encoder.module.train()
        next(side.encoder.module.parameters()).requires_grad_(True)
        side.encoder.module.register_forward_hook(lambda *_: None)
        return super().explain(side)


@dataclass
class Loose:
    steps: int = 3


class CanBeChanged(Plain):
    Options: ClassVar[type[Any]] = Loose


class DescribesMore(Plain):
    def describe(self) -> dict[str, Any]:
        return {"colour": "red"}


class DescribesTensors(Plain):
    def describe(self) -> dict[str, Any]:
        return {"steps": torch.ones(1)}


class OddDiagnostics(Plain):
    def explain(self, side: Side) -> SideScores:
        return self.scored(side.tokens().norm(dim=-1), [{"mean": float("nan")}] * len(side))


class NeedsAttention(Plain):
    requires = frozenset({"attention"})


class NeedsInSilence(NeedsAttention):
    def __call__(self, side: Side) -> SideScores:
        return self.explain(side)


class Attending(ToyText):
    capabilities = frozenset({"attention"})


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (NoSummary, "has summary ''; accepted: one line"),
        (OtherUnit, "gives scores in 'bits', and its unit is 'length'"),
        (TooFew, "gave scores of shape"),
        (NotFinite, "not finite"),
        (LooksAtPadding, "when padding holds other numbers"),
        (LooksAtTheBatch, "gives other scores alone"),
        (KnowsTheFirst, "gives other scores in another order"),
        (Remembers, "when asked again"),
        (DrawsInSecret, "under another pair's name"),
        (DrawsGlobally, "the random state of torch"),
        (IdleSeed, "a seed on which neither"),
        (Trains, "changed something that it must leave alone: the forward hooks"),
        (CanBeChanged, "make their dataclass frozen"),
        (DescribesMore, "describes colour, which"),
        (DescribesTensors, r"gives describe\(\) that JSON cannot hold"),
        (OddDiagnostics, "gives diagnostics that JSON cannot hold"),
    ],
)
def test_what_is_wrong_is_named(method: type[Method], says: str) -> None:
    with pytest.raises(MethodError, match=says):
        check(method())


def test_a_method_refuses_an_encoder_without_what_it_requires() -> None:
    check(NeedsAttention(), encoder=Attending())
    bare = ToyText()
    guide = Guide(torch.ones(1, 8), torch.ones(1, 1, 8), torch.ones(1, 1, dtype=torch.bool))
    side = Side(bare, bare.preprocess(RAWS["text"]()[:1]), 0, guide, ("a",))
    with pytest.raises(OptionError, match=r"'plain' needs .*attention.* text encoder"):
        NeedsAttention()(side)
    with pytest.raises(MethodError, match=r"requires \['attention'\] and explains an encoder"):
        check(NeedsInSilence(), encoder=Attending())


def test_pairs_are_needed() -> None:
    with pytest.raises(InputError, match="got 1 inputs and 1 guides"):
        check_method(Plain(), ToyText(), RAWS["text"]()[:1], ToyImage(), RAWS["image"]()[:1])


@dataclass(frozen=True)
class Two(MethodOptions):
    kind: str = option("soft", choices=("soft", "hard"))
    width: float = option(1.0, above=0, only={"kind": ("soft",)})


def test_options_say_what_they_accept() -> None:
    assert Two(width="2").width == 2.0  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="unknown kind 'firm'; accepted: soft, hard"):
        Two(kind="firm")
    with pytest.raises(OptionError, match=r"width must be 1e-09 or more .*, got 0\.0"):
        Two(width=0.0)
    with pytest.raises(OptionError, match=r"width=2.0 would have no effect here: .*kind='soft'"):
        Two(kind="hard", width=2.0)
    with pytest.raises(OptionError, match=r"width must be 1e-09 or more .*, got nan"):
        Two(width=float("nan"))
