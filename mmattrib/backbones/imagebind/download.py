"""Download ``imagebind_huge.pth``: resumable and checked against its hash."""

from __future__ import annotations

import contextlib
import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from tqdm.auto import tqdm

from mmattrib.errors import WeightsError

URL: Final = "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth"
"""Where Meta publishes the weights."""

SHA256: Final = "d6f6c22bedcc90708448d5d2fbb7b2db9c73f505dc89bd0b2e09b23af1b62157"
"""Of ``imagebind_huge.pth``, 4,803,584,173 bytes. Meta publishes no hash; this is the one that
Hugging Face shows for copies that several authors uploaded independently, e.g. DAMO-NLP-SG's
Video-LLaMA-2-13B-Pretrained and vdo's Video-LLaMA-Series."""

NAME: Final = "imagebind_huge.pth"
_BLOCK: Final = 1 << 20
_TIMEOUT: Final = 60.0


def cache_folder() -> Path:
    """Where downloads go: ``$MMATTRIB_CACHE``, or ``mmattrib`` in the user's cache folder."""
    own = os.environ.get("MMATTRIB_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mmattrib"


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(url: str, target: Path, sha256: str | None, progress: bool = True) -> Path:
    """Download a file once; an interrupted download continues where it stopped.

    The part that has arrived stands beside ``target`` with ``.part`` added. ``target`` itself
    appears when all of it is there and has the right hash.

    Args:
        url: where from.
        target: where to.
        sha256: what it must have, or None.
        progress: show a bar on standard error.

    Raises:
        WeightsError: it cannot be reached, broke off, or is another file.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, progress)
    except (urllib.error.URLError, OSError) as error:
        have = part.stat().st_size if part.is_file() else 0
        raise WeightsError(
            f"{url} cannot be downloaded ({_reason(error)}); {have:,} bytes are kept in {part} and "
            "the next try goes on from there. Without a network, download it elsewhere and give "
            'its path: load_backbone("imagebind", checkpoint="imagebind_huge.pth")'
        ) from error
    if sha256 is not None and (found := file_hash(part)) != sha256:
        part.unlink()
        raise WeightsError(
            f"what came from {url} has SHA-256 {found}, expected {sha256}; it was deleted. Try "
            "again, or download it yourself and give its path"
        )
    part.replace(target)
    return target


def _download(url: str, part: Path, progress: bool) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with contextlib.ExitStack() as stack:
        try:
            answer = stack.enter_context(urllib.request.urlopen(request, timeout=_TIMEOUT))
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:  # nothing is left to send: the hash will tell
                error.close()
                return
            raise
        resumed = answer.status == 206
        length = answer.headers.get("Content-Length")
        expected = None if length is None else int(length) + (have if resumed else 0)
        stream = stack.enter_context(part.open("ab" if resumed else "wb"))
        bar = stack.enter_context(
            tqdm(
                total=expected,
                initial=have if resumed else 0,
                unit="B",
                unit_scale=True,
                desc=part.stem,
                disable=not progress,
            )
        )
        for block in _blocks(answer):
            stream.write(block)
            bar.update(len(block))
    got = part.stat().st_size
    if expected is not None and got < expected:
        raise OSError(f"the connection broke after {got:,} of {expected:,} bytes")


def _blocks(answer: IO[bytes]) -> Iterator[bytes]:
    while block := answer.read(_BLOCK):
        yield block


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:160] or type(error).__name__
