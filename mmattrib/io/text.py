"""Captions: what is readable and what is not."""

from __future__ import annotations

import unicodedata

from mmattrib.errors import InputError
from mmattrib.io._files import existing_file, is_path, shown, unreadable
from mmattrib.types import RawText

MAX_CHARACTERS = 10_000
"""Longest caption accepted, in characters; an encoder's own bound, in tokens, is far lower."""

_ACCEPTED = f"a caption of 1 to {MAX_CHARACTERS:,} characters"


def load_text(source: object) -> RawText:
    """Check a caption; it is kept as given, since character spans refer to it.

    Args:
        source: the caption, or a :class:`RawText`.

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
    return raw if raw is not None else RawText(text)


def load_text_file(path: object) -> RawText:
    """Read a caption from a UTF-8 file; a line break at its end is not part of the caption.

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
    return RawText(text, name=file.name)


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
