"""The store: finished tasks on disk, one JSON line each, behind a line that says what they are of.

A run that is killed, or that meets a full disk, loses no more than the tasks in progress: a line is
written whole and flushed to the disk, and one that was cut off is passed over when the file is read
again. A store belongs to one plan, to which methods and seeds may be added; another plan's file is
refused by naming the difference. It has one writer at a time. Entries stay in the file: only where
each begins is kept in memory. Files of one plan that are written one behind the other are a store
of that plan.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mmattrib.errors import OptionError, brief
from mmattrib.evaluation.measure import SampleRow
from mmattrib.files import as_path, write_atomic

if TYPE_CHECKING:
    from mmattrib.types import JSONValue

_FORMAT = "mmattrib-evaluation"
_VERSION = 1
_MOST = 64 * 1024**2
"""Longest line that is read, in bytes: a task of 16 samples takes some 20 thousand."""


class Store:
    """Finished tasks, found by what they measured.

    Use it as a context manager: the file is locked inside, and released by the system if the
    process dies.
    """

    def __init__(self, path: str | Path, plan: Mapping[str, JSONValue]) -> None:
        """Name the file and the plan; nothing is touched before the store is entered.

        Args:
            path: the file; made if it does not exist, with missing folders.
            plan: what the numbers depend on besides their tasks, JSON values.
        """
        self.path = Path(path).expanduser()
        self.plan = json.loads(json.dumps(plan))
        self._lock = FileLock(f"{self.path}.lock")
        self._places: dict[str, int | tuple[int, ...]] = {}
        """Id of a task -> where its entries begin, in bytes."""
        self._labels: dict[str, str] = {}

    def __enter__(self) -> Store:
        """Lock the file and read what it holds.

        Raises:
            OptionError: it is no store, belongs to another plan, or has another writer; or no
                file can be there.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _check_regular(self.path)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OptionError(
                f"{self.path} is being written by another process; wait for it, or name another "
                "file"
            ) from None
        except (OSError, ValueError) as error:  # or no file can have this name
            raise OptionError(f"{self.path} cannot be used: {_reason(error)}") from error
        try:
            self._read()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The lock's file stays: who waits for it would lock a file that is gone, and a third
        # process the next one of its name, so that there would be two writers.
        self._lock.release()

    def _read(self) -> None:
        if not self.path.exists() or self.path.stat().st_size == 0:
            head = {"format": _FORMAT, "version": _VERSION, "plan": self.plan}
            # Whole or not at all: without its head nobody would know what the file is of.
            write_atomic(self.path, _line(head))
            return
        for place, entry in _entries(self.path, self.plan):
            if "labels" in entry:
                self._labels.update(entry["labels"])
            else:
                self._note(entry["id"], place)

    def _note(self, identity: str, place: int) -> None:
        known = self._places.get(identity)
        if known is None:
            self._places[identity] = place
        else:
            self._places[identity] = (*((known,) if isinstance(known, int) else known), place)

    def name(self, labels: Mapping[str, str]) -> None:
        """Say which definition each label means from now on; written only where that is new."""
        if any(self._labels.get(label) != meant for label, meant in labels.items()):
            self._append({"labels": dict(labels)})
            self._labels.update(labels)

    def find(self, identity: str) -> Sequence[Mapping[str, Any]]:
        """The finished entries of a task, as :meth:`put` was given them; the last is the newest.

        Raises:
            OptionError: the file cannot be read.
        """
        known = self._places.get(identity, ())
        places = (known,) if isinstance(known, int) else known
        if not places:
            return ()
        try:
            with self.path.open("rb") as file:
                read = [_entry_at(file, place) for place in places]
        except OSError as error:
            raise OptionError(f"{self.path} cannot be read: {_reason(error)}") from error
        return [entry for entry in read if entry is not None and entry.get("id") == identity]

    def put(
        self,
        identity: str,
        task: Mapping[str, JSONValue],
        stamp: Mapping[str, JSONValue],
        rows: Sequence[SampleRow],
    ) -> dict[str, Any]:
        """Keep a finished task.

        Args:
            identity: of the task.
            task: what was measured.
            stamp: how: labels, options, metrics.
            rows: one for each sample.

        Returns:
            The entry as it was written.

        Raises:
            OptionError: the file cannot be written, e.g. the disk is full.
        """
        entry = {
            "id": identity,
            "task": dict(task),
            "stamp": dict(stamp),
            "rows": [plain_row(row) for row in rows],
        }
        self._note(identity, self._append(entry))
        return entry

    def _append(self, entry: Mapping[str, Any]) -> int:
        """Write an entry, and say where it begins."""
        line = _line(entry)
        try:
            with self.path.open("ab+") as file:
                place = file.seek(0, os.SEEK_END)
                if place > 0:
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # cut off in the middle of a line
                        file.write(b"\n")
                        place += 1
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
                return place
        except OSError as error:
            raise OptionError(
                f"{self.path} cannot be written ({_reason(error)}); what it holds is kept: mend "
                "that, and run the same command again to go on"
            ) from error


def plain_row(row: SampleRow) -> dict[str, Any]:
    """A row as JSON values; what is not finite becomes null, and numbers have six decimals."""
    values = {
        direction: {
            name: round(number, 6) if math.isfinite(number) else None
            for name, number in numbers.items()
        }
        for direction, numbers in row.values.items()
    }
    found: dict[str, Any] = {"sample": row.sample, "values": values}
    if row.problem is not None:
        found["problem"] = row.problem
    return found


def _line(entry: Mapping[str, Any]) -> bytes:
    return (json.dumps(entry) + "\n").encode()


