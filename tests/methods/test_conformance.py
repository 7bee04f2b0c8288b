"""Every registered method, research included, keeps the contract of a method."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from quick_methods import NAMES, quick
from small_tiny import small_tiny
from toy_encoders import RAWS, ToyAudio, ToyEncoder, ToyImage, ToyText

import mmattrib as mm
from mmattrib.errors import OptionError
from mmattrib.methods import Method, Side, SideScores, guide_of
from mmattrib.methods.options import limits_of
from mmattrib.models import ATTENTION
from mmattrib.models.encoder import EncoderInputs, TokenEmbeddings
from mmattrib.testing import check_method
from mmattrib.types import RawAudio, RawImage, RawInput, RawText


class AttendingImage(ToyImage):
    capabilities = frozenset({ATTENTION})


class AttendingAudio(ToyAudio):
    capabilities = frozenset({ATTENTION})


class AttendingText(ToyText):
    capabilities = frozenset({ATTENTION})


TOYS: dict[str, Callable[[], ToyEncoder]] = {
    "image": AttendingImage,
    "audio": AttendingAudio,
    "text": AttendingText,
}

pytestmark = pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")


SHARED = ("descent-", "attention-rollout", "grad-eclip")
ONCE = [pytest.param(n, marks=[pytest.mark.slow] * n.startswith(SHARED)) for n in NAMES]
"""Descents share their code, and so do methods that read attention (`chefer` and `legrad` stand for
them): a second pair or a second model of each is a longer test."""


@pytest.mark.parametrize("name", NAMES)
def test_every_method_keeps_its_contract(name: str) -> None:
    keeps_its_contract(name, "image", "text")


@pytest.mark.parametrize("name", ONCE)
def test_every_method_keeps_its_contract_the_other_way(name: str) -> None:
    keeps_its_contract(name, "text", "audio")


def keeps_its_contract(name: str, explained: str, guide: str) -> None:
    method = mm.load_method(name, **quick(name))
    check_method(method, TOYS[explained](), RAWS[explained](), TOYS[guide](), RAWS[guide]())


@pytest.mark.parametrize("name", ONCE)
def test_every_method_keeps_its_contract_on_transformers(
    name: str, three_scenes: list[mm.Scene]
) -> None:
    keeps_its_contract_on(small_tiny(), name, three_scenes[:2])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_method_keeps_its_contract_on_tiny(name: str, three_scenes: list[mm.Scene]) -> None:
    keeps_its_contract_on(mm.load_backbone("tiny"), name, three_scenes[:2])


def keeps_its_contract_on(tiny: mm.Backbone, name: str, scenes: list[mm.Scene]) -> None:
    pictures: list[RawInput] = [RawImage(scene.image) for scene in scenes]
    captions: list[RawInput] = [RawText(scene.caption) for scene in scenes]
    sounds: list[RawInput] = [RawAudio(scene.audio, scene.sample_rate) for scene in scenes]
    method = mm.load_method(name, **quick(name))
    check_method(method, tiny["text"], captions, tiny["image"], pictures)
    if name in ("ca-m2ib", "m2ib"):
        check_method(method, tiny["audio"], sounds, tiny["text"], captions)


def paired(explained: str, guide: str) -> Side:
    """Toy sides that guide each other, as the verbs make them."""
    sides = {}
    for modality in (explained, guide):
        encoder = TOYS[modality]()
        encoder.module.eval().requires_grad_(False)
        inputs = encoder.preprocess(RAWS[modality]())
        own = guide_of(encoder, [inputs.select([row]) for row in range(3)])
        keys = tuple(f"{row}:{modality}" for row in range(3))
        sides[modality] = Side(encoder, inputs, 0, own, keys)
    first, second = sides[explained], sides[guide]
    other = replace(second, guide=first.guide)
    return replace(first, guide=second.guide, other=other)


SIDES = [paired("text", "image"), paired("image", "text"), paired("audio", "text")]


def explained(method: Method, number: int) -> SideScores:
    """One of the sides at the layer that the method takes when none is asked for."""
    side = SIDES[number]
    return method(side.at(method.default_layer(side.encoder)))


def other_value(name: str, value: Any, options: Any) -> Any:
    """Another value that the option accepts."""
    limits = limits_of(options, name)
    if limits.choices:
        return next(choice for choice in limits.choices if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return 1.5 * value if value else 1.0


def _changes() -> Iterator[Any]:
    """Each option of each method; what a descent shares with ``descent`` is a longer test."""
    shared = {each.name for each in fields(mm.load_method("descent").options)}
    for name in NAMES:
        for each in fields(mm.load_method(name).options):
            longer = name.startswith("descent-") and each.name in shared
            yield pytest.param(name, each.name, marks=[pytest.mark.slow] * longer)


@cache
def usual(name: str, number: int) -> SideScores:
    return explained(mm.load_method(name, **quick(name)), number)


@pytest.mark.parametrize(("name", "option"), list(_changes()))
def test_every_option_acts_but_those_that_bound_memory(name: str, option: str) -> None:
    base = mm.load_method(name, **quick(name))
    value = getattr(base.options, option)
    if limits_of(base.options, option).resource:
        changed = type(base).build(**{**quick(name), option: 2 if value == 1 else 1})
        for number in range(len(SIDES)):
            before, after = usual(name, number).scores, explained(changed, number).scores
            assert float((after - before).norm()) <= 1e-3 * float(before.norm())
        return
    value = other_value(option, value, base.options)
    usable = {
        other: chosen
        for other, chosen in quick(name).items()
        if value in limits_of(base.options, other).only.get(option, (value,))
    }
    changed = type(base).build(**{**usable, option: value})
    assert changed.describe()[option] == value

    def acts(number: int) -> bool:
        before, after = usual(name, number), explained(changed, number)
        same = torch.equal(after.scores, before.scores)
        return not same or after.diagnostics != before.diagnostics

    assert any(acts(number) for number in range(len(SIDES)))


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_act_is_refused_and_not_described(name: str) -> None:
    options = mm.load_method(name).options
    for each in fields(options):
        for condition, values in limits_of(options, each.name).only.items():
            current = getattr(options, condition)
            assert current in values  # an option acts by default
            off = other_value(condition, current, options)
            assert off not in values
            made = mm.load_method(name, **{condition: off})
            assert each.name not in made.describe()
            value = other_value(each.name, each.default, options)
            with pytest.raises(OptionError, match=f"{each.name}=.*no effect.*{condition}="):
                mm.load_method(name, **{condition: off, each.name: value})


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_is_recorded_where_it_acts(name: str) -> None:
    method = mm.load_method(name, seed=5)
    assert method.describe().get("seed") == (5 if method.draws else None)


@pytest.mark.parametrize(("name", "reads"), [("m2ib", 0), ("nib", 0), ("ca-m2ib-literal", 3)])
def test_the_guides_tokens_are_embedded_for_methods_that_read_them(name: str, reads: int) -> None:
    calls = []

    class Counting(ToyImage):
        def token_embeddings(self, inputs: EncoderInputs) -> TokenEmbeddings:
            calls.append(len(inputs))
            return super().token_embeddings(inputs)

    encoder = Counting()
    encoder.module.eval()
    inputs = encoder.preprocess(RAWS["image"]())
    guide = guide_of(encoder, [inputs.select([row]) for row in range(3)])
    mm.load_method(name)(replace(SIDES[0], guide=guide))
    assert calls == [1] * reads


def test_importing_the_methods_imports_no_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, mmattrib.methods as room\n"
        "for each in pkgutil.iter_modules(room.__path__):\n"
        "    importlib.import_module(f'mmattrib.methods.{each.name}')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
