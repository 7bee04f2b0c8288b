"""Random weights: a copy changes and the model does not, and a map that ignores it scores 1."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases import model_cases, untrained_backbone

import mmattrib as mm
from mmattrib.errors import InputError, OptionError
from mmattrib.methods import Method, Side, SideScores
from mmattrib.metrics import Case
from mmattrib.metrics.randomisation import (
    CascadingRandomisation,
    IndependentRandomisation,
    blocks_of,
    randomised_copy,
    redraw,
    redrawn,
    resemblance,
)
from mmattrib.metrics.sensitivity import UnrelatedBits, positive_share

BOTH = pytest.mark.parametrize("kind", [CascadingRandomisation, IndependentRandomisation])


class Fixed(Method):
    """Scores that follow from the place of a token alone."""

    name = "fixed"
    unit = "bits"
    summary = "the same scores for every input and guide"

    def explain(self, side: Side) -> SideScores:
        valid = side.grid().valid
        return self.scored(torch.linspace(-1, 1, valid.shape[1]).expand(valid.shape))


@pytest.fixture(scope="module")
def fixed() -> dict[str, Case]:
    return model_cases(method=Fixed())


@BOTH
def test_a_map_that_ignores_the_model_scores_one(kind: Any, fixed: dict[str, Case]) -> None:
    assert kind(stages=2)(fixed["image|text"]) == pytest.approx(1)


@BOTH
def test_a_map_that_follows_the_model_scores_less_and_the_model_stays(
    kind: Any, cases: dict[str, Case]
) -> None:
    case = cases["text|image"]
    before = case.model.backbone.weights_hash()
    state = torch.get_rng_state()
    found = kind(stages=1)(case)
    assert -1 <= found < 0.9
    assert found == kind(1)(Case(case.sample, case.explanation, "text", "image", case.model))
    assert found != kind(stages=1, seed=1)(case)
    assert case.model.backbone.weights_hash() == before
    assert (torch.get_rng_state() == state).all()


def test_blocks_are_changed_from_the_last_one_down() -> None:
    """Cascading keeps what was drawn; independent puts each block back."""
    encoder = copy.deepcopy(untrained_backbone()["image"])
    blocks = blocks_of(encoder)
    known = [copy.deepcopy(block.state_dict()) for block in blocks]

    def changed() -> list[bool]:
        return [
            any(not torch.equal(old[name], new) for name, new in block.state_dict().items())
            for old, block in zip(known, blocks, strict=True)
        ]

    count = len(blocks)
    stages = [changed() for _ in IndependentRandomisation().draws(blocks)]
    assert stages == [[n == count - 1 - k for n in range(count)] for k in range(count)]
    assert not any(changed())
    grouped = [changed() for _ in IndependentRandomisation(stages=2).draws(blocks)]
    assert [sum(each) for each in grouped] == [count - count // 2, count // 2]
    stages = [changed() for _ in CascadingRandomisation().draws(blocks)]
    assert stages == [[n >= count - 1 - k for n in range(count)] for k in range(count)]


def test_weights_keep_their_mean_and_spread() -> None:
    linear = torch.nn.Linear(200, 100)
    with torch.no_grad():
        linear.weight.mul_(3).add_(0.5)
        linear.bias.fill_(2.0)
    old = linear.weight.detach().clone()
    redraw(linear, torch.Generator().manual_seed(0))
    new = linear.weight.detach()
    assert float(new.mean()) == pytest.approx(float(old.mean()), abs=0.01)
    assert float(new.std()) == pytest.approx(float(old.std()), rel=0.03)
    assert abs(float(np.corrcoef(old.flatten(), new.flatten())[0, 1])) < 0.05
    assert (linear.bias == 2).all(), "what is constant has no spread to draw with"


def test_weights_are_put_back_after_an_error() -> None:
    encoder = untrained_backbone()["text"]
    known = untrained_backbone().weights_hash()
    with pytest.raises(ZeroDivisionError), redrawn(blocks_of(encoder), torch.Generator()):
        1 / 0  # noqa: B018
    assert mm.Backbone({"text": encoder}).weights_hash() != known
    assert (
        mm.Backbone({"text": encoder}).weights_hash()
        == mm.Backbone({"text": untrained_backbone()["text"]}).weights_hash()
    )


def test_an_encoder_that_cannot_be_copied_is_refused(cases: dict[str, Case]) -> None:
    original = untrained_backbone()["image"]
    inputs = cases["image|text"].model.inputs
    assert randomised_copy(original, inputs).module is not original.module
    tied = copy.copy(original)
    tied.__dict__["embed"] = lambda given: original.embed(given)  # not its own modules
    with pytest.raises(InputError, match="none of its own"):
        randomised_copy(tied, inputs)
    locked = copy.copy(original)
    locked.__dict__["lock"] = (one for one in "ab")  # generators cannot be copied
    with pytest.raises(InputError, match="cannot be copied"):
        randomised_copy(locked, inputs)


def test_what_a_map_without_ranks_resembles() -> None:
    own = np.array([1.0, 2.0, 3.0])
    assert resemblance(own, own**3) == pytest.approx(1)
    assert resemblance(own, np.zeros(3)) == 0, "nothing of it is left"
    assert np.isnan(resemblance(np.zeros(3), own))


def test_an_encoder_without_blocks_is_left_out(cases: dict[str, Case]) -> None:
    case = cases["image|text"]
    assert np.isnan(CascadingRandomisation()(Blockless(case)))


class Blockless(Case):
    """A case whose backbone has no list of blocks."""

    def __init__(self, case: Case) -> None:
        super().__init__(case.sample, case.explanation, case.side, case.guide, case.model)

    @property
    def model(self) -> Any:
        return SimpleNamespace(backbone={"image": object()})


def test_options_are_checked_and_described() -> None:
    assert CascadingRandomisation(stages=3, seed=2).describe() == {"stages": 3, "seed": 2}
    for wrong in ({"stages": 0}, {"seed": -1}, {"stages": True}):
        with pytest.raises(OptionError):
            IndependentRandomisation(**wrong)


def test_what_is_left_for_an_unrelated_guide() -> None:
    assert positive_share(np.array([1.0, -2.0]), np.array([2.0, 2.0])) == 0.25
    assert np.isnan(positive_share(np.ones(2), -np.ones(2)))
    from mmattrib.datasets.scenes import ScenesDataset
    from mmattrib.testing.metrics import cases_of

    for case in cases_of(untrained_backbone(), ScenesDataset(1, seed=7001), Fixed())[:2]:
        assert UnrelatedBits()(case) == pytest.approx(1), "it holds as much whatever it is asked"


def test_without_an_unrelated_guide_nothing_is_known(fixed: dict[str, Case]) -> None:
    assert np.isnan(UnrelatedBits()(fixed["image|text"]))
