"""ImageBind's encoders: equal to the library, cut at any layer, and right about places."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_imagebind import (
    SMALL,
    backbone,
    checkpoint,
    model,
    noise,
    picture,
    raws,
    sound,
    video,
)

import mmattrib as mm
from mmattrib.backbones.imagebind import MODALITIES, signals
from mmattrib.backbones.imagebind.encoders import TOWER_OF
from mmattrib.backbones.imagebind.library import library
from mmattrib.errors import InputError
from mmattrib.models.blocks import BlockEncoder
from mmattrib.testing import check_encoder, check_grid
from mmattrib.types import RawArray, RawAudio, RawText


def small_imagebind(_: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    options = {"checkpoint": str(checkpoint()), "architecture": SMALL}
    return options, {"image": picture(), "text": "a dog barks"}


SHORT = pytest.mark.filterwarnings("ignore:.*trained on clips of 2 s:UserWarning")


@pytest.mark.parametrize("modality", MODALITIES)
def test_embeddings_are_the_librarys_own(modality: str) -> None:
    encoder = backbone()[modality]
    inputs = encoder.preprocess(raws(modality))
    x = inputs["x"]
    if modality == "text":
        x = torch.nn.functional.pad(x, (0, 77 - x.shape[1]))
    key = TOWER_OF[modality]
    with torch.no_grad():
        expected = model()({key: x})[key]
        found = encoder.embed(inputs)
    expected = torch.nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_encoders_keep_their_contract(modality: str) -> None:
    layers = (-1, 1) if modality == "video" else None  # the picture's tower, fifteen times
    check_encoder(backbone()[modality], raws(modality), layers=layers)


@pytest.mark.parametrize("modality", MODALITIES)
def test_true_suffix_equals_replaying_the_librarys_tower(modality: str) -> None:
    encoder = backbone()[modality]
    inputs = encoder.preprocess(raws(modality)[:1])
    generator = torch.Generator().manual_seed(1)
    for layer in (-1, 0, encoder.num_layers - 1):
        with torch.no_grad():
            tokens = encoder.prefix(inputs, layer)
            other = tokens + 0.5 * torch.randn(tokens.shape, generator=generator)
            replayed = BlockEncoder.suffix(encoder, other, layer, inputs)
            torch.testing.assert_close(
                encoder.suffix(other, layer, inputs), replayed, rtol=0, atol=2e-6
            )


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_grids_find_disturbed_regions_again(modality: str) -> None:
    raw = RawText("A red car near the old house!") if modality == "text" else raws(modality)[0]
    check_grid(backbone()[modality], raw)


@pytest.mark.parametrize("seconds", [2.0, 2.6, 3.5, 7.3])
def test_sounds_come_back_at_their_time_over_clips(seconds: float) -> None:
    """Clips that overlap or leave gaps; the burst's time is checked on the recording's axis."""
    encoder = backbone()["audio"]
    base = np.random.default_rng(1).normal(0, 0.01, int(16_000 * seconds)).astype(np.float32)
    times = np.arange(len(base)) / 16_000
    starts = np.linspace(0, seconds - 2, 3) if seconds > 2 else [0.0]
    for start in (*starts, starts[-1] + 1.7):
        at, hertz = start + 0.15, 1500.0
        envelope = np.exp(-(((times - at) / 0.03) ** 2))
        burst = base + (0.3 * envelope * np.sin(2 * np.pi * hertz * times)).astype(np.float32)
        pair = encoder.preprocess([RawAudio(base, 16_000), RawAudio(burst, 16_000)])
        with torch.no_grad():
            tokens = encoder.prefix(pair, -1)
        grid = encoder.grid(pair, -1)
        change = (tokens[1] - tokens[0]).norm(dim=-1).expand(2, -1)
        found = grid.to_input(change)[1]
        frequency, time = grid.axes(1)
        row, column = np.unravel_index(found.argmax(), found.shape)
        assert abs(time.values[column] - at) < 0.1
        assert 0.6 < frequency.values[row] / hertz < 1.6


def test_what_no_clip_hears_has_score_zero_and_overlaps_are_averaged() -> None:
    encoder = backbone()["audio"]
    inputs = encoder.preprocess([sound(9.0)])
    grid = encoder.grid(inputs, 0)
    scores = torch.zeros(grid.valid.shape)
    clip = scores[0].view(3, -1)
    clip[0], clip[1], clip[2] = 1.0, 2.0, 3.0
    found, seconds = grid.to_input(scores)[0][60], grid.axes(0)[1].values
    for time, expected in ((1.0, 1.0), (2.7, 0.0), (4.5, 2.0), (6.0, 0.0), (8.0, 3.0)):
        assert found[np.abs(seconds - time).argmin()] == pytest.approx(expected)
    inputs = encoder.preprocess([sound(3.0)])  # clips at 0, 0.5 and 1 s
    found = encoder.grid(inputs, 0).to_input(scores)[0][60]
    for time, expected in ((0.2, 1.0), (0.7, 1.5), (1.5, 2.0), (2.2, 2.5), (2.8, 3.0)):
        assert found[int(time * 100)] == pytest.approx(expected)


def test_to_tokens_inverts_to_input_on_flat_maps() -> None:
    for modality in MODALITIES:
        encoder = backbone()[modality]
        if modality == "text":
            continue
        inputs = encoder.preprocess(raws(modality)[:1])
        grid = encoder.grid(inputs, 0)
        back = grid.to_tokens(grid.to_input(grid.content.float()))
        torch.testing.assert_close(back, grid.content.float(), rtol=0, atol=1e-5)


@SHORT
def test_short_recordings_are_one_clip_and_equal_the_published_three() -> None:
    encoder = backbone()["audio"]
    short = sound(0.6)
    inputs = encoder.preprocess([short])
    assert inputs["x"].shape == (1, 1, 1, 128, 204)
    thrice = inputs["x"].expand(1, 3, -1, -1, -1)
    with torch.no_grad():
        published = model()({"audio": thrice})["audio"]
        torch.testing.assert_close(
            encoder.embed(inputs), torch.nn.functional.normalize(published), rtol=0, atol=1e-5
        )
    grid = encoder.grid(inputs, 0)
    assert grid.axes(0)[1].values[-1] < 0.6
    assert grid.content.sum() == 12 * 6  # 58 frames reach into 6 columns of tokens
    check_encoder(encoder, [short, sound(4.0, seed=1)])


def test_short_recordings_are_said_and_too_short_ones_refused() -> None:
    encoder = backbone()["audio"]
    with pytest.warns(UserWarning, match=r"0\.60 s of sound, ImageBind was trained on clips of 2"):
        encoder.preprocess([sound(0.6)])
    with pytest.raises(InputError, match=r"at least one analysis window of 25 ms"):
        encoder.preprocess([sound(0.02)])


def test_all_of_a_long_recording_can_be_heard() -> None:
    clips = signals.audio_clips(sound(7.1), "cover")
    starts = clips.starts.tolist()
    assert (starts[0], starts[-1]) == (0, int(5.1 * 16_000))
    assert all(b - a <= 32_000 for a, b in itertools.pairwise(starts))
    assert len(signals.audio_clips(sound(7.1), 5).starts) == 5
    with pytest.raises(InputError, match="130 s of sound take 65 clips"):
        signals.audio_clips(RawAudio(np.ones(130, dtype=np.float32), 1), "cover")


def test_pictures_are_preprocessed_as_published() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    from PIL import Image

    published = transforms.Compose(
        [
            transforms.Resize(224, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(signals.MEAN, signals.STD),
        ]
    )
    for height, width in ((300, 457), (640, 225), (120, 120)):
        raw = picture(height, width)
        found = backbone()["image"].preprocess([raw])["x"][0]
        difference = (found - published(Image.fromarray(raw.pixels))).abs()
        assert difference.max() < 0.04  # two grey levels: pillow rounds once or twice
        assert difference.mean() < 0.004


def test_recordings_are_preprocessed_as_published() -> None:
    """Against Kaldi's filter bank called as the library's data.py calls it."""
    from torchaudio.compliance.kaldi import fbank

    raw = sound(5.0)
    clips = signals.audio_clips(raw, 3)
    assert clips.starts.tolist() == [0, 24_000, 48_000]  # 0, (d - 2) / 2, d - 2
    for clip, start in zip(clips.mel, clips.starts.tolist(), strict=True):
        wave = torch.from_numpy(raw.samples[start : start + 32_000].copy())[None]
        mel = fbank(
            wave - wave.mean(),
            htk_compat=True,
            sample_frequency=16_000,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_length=25,
            frame_shift=10,
        ).T
        assert mel.shape == (128, 198)
        torch.testing.assert_close(clip[0, :, :198], (mel + 4.268) / 9.138)
        torch.testing.assert_close(clip[0, :, 198:], torch.full((128, 6), 4.268 / 9.138))


def test_mel_axis_is_where_kaldi_hears_a_tone() -> None:
    times = np.arange(32_000) / 16_000
    hertz = signals.mel_hertz()
    for tone in (200.0, 1000.0, 5000.0):
        wave = RawAudio(np.sin(2 * np.pi * tone * times).astype(np.float32), 16_000)
        row = int(signals.audio_clips(wave, 1).mel[0, 0, :, 100].argmax())
        assert abs(hertz[row] / tone - 1) < 0.1


def test_tokens_know_their_words() -> None:
    encoder = backbone()["text"]
    for text, words in (
        ("A dog's  bark\nis LOUD!", ["A", "dog's", "bark", "is", "LOUD", "!"]),
        ("fish &amp; chips", ["fish", "&", "chips"]),
        ("naïve Straße 日本 🎉", ["naïve", "Straße", "日", "本", "🎉"]),
        ("antidisestablishmentarianism", ["antidisestablishmentarianism"]),
    ):
        inputs = encoder.preprocess([RawText(text)])
        grid = encoder.grid(inputs, 0)
        assert [word.text for word in grid.words(0)] == words
        assert [text[word.start : word.end] for word in grid.words(0)] == words
        assert int(grid.content.sum()) == int(grid.valid.sum()) - 2


def test_tokens_are_the_librarys_own() -> None:
    tokenizer = library().tokenizer()
    for text in ("A dog's  bark\nis LOUD!", "caf\u00e9 &amp; 日本 🎉", "dog " * 75):
        ids = backbone()["text"].preprocess([RawText(text)])["x"][0]
        expected = tokenizer(text)
        assert torch.equal(ids, expected[: len(ids)])
        assert not expected[len(ids) :].any()


def test_captions_that_do_not_fit_are_refused() -> None:
    encoder = backbone()["text"]
    encoder.preprocess([RawText("dog " * 75)])
    for text, message in (
        ("dog " * 76, "76 tokens.*at most 75"),
        ("a <|endoftext|> b", "spells out"),
    ):
        with pytest.raises(InputError, match=message):
            encoder.preprocess([RawText(text)])


def test_inputs_of_wrong_shape_or_range_are_refused() -> None:
    flat = np.zeros((20, 20), dtype=np.float32)
    for modality, values, rate, message in (
        ("depth", flat[None], None, r"\(1, 20, 20\); accepted: \(height, width\)"),
        ("depth", flat - 1, None, "disparities from -1"),
        ("thermal", flat + 40, None, "Divide 8-bit values by 255"),
        ("imu", np.zeros((2000, 6), dtype=np.float32), None, r"\(2000, 6\); accepted: \(6, 2000\)"),
        ("video", np.zeros((4, 9, 9), dtype=np.float32), 5.0, r"\(frames, height, width, 3\)"),
        ("video", np.zeros((4, 9, 9, 3), dtype=np.float32), None, "frames a second"),
    ):
        with pytest.raises(InputError, match=message):
            backbone()[modality].preprocess([RawArray(values, modality, rate=rate)])
    with pytest.raises(InputError, match="this encoder takes RawImage"):
        backbone()["image"].preprocess([RawText("no picture")])
    with pytest.raises(InputError, match="one batch"):
        backbone()["video"].preprocess([video(), video(height=80, width=48)])


@pytest.mark.parametrize("modality", ["depth", "thermal"])
def test_planes_come_back_where_they_were_changed(modality: str) -> None:
    encoder = backbone()[modality]
    base = 0.5 * noise(300, 260)
    for top, left in ((60, 40), (150, 180), (200, 20)):
        changed = base.copy()
        changed[top : top + 16, left : left + 16] = 1.0
        pair = encoder.preprocess([RawArray(each, modality) for each in (base, changed)])
        with torch.no_grad():
            tokens = encoder.prefix(pair, -1)
        change = (tokens[1] - tokens[0]).norm(dim=-1).expand(2, -1)
        found = encoder.grid(pair, -1).to_input(change)[1]
        row, column = np.unravel_index(found.argmax(), found.shape)
        assert top - 10 <= row <= top + 26
        assert left - 10 <= column <= left + 26


def test_imu_readings_come_back_at_their_time() -> None:
    encoder = backbone()["imu"]
    base = noise(6, 2000)
    for at in (100, 999, 1700):
        changed = base.copy()
        changed[2, at : at + 8] += 3.0
        pair = encoder.preprocess([RawArray(each, "imu", rate=400.0) for each in (base, changed)])
        with torch.no_grad():
            tokens = encoder.prefix(pair, -1)
        grid = encoder.grid(pair, -1)
        found = grid.to_input((tokens[1] - tokens[0]).norm(dim=-1).expand(2, -1))[1]
        assert abs(grid.axes(1)[0].values[found.argmax()] - at / 400.0) < 0.03


@pytest.mark.parametrize(("height", "width"), [(40, 90), (90, 40), (60, 60)])
def test_videos_come_back_in_their_frame_and_place(height: int, width: int) -> None:
    encoder = backbone()["video"]
    base = np.stack([0.5 * noise(height, width, 3)] * 60)
    raw = RawArray(base, "video", rate=6.0)
    frames = encoder.preprocess([raw])["frames"][0]
    for clip, top, left in ((0, 5, 6), (2, height - 12, width - 13), (4, 20, 30)):
        changed = base.copy()
        changed[frames[clip], top : top + 6, left : left + 6] = 1.0
        pair = encoder.preprocess([RawArray(each, "video", rate=6.0) for each in (base, changed)])
        with torch.no_grad():
            tokens = encoder.prefix(pair, -1)
        grid = encoder.grid(pair, -1)
        found = grid.to_input((tokens[1] - tokens[0]).norm(dim=-1).expand(2, -1))[1]
        frame, row, column = np.unravel_index(found.argmax(), found.shape)
        assert abs(grid.axes(1)[0].values[frame] - (frames[clip, 0] + 0.5) / 6.0) < 1e-6
        assert top - 4 <= row <= top + 10
        assert left - 4 <= column <= left + 10


PAIRS = [*itertools.combinations(MODALITIES, 2), *((each, each) for each in MODALITIES)]


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_any_two_modalities_can_be_explained(first: str, second: str) -> None:
    one, other = raws(first)[0], raws(second)[1]
    sides = (first, second if second != first else f"{second}_2")
    found = mm.attribute(
        backbone(),
        inputs=dict(zip(sides, (one, other), strict=True)),
        method="m2ib",
        steps=2,
        samples=1,
        layer=0,
    )
    assert tuple(found) == sides
    for side in sides:
        scores = found[side].scores
        assert scores.shape == tuple(len(axis.values) for axis in found[side].axes)
        assert np.isfinite(scores).all()
        assert scores.max() > 0
    with torch.no_grad():
        embeddings = [
            backbone()[each].embed(backbone()[each].preprocess([raw]))
            for each, raw in ((first, one), (second, other))
        ]
    assert found.similarity == pytest.approx(float((embeddings[0] * embeddings[1]).sum()), abs=1e-5)


# On random weights the closed solver may rightly hold 0 bits.
NEVER_EMPTY = {"method": "m2ib", "steps": 2, "samples": 2, "layer": 0}


@SHORT
def test_neither_batch_nor_padding_changes_a_map() -> None:
    sounds = [sound(4.0), sound(1.5, seed=1), sound(5.0, seed=2)]
    captions = ["rain", "a dog barks at the red car near the old house today", "rain on a roof"]
    pairs = [{"audio": a, "text": t} for a, t in zip(sounds, captions, strict=True)]
    many = list(mm.attribute_many(backbone(), pairs, progress=False, **NEVER_EMPTY))
    for pair, found in zip(pairs, many, strict=True):
        alone = mm.attribute(backbone(), inputs=pair, **NEVER_EMPTY)
        for side in pair:
            np.testing.assert_array_equal(found[side].scores, alone[side].scores)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str) -> None:
    half, full = backbone(dtype), backbone()
    for modality in MODALITIES:
        encoder, reference = half[modality], full[modality]
        assert next(encoder.module.parameters()).dtype == getattr(torch, dtype)
        inputs = encoder.preprocess(raws(modality)[:1])
        with torch.no_grad():
            found = encoder.embed(inputs)
            again = encoder.suffix(encoder.prefix(inputs, 1), 1, inputs)
            expected = reference.embed(inputs)
        assert found.dtype == torch.float32
        assert float((found * expected).sum()) > 0.99
        assert float((again * expected).sum()) > 0.99
    one = mm.attribute(half, image=raws("image")[0], text="a dog", **NEVER_EMPTY)
    assert one["image"].scores.max() > 0


@pytest.mark.parametrize("modality", ["image", "text", "audio", "imu"])
def test_attention_is_what_the_library_computes(modality: str) -> None:
    """Recordings attend clip by clip, and sound and motion to a learned key too."""
    encoder = backbone()[modality]
    inputs = encoder.preprocess(raws(modality)[:2])
    with encoder.frozen(), torch.no_grad():
        found = encoder.embed_with_attention(inputs)
        mask = encoder.mask(inputs)
        for layer, block in enumerate(encoder.blocks):
            tokens = encoder.split(encoder.prefix(inputs, layer - 1)).transpose(0, 1)
            x = block.norm_1(tokens)
            theirs = torch.nn.MultiheadAttention.forward(
                block.attn, x, x, x, attn_mask=mask, average_attn_weights=False
            )[1]
            torch.testing.assert_close(found.weights[layer], theirs, rtol=1e-4, atol=1e-5)
    assert found.extra == (1 if modality in ("audio", "imu") else 0)
    assert found.views == (inputs["x"].shape[1] if modality == "audio" else 1)
    count = encoder.prefix(inputs, 0).shape[1]
    assert encoder.attention(inputs)[0].shape[2:] == (count, count)
