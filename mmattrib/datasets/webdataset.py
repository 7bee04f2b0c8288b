"""Shards in WebDataset's layout: tar files whose members of one key are one sample.

Members ``0001.jpg``, ``0001.txt`` and ``0001.json`` stand together and make a sample. The key is
the name up to the first dot behind the last slash; what follows says what the member is.

Shards are read with the standard library, as streams: nothing is unpacked to the disk. The
``webdataset`` package is not used: the grouping by key is all that is needed of it, and it also
runs shell commands that stand in the names of shards, and its decoders unpickle members.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mmattrib.datasets.reading import (
    IMAGES,
    SOUNDS,
    MissingFileError,
    Problems,
    Reader,
    as_path,
)
from mmattrib.datasets.rows import INPUTS, from_row
from mmattrib.errors import InputError, brief
from mmattrib.files import is_file, is_folder
from mmattrib.io import Encoded
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import Sample

if TYPE_CHECKING:
    import tarfile

MAX_MEMBER: Final = 256 * 1024**2
"""Bytes of a picture or a sound in a shard."""

MAX_TEXT: Final = 1024**2
"""Bytes of a caption or of JSON in a shard."""

MAX_MEMBERS: Final = 50
"""Members of one sample."""

CAPTIONS: Final = ("text", "caption")
"""Keys of the JSON that hold a caption, where there is no member ``.txt``."""

_KINDS: Final = {
    **dict.fromkeys((suffix[1:] for suffix in IMAGES), "image"),
    **dict.fromkeys((suffix[1:] for suffix in SOUNDS), "audio"),
    "txt": "text",
    "text": "text",
    "caption": "text",
    "json": "json",
}


class Group:
    """The members of one key.

    Attributes:
        key: the key.
        members: what each is (``image``, ``audio``, ``text``, ``json``) -> its content.
        broken: why it cannot be used, or None.
    """

    def __init__(self, key: str) -> None:
        """Start without members."""
        self.key = key
        self.members: dict[str, Encoded] = {}
        self.broken: str | None = None


class WebDataset(Reader):
    """Shards of pictures, sounds and captions, read member by member."""

    name = "webdataset"

    def __init__(self, path: str | Path, strict: bool = False) -> None:
        """Open shards.

        Args:
            path: a ``.tar`` file, or a folder of them, which are read in the order of their names.
            strict: check every sample now, and make the first broken one an error. By default a
                broken one is left out and told of.

        Raises:
            InputError: there is no shard, or no sample can be used.
            OptionError: ``path`` is no path.
        """
        given = as_path(path, "path")
        self.shards = shards_in(given)
        super().__init__(given, strict)

    def _entries(self, problems: Problems) -> Iterator[tuple[str, Group]]:
        for shard in self.shards:
            yield from groups(shard, problems)

    def _made(self, place: str, entry: Group) -> Iterator[Sample]:
        yield sample_of(entry)


def shards_in(given: Path) -> tuple[Path, ...]:
    """A shard, or those of a folder.

    Raises:
        InputError: there is none, or one is compressed.
    """
    found = sorted(given.glob("*.tar")) if is_folder(given) else [given]
    if not found or not all(map(is_file, found)):
        raise InputError(f"{given} is no .tar file, and no folder with one")
    if given.suffix.lower() in (".gz", ".bz2", ".xz", ".zst", ".tgz"):
        raise InputError(
            f"{given} is compressed, and may unpack to any size; accepted: .tar. Unpack it first, "
            "e.g. with gunzip"
        )
    return tuple(found)


class _Reads(io.BufferedReader):
    """A file that no header can make read, and so allocate, any number of bytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > MAX_MEMBER:
            raise ValueError(f"a header of more than {MAX_MEMBER:,} bytes")
        return super().read(size)


def groups(shard: Path, problems: Problems) -> Iterator[tuple[str, Group]]:
    """The samples of a shard with their places: members that stand together and have one key."""
    import tarfile

    try:
        with (
            _Reads(shard.open("rb", buffering=0)) as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            group: Group | None = None
            while (member := tar.next()) is not None:
                setattr(tar, "members", [])  # noqa: B010 - it would keep every header
                if member.isdir():
                    continue
                key, kind = _key(member.name)
                if group is None or group.key != key:
                    if group is not None:
                        yield f"{shard}, {brief(group.key, 200)}", group
                    group = Group(key)
                _take(tar, member, kind, group)
            if group is not None:
                yield f"{shard}, {brief(group.key, 200)}", group
    except (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError) as error:
        problems.add(str(shard), f"the rest cannot be read as tar: {error}")


def _key(name: str) -> tuple[str, str | None]:
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    kind = _KINDS.get(suffix.lower().rpartition(".")[2])
    return f"{folder}{slash}{stem}", kind


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, kind: str | None, group: Group) -> None:
    """Read a member into its group, or note what is wrong with it."""
    name = repr(member.name)[:200]
    if kind is None or group.broken is not None:
        return
    if member.name.startswith("/") or ".." in member.name.split("/"):
        group.broken = f"member {name} leads out of its folder"
    elif not member.isreg() or member.issparse():
        group.broken = f"member {name} is a link or no regular file"
    elif member.size > (most := MAX_TEXT if kind in ("text", "json") else MAX_MEMBER):
        group.broken = f"member {name} has {member.size:,} bytes; accepted: up to {most:,}"
    elif kind in group.members:
        group.broken = f"member {name} is a second {kind} of one key"
    else:
        content = tar.extractfile(member)
        data = b"" if content is None else content.read(member.size)
        if len(data) != member.size:
            raise ValueError(f"member {name} is cut short")
        group.members[kind] = Encoded(data, member.name.rpartition("/")[2])


def sample_of(group: Group) -> Sample:
    """A sample out of the members of a key.

    JSON gives tags, the truth of a :mod:`manifest <mmattrib.datasets.manifest>` (``boxes``,
    ``times``, ``spans``), and a caption where there is no other.

    Raises:
        MissingFileError: it has fewer than two of picture, sound and caption.
        InputError: a member is broken.
    """
    if group.broken is not None:
        raise InputError(group.broken)
    row = _json(group.members.get("json"))
    text = group.members.get("text")
    caption = (
        _text(text)
        if text is not None
        else next((row[key] for key in CAPTIONS if isinstance(row.get(key), str)), "")
    )
    given: dict[str, Any] = {
        side: group.members[side] for side in ("image", "audio") if side in group.members
    }
    if caption.strip():
        given["text"] = caption.strip()
    if len(given) < 2:
        raise MissingFileError(
            f"it has {', '.join(group.members) or 'no member that is known'}; needed: two of "
            "picture, sound and caption"
        )
    rest = {key: value for key, value in row.items() if key not in CAPTIONS}
    return from_row(group.key, given, rest)


def _text(member: Encoded) -> str:
    try:
        return member.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"member {brief(member.name, 200)} is not UTF-8") from error


def _json(member: Encoded | None) -> Mapping[str, Any]:
    if member is None:
        return {}
    try:
        found = json.loads(member.data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"member {brief(member.name, 200)} is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"member {brief(member.name, 200)} is no JSON object")
    return found


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``webdataset``."""
    register(
        WebDataset.name,
        WebDataset,
        summary="tar shards in WebDataset's layout: pictures, sounds, captions and JSON by key",
        modalities=INPUTS,
    )
