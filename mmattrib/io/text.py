"""Check captions and read them from files."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

from mmattrib.errors import InputError
from mmattrib.io.files import existing_file, is_path, shown, unreadable
from mmattrib.types import RawText

MAX_CHARACTERS = 10_000
"""Longest caption accepted, in characters; an encoder's own bound, in tokens, is far lower."""

_ACCEPTED = f"a caption of 1 to {MAX_CHARACTERS:,} characters"


def load_text(source: object) -> RawText:
    """Check a caption and compose its characters; nothing else of it is changed.

    Unicode writes ``ï`` as one character or as ``i`` and an accent, and both are the same text.
    Here, the one place that every caption passes, it is brought to the composed form (NFC), so that
    both give the same tokens, noise, words and scores; character spans refer to that form.

    Args:
        source: the caption, or a :class:`RawText`.

    Returns:
        The caption in NFC; a :class:`RawText` that is in it already is given back as it is.

    Raises:
        InputError: not a string, empty, without a visible character, with control characters
            (line breaks and tabs are fine), or over :data:`MAX_CHARACTERS`.
    """
    raw = source if isinstance(source, RawText) else None
    text = raw.text if raw is not None else source
    if not isinstance(text, str):
        hint = "Use load_text_file for a file" if is_path(text) else "Give a str"
        raise InputError(
            f"cannot use {type(text).__name__} as a caption; accepted: {_ACCEPTED}. {hint}"
        )
    _check(text, raw.name if raw is not None else "the caption")
    composed = unicodedata.normalize("NFC", text)
    if raw is None:
        return RawText(composed)
    return raw if composed == text else replace(raw, text=composed)


def load_text_file(path: object) -> RawText:
    """Read a caption from a UTF-8 file and compose its characters, as :func:`load_text` does.

    A line break at the end of the file is not part of the caption.

    Args:
        path: a string or path object.

    Raises:
        InputError: no such file, not UTF-8, too long, or :func:`load_text` refuses its content.
    """
    if not is_path(path):
        raise InputError(
            f"cannot use {type(path).__name__} as the path of a caption; accepted: a str or Path. "
            "Use load_text for the caption itself"
        )
    file = existing_file(path, "a caption", "a UTF-8 text file")
    bound = 4 * MAX_CHARACTERS + 8  # UTF-8 takes up to four bytes a character
    try:
        with file.open("rb") as stream:
            data = stream.read(bound + 1)
    except OSError as error:
        raise unreadable(file, "a caption", error) from error
    if len(data) > bound:
        raise InputError(
            f"{shown(file)} is too long for a caption ({file.stat().st_size:,} bytes); accepted: "
            f"{_ACCEPTED}. Shorten it"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{shown(file)} is not UTF-8 text (byte {error.start} is 0x{data[error.start]:02x}); "
            "accepted: a UTF-8 text file. Convert it, e.g. with iconv -f latin1 -t utf-8"
        ) from error
    text = text.rstrip("\r\n")
    _check(text, file)
    return RawText(unicodedata.normalize("NFC", text), name=shown(file.name))


def _check(text: str, name: object) -> None:
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"{shown(name)} has {len(text):,} characters; accepted: {_ACCEPTED}. Shorten it"
        )
    for place, char in enumerate(text):
        kind = unicodedata.category(char)
        if kind == "Cs" or (kind == "Cc" and char not in "\t\n\r"):
            what = "a byte that is not UTF-8" if kind == "Cs" else "a control character"
            raise InputError(
                f"{shown(name)} has {what} (U+{ord(char):04X}) at position {place}; accepted: "
                "readable text with spaces, tabs and line breaks. Remove it"
            )
    if not any(unicodedata.category(char)[0] in "LMNPS" for char in text):
        what = "is empty" if not text else "holds nothing but white space"
        raise InputError(f"{shown(name)} {what}; accepted: {_ACCEPTED}. Write what it should say")
