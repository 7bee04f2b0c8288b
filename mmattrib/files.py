"""Write files whole or not at all, and ask whether a path exists, whatever its name holds."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmattrib.errors import OptionError, brief


def is_file(path: Path) -> bool:
    """Whether a file is there; False too where no file can have this name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there; False too where none can have this name."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def as_path(given: object, what: str, kind: str = "file") -> Path:
    """A path of a file or a folder.

    Args:
        given: text or a path.
        what: what it is for, as the message begins.
        kind: ``"file"`` or ``"folder"``, for the message.

    Raises:
        OptionError: it is neither.
    """
    if isinstance(given, str | os.PathLike):
        return Path(given)
    raise OptionError(f"{what} takes the path of a {kind}, got {brief(given)}")


def regular_target(path: str | Path) -> Path:
    """The file that a path names, links followed, whether or not it exists yet.

    Raises:
        OptionError: it is a folder, a pipe or a device, or no file can have this name.
    """
    target = Path(path)
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return Path(os.path.realpath(target))
    except (OSError, ValueError) as error:
        raise _unwritable(target, error) from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device, no regular file"
        raise OptionError(f"cannot write {str(target)!r}: it is {kind}; name another file")
    return Path(os.path.realpath(target))


def write_atomic(path: str | Path, data: bytes) -> Path:
    """Write a file so that it appears whole or not at all, with missing folders made.

    A link is followed: what it names is replaced, the link stays.

    Raises:
        OptionError: it cannot be written there (a folder, a pipe, a device, no permission, a full
            disk); nothing is left behind.
    """
    target = Path(path)
    place = regular_target(target)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _write(place, data)
    except OSError as error:
        raise _unwritable(target, error) from error
    return target


@contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """A folder that goes away at the end, for libraries that read and write files alone.

    Args:
        what: what it is for, as the message begins.

    Raises:
        OptionError: there is no such folder, or no room in it; from within too.
    """
    import tempfile  # late: listings need none

    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OptionError(
            f"{what} needs a file in the folder for temporary files, which cannot be written "
            f"({reason}); make room in it, or name another one in the variable TMPDIR"
        ) from error


def check_folder_of(place: Path) -> None:
    """Make and remove a file beside a target, as :func:`write_atomic` will.

    Whether it can is not to be read off permissions: file systems of the kernel, full quotas and
    read-only mounts say so only then.

    Raises:
        OSError: it cannot.
    """
    temporary = _beside(place)
    temporary.open("xb").close()
    temporary.unlink()


def _beside(place: Path) -> Path:
    return place.with_name(f".mmattrib-{secrets.token_hex(8)}.tmp")


def _unwritable(target: Path, error: Exception) -> OptionError:
    reason = getattr(error, "strerror", None) or str(error)
    return OptionError(
        f"cannot write {str(target)!r}: {reason}; name a file in a folder that can be written and "
        "has room"
    )


def _write(place: Path, data: bytes) -> None:
    temporary = _beside(place)
    try:
        with temporary.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
