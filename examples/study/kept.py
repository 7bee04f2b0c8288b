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
def raw(name: str) -> Results:
    """The kept numbers of one sweep.

    Raises:
        OptionError: there are none under this name.
    """
    with unpacked(name) as plain:
        return load_results(plain)


@contextmanager
def unpacked(name: str) -> Iterator[Path]:
    """The same as a file, for as long as it is used.

    Raises:
        OptionError: as for :func:`raw`.
    """
    path = RAW / f"{name}.jsonl.gz"
    if not path.is_file():
        known = ", ".join(sorted(p.name.removesuffix(".jsonl.gz") for p in RAW.glob("*.gz")))
        raise OptionError(f"no numbers are kept under {name!r}: {known}")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "results.jsonl")
        plain.write_bytes(gzip.decompress(path.read_bytes()))
        yield plain


def lines(name: str) -> list[dict[str, Any]]:
    """The kept lines of a measurement that is no sweep, one JSON object each.

    Raises:
        OptionError: as for :func:`raw`.
    """
    with unpacked(name) as plain:
        return [json.loads(line) for line in plain.read_text(encoding="utf-8").splitlines()]
