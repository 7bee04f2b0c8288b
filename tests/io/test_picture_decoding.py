"""Decoding pictures: every form that is accepted, and a one-line error for every other."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from decoding_inputs import RED, WHITE, corners, decoded_or_refused, write
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmattrib.errors import InputError
from mmattrib.io import (
    image,
    load_image,
)
from mmattrib.types import RawImage


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
