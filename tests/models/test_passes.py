"""One pass through each tower serves all that read of it, bit for bit as passes of their own."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quick_methods import quick
from small_backbones import small
from torch import Tensor, nn
from toy_encoders import ToyImage, pictures

import mmattrib as mm
from mmattrib.errors import OptionError
from mmattrib.models import Encoder, EncoderInputs, Pass
from mmattrib.models.block_calls import by_row, laid_out
from mmattrib.models.blocks import BlockEncoder
from mmattrib.models.passes import Passes, PassKeep, held

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
PAIR: dict[str, Any] = {"image": PICTURE, "text": "a red car and a dog"}


@contextmanager
def counted(backbone: mm.Backbone) -> Iterator[Counter[str]]:
    """How often each tower is entered: calls of what its inputs go through first."""
    found: Counter[str] = Counter()
    handles = []
    for side, encoder in backbone.items():
        entry = next(
            part
            for part in encoder.module.modules()
            if isinstance(part, nn.Conv2d | nn.Embedding) or type(part).__name__ == "MelPatches"
        )
        handles.append(
            entry.register_forward_hook(lambda _m, _a, _o, side=side: found.update([side]))
        )
    yield found
    for handle in handles:
        handle.remove()


def inputs_of(encoder: Encoder, value: Any) -> EncoderInputs:
    return encoder.preprocess([mm.io.load(encoder.modality, value)])


# ---------------------------------------------------------------------------- passes per method

OWN = {"saliency": {"image": 1}}
"""Passes that belong to the method itself: a gradient at the pixels runs the tower."""


@pytest.mark.parametrize("method", ["ca-m2ib", "m2ib", "nib", "saliency"])
def test_a_pair_costs_one_pass_through_each_tower(untrained: mm.Backbone, method: str) -> None:
    layer = None if method == "saliency" else 3  # with few blocks behind it
    with counted(untrained) as found:
        mm.attribute(untrained, **PAIR, method=method, layer=layer, **quick(method))
    own = OWN.get(method, {})
    assert found == {side: 1 + own.get(side, 0) for side in PAIR}


def plain(patched: pytest.MonkeyPatch) -> None:
    """Every call runs by itself, as if no encoder could keep anything."""
    patched.setattr(BlockEncoder, "one_pass", Encoder.one_pass)
    patched.setattr("mmattrib.models.blocks.captured_at", lambda *_: None)
    patched.setattr(Encoder, "lays_back", lambda *_: False)
    patched.setattr(EncoderInputs, "distinct", lambda self: (self, torch.arange(len(self))))


@pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning")  # a crop, random weights
@pytest.mark.parametrize("name", ["tiny", pytest.param("clip", marks=pytest.mark.slow)])
def test_maps_are_bit_for_bit_those_of_passes_of_their_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(name, tmp_path)
    backbone = model.load()

    def maps() -> list[tuple[Any, Any]]:
        made = []
        for method in ("ca-m2ib", "m2ib", "nib", "saliency"):
            for layer in (None, 0) if method == "m2ib" else (None,):
                found = mm.attribute(
                    backbone, **model.pair, method=method, layer=layer, **quick(method)
                )
                made += [(found[side].token_scores, found[side].diagnostics) for side in found]
        return made

    quickly = maps()
    with monkeypatch.context() as patched, counted(backbone) as passes:
        plain(patched)
        slowly = maps()
    assert passes["text"] >= 2 * 5  # two passes and more for each of five explanations
    for (scores, facts), (expected, told) in zip(quickly, slowly, strict=True):
        np.testing.assert_array_equal(scores, expected)
        assert facts == told


@pytest.mark.parametrize("side", ["image", "audio", "text"])
def test_one_pass_gives_what_calls_of_their_own_give(untrained: mm.Backbone, side: str) -> None:
    encoder = untrained[side]
    wave = np.random.default_rng(0).normal(0, 0.1, 16000 * 6).astype(np.float32)
    value = {"image": PICTURE, "audio": (wave, 16000), "text": "a dog"}[side]
    inputs, layers = inputs_of(encoder, value), range(-2, encoder.num_layers)
    with encoder.frozen(), torch.no_grad():
        expected = Encoder.one_pass(encoder, inputs, layers)
        joint = encoder.token_embeddings(inputs)
        with counted(untrained) as passes:
            found = encoder.one_pass(inputs, layers)
            with held(encoder.module, inputs, found.captured):
                again = encoder.token_embeddings(inputs)
    assert passes == {side: 1}
    assert found.embedding is not None
    assert expected.embedding is not None
    assert torch.equal(found.embedding, expected.embedding)
    for layer in layers:
        assert torch.equal(found.tokens[layer], expected.tokens[layer])
    assert torch.equal(again.values, joint.values)


class Twice(ToyImage):
    """Embeds the two halves of a batch one after the other."""

    def embed(self, inputs: EncoderInputs) -> Tensor:
        halves = [[0], list(range(1, len(inputs)))]
        return torch.cat([super(Twice, self).embed(inputs.select(rows)) for rows in halves])


def test_a_block_that_runs_twice_is_not_captured() -> None:
    encoder = Twice()
    inputs = encoder.preprocess(pictures())
    with encoder.frozen(), torch.no_grad():
        found = encoder.one_pass(inputs, [0])
        assert not found.captured
        assert torch.equal(found.tokens[0], encoder.prefix(inputs, 0))


class InPlace(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x.mul_(2.0)


def test_blocks_that_work_in_place_do_not_spoil_what_was_captured() -> None:
    encoder = ToyImage()
    encoder.module.blocks[1] = InPlace()
    encoder.blocks = list(encoder.module.blocks)
    inputs = encoder.preprocess(pictures())
    with encoder.frozen(), torch.no_grad():
        found = encoder.one_pass(inputs, [0])
        assert torch.equal(found.tokens[0], encoder.prefix(inputs, 0))


# ------------------------------------------------------------------------------- kept passes


def run(encoder: Encoder, inputs: EncoderInputs, keep: PassKeep) -> Tensor:
    with encoder.frozen():
        found = Passes(encoder, inputs, 0, keep)
        found.tokens(0)
        return found.embeddings()


def test_a_kept_pass_serves_an_equal_input(untrained: mm.Backbone) -> None:
    encoder, keep = untrained["image"], PassKeep()
    first = run(encoder, inputs_of(encoder, PICTURE), keep)
    assert (len(keep), keep.nbytes > 0) == (1, True)
    again = run(encoder, inputs_of(encoder, PICTURE.copy()), keep)
    run(encoder, inputs_of(encoder, 255 - PICTURE), keep)
    assert torch.equal(first, again)
    assert len(keep) == 2


def scale(weight: Tensor) -> None:
    with torch.no_grad():
        weight.mul_(1.5)


def scale_unseen(weight: Tensor) -> None:
    weight.data.mul_(1.5)  # torch does not count this one


@pytest.mark.parametrize("change", [scale, scale_unseen])
def test_no_pass_is_served_after_a_weight_was_changed_in_place(
    untrained: mm.Backbone, change: Any
) -> None:
    encoder, keep = untrained["text"], PassKeep()
    inputs = inputs_of(encoder, "a dog")
    before = run(encoder, inputs, keep)
    change(next(encoder.blocks[1].parameters()))  # type: ignore[attr-defined]
    after = run(encoder, inputs, keep)
    assert not torch.equal(after, before)
    with encoder.frozen(), torch.no_grad():
        assert torch.equal(after, encoder.embed(inputs))


def test_no_pass_is_kept_of_a_tower_with_hooks_or_patched_parts(untrained: mm.Backbone) -> None:
    encoder: Any = untrained["text"]
    keep, inputs = PassKeep(), inputs_of(encoder, "a dog")
    plain = run(encoder, inputs, keep)
    handle = encoder.blocks[1].register_forward_hook(lambda _m, _a, out: out * 1.5)
    assert not torch.equal(run(encoder, inputs, keep), plain)
    handle.remove()
    own = encoder.blocks[1].forward
    encoder.blocks[1].forward = lambda x, mask=None: own(x, mask) * 1.5
    assert not torch.equal(run(encoder, inputs, keep), plain)
    del encoder.blocks[1].forward
    encoder.module.blocks[1].attn.heads = 2
    assert not torch.equal(run(encoder, inputs, keep), plain)
    assert len(keep) == 2  # plain, and with other heads


def test_a_keep_holds_no_more_than_its_limit(untrained: mm.Backbone) -> None:
    encoder = untrained["text"]
    texts = ("a dog", "a cat", "a red car", "a drum")
    keep = PassKeep()
    run(encoder, inputs_of(encoder, texts[0]), keep)
    size = keep.nbytes
    keep = PassKeep(2 * size)
    for text in texts:
        run(encoder, inputs_of(encoder, text), keep)
        run(encoder, inputs_of(encoder, texts[0]), keep)  # used again, and so not dropped
        assert keep.nbytes <= keep.limit
    assert len(keep) == 2
    with encoder.frozen():
        (key,) = keep.keys(encoder, [inputs_of(encoder, texts[0])])
    assert keep.get(key) is not None
    small_one = PassKeep(size - 1)
    run(encoder, inputs_of(encoder, texts[0]), small_one)
    assert (len(small_one), small_one.nbytes) == (0, 0)
    assert len(pickle.loads(pickle.dumps(keep))) == 0
    few = PassKeep(most=2)
    for text in texts:
        run(encoder, inputs_of(encoder, text), few)
    assert len(few) == 2
    with pytest.raises(OptionError, match="limit must be a whole number"):
        PassKeep(-1)


EMBEDDED: dict[str, list[str]] = {}
"""Modality -> what was embedded; outside of what encoders hold, which must stay as it is."""


@contextmanager
def embedded(encoder: Any, patched: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is embedded; no hook is used, since nothing is kept of a tower that has one."""
    side = encoder.modality
    found = EMBEDDED[side] = []
    own = encoder.embed

    def embed(inputs: EncoderInputs) -> Tensor:
        EMBEDDED[side].extend(raw.name for raw in inputs.raw)
        return own(inputs)

    with patched.context() as within:
        within.setattr(encoder, "embed", embed)
        yield found


