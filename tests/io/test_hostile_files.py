"""Files that lie about themselves, are no files, or have odd names: an InputError, and soon."""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmattrib.errors import InputError
from mmattrib.io import array, load_array, load_audio, load_image, load_text_file
from mmattrib.types import RawArray


def load_depth(source: object) -> RawArray:
    return load_array("depth", source)


LOADERS: dict[str, tuple[Callable[[object], object], str]] = {
    "image": (load_image, "png"),
    "dicom": (load_image, "dcm"),
    "audio": (load_audio, "wav"),
    "text": (load_text_file, "txt"),
    "array": (load_depth, "npy"),
}


@pytest.fixture(params=LOADERS)
def loader(request: pytest.FixtureRequest) -> tuple[Callable[[object], object], str]:
    if request.param == "dicom":
        pytest.importorskip("pydicom")
    return LOADERS[request.param]


# ---------------------------------------------------------------------------- what is not a file


def test_a_fifo_a_socket_a_folder_and_a_loop_are_refused(
    tmp_path: Path, loader: tuple[Callable[[object], object], str]
) -> None:
    load, suffix = loader
    fifo, folder, loop, plug = (tmp_path / f"{name}.{suffix}" for name in "abcd")
    os.mkfifo(fifo)
    folder.mkdir()
    loop.symlink_to(loop.name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(plug))
        for path, message in (
            (fifo, "not a regular file"),
            (folder, "is a folder"),
            (loop, "leads nowhere"),
            (plug, "not a regular file"),
        ):
            with pytest.raises(InputError, match=message) as caught:
                load(path)
            assert path.name in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="names devices of Linux")
@pytest.mark.parametrize(
    "source", ["/dev/zero", "/dev/null", "/dev/full", "/proc/self/environ", "/proc/self/mem"]
)
def test_devices_and_kernel_files_are_refused_unread(
    tmp_path: Path, source: str, loader: tuple[Callable[[object], object], str]
) -> None:
    load, suffix = loader
    link = tmp_path / f"link.{suffix}"
    link.symlink_to(source)
    with pytest.raises(InputError, match=r"link\.|not a regular file|empty"):
        load(link)


@pytest.mark.parametrize(
    "name", ["a\nb", "\x1b[31mred", "a\rb", "\u202egnp", "tab\there", "\udc80"]
)
def test_names_are_shown_in_one_harmless_line(
    tmp_path: Path, name: str, loader: tuple[Callable[[object], object], str]
) -> None:
    load, suffix = loader
    path = tmp_path / f"{name}.{suffix}"
    path.write_bytes(b"\xff\xfe nothing of the kind")
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value).isprintable()
    with pytest.raises(InputError) as caught:
        load(tmp_path / f"missing {name}.{suffix}")
    assert str(caught.value).isprintable()


def test_the_name_of_what_was_read_is_harmless_too(tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31m\n.png"
    Image.new("RGB", (3, 3)).save(path, "png")
    assert load_image(path).name.isprintable()
    with Image.open(path) as picture:
        assert load_image(picture).name.isprintable()
    path = tmp_path / "\x1b\n.txt"
    path.write_text("a dog")
    assert load_text_file(path).name.isprintable()
    np.save(tmp_path / "\n.npy", np.ones(3))
    assert load_depth(tmp_path / "\n.npy").name.isprintable()


# ------------------------------------------------------------------------------------ .npy headers


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin1") + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def described(shape: str, kind: str = "'<f4'") -> str:
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"


LIES = {
    "terabytes": npy(described("(1000000, 1000000)")),
    "just too many": npy(described(f"({array.MAX_VALUES + 1},)")),
    "more than is there": npy(described("(100000000,)"), b"\0" * 64),
    "negative": npy(described("(-5,)"), b"\0" * 64),
    "two negatives": npy(described("(-4, -4)"), b"\0" * 64),
    "overflowing product": npy(described("(4294967296, 4294967296)"), b"\0" * 64),
    "product with a zero": npy(described("(0, 4294967296, 4294967296)"), b"\0" * 64),
    "wide void": npy(described("(4,)", "'V1000000000'"), b"\0" * 64),
    "wide subarray": npy(described("(4,)", "('<f4', (100000, 100000))"), b"\0" * 64),
    "objects": npy(described("(1,)", "'|O'"), pickle.dumps([print])),
    "record": npy(described("(4,)", "[('a', '<f4')]"), b"\0" * 64),
    "text": npy(described("(4,)", "'<U4'"), b"\0" * 64),
    "complex": npy(described("(4,)", "'<c8'"), b"\0" * 64),
    "a call": npy("__import__('os').abort()"),
    "deep": npy("(" * 5000),
    "deep and closed": npy("[" * 3000 + "]" * 3000),
    "long": npy(" " * 60000 + described("(4,)")),
    "nul": npy("\0" * 20),
    "not a dict": npy("[1, 2]"),
    "lacks keys": npy("{'descr': '<f4'}"),
    "unknown type": npy(described("(4,)", "'<q9'"), b"\0" * 64),
    "shape of text": npy(described("('a',)"), b"\0" * 64),
    "huge number": npy(described("(" + "9" * 5000 + ",)"), b"\0" * 64),
    "version 9": b"\x93NUMPY\x09\x00" + b"\0" * 64,
    "magic alone": b"\x93NUMPY",
    "header cut": npy(described("(4,)"))[:30],
    "pickle": pickle.dumps([1, 2]),
    "zip": b"PK\x03\x04" + b"\0" * 64,
    "scalar": npy(described("()"), b"\0" * 4),
}


@pytest.mark.parametrize("case", LIES)
def test_npy_headers_that_lie_are_refused_before_anything_is_allocated(
    tmp_path: Path, case: str
) -> None:
    path = tmp_path / "lie.npy"
    path.write_bytes(LIES[case])
    with pytest.raises(InputError, match=r"lie\.npy") as caught:
        load_depth(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f2", "f8", "i1", "u2", ">i8", "?"])
def test_npy_files_of_numbers_are_read_as_numpy_does(
    tmp_path: Path, dtype: str, order: str
) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    np.save(tmp_path / "a.npy", np.asarray(values, order=order))
    np.testing.assert_array_equal(load_depth(tmp_path / "a.npy").values, values.astype("f4"))
    data = io.BytesIO()
    np.lib.format.write_array(data, values, version=(2, 0))
    (tmp_path / "b.npy").write_bytes(data.getvalue())
    np.testing.assert_array_equal(load_depth(tmp_path / "b.npy").values, values.astype("f4"))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_npy_files_decode_or_say_so(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((3, 4), dtype=np.float32))
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    try:
        values = load_depth(path).values
    except InputError as error:
        message = str(error)
    else:
        assert np.isfinite(values).all()
        return
    assert "damaged.npy" in message
    assert message.isprintable()


BAD_ARRAYS = {
    "beyond float32": (np.array([1e300]), "beyond float32"),
    "nan": (np.array([np.nan]), "NaN"),
    "masked": (np.ma.masked_array([1.0, 2.0], [True, False]), "masked"),
    "objects": (np.array([1, None]), "no plain numbers"),
    "scalar": (np.array(1.0), "shape"),
    "rate": ((np.ones(3), 10**400), "rate"),
    "rate nan": ((np.ones(3), float("nan")), "rate"),
    "rate zero": ((np.ones(3), 0), "rate"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(case: str) -> None:
    source, message = BAD_ARRAYS[case]
    with pytest.raises(InputError, match=message):
        load_depth(source)
