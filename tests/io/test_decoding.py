"""Decoding: every form of input that is accepted, and a one-line error for every other."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mmattrib.io
from mmattrib.errors import InputError, OptionError
from mmattrib.io import (
    audio,
    image,
    load_audio,
    load_image,
    load_text,
    load_text_file,
    resample,
    text,
)
from mmattrib.types import RawAudio, RawImage, RawText

RawT = TypeVar("RawT")
RED, WHITE = (255, 0, 0), (255, 255, 255)


def corners(height: int = 24, width: int = 40) -> np.ndarray:
    """A picture whose four corners differ: red, green, blue, yellow, clockwise from top left."""
    pixels = np.full((height, width, 3), 128, dtype=np.uint8)
    h, w = height // 2, width // 2
    pixels[:h, :w], pixels[:h, w:] = RED, (0, 255, 0)
    pixels[h:, w:], pixels[h:, :w] = (0, 0, 255), (255, 255, 0)
    return pixels


def tone(rate: int = 16000, seconds: float = 0.5, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype("f4")


# ---------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "ppm", "tga", "webp", "jpg"])
def test_image_formats_give_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"corners.{suffix}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(corners()).save(
        path, **lossless, **({"quality": 95} if suffix == "jpg" else {})
    )
    for source in (path, str(path)):
        raw = load_image(source)
        assert raw.name == path.name
        assert raw.pixels.shape == (24, 40, 3)
        assert raw.pixels.dtype == np.uint8
        inner = (slice(2, 10), slice(2, 18))
        difference = np.abs(raw.pixels.astype(int) - corners()).astype(int)
        assert difference[inner].max() <= (4 if suffix == "jpg" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = corners()
    # how a camera stores the upright picture for each orientation
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    picture = Image.fromarray(np.ascontiguousarray(stored))
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "turned.png").pixels, upright)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "lime")]
    path = tmp_path / f"moving.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, **options)
    assert (load_image(path).pixels == RED).all()


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 6, 4), dtype=np.uint8)
    rgba[:, :, 0] = 255
    rgba[:, 3:, 3] = 255
    rgba[:, :1, 3] = 51  # a fifth
    expected = np.full((4, 6, 3), 255, dtype=np.uint8)
    expected[:, 3:] = RED
    expected[:, 0] = (255, 204, 204)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    for source in (tmp_path / "alpha.png", rgba, rgba / 255.0, Image.fromarray(rgba)):
        np.testing.assert_allclose(load_image(source).pixels.astype(int), expected, atol=1)
    palette = Image.new("P", (5, 5), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((2, 1), 1)
    palette.save(tmp_path / "palette.png", transparency=0)
    pixels = load_image(tmp_path / "palette.png").pixels
    assert tuple(pixels[1, 2]) == RED
    assert tuple(pixels[0, 0]) == WHITE
    grey_alpha = Image.merge("LA", [Image.new("L", (2, 2), 0), Image.new("L", (2, 2), 0)])
    grey_alpha.save(tmp_path / "la.png")
    assert (load_image(tmp_path / "la.png").pixels == 255).all()


def test_greyscale_sixteen_bits_float_and_other_modes(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray(ramp).save(tmp_path / "deep.tiff")
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "flat.png")
    Image.fromarray((ramp / 65535.0).astype(np.float32)).save(tmp_path / "float.tiff")
    for name in ("deep.png", "deep.tiff", "flat.png", "float.tiff"):
        pixels = load_image(tmp_path / name).pixels
        assert pixels.shape == (16, 16, 3)
        np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])
        np.testing.assert_allclose(pixels[..., 0].reshape(-1), np.arange(256), atol=1)
    for mode in ("1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX", "RGBa", "La", "LAB", "I;16", "F"):
        white = Image.new("RGB", (4, 4), "white").convert("RGBA" if mode == "RGBa" else "RGB")
        if mode == "La":
            white = white.convert("LA")
        elif mode == "LAB":
            white = Image.new("LAB", (4, 4), (255, 128, 128))
        elif mode == "I;16":
            white = Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16))
        elif mode == "F":
            white = Image.fromarray(np.ones((4, 4), dtype=np.float32))
        converted = white.convert(mode) if white.mode != mode else white
        pixels = load_image(converted).pixels
        assert pixels.min() >= 254, mode
    rgb16 = Image.fromarray(np.full((4, 4, 3), 200, dtype=np.uint8))
    assert (load_image(rgb16).pixels == 200).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_image_arrays(dtype: type, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    given_array = values if dtype is np.uint8 else (values / 255).astype(dtype)
    raw = load_image(given_array)
    assert raw.pixels.shape == (5, 7, 3)
    reference = load_image(values).pixels.astype(int)
    np.testing.assert_allclose(raw.pixels.astype(int), reference, atol=1)
    if shape == (5, 7, 3):
        np.testing.assert_array_equal(reference, values)
        assert not np.shares_memory(load_image(values).pixels, values)


def test_pil_image_keeps_its_name_and_is_left_alone(tmp_path: Path) -> None:
    Image.fromarray(corners()).save(tmp_path / "named.png")
    with Image.open(tmp_path / "named.png") as picture:
        before = (picture.mode, picture.size)
        assert load_image(picture).name == "named.png"
        assert (picture.mode, picture.size) == before
    assert load_image(Image.new("L", (2, 2))).name == "image"
    raw = RawImage(corners(), name="kept")
    assert load_image(raw) is raw


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tiff", "bmp", "ppm"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_images(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    kind = {"jpg": "jpeg"}.get(suffix, suffix)
    Image.fromarray(noise).save(buffer, kind)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
    with pytest.raises(InputError, match=r"cut\."):
        load_image(path)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["png", "jpeg", "gif", "webp", "tiff", "bmp"]), st.data())
def test_damaged_images_decode_or_say_so(kind: str, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    Image.fromarray(corners()).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    raw = decoded_or_refused(load_image, bytes(content), f"damaged.{kind}")
    assert raw is None or (raw.pixels.dtype == np.uint8 and raw.pixels.ndim == 3)


def decoded_or_refused(load: Callable[[Path], RawT], data: bytes, name: str) -> RawT | None:
    """What ``load`` makes of a file, or None where it refuses it in one line."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return load(write(Path(folder) / name, data))
        except InputError as error:
            message = str(error)
    assert "\n" not in message
    assert name in message
    return None