def test_a_caption_of_many_pictures_is_embedded_once(
    untrained: mm.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [{"image": np.roll(PICTURE, k, 1), "text": "a dog"} for k in range(3)]
    options: dict[str, Any] = {"method": "nib", "steps": 2}
    alone = [mm.attribute(untrained, **pair, **options) for pair in pairs]
    with (
        embedded(untrained["text"], monkeypatch) as texts,
        embedded(untrained["image"], monkeypatch) as images,
    ):
        many = list(mm.attribute_many(untrained, pairs, **options, batch_size=2, progress=False))
    assert (len(texts), len(images)) == (1, 3)
    for one, found in zip(alone, many, strict=True):
        for side in PAIR:
            np.testing.assert_array_equal(found[side].token_scores, one[side].token_scores)


def test_an_evaluation_embeds_each_input_once(
    untrained: mm.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever methods, seeds and metrics there are; maps made anew read the same passes."""
    methods = {name: mm.load_method(name, **quick(name)) for name in ("nib", "ca-m2ib")}
    data = [mm.Sample(text, {"image": PICTURE, "text": text}) for text in ("a dog", "a cat")]
    with (
        embedded(untrained["text"], monkeypatch) as texts,
        embedded(untrained["image"], monkeypatch) as images,
    ):
        mm.evaluate(
            untrained, data, methods=methods, metrics=["stability"],
            pairs=[("image", "text")], seed=(0, 1), progress=False,
        )  # fmt: skip
    assert (len(images), len(texts)) == (1, 2)


# --------------------------------------------------------------------------- rows that repeat


def test_repeated_rows_go_through_the_embedding_layer_once(tmp_path: Path) -> None:
    """A causal mask is laid out for the others; suffixes are equal bit for bit."""
    encoder: Any = small("clip", tmp_path).load()["text"]
    with encoder.frozen(), torch.no_grad():
        inputs = encoder.preprocess([mm.io.load("text", text) for text in ("a cat", "a dog")])
        rows = [1, 1, 0, 1, 0]
        many, tokens = inputs.select(rows), encoder.prefix(inputs, -1)[rows]
        expected = encoder._first_call(many)
        encoder.block_call(many)  # what belongs to a row is found out once
        table = next(p for p in encoder.module.modules() if isinstance(p, nn.Embedding))
        seen: list[int] = []
        with table_hook(table, seen):
            found = encoder.block_call(many)
            embeddings = encoder.suffix(tokens, -1, many)
        assert seen == [2, 2]
        whole = encoder.suffix(tokens, -1, EncoderInputs(dict(many.tensors), many.raw))
    assert torch.equal(embeddings, whole)
    for name, value in expected[1].items():
        same = torch.equal(found[1][name], value) if isinstance(value, Tensor) else True
        assert same, name


@contextmanager
def table_hook(table: nn.Module, seen: list[int]) -> Iterator[None]:
    handle = table.register_forward_hook(lambda _m, args, _o: seen.append(len(args[0])))
    yield
    handle.remove()


def test_arguments_are_laid_out_by_what_their_shapes_say() -> None:
    def call(rows: int) -> Any:
        mask, heads = torch.arange(rows * 3.0).view(rows, 3), torch.ones(4 * rows, 3)
        return (mask, None), {"places": (torch.ones(3, 3), mask[:, None]), "heads": heads}

    known = by_row(call(1), call(2))
    assert known == {
        (0, 0): True,
        (1, "places", 0): False,
        (1, "places", 1): True,
        (1, "heads"): None,
    }
    which = torch.tensor([1, 0, 1])
    assert laid_out(call(2), known, which) is None  # nobody knows the heads
    arguments, named = call(2)
    del named["heads"]
    found = laid_out((arguments, named), known, which)
    assert found is not None
    assert torch.equal(found[0][0], arguments[0][which])
    assert found[0][1] is None
    assert torch.equal(found[1]["places"][0], torch.ones(3, 3))
    assert torch.equal(found[1]["places"][1], arguments[0][which][:, None])


def test_a_pass_counts_shared_memory_once() -> None:
    tokens = torch.zeros(1, 4, 8)
    one = Pass(torch.zeros(1, 8), {0: tokens}, {0: tokens, 1: tokens.clone()})
    assert one.nbytes == 4 * (8 + 32 + 32)
