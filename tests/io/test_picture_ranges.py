"""What is black and what is white follows from the type of a picture, and doubt is spoken."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmattrib.errors import InputError, InputWarning
from mmattrib.io import image, load_image

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: np.ndarray, bits: int, clear: tuple[int, ...] | None = None) -> bytes:
    """A PNG of ``(H, W, channels)`` values of 1 to 16 bits, with a transparent colour."""
    height, width, channels = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    if bits < 8:
        planes = (values[:, :, 0, None] >> np.arange(bits)[::-1]) & 1
        rows = np.packbits(planes.reshape(height, -1).astype(np.uint8), axis=1)
    else:
        rows = values.reshape(height, -1).astype(">u2" if bits == 16 else "u1")
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    hole = b"" if clear is None else chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + hole + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )  # fmt: skip


def tiff(values: np.ndarray, bits: int, photometric: int = 1, sample: int = 1) -> bytes:
    """An uncompressed little-endian grey TIFF; ``values`` are packed already."""
    height, width = values.shape
    strip = values.tobytes()
    if bits == 12:
        numbers = (values[..., None] >> np.arange(12)[::-1]) & 1
        strip = np.packbits(numbers.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1}
    tags |= {278: height, 279: len(strip), 339: sample}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + strip


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


# ---------------------------------------------------------------------------- transparent colours


@pytest.mark.parametrize(
    ("bits", "channels"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)]
)
def test_a_transparent_colour_is_white_at_every_depth(
    tmp_path: Path, bits: int, channels: int
) -> None:
    most = 2**bits - 1
    dark, clear = (0, most) if bits == 1 else (most // 3, most // 3 * 2)
    values = np.full((4, 6, channels), clear)
    values[:, :2] = dark
    values[:, 5] = 0 if bits > 1 else dark
    path = tmp_path / "hole.png"
    path.write_bytes(png(values, bits, (clear,) * channels))
    if channels == 3 and bits == 16:
        with pytest.warns(InputWarning, match=r"hole\.png has 16 bits.*alpha"):
            pixels = load_image(path).pixels
    else:
        pixels = load_image(path).pixels
    assert (pixels[:, 2:5] == 255).all()
    assert (pixels[:, :2] == round(255 * dark / most)).all()
    assert (pixels[:, 5] == 0).all()


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_channels_of_both_depths(channels: int, bits: int) -> None:
    values = np.zeros((2, 2, channels), dtype=int)
    values[:, 1, -1] = 2**bits - 1
    pixels = load_image(opened(png(values, bits))).pixels
    assert (pixels[:, 0] == 255).all()
    assert (pixels[:, 1] == 0).all()


@pytest.mark.parametrize("form", ["number", "bytes"])
def test_transparency_of_a_palette_in_both_forms(tmp_path: Path, form: str) -> None:
    picture = Image.new("P", (2, 2), 0)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.putpixel((1, 1), 1)
    picture.save(tmp_path / "p.png", transparency=0 if form == "number" else b"\x00\xff")
    pixels = load_image(tmp_path / "p.png").pixels
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [255, 0, 0]


def test_the_picture_of_a_user_keeps_its_transparent_colour() -> None:
    picture = opened(png(np.full((2, 2, 1), 2), 2, (2,)))
    load_image(picture)
    assert picture.info["transparency"] == 2


# --------------------------------------------------------------------------- more than eight bits


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_sixteen_bits_that_hold_fewer_are_dark_with_a_word(tmp_path: Path, bits: int) -> None:
    values = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray(values).save(tmp_path / "deep.tiff")
    (tmp_path / "rgb.png").write_bytes(png(np.repeat(values[:, :, None], 3, axis=2), 16))
    for source in (tmp_path / "deep.png", tmp_path / "deep.tiff", Image.fromarray(values)):
        with pytest.warns(InputWarning, match=rf"{bits} bits.*65535 is white.*/ {2**bits - 1}"):
            pixels = load_image(source).pixels
        np.testing.assert_allclose(pixels[..., 0], values / 257, atol=0.6)
    with pytest.warns(InputWarning, match=rf"rgb\.png.*{bits} bits"):
        load_image(tmp_path / "rgb.png")
    said = load_image(values / (2**bits - 1)).pixels  # what the warning advises
    assert (said.min(), said.max()) == (0, 255)


def test_sixteen_bits_in_full_need_no_word() -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for picture in (Image.fromarray(values), opened(png(values[:, :, None], 16))):
        assert load_image(picture).pixels.max() == 255
    assert (load_image(Image.fromarray(0 * values)).pixels == 0).all()


def test_twelve_bits_of_a_tiff_are_its_range() -> None:
    values = np.array([[0, 4095], [2048, 1024]])
    pixels = load_image(opened(tiff(values, 12))).pixels[..., 0]
    np.testing.assert_allclose(pixels, values / 4095 * 255, atol=0.51)


@pytest.mark.parametrize(
    ("values", "bits", "sample"),
    [
        (np.array([[0, 255], [128, 1]], np.uint8), 8, 1),
        (np.array([[0, 65535], [32768, 1]], "<u2"), 16, 1),
        (np.array([[0, 1], [0.5, 0.25]], "<f4"), 32, 3),
    ],
)
def test_white_is_zero_is_turned_round(values: np.ndarray, bits: int, sample: int) -> None:
    plain = load_image(opened(tiff(values, bits, 1, sample))).pixels.astype(int)
    turned = load_image(opened(tiff(values, bits, 0, sample))).pixels.astype(int)
    np.testing.assert_allclose(plain + turned, 255, atol=1)
    assert plain[0, 0, 0] == 0


@pytest.mark.parametrize(
    ("dtype", "bits", "sample"), [("i1", 8, 2), ("<i2", 16, 2), ("<i4", 32, 2), ("<u4", 32, 1)]
)
def test_signed_and_wider_numbers_of_a_tiff_are_refused(dtype: str, bits: int, sample: int) -> None:
    values = np.array([[0, 100], [50, 1]], dtype)
    with pytest.raises(InputError, match=r"signed|nothing says which"):
        load_image(opened(tiff(values, bits, 1, sample)))


@pytest.mark.parametrize("most", [1, 255, 4095, 65535, 10**6])
def test_mode_i_does_not_say_what_is_white(most: int) -> None:
    picture = Image.fromarray(np.array([[0, most]], np.int32))
    with pytest.raises(InputError, match=rf"0 to {most} .*mode I.*Divide by what is white"):
        load_image(picture)


def test_a_pgm_says_its_maximum(tmp_path: Path) -> None:
    path = tmp_path / "twelve.pgm"
    path.write_bytes(b"P5 3 1 4095\n" + np.array([0, 2048, 4095], ">u2").tobytes())
    assert load_image(path).pixels[0, :, 0].tolist() == [0, 128, 255]


# ---------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("most", [1, 100])
def test_the_advice_for_whole_numbers_gives_a_picture(dtype: str, most: int) -> None:
    values = np.array([[0, most]], dtype)
    with pytest.raises(InputError, match="does not say what is white") as caught:
        load_image(values)
    message = str(caught.value)
    assert "uint8)" not in message.split("accepted")[1].partition(".")[2]
    if most == 1:
        assert "array.astype(bool)" in message
        assert load_image(values.astype(bool)).pixels.max() == 255
    else:
        assert "array / 255.0" in message


def test_the_advice_for_sixteen_bits_does_not_wrap() -> None:
    with pytest.raises(InputError, match=r"uint16 from 0 to 40000.*array / 65535\.0"):
        load_image(np.array([[0, 40000]], np.uint16))
    with pytest.raises(InputError, match=r"int16 from -5 to 300.*array\.min"):
        load_image(np.array([[-5, 300]], np.int16))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3), (2, 3, 4), (1, 1)])
def test_bool_is_black_and_white(shape: tuple[int, ...]) -> None:
    assert (load_image(np.ones(shape, bool)).pixels == 255).all()
    black = load_image(np.zeros(shape, bool)).pixels
    assert (black == (255 if shape[-1:] == (4,) and len(shape) == 3 else 0)).all()


MASK = np.eye(4, dtype=np.uint8)


@pytest.mark.parametrize(
    "source",
    [MASK, np.repeat(MASK[:, :, None], 3, axis=2), MASK / 255.0, MASK / 255**2,
     Image.fromarray(MASK), (MASK / 255).astype(np.float16)],
)  # fmt: skip
def test_a_mask_of_ones_is_nearly_black_with_a_word(source: object) -> None:
    with pytest.warns(InputWarning, match=r"no value above 1 of 255.*bool"):
        assert load_image(source).pixels.max() <= 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.0, 255.0]], "array / 255"),
        ([[-1.0, 1.0]], r"\(array \+ 1\) / 2"),
        ([[0.0, np.inf]], "infinite"),
        ([[0.0, np.nan]], "NaN"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_floats_beyond_one_are_refused(values: object, message: str, dtype: type) -> None:
    with pytest.raises(InputError, match=message):
        load_image(np.array(values, dtype))


def test_huge_floats_are_refused_without_an_overflow() -> None:
    with pytest.raises(InputError, match="floats from"):
        load_image(np.array([[0.0, 1e300]]))
    with pytest.raises(InputError, match="floats from"):
        load_image(Image.fromarray(np.array([[0, 3e38]], np.float32)))


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((4, 4), complex),
        np.array([[None, 1]]),
        np.array([["a"]]),
        np.zeros((2, 2), "u1,u1"),
        np.zeros((2, 2), "M8[s]"),
        np.ma.masked_array(MASK, MASK == 0),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 0), np.uint8),
        np.zeros(5, np.uint8),
        np.float64(0.5),
        torch.zeros(4, 4, 3, dtype=torch.uint8),
        [[0, 255]],
    ],
)
def test_what_is_no_picture_is_refused(source: object) -> None:
    with pytest.raises(InputError):
        load_image(source)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "F", "I",
                     "I;16", "La", "RGBa", "RGBX", "LAB"]),
    st.integers(0, 255),
)  # fmt: skip
def test_every_mode_gives_the_grey_it_shows_or_a_word(mode: str, grey: int) -> None:
    """A picture of one grey comes out as that grey, or refused; never as another."""
    flat = Image.new("L", (3, 3), grey)
    if mode == "LAB":
        picture = Image.new("LAB", (3, 3), (grey, 128, 128))
    elif mode == "I;16":
        picture = Image.fromarray(np.full((3, 3), grey * 257, np.uint16))
    else:
        steps = {"HSV": "RGB", "LAB": "RGB", "La": "LA", "RGBa": "RGBA", "PA": "P", "CMYK": "RGB"}
        picture = flat.convert(steps.get(mode, "L")).convert(mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # of dark ones
        try:
            pixels = load_image(picture).pixels.astype(int)
        except InputError:
            assert mode in ("F", "I")
            return
    if mode in ("1", "F"):  # 1.0 is white
        assert set(np.unique(pixels)) <= {0, 255}
    elif mode != "LAB":
        assert abs(pixels - grey).max() <= 2


# --------------------------------------------------------------------------------------- hostile


def test_no_format_that_runs_another_program(tmp_path: Path) -> None:
    path = tmp_path / "run.eps"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with Image.open(path) as picture:
        assert picture.format == "EPS"
    with pytest.raises(InputError, match=r"run\.eps is not an image"):
        load_image(path)


def test_a_larger_picture_inside_of_an_icon_meets_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = png(np.zeros((300, 300, 4), int), 8)
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inside), 22)
    path = tmp_path / "small.ico"
    path.write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + inside)
    monkeypatch.setattr(image, "MAX_PIXELS", 256 * 256)
    with pytest.raises(InputError, match=r"small\.ico.*300 x 300"):
        load_image(path)
