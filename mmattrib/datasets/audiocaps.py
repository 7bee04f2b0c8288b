"""AudioCaps: stretches of ten seconds of videos' sound, with captions.

``{split}.csv`` has the columns ``audiocap_id``, ``youtube_id``, ``start_time`` and ``caption``. The
sounds are not published with it, and who fetched them names them in ways of their own: see
:data:`NAMES`. Many can no longer be had; they are counted. Kim et al. 2019, AudioCaps: Generating
Captions for Audios in The Wild.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmattrib.datasets.reading import (
    SOUNDS,
    Problems,
    Reader,
    as_folder,
    as_path,
    as_word,
    first_file,
    inside,
    with_suffixes,
)
from mmattrib.datasets.tables import Row, needs_columns, number_of, read_csv
from mmattrib.errors import InputError
from mmattrib.files import is_file
from mmattrib.plugins.hookspecs import Register, hookimpl
from mmattrib.samples import Sample

COLUMNS: Final = ("audiocap_id", "youtube_id", "start_time", "caption")
NAMES: Final = (
    "{youtube_id}", "Y{youtube_id}", "{youtube_id}_{start}", "{youtube_id}_{ms}_{end_ms}",
    "{audiocap_id}",
)  # fmt: skip
"""Names of files that are looked for, in this order, with the suffix of any sound."""

SECONDS: Final = 10


class AudioCapsDataset(Reader):
    """A sample for every caption whose sound is there."""

    name = "audiocaps"

    def __init__(
        self,
        folder: str | Path,
        split: str = "test",
        audio: str | Path | None = None,
        strict: bool = False,
    ) -> None:
        """Open a folder.

        Args:
            folder: holds ``{split}.csv``.
            split: ``train``, ``val`` or ``test``.
            audio: the folder of the sounds. By default the folders ``audio/{split}``, ``audio``
                and ``{split}`` in ``folder``, and itself.
            strict: check every row now, and make the first broken one an error.

        Raises:
            InputError: the CSV file is missing or has other columns, or no row can be used.
            OptionError: an option is of another kind.
        """
        self.folder = as_folder(folder)
        split = as_word(split, "split")
        index = inside(self.folder, f"{split}.csv")
        if not is_file(index):
            raise InputError(f"{index} is missing; a folder in AudioCaps' layout is accepted")
        audios = self.folder / "audio"
        own = (audios / split, audios, self.folder / split, self.folder)
        self.folders = own if audio is None else (as_path(audio, "audio"),)
        super().__init__(index, strict, split=split)

    def _entries(self, problems: Problems) -> Iterator[tuple[str, Row]]:
        return read_csv(self.source, problems, needs_columns(self.source, COLUMNS))

    def _made(self, place: str, entry: Row) -> Iterator[Sample]:
        if not entry["caption"]:
            raise InputError("caption is empty")
        start = int(number_of(entry["start_time"], "start_time"))
        named = {
            **entry, "start": start, "ms": 1000 * start, "end_ms": 1000 * (start + SECONDS)
        }  # fmt: skip
        stems = [inside(f, name.format_map(named)) for f in self.folders for name in NAMES]
        paths = (path for stem in stems for path in with_suffixes(stem, SOUNDS))
        yield Sample(
            entry["audiocap_id"],
            {"audio": first_file(paths, "sound"), "text": entry["caption"]},
            tags={"youtube_id": entry["youtube_id"], "start_time": start},
        )


@hookimpl
def register_datasets(register: Register) -> None:
    """Register ``audiocaps``."""
    register(
        AudioCapsDataset.name,
        AudioCapsDataset,
        summary="AudioCaps: ten seconds of sound with a caption",
        modalities=("audio", "text"),
    )
