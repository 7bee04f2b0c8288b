"""Conceptual Captions: pictures of the web with their captions, as they were fetched.

Published is a table without a head, ``caption <tab> url``. Pictures that img2dataset fetched lie in
``00000/000000000.jpg`` with ``.txt`` and ``.json`` beside, or in ``00000.tar``; ``00000.parquet``
says of each link what became of it, ``00000_stats.json`` how many failed. Sharma et al. 2018,
Conceptual Captions: A Cleaned, Hypernymed, Image Alt-text Dataset For Automatic Image Captioning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from mmattrib.datasets.reading import (
    IMAGES,
    MissingFileError,
    Problems,
    Reader,
    as_folder,
    as_path,
    first_file,
    in_layout,
    inside,
    one_of,
    with_suffixes,
)
from mmattrib.datasets.rows import from_row
from mmattrib.datasets.tables import Row, needs_columns, read_csv, read_json, read_parquet
from mmattrib.datasets.webdataset import MAX_TEXT, Group, groups, sample_of
from mmattrib.errors import InputError, OptionError, brief
from mmattrib.files import is_file
from mmattrib.io import load_text_file
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.plugins.registry import is_installed
from mmattrib.samples import Sample

Names: TypeAlias = Literal["number", "url", "md5"]

COLUMNS: Final = ("caption", "url", "labels", "mids", "confidence")
"""Of the table; the last three stand in the version with labels alone."""

BAD: Final = "of a bad link"
MAX_SHARD: Final = 1_000_000
"""Pictures in one folder."""

PER_SHARD: Final = 10_000
"""Links in one folder, as img2dataset counts them by default."""


class ConceptualCaptionsDataset(Reader):
    """A sample for every picture that was fetched, with its caption; bad links are counted."""

    name = "conceptual-captions"

    def __init__(
        self,
        folder: str | Path,
        index: str | Path | None = None,
        names: str = "number",
        strict: bool = False,
    ) -> None:
        """Open a folder.

        Args:
            folder: of the pictures: img2dataset's output as files or as tar shards, or, with
                ``index``, any.
            index: the published table, ``caption <tab> url`` (or ``url <tab> caption``).
            names: with ``index``, how files are named: ``"number"``: by the place of the link,
                from 0, as ``000000007`` or ``7``, also in ``00000/``; ``"url"``: by the last part
                of the link; ``"md5"``: by the link's MD5. Any suffix of a picture may follow.
            strict: check every entry now, and make the first bad link or broken entry an error.

        Raises:
            InputError: a file is missing or broken, or no picture can be used.
            OptionError: an option is of another kind, or ``names`` is given without ``index``.
        """
        self.folder = as_folder(folder)
        self.names = one_of(names, "names", get_args(Names))
        self.index = None if index is None else as_path(index, "index")
        if self.index is not None and not is_file(self.index):
            raise InputError(f"{self.index} is missing; a table of captions and links is accepted")
        if self.index is None and names != "number":
            raise OptionError("names acts with index alone; give both, or neither")
        super().__init__(self.index or self.folder, strict)

    def _entries(self, problems: Problems) -> Iterator[tuple[str, Any]]:
        if self.index is not None:
            yield from _rows(self.index, problems)
            return
        shards = sorted(self.folder.glob("*.tar"))
        folders = [] if shards else sorted(p for p in self.folder.iterdir() if p.is_dir())
        for shard in shards:
            _count_bad(shard.with_suffix(""), problems)
            yield from groups(shard, problems)
        for place in folders:
            _count_bad(place, problems)
            yield from _pictures(place, problems)

    def _made(self, place: str, entry: Any) -> Iterator[Sample]:
        if isinstance(entry, Group):
            yield sample_of(entry)
        elif isinstance(entry, Path):
            yield _fetched(entry)
        else:
            yield self._linked(*entry)

    def _linked(self, number: int, row: Row) -> Sample:
        caption, link = row["caption"], row["url"]
        if caption.startswith(("http://", "https://")):  # of twelve million: the link comes first
            caption, link = link, caption
        if not caption or not link:
            raise InputError("caption or url is empty")
        stems = (inside(self.folder, name) for name in _named(self.names, number, link))
        paths = (path for stem in stems for path in with_suffixes(stem, ("", *IMAGES)))
        picture = first_file(paths, "picture")
        return Sample(str(number), {"image": picture, "text": caption}, tags={"url": link})


def _rows(index: Path, problems: Problems) -> Iterator[tuple[str, tuple[int, Row]]]:
    """Rows with the place of their link, counted from 0."""
    check = needs_columns(index, COLUMNS[:2])
    start = 1
    rows = read_csv(index, problems, check, delimiter="\t", quoted=False, head=COLUMNS)
    for place, row in rows:
        line = int(place.rpartition(" ")[2])
        if line == 1 and {row["caption"].lower(), row["url"].lower()} == {"caption", "url"}:
            start = 2
            continue
        yield place, (line - start, row)


def _named(names: str, number: int, link: str) -> tuple[str, ...]:
    """What the file of a link may be called."""
    if names == "md5":
        return (hashlib.md5(link.encode(), usedforsecurity=False).hexdigest(),)
    if names == "url":
        last = link.partition("?")[0].partition("#")[0].rstrip("/").rpartition("/")[2]
        return (last or "-",)
    key = f"{number:09d}"
    return key, f"{number // PER_SHARD:05d}/{key}", str(number)


def _pictures(folder: Path, problems: Problems) -> Iterator[tuple[str, Path]]:
    found = sorted(
        islice((p for p in folder.iterdir() if p.suffix.lower() in IMAGES), MAX_SHARD + 1)
    )
    if len(found) > MAX_SHARD:
        problems.add(str(folder), f"more than {MAX_SHARD:,} pictures in one folder")
        return
    for path in found:
        yield str(path), path


def _fetched(picture: Path) -> Sample:
    """A picture with the caption and the link beside it."""
    said, told = picture.with_suffix(".txt"), picture.with_suffix(".json")
    row: dict[str, Any] = {}
    if is_file(told):
        if told.stat().st_size > MAX_TEXT:
            raise InputError(f"{told.name} has more than {MAX_TEXT:,} bytes")
        found = read_json(told, "img2dataset's")
        if not isinstance(found, dict):
            raise InputError(f"{told.name} is no JSON object")
        row = found
    caption = load_text_file(said).text if is_file(said) else str(row.get("caption") or "")
    if not caption.strip():
        raise MissingFileError(f"caption {said.name} is missing")
    tags: dict[str, Any] = {key: row[key] for key in ("url", "key") if key in row}
    return from_row(picture.stem, {"image": picture, "text": caption.strip()}, tags)


def _count_bad(shard: Path, problems: Problems) -> None:
    """Count the links that failed, by what was written beside a shard."""
    table, stats = shard.with_name(f"{shard.name}.parquet"), f"{shard.name}_stats.json"
    if is_file(table) and is_installed("pyarrow"):
        check = needs_columns(table, ("url", "status"))
        for place, row in read_parquet(table, problems, check):
            if row["status"] != "success":
                why = " ".join(str(row.get("error_message") or "").split())
                problems.add(
                    place, f"{brief(row['url'], 200)}: {brief(row['status'])} {why:.100}", BAD
                )
    elif is_file(counted := shard.with_name(stats)):
        try:
            with in_layout():
                found = read_json(counted, "img2dataset's")
                failed = int(found["count"]) - int(found["successes"])
        except InputError as error:
            problems.add(str(counted), error)
        else:
            if failed > 0:
                problems.add(str(counted), f"{failed:,} links failed", BAD, failed)


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``conceptual-captions``."""
    register(
        ConceptualCaptionsDataset.name,
        ConceptualCaptionsDataset,
        summary="Conceptual Captions: the published table with a folder, or img2dataset's output",
        modalities=("image", "text"),
    )
