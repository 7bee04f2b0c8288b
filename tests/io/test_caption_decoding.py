"""Decoding captions: kept as given, composed, or refused in one line."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from decoding_inputs import write

from mmattrib.errors import InputError
from mmattrib.io import (
    load_text,
    load_text_file,
    text,
)
from mmattrib.types import RawText


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