def png_that_announces(width: int, height: int) -> bytes:
    """The start of a PNG: its header and the beginning of its data."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header
    return data + zlib.crc32(header).to_bytes(4, "big") + (10**6).to_bytes(4, "big") + b"IDAT"


def test_decompression_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.png", png_that_announces(100_000, 100_000))
    with pytest.raises(InputError, match=r"bomb\.png.*80 million.*Scale it down"):
        load_image(path)
    path = write(tmp_path / "big.png", png_that_announces(10_000, 10_000))
    with pytest.raises(InputError, match=r"10000 x 10000.*up to 80 million"):
        load_image(path)


BAD_IMAGES = {
    "missing": (lambda d: d / "no.png", "no.png does not exist"),
    "folder": (lambda d: d, "is a folder"),
    "empty path": (lambda d: "", "empty path"),
    "nul": (lambda d: "a\0b", "a.x00b"),
    "long name": (lambda d: "x" * 5000, "too long"),
    "address": (lambda d: "https://example.org/cat.png", "Download it first"),
    "text as png": (lambda d: write(d / "t.png", b"just some text"), "t.png is not an image"),
    "empty file": (lambda d: write(d / "e.png", b""), "is empty"),
    "bytes": (lambda d: b"\x89PNG", "cannot use bytes"),
    "number": (lambda d: 3, "cannot use int"),
    "none": (lambda d: None, "cannot use NoneType"),
    "tensor": (lambda d: torch.zeros(3, 4, 4), "cannot use Tensor.*permute"),
    "channels first": (lambda d: np.zeros((3, 5, 6), np.uint8), "transpose"),
    "five axes": (lambda d: np.zeros((1, 5, 6, 3), np.uint8), "shape"),
    "no pixels": (lambda d: np.zeros((0, 6, 3), np.uint8), "6 x 0 pixels"),
    "floats to 255": (lambda d: np.full((5, 6), 200.0), "accepted: .0, 1.*uint8"),
    "nan": (lambda d: np.full((5, 6), np.nan), "NaN"),
    "integers": (lambda d: np.zeros((5, 6), np.int64), "int64"),
    "32 bits": (lambda d: Image.fromarray(np.full((2, 2), 99999, np.int32)), "to 99999"),
    "raw wrong": (lambda d: RawImage(np.zeros((4, 4), np.uint8)), "must be a"),
    "raw channels": (lambda d: RawImage(np.zeros((4, 4, 4), np.uint8)), "accepted: .H, W, 3"),
    "PIL of no size": (lambda d: Image.new("RGB", (0, 4)), "0 x 4 pixels"),
}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images(tmp_path: Path, case: str) -> None:
    make, message = BAD_IMAGES[case]
    with pytest.raises(InputError, match=message) as caught:
        load_image(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_too_many_pixels_in_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "MAX_PIXELS", 11)
    with pytest.raises(InputError, match="Scale it down"):
        load_image(np.zeros((3, 4), np.uint8))
    with pytest.raises(InputError, match="Scale it down"):
        load_image(RawImage(np.zeros((3, 4, 3), np.uint8)))


# ------------------------------------------------------------------------------ resizing, cropping


# ---------------------------------------------------------------------------------------- audio


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        ("wav", "PCM_16"),
        ("wav", "PCM_U8"),
        ("wav", "PCM_24"),
        ("wav", "FLOAT"),
        ("wav", "DOUBLE"),
        ("flac", "PCM_16"),
        ("ogg", "VORBIS"),
        ("mp3", "MPEG_LAYER_III"),
        ("aiff", "PCM_16"),
        ("au", "PCM_16"),
        ("w64", "PCM_16"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_audio_formats(tmp_path: Path, suffix: str, subtype: str, channels: int) -> None:
    path = tmp_path / f"tone.{suffix}"
    stereo = np.stack([tone()] * channels, axis=1)
    soundfile.write(path, stereo, 16000, subtype=subtype)
    raw = load_audio(str(path))
    assert raw.name == path.name
    assert raw.sample_rate == 16000
    assert raw.samples.dtype == np.float32
    assert raw.samples.ndim == 1
    assert raw.seconds == pytest.approx(0.5, abs=0.15 if suffix == "mp3" else 1e-3)
    spectrum = np.abs(np.fft.rfft(raw.samples))
    peak = np.argmax(spectrum) * 16000 / len(raw.samples)
    assert peak == pytest.approx(440, abs=3)
    assert np.abs(raw.samples).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 12345])
def test_any_sample_rate_and_channel_count(tmp_path: Path, rate: int) -> None:
    channels = np.stack([tone(rate), 0 * tone(rate), tone(rate) / 2], axis=1)
    soundfile.write(tmp_path / "three.wav", channels, rate, subtype="FLOAT")
    raw = load_audio(tmp_path / "three.wav")
    assert raw.sample_rate == rate
    np.testing.assert_allclose(raw.samples, tone(rate) / 2, atol=1e-6)
    again = resample(raw, 16000)
    assert again.sample_rate == 16000
    assert len(again.samples) == round(len(raw.samples) * 16000 / rate)
    middle = slice(800, -800)
    length = len(again.samples)
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(length) / 16000)
    np.testing.assert_allclose(again.samples[middle], expected[middle], atol=0.01)


def test_longer_than_one_block(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (200_001, 2)).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", samples, 8000, subtype="FLOAT")
    raw = load_audio(tmp_path / "long.wav")
    np.testing.assert_allclose(raw.samples, samples.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero"),
    [("int16", 32768, 0), ("int32", 2**31, 0), ("int8", 128, 0), ("uint8", 128, 128)],
)
def test_integer_arrays_are_scaled(dtype: str, scale: int, zero: int) -> None:
    values = (tone() * scale + zero).astype(dtype)
    raw = load_audio((values, 16000))
    np.testing.assert_allclose(raw.samples, tone(), atol=1.5 / scale + 1e-6)
    both = load_audio((np.stack([values, values], axis=1), np.int64(16000)))
    np.testing.assert_array_equal(raw.samples, both.samples)
    assert both.sample_rate == 16000


def test_audio_arrays_and_raw() -> None:
    raw = load_audio((tone().astype(np.float64), 16000))
    assert raw.samples.dtype == np.float32
    assert load_audio(raw) is raw


BAD_AUDIO = {
    "missing": (lambda d: d / "no.wav", "no.wav does not exist"),
    "folder": (lambda d: d, "is a folder"),
    "text as wav": (lambda d: write(d / "t.wav", b"just some text"), "t.wav cannot be decoded"),
    "text as raw": (lambda d: write(d / "t.raw", b"just some text"), "t.raw cannot be decoded"),
    "image": (lambda d: picture(d / "p.wav"), "p.wav cannot be decoded"),
    "empty file": (lambda d: write(d / "e.wav", b""), "is empty"),
    "no samples": (lambda d: sound(d / "n.wav", np.zeros(0)), "n.wav holds no samples"),
    "silent": (lambda d: sound(d / "s.wav", np.zeros(99)), "s.wav is silent"),
    "nan": (lambda d: sound(d / "x.wav", np.array([0.1, np.nan])), "x.wav has NaN"),
    "infinite": (lambda d: sound(d / "i.wav", np.array([0.1, np.inf])), "i.wav has NaN or inf"),
    "loud": (lambda d: sound(d / "l.wav", 9000 * tone()), "divided by 32768"),
    "cancels": (lambda d: (np.stack([tone(), -tone()], axis=1), 16000), "cancel each other"),
    "long": (lambda d: sound(d / "h.wav", np.ones(6101), 10), "h.wav lasts 610.1 s.*600 s"),
    "long array": (lambda d: (np.ones(6101), 10), "lasts 610.1 s"),
    "bare": (lambda d: tone(), "say their rate"),
    "bytes": (lambda d: b"RIFF", "cannot use bytes"),
    "none": (lambda d: None, "cannot use NoneType"),
    "swapped": (lambda d: (16000, tone()), "Swap"),
    "rate zero": (lambda d: (tone(), 0), "sample rate"),
    "rate text": (lambda d: (tone(), "16k"), "sample rate"),
    "rate nan": (lambda d: (tone(), float("nan")), "sample rate"),
    "rate half": (lambda d: (tone(), 0.5), "sample rate"),
    "tensor": (lambda d: (torch.zeros(5), 16000), "are a Tensor"),
    "list": (lambda d: ([0.1, 0.2], 16000), "are a list"),
    "three axes": (lambda d: (np.ones((2, 3, 4)), 16000), "shape"),
    "transposed": (lambda d: (np.ones((2, 9000)), 16000), "samples.T"),
    "no channels": (lambda d: (np.ones((5, 0)), 16000), "holds no samples"),
    "wide integers": (lambda d: (np.ones(9, np.int64), 16000), "int64"),
    "array silent": (lambda d: (np.zeros(9, np.float32), 16000), "silent"),
    "array nan": (lambda d: (np.array([np.nan, 1.0]), 16000), "NaN"),
    "raw wrong": (lambda d: RawAudio(np.ones((2, 2), np.float32), 16000), "must be a .T,."),
    "raw silent": (lambda d: RawAudio(np.zeros(5, np.float32), 16000), "silent"),
    "raw empty": (lambda d: RawAudio(np.zeros(0, np.float32), 16000), "no samples"),
    "raw rate": (lambda d: RawAudio(tone(), 0), "sample rate"),
}


def sound(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def picture(path: Path) -> Path:
    Image.fromarray(corners()).save(path, "png")
    return path


@pytest.mark.parametrize("case", BAD_AUDIO)
def test_bad_audio(tmp_path: Path, case: str) -> None:
    make, message = BAD_AUDIO[case]
    with pytest.raises(InputError, match=message) as caught:
        load_audio(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["flac", "wav", "ogg", "aiff"])
def test_audio_that_was_cut_short(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48000)
    whole = tmp_path / f"whole.{suffix}"
    soundfile.write(whole, noise, 16000)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    if suffix == "flac":
        with pytest.raises(InputError, match=r"cut\.flac"):
            load_audio(cut)
    else:
        assert 0.2 < load_audio(cut).seconds / load_audio(whole).seconds < 0.7


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([("wav", "PCM_16"), ("flac", "PCM_16"), ("ogg", "VORBIS")]), st.data())
def test_damaged_audio_decodes_or_says_so(kind: tuple[str, str], data: st.DataObject) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds=0.1), 16000, format=kind[0], subtype=kind[1])
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    raw = decoded_or_refused(load_audio, bytes(content), f"damaged.{kind[0]}")
    assert raw is None or (raw.samples.ndim == 1 and np.isfinite(raw.samples).all())


@pytest.mark.parametrize(("old", "new"), [(44101, 16000), (383_983, 16000), (7919, 48017)])
def test_rates_without_a_common_divisor(old: int, new: int) -> None:
    assert old * new > audio.MAX_KERNEL
    raw = resample(RawAudio(tone(old, 0.4, 300), old), new)
    expected = tone(new, 0.4, 300)
    assert len(raw.samples) == round(int(0.4 * old) * new / old)
    count = min(len(expected), len(raw.samples))
    inside = slice(count // 10, -count // 10)
    np.testing.assert_allclose(raw.samples[:count][inside], expected[:count][inside], atol=0.01)


def test_both_ways_of_resampling_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).standard_normal(22050).astype(np.float32)
    smooth = np.convolve(noise, np.hanning(41) / 20, "same").astype(np.float32)
    by_kernel = resample(RawAudio(smooth, 22050), 16000).samples
    monkeypatch.setattr(audio, "MAX_KERNEL", 0)
    by_interpolation = resample(RawAudio(smooth, 22050), 16000).samples
    np.testing.assert_allclose(by_kernel[500:-500], by_interpolation[500:-500], atol=0.01)
    assert np.abs(by_kernel).max() > 0.3


def test_resample_keeps_or_refuses() -> None:
    raw = RawAudio(tone(), 16000)
    assert resample(raw, 16000) is raw
    assert resample(RawAudio(tone()[:1] + 0.1, 16000), 8000).samples.shape == (1,)
    with pytest.raises(OptionError, match="whole number"):
        resample(raw, 0)
    with pytest.raises(OptionError, match="whole number"):
        resample(raw, 8000.0)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    "caption", ["a dog", " a\tdog\nand a cat ", "🐶", "犬が吠える", "...", "naïve"]
)
def test_captions_are_kept_as_given(tmp_path: Path, caption: str) -> None:
    assert load_text(caption).text == caption
    raw = RawText(caption, name="mine")
    assert load_text(raw) is raw
    path = tmp_path / "caption.txt"
    for data in (caption.encode() + b"\r\n", b"\xef\xbb\xbf" + caption.encode(), caption.encode()):
        path.write_bytes(data)
        read = load_text_file(path)
        assert read.text == caption
        assert read.name == "caption.txt"


@pytest.mark.parametrize("caption", ["nai\u0308ve", "\u1112\u1161\u11ab", "A\u030a", "\u212b"])
def test_captions_are_composed_and_keep_their_name(tmp_path: Path, caption: str) -> None:
    composed = unicodedata.normalize("NFC", caption)
    assert composed != caption
    assert load_text(caption).text == composed
    named = load_text(RawText(caption, name="mine"))
    assert (named.text, named.name) == (composed, "mine")
    assert load_text_file(write(tmp_path / "c.txt", caption.encode())).text == composed


def test_composing_changes_no_letter_that_only_looks_alike() -> None:
    for caption in ("ﬁne ① ½", "Ａ ｶ", "a\u200bb", "👩\u200d👧"):
        assert load_text(caption).text == caption


BAD_TEXT = {
    "empty": ("", "the caption is empty"),
    "spaces": (" \t\n\u3000", "nothing but white space"),
    "invisible": ("\u200b\ufeff", "nothing but white space"),
    "nul": ("a\0b", r"control character \(U\+0000\) at position 1"),
    "escape": ("red \x1b[31m", r"U\+001B"),
    "surrogate": ("caf\udce9", "not UTF-8"),
    "long": ("a" * 10_001, "10,001 characters"),
    "bytes": (b"a dog", "cannot use bytes"),
    "path": (Path("caption.txt"), "load_text_file"),
    "number": (7, "cannot use int"),
    "raw": (RawText(" ", name="mine"), "mine holds nothing"),
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_bad_captions(case: str) -> None:
    source, message = BAD_TEXT[case]
    with pytest.raises(InputError, match=message) as caught:
        load_text(source)
    assert "\n" not in str(caught.value)


BAD_TEXT_FILES = {
    "latin1": ("café".encode("latin1"), r"byte 3 is 0xe9.*iconv"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8"),
    "utf16": ("a dog".encode("utf-16"), "not UTF-8"),
    "empty": (b"", "is empty"),
    "blank": (b"\n\n", "bad.txt is empty"),
    "spaces": (b"  \n", "nothing but white space"),
    "huge": (b"a" * 50_000, "bad.txt is too long"),
    "long": (b"a" * 10_002, "10,002 characters"),
    "control": (b"a\x07b", r"bad.txt has a control character"),
}


@pytest.mark.parametrize("case", BAD_TEXT_FILES)
def test_bad_text_files(tmp_path: Path, case: str) -> None:
    data, message = BAD_TEXT_FILES[case]
    with pytest.raises(InputError, match=message) as caught:
        load_text_file(write(tmp_path / "bad.txt", data))
    assert "\n" not in str(caught.value)


def test_text_file_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_text_file(tmp_path / "no.txt")
    with pytest.raises(InputError, match="is a folder"):
        load_text_file(str(tmp_path))
    with pytest.raises(InputError, match="cannot use int"):
        load_text_file(3)


def test_longest_caption_in_four_byte_characters(tmp_path: Path) -> None:
    path = write(tmp_path / "dogs.txt", ("🐶" * text.MAX_CHARACTERS).encode())
    assert len(load_text_file(path).text) == text.MAX_CHARACTERS


# ------------------------------------------------------------------------------------- dispatch


def test_load_dispatches(tmp_path: Path) -> None:
    assert mmattrib.io.load("image", corners()).modality == "image"
    assert mmattrib.io.load("audio", (tone(), 16000)).modality == "audio"
    assert mmattrib.io.load("text", "a dog").modality == "text"
    assert mmattrib.io.load("text", write(tmp_path / "t.txt", b"a cat")).text == "a cat"
    assert mmattrib.io.load("depth", np.ones((4, 5), dtype=np.float32)).modality == "depth"


def test_unreadable_file(tmp_path: Path) -> None:
    path = write(tmp_path / "secret.png", b"x")
    path.chmod(0)
    try:
        if readable(path):
            pytest.skip("this user may read everything")
        for load in (load_image, load_audio, load_text_file):
            with pytest.raises(InputError, match=r"secret\.png.*Permission denied"):
                load(path)
    finally:
        path.chmod(0o600)


def readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except PermissionError:
        return False
    return True


def test_decoding_needs_no_torch(tmp_path: Path) -> None:
    picture(tmp_path / "p.png")
    sound(tmp_path / "s.wav", tone())
    code = (
        "import sys; from mmattrib import io as p; "
        f"p.load_image({str(tmp_path / 'p.png')!r}); p.load_audio({str(tmp_path / 's.wav')!r}); "
        "p.load_text('a dog'); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
