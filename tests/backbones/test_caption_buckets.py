"""Captions of near lengths share a call where pairs go together, and nowhere else."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from clip_folders import Written
from telling_methods import Telling
from torch.nn import functional as nnf

import mmattrib as mm
from mmattrib.backbones.clip import load
from mmattrib.errors import EncoderError
from mmattrib.models.encoder import Encoder, EncoderInputs
from mmattrib.testing import check_encoder
from mmattrib.types import RawText

pytestmark = [
    pytest.mark.usefixtures("quiet_transformers"),
    pytest.mark.filterwarnings("ignore::mmattrib.errors.TrustWarning"),
]

CAPTIONS = ("cat", "red cat", "a photo", "two dogs near the green house")
"""In each family three of up to 8 tokens, of two lengths at least, and a longer one."""

TOGETHER = 5e-5
"""Of a map's largest score: float32 sums in another order."""

families = pytest.mark.parametrize(
    "kind",
    [
        "clip",
        "chinese_clip",
        *(
            pytest.param(kind, marks=pytest.mark.slow)  # masked or causal, as one of these two is
            for kind in ("metaclip_2", "altclip")
        ),
    ],
)


def pairs() -> list[dict[str, Any]]:
    pictures = checkpoints.pictures()
    return [
        {"image": pictures[at % len(pictures)], "text": text} for at, text in enumerate(CAPTIONS)
    ]


def many(backbone: mm.Backbone, method: Any, **given: Any) -> list[Any]:
    return list(mm.attribute_many(backbone, pairs(), method=method, progress=False, **given))


def lengths(encoder: Encoder) -> list[int]:
    """Tokens of each caption by itself."""
    inputs = [encoder.preprocess([RawText(text)]) for text in CAPTIONS]
    return [one["ids"].shape[1] for one in inputs]


@families
def test_captions_of_near_lengths_share_a_call_and_keep_their_maps(
    kind: str, written: Written
) -> None:
    backbone = load(str(written(kind)[0]))
    own = lengths(backbone["text"])
    assert len({*own[:3]}) > 1
    assert max(own[:3]) <= 8 < own[3]
    told = many(backbone, Telling(), deterministic=False)
    assert [each["image"].diagnostics["pairs"] for each in told] == [3, 3, 3, 1]
    options = {"points": 4, "guide_points": 2, "draws_behind": 2}
    together = many(backbone, "ca-m2ib", deterministic=False, **options)
    alone = many(backbone, "ca-m2ib", **options)
    for found, expected, count in zip(together, alone, own, strict=True):
        assert found["text"].token_scores.shape == (count,)
        for side, map_ in expected.items():
            np.testing.assert_array_equal(found[side].content, map_.content)
            ours, scores = found[side].token_scores, map_.token_scores
            gap = np.abs(ours - scores)[map_.content].max()
            assert gap <= TOGETHER * np.abs(scores[map_.content]).max()
            assert found[side].scores.shape == map_.scores.shape


def seen_lengths(backbone: mm.Backbone, **given: Any) -> Counter[tuple[int, int]]:
    """Rows and tokens of every call of the text tower."""
    found: Counter[tuple[int, int]] = Counter()
    tower: Any = backbone["text"]

    def look(_module: Any, args: Any, _output: Any) -> None:
        found.update([(len(args[0]), args[0].shape[1])])

    vars(look)["only_looks"] = True  # one that might change something is given no padding
    handle = tower.blocks[0].register_forward_hook(look)
    try:
        many(backbone, "random", **given)
    finally:
        handle.remove()
    return found


def test_alone_a_caption_is_as_short_as_it_is(clip: mm.Backbone) -> None:
    own = lengths(clip["text"])
    assert seen_lengths(clip).keys() == {(1, count) for count in own}
    assert seen_lengths(clip, deterministic=False).keys() == {(3, 8), (1, own[3])}