def read_entries(
    path: str | Path, plan: Mapping[str, JSONValue] | None = None
) -> Iterator[dict[str, Any]]:
    """Every whole entry of a store, in file order, behind its head.

    Args:
        path: the file; one that is still being written can be read too.
        plan: what it must belong to, or None for any.

    Raises:
        OptionError: it is no store, or of another plan; the message names the difference.
    """
    for _, entry in _entries(path, plan):
        yield entry


def _entries(
    path: str | Path, plan: Mapping[str, JSONValue] | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """:func:`read_entries`, each behind the byte at which it begins."""
    path = as_path(path, "read_entries").expanduser()
    try:
        _check_regular(path)
        with path.open("rb") as file:
            first = file.readline(_MOST)
            head = _parsed(first)
            if not isinstance(head, dict) or head.get("format") != _FORMAT:
                raise OptionError(
                    f"{path} is no store of an evaluation and is left as it is; name another file"
                )
            _check_head(path, head, plan)
            place, number = len(first), 1
            while line := file.readline(_MOST):
                entry, number = _parsed(line), number + 1
                if _is_entry(entry):
                    _check_rows(entry, f"{path}, line {number}")
                    yield place, entry
                place += len(line)
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {_reason(error)}") from error


def _entry_at(file: IO[bytes], place: int) -> dict[str, Any] | None:
    file.seek(place)
    entry = _parsed(file.readline(_MOST))
    return entry if _is_entry(entry) else None


def _check_head(path: Path, head: Mapping[str, Any], plan: Mapping[str, JSONValue] | None) -> None:
    if head.get("version") != _VERSION:
        raise OptionError(
            f"{path} has version {head.get('version')!r}, this release reads {_VERSION}"
        )
    if plan is not None and (stored := _with_added(head.get("plan"), plan)) != plan:
        told = "; ".join(differences(stored, plan)[:3])
        raise OptionError(
            f"{path} belongs to another evaluation: {told}. Name another file, or delete it"
        )


def _with_added(stored: Any, wanted: Mapping[str, JSONValue]) -> Any:
    """A stored plan with the methods that a wanted one has besides.

    Numbers are kept under what they measure, so that those of other methods do not touch them.
    """
    methods = stored.get("methods") if isinstance(stored, dict) else None
    more = wanted.get("methods")
    if isinstance(methods, dict) and isinstance(more, Mapping):
        return {**stored, "methods": {**more, **methods}}
    return stored


def differences(stored: Any, wanted: Any, where: str = "") -> list[str]:
    """Where two plans differ, as sentences."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        found = []
        for key in dict.fromkeys([*wanted, *stored]):
            inner = f"{where}.{key}" if where else str(key)
            if key not in stored:
                found.append(f"{inner} is not in the file")
            elif key not in wanted:
                found.append(f"{inner} is in the file alone")
            else:
                found += differences(stored[key], wanted[key], inner)
        return found
    if stored == wanted:
        return []
    return [f"{where or 'the plan'} is {brief(stored)} in the file, {brief(wanted)} now"]


def _parsed(line: bytes) -> Any:
    """A line as JSON, or None for what is none: cut off, or other bytes."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_entry(entry: Any) -> bool:
    """Whether it has all that is read of an entry; one that has not is passed over like a line
    that was cut off."""
    if not isinstance(entry, dict):
        return False
    if "labels" in entry:
        labels = entry["labels"]
        return isinstance(labels, dict) and all(isinstance(v, str) for v in labels.values())
    task, stamp, rows = entry.get("task"), entry.get("stamp"), entry.get("rows")
    return (
        isinstance(entry.get("id"), str)
        and isinstance(task, dict)
        and all(isinstance(task.get(name), str) for name in ("candidate", "weights", "version"))
        and _is_whole(task.get("start"))
        and isinstance(task.get("seed", ""), int | None)
        and isinstance(stamp, dict)
        and all(isinstance(stamp.get(name), str) for name in ("backbone", "dataset"))
        and isinstance(stamp.get("options", {}), dict)
        and isinstance(measured := stamp.get("metrics", {}), dict)
        and all(map(_is_whole, measured.values()))
        and isinstance(rows, list)
        and all(map(_is_row, rows))
    )


def _check_rows(entry: Mapping[str, Any], where: str) -> None:
    """Refuse what no evaluation writes, and what would stand in its tables.

    Raises:
        OptionError: a number that is not finite, or other rows than one for each sample.
    """
    rows = entry.get("rows", ())
    size = entry.get("task", {}).get("size")
    todo = "delete the line, and its samples are measured again"
    if _is_whole(size) and len(rows) != size:
        raise OptionError(
            f"{where}: {len(rows)} rows for a task of {size} samples, each of which has one; {todo}"
        )
    for row in rows:
        for direction, numbers in row["values"].items():
            for name, value in numbers.items():
                if value is not None and not math.isfinite(value):
                    raise OptionError(
                        f"{where}: {name} of {brief(row['sample'])}, {direction:.60} is {value}; "
                        f"accepted: a finite number, or null. Mend it, or {todo}"
                    )


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("sample"), str):
        return False
    values = row.get("values")
    return isinstance(values, dict) and all(
        isinstance(numbers, dict) and all(map(_is_number, numbers.values()))
        for numbers in values.values()
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    """A number that a float holds, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        return False
    return not isinstance(value, int) or abs(value) < 2**1023


def _check_regular(path: Path) -> None:
    """Refuse devices, pipes and folders, which reading would hang on or fill the memory with.

    Raises:
        OptionError: it exists and is no regular file.
        OSError: its place cannot be looked at.
    """
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise OptionError(f"{path} is no regular file; name a file")


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
