"""Saving an explanation: the suffix chooses among the registered writers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmattrib.errors import OptionError
from mmattrib.files import as_path, regular_target, write_atomic
from mmattrib.plugins.loading import default_plugins

if TYPE_CHECKING:
    from mmattrib.types import Explanation


def save(explanation: Explanation, path: str | Path, **options: Any) -> Path:
    """Write an explanation in the form that the suffix names.

    Args:
        explanation: what to write.
        path: a file; missing folders are made, ``~`` is the home folder.
        **options: of the form's writer.

    Returns:
        The path written. The file appears whole or not at all.

    Raises:
        OptionError: no writer has this suffix, the file cannot be written, or an unknown option.
        InputError: the explanation holds what cannot be written, or is too large.
    """
    target = as_path(path, "save").expanduser()
    registry = default_plugins().registry
    name, known = target.suffix.lower().removeprefix("."), registry.names("writer")
    if name not in known:
        raise OptionError(
            f"cannot write {str(target)!r}: its suffix is {target.suffix!r}; accepted are "
            f"{', '.join('.' + each for each in known if each != 'notebook')}"
        )
    regular_target(target)  # before any work
    return write_atomic(target, registry.create("writer", name, **options)(explanation))
