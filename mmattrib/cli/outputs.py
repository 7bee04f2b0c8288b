"""Check the files and folders that a command will write, before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmattrib.errors import InputError, OptionError

SUFFIXES: tuple[str, ...] = (".png", ".html", ".npz", ".json")
"""What an explanation can be written as."""


def check_outputs(
    paths: Sequence[Path], inputs: Iterable[Path] = (), suffixes: Sequence[str] = SUFFIXES
) -> None:
    """Make sure that every output can be written.

    Args:
        paths: files to write; one that exists will be replaced.
        inputs: files that must not be.
        suffixes: those that say what to write.

    Raises:
        OptionError: an unknown suffix, one file named twice, or an input named as an output.
        InputError: a folder that does not exist or cannot be written.
    """
    kept = {path.resolve() for path in inputs}
    seen: set[Path] = set()
    for path in paths:
        if path.suffix.lower() not in suffixes:
            given = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
            raise OptionError(
                f"--out {path} has {given}, which says nothing of what to write; accepted: "
                f"{', '.join(suffixes)}"
            )
        _check_parent(path, "--out")
        if path.is_dir():
            raise InputError(f"--out {path} is a folder; name a file")
        if path.exists() and not os.access(path, os.W_OK):
            raise InputError(f"--out {path} exists and cannot be written; name another file")
        if path.resolve() in kept:
            raise OptionError(f"--out {path} is one of the inputs; name another file")
        if path.resolve() in seen:
            raise OptionError(f"--out {path} is given twice; name each file once")
        seen.add(path.resolve())


def check_folder(path: Path, option: str, *, empty: bool = False) -> None:
    """Make sure that a folder can be written or made.

    Args:
        path: the folder.
        option: what messages call it.
        empty: whether a folder that exists must hold nothing.

    Raises:
        InputError: it is a file, cannot be written, is not empty, or lies in no folder.
    """
    if path.exists():
        if not path.is_dir():
            raise InputError(f"{option} {path} is a file; name a folder")
        if not os.access(path, os.W_OK | os.X_OK):
            raise InputError(f"{option} {path} cannot be written; name another folder")
        if empty and any(path.iterdir()):
            raise InputError(f"{option} {path} is not empty; name a new folder")
    else:
        _check_parent(path, option)


def _check_parent(path: Path, option: str) -> None:
    parent = path.parent
    if not parent.is_dir():
        raise InputError(
            f"{option} {path}: there is no folder {parent}; make it first or name another"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{option} {path}: the folder {parent} cannot be written; name another")
