"""Calibrations in files; made by ``mmattrib calibrate``, which may have run on another machine."""

from __future__ import annotations

from pathlib import Path

from mmattrib.calibration import Calibration
from mmattrib.errors import InputError
from mmattrib.files import as_path
from mmattrib.io._archive import parsed_json
from mmattrib.io.files import existing_file, one_line

MAX_BYTES = 8 * 1024**2
"""Largest file that is read."""

_ACCEPTED = "a .json file that `mmattrib calibrate` or Calibration.save wrote"


def load_calibration(path: str | Path) -> Calibration:
    """Read a calibration, to be set as ``backbone.calibration``.

    Files may come from strangers: no more than 8 MB is read, and nothing in it is run.

    Raises:
        InputError: the file is missing, damaged, too large or no calibration.
    """
    given = as_path(path, "load_calibration").expanduser()
    source = existing_file(given, "a calibration", _ACCEPTED)
    try:
        with source.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(f"it holds more than {MAX_BYTES} bytes")
        return Calibration.from_json(parsed_json(data))
    # What a stranger's bytes make of json's parser is theirs.
    except Exception as error:
        raise InputError(
            f"cannot load {str(source)!r} as a calibration ({type(error).__name__}: "
            f"{one_line(error)}); accepted is {_ACCEPTED}"
        ) from error
