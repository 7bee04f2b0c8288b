"""Checks on a path that are the same whatever the file holds."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmattrib.errors import InputError, InputWarning
from mmattrib.plugins.contained import hushed


class Encoded:
    """A file's content where there is no file: a member of an archive, a cell of a table.

    :func:`mmattrib.io.load_image` and :func:`mmattrib.io.load_audio` decode it as they do a file.

    Attributes:
        data: the bytes that the file would hold.
        name: what messages call it.
    """

    __slots__ = ("data", "name")

    def __init__(self, data: bytes, name: str) -> None:
        """Name some bytes."""
        self.data, self.name = data, name

    def __repr__(self) -> str:
        return f"Encoded({shown(self.name)!r}, {len(self.data):,} bytes)"


def is_path(source: object) -> bool:
    """Whether ``source`` names a file: a string or a path object."""
    return isinstance(source, str | os.PathLike)


def existing_file(source: object, kind: str, accepted: str) -> Path:
    """The file that ``source`` names.

    Args:
        source: a string or path object.
        kind: what it should hold, with its article, for messages: ``"an image"``.
        accepted: which files are accepted, for messages.

    Raises:
        InputError: there is no such file, it is not a regular file, or it is empty.
    """
    name = os.fspath(source)  # type: ignore[call-overload]
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not name.strip():
        raise InputError(f"an empty path was given for {kind}; accepted: {accepted}")
    if name.startswith(("http://", "https://", "ftp://", "s3://", "gs://")):
        raise InputError(
            f"{shown(name)} is an address; accepted for {kind}: {accepted} on this machine. "
            "Download it first and give the file's path"
        )
    path = Path(name)
    try:
        if path.is_dir():
            raise InputError(
                f"{shown(name)} is a folder; accepted for {kind}: {accepted}. "
                "Give one file inside it"
            )
        if path.is_symlink() and not path.exists():
            raise InputError(
                f"{shown(name)} is a link that leads nowhere, or in a circle; accepted for {kind}: "
                f"{accepted}. Give the file itself"
            )
        if not path.exists():
            raise InputError(
                f"{shown(name)} does not exist; accepted for {kind}: {accepted}. "
                f"Check the spelling; relative paths start from {Path.cwd()}"
            )
        if not path.is_file():
            raise InputError(
                f"{shown(name)} is not a regular file; accepted for {kind}: {accepted}. "
                "Save the data to a file first"
            )
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise unreadable(name, kind, error) from error
    if size == 0:
        raise InputError(
            f"{shown(name)} is empty (0 bytes); accepted for {kind}: {accepted}. "
            "Write or download the file again"
        )
    return path


def unreadable(name: object, kind: str, error: Exception) -> InputError:
    """The error for a file that the system does not let us read."""
    if isinstance(error, InputError):
        return error
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InputError(
        f"{shown(name)} cannot be read as {kind} ({one_line(reason)}); check the path and its "
        "permissions"
    )


_FILTERS = threading.Lock()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence a library's own warnings while it decodes, and in our program its C code's too.

    One thread at a time: Python's filters belong to the process, and two threads that save and
    restore them across each other would leave them changed for good.
    """
    with _FILTERS, warnings.catch_warnings(), hushed():
        warnings.simplefilter("ignore")
        yield


def note(sentences: Iterable[str]) -> None:
    """Tell the user what had to be assumed of an input, one warning a sentence."""
    for sentence in sentences:
        warnings.warn(sentence, InputWarning, stacklevel=4)


def shown(name: object, limit: int = 200) -> str:
    """A name for a message: one line, control characters escaped, bounded length."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(name))
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 :]}"


def one_line(reason: object, limit: int = 160) -> str:
    """A library's error message on one line, to quote in one of ours."""
    return shown(" ".join(str(reason).split()).rstrip("."), limit) or "no reason given"
