"""Check the files and folders that a command will write, before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import click

from mmattrib.errors import InputError, OptionError
from mmattrib.files import check_folder_of, regular_target

SUFFIXES: tuple[str, ...] = (".png", ".html", ".npz", ".json")
"""What an explanation can be written as."""

FileKey: TypeAlias = tuple[int, int] | str
"""What makes two paths one file: its place on the disk, or its name where it is still to be."""


class HomePath(click.Path):
    """A path on the command line; a leading ``~`` that the shell left alone is the home folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, as :class:`click.Path` gives it, under the home folder where ``~`` says so."""
        return super().convert(os.path.expanduser(value), param, ctx)  # noqa: PTH111 - keeps "-"


def check_outputs(
    paths: Sequence[Path],
    inputs: Iterable[Path] = (),
    suffixes: Sequence[str] = SUFFIXES,
    option: str = "--out",
) -> None:
    """Make sure that every output can be written.

    Args:
        paths: files to write; one that exists will be replaced.
        inputs: files that must not be.
        suffixes: those that say what to write.
        option: what messages call it.

    Raises:
        OptionError: an unknown suffix, one file named twice, or an input named as an output.
        InputError: a folder that does not exist or cannot be written.
    """
    kept = {key for path in inputs if (key := _same_file(path)) is not None}
    seen: set[FileKey | None] = set()
    for path in paths:
        if path.suffix.lower() not in suffixes:
            given = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
            raise OptionError(
                f"{option} {path} has {given}, which says nothing of what to write; accepted: "
                f"{', '.join(suffixes)}"
            )
        check_file(path, option)
        key = _same_file(path)
        if key in kept:
            raise OptionError(f"{option} {path} is one of the inputs; name another file")
        if key in seen:
            raise OptionError(f"{option} {path} is given twice; name each file once")
        seen.add(key)


def check_file(path: Path, option: str, *, read: bool = False) -> None:
    """Make sure that a file can be written, or read and written, before any work is done.

    Args:
        path: the file; it need not exist.
        option: what messages call it.
        read: whether an existing one is read first.

    Raises:
        OptionError: it is a folder, a pipe, a socket or a device, or no file can have this name.
        InputError: its folder does not exist, or one of the two cannot be written.
    """
    _check_folder_of(path, option, path.parent)
    try:
        place = regular_target(path)
    except OptionError as error:
        raise OptionError(f"{option}: {error}") from error
    _check_folder_of(path, option, place.parent)  # where a link leads
    if place.exists() and not os.access(place, os.W_OK | (os.R_OK if read else 0)):
        todo = "read and written" if read else "written"
        raise InputError(f"{option} {path} exists and cannot be {todo}; name another file")


def _same_file(path: Path) -> FileKey | None:
    """What two paths share that name one file, by links of either kind; None where none can be."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def check_folder(path: Path, option: str, *, empty: bool = False) -> None:
    """Make sure that a folder can be written or made.

    Args:
        path: the folder.
        option: what messages call it.
        empty: whether a folder that exists must hold nothing.

    Raises:
        InputError: it is a file, cannot be written, is not empty, or lies in no folder.
    """
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"{option} {path} can be no folder: {error}; name another") from error
    if exists:
        if not path.is_dir():
            raise InputError(f"{option} {path} is a file; name a folder")
        try:
            check_folder_of(path / "file")
        except OSError as error:
            raise InputError(
                f"{option} {path} cannot be written ({error.strerror}); name another folder"
            ) from error
        if empty and any(path.iterdir()):
            raise InputError(f"{option} {path} is not empty; name a new folder")
    else:
        _check_folder_of(path, option, path.parent)


def _check_folder_of(path: Path, option: str, parent: Path) -> None:
    try:
        exists = parent.is_dir()
    except (OSError, ValueError):
        exists = False
    if not exists:
        raise InputError(
            f"{option} {path}: there is no folder {parent}; make it first or name another"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{option} {path}: the folder {parent} cannot be written; name another")
    try:
        check_folder_of(parent / "file")
    except OSError as error:
        raise InputError(
            f"{option} {path}: the folder {parent} cannot be written ({error.strerror}); name "
            "another"
        ) from error
