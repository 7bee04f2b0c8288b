"""CLAP's encoders against the library, the conformance suite and known places."""

from __future__ import annotations

import functools
import json
import random
import shutil
from pathlib import Path

import mmattrib_clap
import numpy as np
import pytest
import torch
from mmattrib_clap import load
from small_clap import RATE, checkpoint, sound

import mmattrib as mm
from mmattrib.errors import InputError, OptionError, WeightsError
from mmattrib.models.blocks import BlockEncoder
from mmattrib.plugins import Plugins
from mmattrib.testing import check_encoder, check_grid
from mmattrib.types import RawAudio, RawText

pytest.importorskip("transformers")

LAYOUTS = pytest.mark.parametrize("fusion", [False, True], ids=["unfused", "fused"])


def crossed(name: str, *values: float) -> pytest.MarkDecorator:
    """Each value with one layout, turn by turn; with the other it is a longer test."""
    return pytest.mark.parametrize(
        ("fusion", name),
        [
            pytest.param(
                fusion,
                value,
                marks=[pytest.mark.slow] * (fusion != bool(place % 2)),
                id=f"{value}-{'fused' if fusion else 'unfused'}",
            )
            for place, value in enumerate(values)
            for fusion in (False, True)
        ],
    )


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@functools.cache
def clap(fusion: bool, stage: int | None = None, published_size: bool = False) -> mm.Backbone:
    return load(checkpoint(fusion, published_size), stage=stage)


@functools.cache
def library(fusion: bool):
    from transformers import ClapModel, ClapProcessor

    folder = checkpoint(fusion)
    return ClapModel.from_pretrained(folder).eval(), ClapProcessor.from_pretrained(folder)


def caption(number: int = 0) -> RawText:
    return RawText(("a dog barks at the red car", "two birds", "rain, on a roof!")[number])


def test_it_registers_through_the_public_hook() -> None:
    plugins = Plugins()
    assert plugins.add(mmattrib_clap, name="clap", distribution="mmattrib-clap", version="0.1.0")
    assert plugins.problems == []
    found = plugins.registry.create("backbone", "clap", checkpoint=checkpoint(False))
    assert found.modalities == ("audio", "text")


@LAYOUTS
@pytest.mark.parametrize("seconds", [2.0, 0.55])
def test_short_recordings_are_heard_as_the_library_hears_them(fusion: bool, seconds: float) -> None:
    model, processor = library(fusion)
    raw = sound(seconds)
    mine = clap(fusion)["audio"].preprocess([raw])
    theirs = processor.feature_extractor(raw.samples, sampling_rate=RATE, return_tensors="pt")
    torch.testing.assert_close(mine["x"], theirs["input_features"].float())
    longer = torch.tensor([[False]])
    with torch.no_grad():
        expected = model.get_audio_features(mine["x"], is_longer=longer).pooler_output
        torch.testing.assert_close(clap(fusion)["audio"].embed(mine), expected, rtol=0, atol=1e-5)


@LAYOUTS
def test_long_recordings_give_the_librarys_embedding(fusion: bool) -> None:
    model, _ = library(fusion)
    encoder = clap(fusion)["audio"]
    inputs = encoder.preprocess([sound(5.3), sound(2.0, seed=1)])
    assert inputs["longer"].tolist() == [[True], [False]]
    with torch.no_grad():
        expected = model.get_audio_features(inputs["x"], is_longer=inputs["longer"]).pooler_output
        torch.testing.assert_close(encoder.embed(inputs), expected, rtol=0, atol=1e-5)


