"""The kept numbers: one packed file for each measurement, in ``raw``."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from mmattrib.errors import OptionError
from mmattrib.evaluation import Results, load_results

RAW: Final = Path(__file__).parent / "raw"


@lru_cache(maxsize=8)
def raw(*names: str) -> Results:
    """The kept numbers of one sweep, or of several that could stand in one file.

    Raises:
        OptionError: there are none under a name.
    """
    with unpacked(*names) as plain:
        return load_results(plain)


@contextmanager
def unpacked(*names: str) -> Iterator[Path]:
    """The same as one file, for as long as it is used.

    Raises:
        OptionError: as for :func:`raw`, or sweeps that could not stand in one file.
    """
    lines: list[bytes] = []
    for name in names:
        path = RAW / f"{name}.jsonl.gz"
        if not path.is_file():
            known = ", ".join(sorted(p.name.removesuffix(".jsonl.gz") for p in RAW.glob("*.gz")))
            raise OptionError(f"no numbers are kept under {name!r}: {known}")
        found = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        if lines and found[0] != lines[0]:
            raise OptionError(f"the numbers under {names} belong to sweeps with other heads")
        lines += found if not lines else found[1:]
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "results.jsonl")
        plain.write_bytes(b"".join(lines))
        yield plain


def lines(name: str) -> list[dict[str, Any]]:
    """The kept lines of a measurement that is no sweep, one JSON object each.

    Raises:
        OptionError: as for :func:`raw`.
    """
    with unpacked(name) as plain:
        return [json.loads(line) for line in plain.read_text(encoding="utf-8").splitlines()]