@pytest.mark.slow  # that maps are the same, the first test shows
def test_numbers_of_an_evaluation_do_not_depend_on_what_goes_together(clip: mm.Backbone) -> None:
    samples = [mm.Sample(f"pair {number}", pair) for number, pair in enumerate(pairs())]
    metrics = ("confidence_drop_nib", "prompt_sensitivity", "stability")
    found = []
    for deterministic in (None, False):
        results = mm.evaluate(
            clip, samples, methods=["nib"], metrics=metrics, pairs=[("text", "image")],
            deterministic=deterministic, progress=False,
        )  # fmt: skip
        assert not results.problems
        columns = json.loads(results.to_json())["columns"]
        own = {each["metric"]: each["values"] for each in columns}
        found.append(np.array([own[name] for name in metrics], dtype=float))
    assert np.isfinite(found[0]).sum() >= 8
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-4)


@families
def test_what_is_added_is_not_valid_and_goes_with_the_length_alone(
    kind: str, written: Written
) -> None:
    encoder = load(str(written(kind)[0]))["text"]
    check_encoder(encoder, [RawText(text) for text in CAPTIONS[1:]], layers=[-1])
    for text, count in zip(CAPTIONS, lengths(encoder), strict=True):
        found = encoder.padded(encoder.preprocess([RawText(text)]))
        assert found["ids"].shape[1] == -(-count // 8) * 8
        assert encoder.grid(found, -1).valid.sum() == count
        assert encoder.padded(found) is found


def test_captions_that_are_padded_to_the_full_length_stay_as_they_are(written: Written) -> None:
    encoder = load(str(written("siglip")[0]))["text"]
    inputs = encoder.preprocess([RawText("cat")])
    assert encoder.padded(inputs) is inputs


def test_no_caption_is_padded_beyond_what_the_tower_reads(clip: mm.Backbone) -> None:
    encoder: Any = clip["text"]
    longest = encoder.tokenizer.longest
    inputs = encoder.preprocess([RawText("cat")])
    more = longest - 1 - inputs["ids"].shape[1]
    long = EncoderInputs(
        {
            "ids": nnf.pad(inputs["ids"], (0, more), value=encoder.pad_id),
            "real": nnf.pad(inputs["real"], (0, more), value=False),
        },
        inputs.raw,
    )
    encoder.bucket = 64
    assert encoder.padded(long)["ids"].shape[1] == longest


def test_padding_that_the_tower_reads_is_found(written: Written) -> None:
    captions = [RawText(text) for text in CAPTIONS[1:]]
    encoder: Any = load(str(written("chinese_clip")[0]))["text"]

    def read(inputs: EncoderInputs) -> EncoderInputs:
        return EncoderInputs(
            {
                "ids": nnf.pad(inputs["ids"], (0, 1), value=encoder.pad_id),
                "real": nnf.pad(inputs["real"], (0, 1), value=True),
            },
            inputs.raw,
        )

    encoder.padded = read
    with pytest.raises(EncoderError, match="padded changes which tokens its grid calls valid"):
        check_encoder(encoder, captions, layers=[-1])
    known = encoder.forward
    encoder.forward = lambda given: known(read(given) if given["ids"].shape[1] % 8 == 0 else given)
    del encoder.padded  # the encoder's own, with a tower that reads on where it is so long
    with pytest.raises(EncoderError, match="padded changes the embedding"):
        check_encoder(encoder, captions, layers=[])


def test_an_encoder_that_pads_to_another_number_of_rows_is_told(clip: mm.Backbone) -> None:
    encoder: Any = clip["text"]
    encoder.padded = lambda inputs: EncoderInputs(
        {name: torch.cat([inputs[name]] * 2) for name in inputs.tensors}, inputs.raw
    )
    with pytest.raises(EncoderError, match=r"padded gave a int64 tensor of shape .* as 'ids'"):
        many(clip, "random", deterministic=False)


def test_a_wrong_way_to_pad_is_told_of_each_pair(clip: mm.Backbone) -> None:
    def fail(_inputs: EncoderInputs) -> EncoderInputs:
        raise ValueError("no room")

    encoder: Any = clip["text"]
    wrong = {
        "padded failed with ValueError: no room": fail,
        "padded gave a str": lambda _inputs: "ids",
        "padded gave other raw inputs": lambda inputs: EncoderInputs(
            inputs.tensors, (RawText("dog"),)
        ),
        "padded changes which tokens its grid calls valid": lambda inputs: longer(
            inputs, encoder.pad_id, real=True
        ),
    }
    for message, padded in wrong.items():
        encoder.padded = padded
        found = many(clip, "random", deterministic=False, on_error="return")
        assert [type(each) for each in found] == [mm.Failure] * len(CAPTIONS)
        assert all(message in str(each) for each in found)


def longer(inputs: EncoderInputs, number: int, *, real: bool = False) -> EncoderInputs:
    """Captions with one more token behind them."""
    ids = nnf.pad(inputs["ids"], (0, 1), value=number)
    return EncoderInputs(
        {"ids": ids, "real": nnf.pad(inputs["real"], (0, 1), value=real)}, inputs.raw
    )


def test_padding_of_others_that_their_tower_reads_is_told(written: Written) -> None:
    backbone = load(str(written("chinese_clip")[0]))
    encoder: Any = backbone["text"]

    class Theirs(type(encoder)):  # type: ignore[misc]
        def valid(self, inputs: EncoderInputs) -> torch.Tensor:
            return inputs["real"] & (inputs["ids"] != self.pad_id)

        def padded(self, inputs: EncoderInputs) -> EncoderInputs:
            return longer(inputs, self.pad_id, real=True)

    encoder.__class__ = Theirs
    with pytest.raises(EncoderError, match=r"Theirs\): padded changes the embedding of an input"):
        many(backbone, "random", deterministic=False)


def test_a_model_whose_hooks_read_every_token_is_given_no_padding(clip: mm.Backbone) -> None:
    encoder: Any = clip["text"]
    encoder.blocks[0].register_forward_hook(lambda _m, _a, out: out + out.mean(1, keepdim=True))
    found, alone = (many(clip, "random", deterministic=each) for each in (False, None))
    for one, expected in zip(found, alone, strict=True):
        assert one.similarity == pytest.approx(expected.similarity, abs=1e-6)


class Adapter(torch.nn.Module):
    """Adds the mean over all tokens to what a part gives."""

    def __init__(self, part: torch.nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.part(tokens)
        return found + found.mean(1, keepdim=True)


def test_a_model_with_a_part_that_reads_padding_is_given_none(clip: mm.Backbone) -> None:
    encoder: Any = clip["text"]
    encoder.blocks[0].mlp.fc1 = Adapter(encoder.blocks[0].mlp.fc1)
    found, alone = (many(clip, "random", deterministic=each) for each in (False, None))
    for one, expected in zip(found, alone, strict=True):
        assert one.similarity == pytest.approx(expected.similarity, abs=1e-6)


@pytest.mark.parametrize("order", [1, -1])
def test_a_caption_that_fills_its_call_costs_the_others_no_pass(
    order: int, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder: Any = load(str(written("chinese_clip")[0]))["text"]
    captions = ["cat " * 6, "cat", "red cat"][::order]
    ones = [encoder.padded(encoder.preprocess([RawText(text)])) for text in captions]
    assert sorted(int(one["real"].sum()) for one in ones) == [3, 4, 8]
    inputs, rows = EncoderInputs.cat(ones), [0, 0, 1, 1, 2, 2]
    seen: list[int] = []
    known = encoder._first_call
    monkeypatch.setattr(
        encoder, "_first_call", lambda given: (seen.append(len(given)), known(given))[1]
    )
    with encoder.frozen(), torch.no_grad():
        tokens = encoder.prefix(inputs, 0)[rows]
        for count in (3, 1):
            found = encoder.suffix(tokens, 0, inputs.select(rows))
            torch.testing.assert_close(found, encoder.embed(inputs)[rows], rtol=0, atol=1e-6)
            assert max(seen) == 3
            assert len(seen) <= count + 1
            seen.clear()
    assert len(seen) == 0


@pytest.mark.parametrize("pad", [1, 10_000])
def test_captions_are_padded_with_what_the_model_knows_and_does_not_read(
    pad: int, clip: mm.Backbone
) -> None:
    encoder: Any = clip["text"]
    tokenizer = encoder.tokenizer
    tokenizer.pad = pad
    own = type(encoder)(encoder.model, tokenizer)
    end = tokenizer.tokenizer.eos_token_id
    assert own.pad_id == tokenizer.pad == (pad if pad < end else end)
    one = own.preprocess([RawText("cat")])
    with own.frozen(), torch.no_grad():
        torch.testing.assert_close(own.embed(own.padded(one)), own.embed(one), rtol=0, atol=1e-6)