@LAYOUTS
def test_long_recordings_are_heard_as_the_library_could(
    fusion: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published extractor, its dice loaded to fall on the middle."""
    from transformers import ClapFeatureExtractor

    raw = sound(12.3, rate=48_000)
    mine = clap(fusion, 0, published_size=True)["audio"].preprocess([raw])
    extractor = ClapFeatureExtractor.from_pretrained(checkpoint(fusion, published_size=True))
    monkeypatch.setattr(np.random, "choice", lambda places: places[len(places) // 2])
    monkeypatch.setattr(np.random, "randint", lambda low, high: (low + high - 1) // 2)
    theirs = extractor(raw.samples, sampling_rate=48_000, return_tensors="pt")
    assert theirs["is_longer"].tolist() == mine["longer"].tolist() == [[True]]
    torch.testing.assert_close(mine["x"], theirs["input_features"].float())


def test_captions_give_the_librarys_embedding() -> None:
    model, processor = library(False)
    raws = [caption(number) for number in range(3)]
    found = clap(False)["text"]
    theirs = processor.tokenizer([raw.text for raw in raws], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_text_features(**theirs).pooler_output
        mine = found.embed(found.preprocess(raws))
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)


@crossed("stage", 0, 1, 2)
def test_audio_keeps_the_contract_in_every_stage(fusion: bool, stage: int) -> None:
    check_encoder(clap(fusion, stage)["audio"], [sound(2.0), sound(0.7, seed=1), sound(5, seed=2)])


def test_text_keeps_the_contract() -> None:
    check_encoder(clap(False)["text"], [caption(0), caption(1)])


@LAYOUTS
def test_true_suffix_equals_replaying_the_librarys_tower(fusion: bool) -> None:
    encoder = clap(fusion)["audio"]
    inputs = encoder.preprocess([sound(3.0)])
    for layer in range(-1, encoder.num_layers):
        with torch.no_grad():
            tokens = encoder.prefix(inputs, layer)
            other = tokens + torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1))
            replayed = BlockEncoder.suffix(encoder, other, layer, inputs)
            found = encoder.suffix(other, layer, inputs)
        torch.testing.assert_close(found, replayed, rtol=0, atol=1e-5)


@crossed("seconds", 10.0, 3.1)
def test_sounds_come_back_where_they_are(fusion: bool, seconds: float) -> None:
    """The published input size: 64 mel bins folded four times into 256 x 256."""
    encoder = clap(fusion, 0, published_size=True)["audio"]
    check_grid(encoder, sound(seconds, rate=48_000), count=3)


@crossed("stage", 0, 1)
def test_bursts_come_back_at_their_time_and_frequency(fusion: bool, stage: int) -> None:
    """Every quarter of the recording: each is another row of the folded square."""
    encoder = clap(fusion, stage)["audio"]
    base = np.random.default_rng(0).normal(0, 0.01, 2 * RATE).astype(np.float32)
    times = np.arange(len(base)) / RATE
    for at in (0.2, 0.7, 1.3, 1.8):
        for hertz in (400.0, 2500.0):
            envelope = np.exp(-(((times - at) / 0.03) ** 2))
            burst = base + (0.5 * envelope * np.sin(2 * np.pi * hertz * times)).astype(np.float32)
            pair = encoder.preprocess([RawAudio(base, RATE), RawAudio(burst, RATE)])
            with torch.no_grad():
                tokens = encoder.prefix(pair, -1)
            grid = encoder.grid(pair, -1)
            change = (tokens[1] - tokens[0]).norm(dim=-1).expand(2, -1)
            found = grid.to_input(change)[1]
            row, column = np.unravel_index(found.argmax(), found.shape)
            frequency, time = grid.axes(1)
            assert abs(time.values[column] - at) < 0.13
            wanted = np.abs(frequency.values - hertz).argmin()
            assert abs(row - wanted) <= 4 * 2**stage  # the height of a token, in mel bins


def test_a_plain_reshape_would_misplace_them() -> None:
    """The fold is real: rows taken as frequency alone put the last quarter elsewhere."""
    encoder = clap(False, 0)["audio"]
    grid = encoder.grid(encoder.preprocess([sound(2.0)]), -1)
    scores = torch.zeros(1, 256)
    scores[0, 3 * 64 + 10] = 1.0  # row 12 of 16: chunk 3, frequency 0; column 10
    found = grid.to_input(scores)[0]
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert row < 4
    assert 0.8 < column / found.shape[1] < 0.96


def test_repetitions_of_a_short_recording_are_averaged() -> None:
    encoder = clap(False)["audio"]
    inputs = encoder.preprocess([sound(0.9)])  # twice in two seconds
    assert int(inputs["copies"][0]) == 2
    grid = encoder.grid(inputs, 0)
    scores = torch.zeros(grid.valid.shape)
    plane = scores.view(1, 4, -1, 8)  # chunk, f, t: chunks of half a second
    plane[0, :2], plane[0, 2:] = 1.0, 3.0
    found = grid.to_input(scores)[0]
    assert found[:, 45] == pytest.approx(np.full(len(found), 2.0), abs=0.1)
    assert found.shape[1] == 91


def test_only_the_middle_of_a_long_recording_is_heard_without_fusion() -> None:
    encoder = clap(False)["audio"]
    inputs = encoder.preprocess([sound(6.0)])
    grid = encoder.grid(inputs, 0)
    found = grid.to_input(torch.ones(grid.valid.shape))[0]
    seconds = grid.axes(0)[1].values
    heard = seconds[found.max(axis=0) > 0]
    assert heard.min() == pytest.approx(2.0, abs=0.02)
    assert heard.max() == pytest.approx(4.0, abs=0.02)


def test_all_of_a_long_recording_is_on_the_map_with_fusion() -> None:
    encoder = clap(True)["audio"]
    inputs = encoder.preprocess([sound(6.0)])
    grid = encoder.grid(inputs, 0)
    assert grid.to_input(torch.ones(grid.valid.shape))[0].min() > 0
    assert len(grid.axes(0)[1].values) == 601


@LAYOUTS
def test_attribution_is_the_same_alone_and_in_a_batch(fusion: bool) -> None:
    pairs = [
        {"audio": sound(seconds, seed=number), "text": caption(number)}
        for number, seconds in enumerate((2.0, 0.7, 3.0))
    ]
    options = {"method": "m2ib", "steps": 2, "samples": 2}
    many = list(mm.attribute_many(clap(fusion), pairs, progress=False, **options))
    for pair, found in zip(pairs, many, strict=True):
        alone = mm.attribute(clap(fusion), **pair, **options)
        for side in pair:
            np.testing.assert_array_equal(found[side].scores, alone[side].scores)
        assert found["audio"].scores.max() > 0
        assert len(found["text"].words) == len(alone["text"].words) > 0


def test_padding_changes_no_caption() -> None:
    encoder = clap(False)["text"]
    short = caption(1)
    with torch.no_grad():
        alone = encoder.embed(encoder.preprocess([short]))
        padded = encoder.embed(encoder.preprocess([short, RawText("rain " * 12)]))[:1]
    torch.testing.assert_close(alone, padded, rtol=0, atol=1e-6)


def test_words_are_found_again() -> None:
    encoder = clap(False)["text"]
    grid = encoder.grid(encoder.preprocess([caption(2)]), 0)
    assert [word.text for word in grid.words(0)] == ["rain", ",", "on", "a", "roof", "!"]
    check_grid(encoder, RawText("a dog on the roof of a house"))


@LAYOUTS
def test_preprocessing_leaves_the_random_states_alone(fusion: bool) -> None:
    before = (np.random.get_state()[1].tobytes(), random.getstate(), torch.get_rng_state())
    for seconds in (0.5, 5.0):
        clap(fusion)["audio"].preprocess([sound(seconds)])
    after = (np.random.get_state()[1].tobytes(), random.getstate(), torch.get_rng_state())
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str) -> None:
    half, full = load(checkpoint(True), dtype=dtype), clap(True)
    for modality, raw in (("audio", sound(3.0)), ("text", caption())):
        inputs = full[modality].preprocess([raw])
        with torch.no_grad():
            found = half[modality].embed(inputs)
            again = half[modality].suffix(half[modality].prefix(inputs, 0), 0, inputs)
            assert float((found * full[modality].embed(inputs)).sum()) > 0.98
            assert float((again * found).sum()) > 0.98
    found = mm.attribute(half, audio=sound(), text=caption(), method="m2ib", steps=2, samples=1)
    assert np.isfinite(found["audio"].scores).all()


def test_what_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    for options, message in (({"dtype": "int8"}, "dtype"), ({"stage": 3}, "stage must be from 0")):
        with pytest.raises(OptionError, match=message):
            load(checkpoint(False), **options)
    with pytest.raises(WeightsError, match="is not a folder"):
        load(str(tmp_path / "nothing"))
    copied = tmp_path / "copy"
    shutil.copytree(checkpoint(False), copied)
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: 1 << 14])
    with pytest.raises(WeightsError, match="cut short or damaged"):
        load(str(copied))
    from safetensors.torch import load_file, save_file

    state = load_file(Path(checkpoint(False)) / "model.safetensors")
    del state["audio_projection.linear1.weight"]
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 weight \(audio_projection\.linear1\.weight"):
        load(str(copied))
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "model_type": "clip"}))
    with pytest.raises(WeightsError, match="is a 'clip' model; accepted"):
        load(str(copied))
    config["text_config"]["num_hidden_layers"] = 10**5
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="larger model than it has weights for"):
        load(str(copied))


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="takes RawAudio"):
        clap(False)["audio"].preprocess([caption()])
    with pytest.raises(InputError, match="takes RawText"):
        clap(False)["text"].preprocess([sound()])
    with pytest.raises(InputError, match="at most 38"):
        clap(False)["text"].preprocess([RawText("dog " * 60)])
